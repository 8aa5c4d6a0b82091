//! Triton's extensions beside inference: statistics, the repository index, and the settings.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::Body;
use serde::{Deserialize, Serialize};

use super::{
    answer,
    body::{self, Bounds},
    server::PlaneBody,
};
use crate::{
    domain::{BatchStatistics, IndexEntry, ModelStatistics, Tally, Target},
    fault::Fault,
    protocol::{
        DoorOptions, INDEX_READY, INDEX_UNAVAILABLE, data_plane::DataPlane, elsewhere, milliseconds, refusal::Refusal,
        settings,
    },
};

/// The body of an index request is one flag.
const MAX_INDEX_BODY: usize = 64 << 10;

/// What is asked for beside models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extension {
    /// The statistics of all models.
    Statistics,
    RepositoryIndex,
    TraceSettings,
    LogSettings,
    LoadAndUnload,
    SharedMemory,
}

impl Extension {
    /// The methods, as the header `Allow` has them.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::Statistics => "GET, HEAD",
            Self::RepositoryIndex | Self::LoadAndUnload => "POST",
            Self::TraceSettings | Self::LogSettings | Self::SharedMemory => "GET, HEAD, POST",
        }
    }

    pub(super) async fn answer<D, B>(
        self,
        gateway: &D,
        options: &DoorOptions,
        method: &Method,
        body: &mut B,
    ) -> Result<Response<PlaneBody>, Refusal>
    where
        D: DataPlane,
        B: Body<Data = Bytes> + Unpin,
    {
        let settings = &options.settings;
        match self {
            Self::Statistics => Ok(statistics(gateway.statistics(None, &Target::Release))),
            Self::RepositoryIndex => {
                let only_ready = wants_only_ready(options, body).await?;
                Ok(answer::json(StatusCode::OK, &index(&gateway.index(), only_ready)))
            }
            Self::TraceSettings if method == Method::POST => Err(settings::trace_is_read_only()),
            Self::TraceSettings => Ok(answer::json(StatusCode::OK, &settings.trace())),
            Self::LogSettings if method == Method::POST => Err(settings::log_is_read_only()),
            Self::LogSettings => Ok(answer::json(StatusCode::OK, &settings.log())),
            Self::LoadAndUnload => Err(elsewhere::load_and_unload()),
            Self::SharedMemory => Err(elsewhere::shared_memory()),
        }
    }
}

/// The statistics that the gateway gave, or its refusal.
pub(super) fn statistics(all: Result<Vec<ModelStatistics>, impl Fault>) -> Response<PlaneBody> {
    match all {
        Ok(all) => {
            let model_stats = all.iter().map(VersionStatistics::of).collect();
            answer::json(StatusCode::OK, &Statistics { model_stats })
        }
        Err(fault) => answer::fault(&fault),
    }
}

async fn wants_only_ready<B>(options: &DoorOptions, body: &mut B) -> Result<bool, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    #[derive(Default, Deserialize)]
    struct Asked {
        #[serde(default)]
        ready: bool,
    }
    let bounds = Bounds {
        limit: MAX_INDEX_BODY,
        budget: &options.budget,
        patience: options.body_timeout,
        deadline: None,
        elements: 0,
    };
    let (bytes, _permit) = body::read(body, &bounds).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(false);
    }
    let asked: Asked = serde_json::from_slice(&bytes)
        .map_err(|_| Refusal::bad_request(r#"the body is not a repository index request: send {"ready": true}"#))?;
    Ok(asked.ready)
}

fn index(entries: &[IndexEntry], only_ready: bool) -> Vec<VersionIndex<'_>> {
    let listed = entries.iter().filter(|entry| entry.is_ready || !only_ready);
    let entries = listed.map(|entry| VersionIndex {
        name: entry.model.as_str(),
        version: entry.version.to_string(),
        state: if entry.is_ready { INDEX_READY } else { INDEX_UNAVAILABLE },
        // Why a version is not ready may name files: that is for operators.
        reason: "",
    });
    entries.collect()
}

#[derive(Serialize)]
struct VersionIndex<'a> {
    name: &'a str,
    version: String,
    state: &'static str,
    reason: &'static str,
}

#[derive(Serialize)]
struct Statistics<'a> {
    model_stats: Vec<VersionStatistics<'a>>,
}

#[derive(Serialize)]
struct VersionStatistics<'a> {
    name: &'a str,
    version: String,
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: InferenceStatistics,
    /// Of models that answer one request more than once; there are none here.
    response_stats: Nothing,
    batch_stats: Vec<Batch>,
    memory_usage: [u64; 0],
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct InferenceStatistics {
    success: Sum,
    fail: Sum,
    queue: Sum,
    compute_input: Sum,
    compute_infer: Sum,
    compute_output: Sum,
    cache_hit: Sum,
    cache_miss: Sum,
}

#[derive(Serialize)]
struct Batch {
    #[serde(rename = "batch_size")]
    rows: u64,
    compute_input: Sum,
    compute_infer: Sum,
    compute_output: Sum,
}

