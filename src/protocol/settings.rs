//! The settings endpoints of both doors, after Triton's: how requests are traced, and what is
//! logged. They show the truth, and change nothing: this plane is for clients.

use schemars::JsonSchema;
use serde::Serialize;

use super::elsewhere;
use crate::{protocol::refusal::Refusal, telemetry::LogControl};

/// What the settings endpoints tell.
#[derive(Debug, Clone, Default)]
pub struct ServerSettings {
    /// The share of requests traced, from 0 to 1; `None`: traces go nowhere.
    pub trace_ratio: Option<f64>,
    pub logs: LogControl,
}

/// Triton's trace settings: each is a text, or a list of them.
#[derive(Debug, Serialize)]
pub(super) struct TraceSettings {
    #[serde(rename = "trace_mode")]
    pub(super) mode: &'static str,
    #[serde(rename = "trace_level")]
    pub(super) level: [&'static str; 1],
    /// One request in so many.
    #[serde(rename = "trace_rate")]
    pub(super) rate: String,
    /// No limit.
    #[serde(rename = "trace_count")]
    pub(super) count: &'static str,
}

/// Triton's log settings.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LogSettings {
    /// Empty: standard error.
    #[serde(rename = "log_file")]
    pub(crate) file: &'static str,
    #[serde(rename = "log_info")]
    pub(crate) info: bool,
    #[serde(rename = "log_warning")]
    pub(crate) warning: bool,
    #[serde(rename = "log_error")]
    pub(crate) error: bool,
    /// 0: none, 1: debug, 2: trace.
    #[serde(rename = "log_verbose_level")]
    pub(crate) verbose: u32,
    /// How times are written.
    #[serde(rename = "log_format")]
    pub(crate) format: &'static str,
}

impl ServerSettings {
    pub(super) fn trace(&self) -> TraceSettings {
        let level = if self.trace_ratio.is_some() { "TIMESTAMPS" } else { "OFF" };
        let rate = match self.trace_ratio {
            Some(ratio) if ratio > 0.0 => format!("{:.0}", 1.0 / ratio),
            // As Triton: no request by itself, only those whose caller traces them.
            _ => "0".to_owned(),
        };
        TraceSettings { mode: "opentelemetry", level: [level], rate, count: "-1" }
    }

    pub(super) fn log(&self) -> LogSettings {
        LogSettings::of(&self.logs)
    }
}

impl LogSettings {
    pub(crate) fn of(logs: &LogControl) -> Self {
        let levels = logs.levels();
        Self {
            file: "",
            info: levels.info,
            warning: levels.warning,
            error: levels.error,
            verbose: levels.verbose,
            format: "ISO8601",
        }
    }
}

/// Why trace settings are not changed here.
pub(super) fn trace_is_read_only() -> Refusal {
    elsewhere::denied(
        "trace settings cannot be changed while the gateway runs: they are telemetry.otlp_endpoint and \
         telemetry.trace_ratio in its configuration",
    )
}

/// Why log settings are not changed here.
pub(super) fn log_is_read_only() -> Refusal {
    elsewhere::denied(
        "log settings are read-only on this plane: change them with POST /v2/logging on the admin plane \
         (port 8003 unless configured otherwise), or as telemetry.log in the configuration",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_settings_follow_the_exporter_and_its_ratio() {
        for (ratio, level, rate) in [
            (None, "OFF", "0"),
            (Some(1.0), "TIMESTAMPS", "1"),
            (Some(0.001), "TIMESTAMPS", "1000"),
            (Some(0.0), "TIMESTAMPS", "0"),
        ] {
            let shown = ServerSettings { trace_ratio: ratio, ..ServerSettings::default() }.trace();
            assert_eq!((shown.level, shown.rate.as_str()), ([level], rate));
        }
    }
}
