//! Triton's extensions beside inference: statistics, the repository index, and the settings.

use std::{collections::HashMap, time::Duration};

use crate::{
    domain::{IndexEntry, ModelStatistics, Tally},
    proto::inference::{
        self, InferBatchStatistics, InferStatistics, LogSettingsResponse, ModelStatisticsResponse,
        RepositoryIndexResponse, StatisticDuration, TraceSettingResponse,
        log_settings_response::{self, setting_value::ParameterChoice},
        repository_index_response::ModelIndex,
        trace_setting_response,
    },
    protocol::{
        INDEX_READY, INDEX_UNAVAILABLE, milliseconds,
        settings::{LogSettings, TraceSettings},
    },
};

pub(super) fn statistics(all: &[ModelStatistics]) -> ModelStatisticsResponse {
    ModelStatisticsResponse { model_stats: all.iter().map(of_version).collect() }
}

fn of_version(statistics: &ModelStatistics) -> inference::ModelStatistics {
    inference::ModelStatistics {
        name: statistics.model.to_string(),
        version: statistics.version.to_string(),
        last_inference: milliseconds(statistics.last_inference),
        inference_count: statistics.inference_count,
        execution_count: statistics.execution_count,
        inference_stats: Some(InferStatistics {
            success: sum(statistics.success).into(),
            fail: sum(statistics.fail).into(),
            queue: sum(statistics.queue).into(),
            compute_input: sum(statistics.compute_input).into(),
            compute_infer: sum(statistics.compute_infer).into(),
            compute_output: sum(statistics.compute_output).into(),
            cache_hit: sum(Tally::default()).into(),
            cache_miss: sum(Tally::default()).into(),
        }),
        batch_stats: statistics
            .batches
            .iter()
            .map(|batch| InferBatchStatistics {
                batch_size: batch.rows,
                compute_input: sum(batch.compute_input).into(),
                compute_infer: sum(batch.compute_infer).into(),
                compute_output: sum(batch.compute_output).into(),
            })
            .collect(),
        memory_usage: Vec::new(),
        response_stats: HashMap::new(),
    }
}

fn sum(tally: Tally) -> StatisticDuration {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    StatisticDuration { count: tally.count, ns: nanoseconds(tally.time) }
}

pub(super) fn index(entries: Vec<IndexEntry>, only_ready: bool) -> RepositoryIndexResponse {
    let listed = entries.into_iter().filter(|entry| entry.is_ready || !only_ready);
    let models = listed.map(|entry| ModelIndex {
        name: entry.model.to_string(),
        version: entry.version.to_string(),
        state: if entry.is_ready { INDEX_READY } else { INDEX_UNAVAILABLE }.to_owned(),
        // Why a version is not ready may name files: that is for operators.
        reason: String::new(),
    });
    RepositoryIndexResponse { models: models.collect() }
}

pub(super) fn trace_settings(settings: TraceSettings) -> TraceSettingResponse {
    let TraceSettings { mode, level: [level], rate, count } = settings;
    let setting =
        |(name, value): (&str, String)| (name.to_owned(), trace_setting_response::SettingValue { value: vec![value] });
    let all = [
        ("trace_mode", mode.to_owned()),
        ("trace_level", level.to_owned()),
        ("trace_rate", rate),
        ("trace_count", count.to_owned()),
    ];
    TraceSettingResponse { settings: all.map(setting).into() }
}

pub(super) fn log_settings(settings: &LogSettings) -> LogSettingsResponse {
    let setting = |(name, value): (&str, ParameterChoice)| {
        (name.to_owned(), log_settings_response::SettingValue { parameter_choice: Some(value) })
    };
    let all = [
        ("log_file", ParameterChoice::StringParam(settings.file.to_owned())),
        ("log_info", ParameterChoice::BoolParam(settings.info)),
        ("log_warning", ParameterChoice::BoolParam(settings.warning)),
        ("log_error", ParameterChoice::BoolParam(settings.error)),
        ("log_verbose_level", ParameterChoice::Uint32Param(settings.verbose)),
        ("log_format", ParameterChoice::StringParam(settings.format.to_owned())),
    ];
    LogSettingsResponse { settings: all.map(setting).into() }
}