#[derive(Serialize)]
struct Sum {
    count: u64,
    ns: u64,
}

impl<'a> VersionStatistics<'a> {
    fn of(statistics: &'a ModelStatistics) -> Self {
        Self {
            name: statistics.model.as_str(),
            version: statistics.version.to_string(),
            last_inference: milliseconds(statistics.last_inference),
            inference_count: statistics.inference_count,
            execution_count: statistics.execution_count,
            inference_stats: InferenceStatistics {
                success: statistics.success.into(),
                fail: statistics.fail.into(),
                queue: statistics.queue.into(),
                compute_input: statistics.compute_input.into(),
                compute_infer: statistics.compute_infer.into(),
                compute_output: statistics.compute_output.into(),
                cache_hit: Tally::default().into(),
                cache_miss: Tally::default().into(),
            },
            response_stats: Nothing {},
            batch_stats: statistics.batches.iter().map(Batch::of).collect(),
            memory_usage: [],
        }
    }
}

impl Batch {
    fn of(batch: &BatchStatistics) -> Self {
        Self {
            rows: batch.rows,
            compute_input: batch.compute_input.into(),
            compute_infer: batch.compute_infer.into(),
            compute_output: batch.compute_output.into(),
        }
    }
}

impl From<Tally> for Sum {
    fn from(tally: Tally) -> Self {
        Self { count: tally.count, ns: u64::try_from(tally.time.as_nanos()).unwrap_or(u64::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::{
        fault::ErrorCode,
        protocol::stand_in::{self, StandIn},
    };

    async fn ask(extension: Extension, method: Method, body: &'static str) -> Result<String, Refusal> {
        let mut body = Full::new(Bytes::from_static(body.as_bytes()));
        let options = stand_in::options(1 << 20);
        let response = extension.answer(&StandIn::default(), &options, &method, &mut body).await?;
        assert_eq!(response.status(), StatusCode::OK);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn statistics_have_tritons_form() {
        let expected = concat!(
            r#"{"model_stats":[{"name":"echo","version":"2","last_inference":1700000000123,"inference_count":12,"#,
            r#""execution_count":3,"inference_stats":{"success":{"count":4,"ns":400000},"fail":{"count":1,"ns":10000},"#,
            r#""queue":{"count":4,"ns":40000},"compute_input":{"count":4,"ns":4000},"#,
            r#""compute_infer":{"count":4,"ns":300000},"compute_output":{"count":4,"ns":8000},"#,
            r#""cache_hit":{"count":0,"ns":0},"cache_miss":{"count":0,"ns":0}},"response_stats":{},"#,
            r#""batch_stats":[{"batch_size":4,"compute_input":{"count":3,"ns":3000},"#,
            r#""compute_infer":{"count":3,"ns":225000},"compute_output":{"count":3,"ns":6000}}],"memory_usage":[]}]}"#,
        );
        assert_eq!(ask(Extension::Statistics, Method::GET, "").await.unwrap(), expected);
    }

    #[tokio::test]
    async fn index_lists_versions_or_the_ready_ones() {
        let all = ask(Extension::RepositoryIndex, Method::POST, "").await.unwrap();
        assert!(all.ends_with(r#"{"name":"loading","version":"1","state":"UNAVAILABLE","reason":""}]"#), "{all}");
        let ready = ask(Extension::RepositoryIndex, Method::POST, r#"{"ready":true}"#).await.unwrap();
        let expected = concat!(
            r#"[{"name":"echo","version":"1","state":"READY","reason":""},"#,
            r#"{"name":"echo","version":"2","state":"READY","reason":""}]"#,
        );
        assert_eq!(ready, expected);
        for wrong in ["nonsense", r#"{"ready":1}"#, "7"] {
            let refusal = ask(Extension::RepositoryIndex, Method::POST, wrong).await.unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::BadRequest, "{wrong}");
        }
    }

    #[tokio::test]
    async fn settings_are_shown_and_not_changed() {
        let trace = r#"{"trace_mode":"opentelemetry","trace_level":["OFF"],"trace_rate":"0","trace_count":"-1"}"#;
        assert_eq!(ask(Extension::TraceSettings, Method::GET, "").await.unwrap(), trace);
        let log = concat!(
            r#"{"log_file":"","log_info":true,"log_warning":true,"log_error":true,"log_verbose_level":0,"#,
            r#""log_format":"ISO8601"}"#,
        );
        assert_eq!(ask(Extension::LogSettings, Method::GET, "").await.unwrap(), log);
        for extension in [Extension::TraceSettings, Extension::LogSettings] {
            let refusal = ask(extension, Method::POST, "{}").await.unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::PermissionDenied);
        }
    }

    #[tokio::test]
    async fn what_is_not_done_here_says_what_to_use() {
        for (extension, words) in
            [(Extension::LoadAndUnload, "admin plane"), (Extension::SharedMemory, "send tensors in the request")]
        {
            let refusal = ask(extension, Method::POST, "{}").await.unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::Unimplemented);
            assert!(refusal.message().contains(words), "{refusal}");
        }
    }
}
