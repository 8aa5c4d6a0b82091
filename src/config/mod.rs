//! The configuration: every key, its default, its unit, and what it may be.
//!
//! Read once at the start, in the order defaults < file < environment < flags (see [`load`]),
//! and handed down by room. `config/tidegate.toml` shows every key; a test keeps the two in step.

mod address;
mod admission;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod labels;
mod load;
mod model;
mod monitor;
mod rollout;
mod triton;
mod units;

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::protocol::{Nonfinite, is_origin};

pub use self::{
    address::Address,
    admission::{AdmissionConfig, Nondeterministic, WarmupConfig},
    load::{ConfigError, Overrides, faults_of_file, load},
    model::{
        ColumnType, ModelConfig, ModelConfigError, Policy, VersionPolicyConfig, WarmupData, WarmupInput, WarmupSample,
    },
    monitor::{Baseline, Contract, MonitorConfig},
    rollout::{DriftAction, RolloutConfig},
    triton::{DeclaredTensor, TritonModel},
    units::{ByteSize, Span},
};

/// The whole configuration of a gateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub server: ServerConfig,
    pub protocol: ProtocolConfig,
    pub repository: RepositoryConfig,
    pub state: StateConfig,
    pub runtime: RuntimeConfig,
    pub scheduler: SchedulerConfig,
    pub batching: BatchingConfig,
    pub release: ReleaseConfig,
    pub rollout: RolloutConfig,
    pub shadow: ShadowConfig,
    pub limits: LimitsConfig,
    pub admission: AdmissionConfig,
    pub warmup: WarmupConfig,
    pub monitor: MonitorConfig,
    pub metrics: MetricsConfig,
    pub telemetry: TelemetryConfig,
}

/// `[server]`: the four planes and their limits. Port 0 takes a free port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// HTTP inference.
    pub http: Address,
    /// gRPC inference.
    pub grpc: Address,
    /// Prometheus metrics, `/livez`, `/readyz`.
    pub metrics: Address,
    /// The admin API. It has no authentication yet: keep it on loopback.
    pub admin: Address,
    /// The largest request body on the inference plane.
    pub max_request_size: ByteSize,
    /// The request bodies that may be in memory at once; more are answered with 429.
    pub max_inflight_size: ByteSize,
    /// How long a request body may send nothing before it is given up.
    pub body_timeout: Span,
    /// How long an HTTP/1 connection may be without a request, take to send its head, or take nothing of an answer.
    pub idle_timeout: Span,
    /// How long requests in flight may take to finish after SIGTERM.
    pub drain_timeout: Span,
    /// How old a connection of the inference planes may become; 0s: as old as it likes.
    pub max_connection_age: Span,
    /// How long requests on an HTTP/2 connection may go on once it is too old; 0s: until they are answered.
    pub max_connection_age_grace: Span,
    /// The web pages that may ask the HTTP inference plane, by origin; `["*"]`: all.
    pub cors_origins: Vec<String>,
    /// Which of the models that have a release must serve for the gateway to be ready.
    pub readiness: ReadinessPolicy,
}

/// When the gateway is ready, once all that was found at the start is loaded or refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReadinessPolicy {
    /// When the stable version of every model serves.
    #[default]
    All,
    /// When that of one model does.
    Any,
}

/// What becomes of changed files of a version that a release names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReloadChanged {
    /// Another model is loaded only when an operator accepts it.
    #[default]
    Manual,
    /// It is loaded by itself once it is admitted.
    Auto,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([0, 0, 0, 0], 8000)).into(),
            grpc: SocketAddr::from(([0, 0, 0, 0], 8001)).into(),
            metrics: SocketAddr::from(([0, 0, 0, 0], 8002)).into(),
            admin: SocketAddr::from(([127, 0, 0, 1], 8003)).into(),
            max_request_size: ByteSize(64 << 20),
            max_inflight_size: ByteSize(1 << 30),
            body_timeout: Span(std::time::Duration::from_secs(30)),
            idle_timeout: Span(std::time::Duration::from_secs(120)),
            drain_timeout: Span(std::time::Duration::from_secs(30)),
            max_connection_age: Span(std::time::Duration::ZERO),
            max_connection_age_grace: Span(std::time::Duration::ZERO),
            cors_origins: Vec::new(),
            readiness: ReadinessPolicy::default(),
        }
    }
}

/// `[protocol]`: what of the wire is left to choose.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProtocolConfig {
    /// How JSON answers say NaN and infinity; a request's parameter `nonfinite` wins.
    pub nonfinite: Nonfinite,
}

/// `[repository]`: where models are, and how changes are noticed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RepositoryConfig {
    /// The directory with one directory per model.
    pub models: PathBuf,
    /// How often the repository is read again, for file systems that send no events. Less often when it is
    /// large: where events can be had, reading it takes at most a thousandth of a processor's time.
    pub poll_interval: Span,
    /// How long a version directory must have been unchanged before it is taken as complete.
    pub settle: Span,
    /// Versions loaded at the same time.
    pub load_threads: usize,
}

impl Default for RepositoryConfig {
    fn default() -> Self {
        Self {
            models: "models".into(),
            poll_interval: Span(std::time::Duration::from_secs(5)),
            settle: Span(std::time::Duration::from_millis(500)),
            load_threads: 2,
        }
    }
}

/// `[state]`: what survives a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StateConfig {
    /// The directory of the state file (releases and audit log).
    pub directory: PathBuf,
    /// Room that is held back there, for changes on a full disk; 0B: none.
    pub reserve: ByteSize,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { directory: "state".into(), reserve: ByteSize(1 << 20) }
    }
}

/// `[runtime]`: ONNX Runtime.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// The shared library; the variable `ORT_DYLIB_PATH` wins over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<PathBuf>,
    /// Threads of the one pool that all models share for the work inside their operators;
    /// 0: as many as this process may use cores.
    pub intra_op_threads: usize,
    /// Memory that the runs of all models together may hold; 0B: half of what this process may use.
    pub max_memory: ByteSize,
    /// Let threads of the pool burn a core for a moment after each run, waiting for the next.
    pub spinning: bool,
}

/// `[scheduler]`: how requests wait for a model, and where it runs. `model.toml` can say
/// otherwise for one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Requests that may wait for one version; more are answered with 429.
    pub max_queue: usize,
    /// Bytes of inputs that may wait for one version; more are answered with 429.
    pub max_queue_size: ByteSize,
    /// A request that would wait longer than this, by the measured rate, is answered with 429.
    pub max_wait: Span,
    /// Memory that one run may hold; a request that needs more is answered with 413. 0B: a quarter
    /// of what this process may use.
    pub max_run_memory: ByteSize,
    /// Runs of one version at the same time; 0: as many as this process may use cores.
    pub instances: usize,
    /// A run that is expected to take no longer happens on the thread of the request.
    pub inline_limit: Span,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            max_queue: 1024,
            max_queue_size: ByteSize(256 << 20),
            max_wait: Span(std::time::Duration::from_secs(1)),
            max_run_memory: ByteSize(0),
            instances: 0,
            inline_limit: Span(std::time::Duration::from_micros(250)),
        }
    }
}

/// `[batching]`: whether requests that wait for the same version run together. `model.toml`
/// can say otherwise for one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchingConfig {
    /// Only models whose rows do not depend on each other are batched: found out at load.
    pub enabled: bool,
    /// Rows per run.
    pub max_size: usize,
    /// How long a request may wait for others to join it; 0s: what waits runs at once.
    pub max_delay: Span,
    /// Choose rows and delay, within the two above, so that 99 % of requests take no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_p99: Option<Span>,
}

impl Default for BatchingConfig {
    fn default() -> Self {
        let max_delay = Span(std::time::Duration::ZERO);
        Self { enabled: true, max_size: 64, max_delay, target_p99: None }
    }
}

/// `[release]`: what new versions become, and what is allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReleaseConfig {
    pub policy: Policy,
    /// Let requests name a version or a label; `false`: such requests are answered with 403.
    pub allow_pinning: bool,
    /// The rollback target may be unloaded to make room for a version that is loaded.
    pub evict_previous: bool,
    /// What becomes of changed files of a version that the release names.
    pub reload_changed: ReloadChanged,
}

impl Default for ReleaseConfig {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            allow_pinning: true,
            evict_previous: false,
            reload_changed: ReloadChanged::default(),
        }
    }
}

/// `[shadow]`: the copies of requests that shadow versions run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShadowConfig {
    /// Copies that run at the same time, at the lowest priority.
    pub threads: usize,
    /// Copies that may wait; more are dropped and counted.
    pub max_queue: usize,
    /// Bytes of copies that may wait; more are dropped and counted.
    pub max_queue_size: ByteSize,
}

impl Default for ShadowConfig {
    fn default() -> Self {
        Self { threads: 1, max_queue: 1024, max_queue_size: ByteSize(64 << 20) }
    }
}

/// `[limits]`: what all models may use together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Memory of all loaded versions, by the size of their files; 0B: no limit.
    pub model_memory: ByteSize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { model_memory: ByteSize(0) }
    }
}

/// `[metrics]`: what `/metrics` says besides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Export Triton's `nv_inference_…` too, for dashboards that were made for it.
    pub triton_names: bool,
}

/// `[telemetry]`: logs and traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// A filter such as `info` or `tidegate=debug,info`.
    pub log: String,
    pub log_format: LogFormat,
    /// Where spans go, such as `http://localhost:4317` (OTLP over gRPC). Empty: no traces.
    pub otlp_endpoint: String,
    /// The share of requests traced when the caller has not decided, from 0 to 1.
    pub trace_ratio: f64,
    /// `service.name` of the spans.
    pub service_name: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log: "info".into(),
            log_format: LogFormat::Auto,
            otlp_endpoint: String::new(),
            trace_ratio: 1.0,
            service_name: "tidegate".into(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    Text,
    Json,
}

impl Config {
    /// What is wrong with values that each parse but make no sense; all of it.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |good: bool, words: &str| {
            if !good {
                faults.push(words.to_owned());
            }
        };
        check(self.server.max_request_size.0 > 0, "server.max_request_size must be more than 0B");
        let (one, all) = (self.server.max_request_size, self.server.max_inflight_size);
        check(all >= one, "server.max_inflight_size must be at least server.max_request_size");
        check(!self.server.body_timeout.0.is_zero(), "server.body_timeout must be more than 0s");
        check(!self.server.idle_timeout.0.is_zero(), "server.idle_timeout must be more than 0s");
        for origin in self.server.cors_origins.iter().filter(|origin| !is_origin(origin)) {
            let words = "server.cors_origins must be origins as browsers send them, such as \"https://app.example.com\" or \
                         \"http://localhost:3000\" (no path), or \"*\" for all; not";
            check(false, &format!("{words} \"{origin}\""));
        }
        check(!self.repository.poll_interval.0.is_zero(), "repository.poll_interval must be more than 0s");
        check(self.repository.load_threads > 0, "repository.load_threads must be at least 1");
        check(self.scheduler.max_queue > 0, "scheduler.max_queue must be at least 1");
        check(self.scheduler.max_queue_size.0 > 0, "scheduler.max_queue_size must be more than 0B");
        check(!self.scheduler.max_wait.0.is_zero(), "scheduler.max_wait must be more than 0s");
        check(self.batching.max_size > 0, "batching.max_size must be at least 1");
        let target = self.batching.target_p99;
        check(target.is_none_or(|target| !target.0.is_zero()), "batching.target_p99 must be more than 0s");
        self.rollout.check(&mut check);
        check(self.shadow.threads > 0, "shadow.threads must be at least 1");
        check(self.shadow.max_queue > 0, "shadow.max_queue must be at least 1");
        check(self.shadow.max_queue_size.0 > 0, "shadow.max_queue_size must be more than 0B");
        self.admission.faults(&mut check);
        self.monitor.faults(&mut check);
        let filter = tracing_subscriber::EnvFilter::try_new(&self.telemetry.log);
        check(filter.is_ok(), "telemetry.log must be a log filter such as \"info\" or \"tidegate=debug,info\"");
        check((0.0..=1.0).contains(&self.telemetry.trace_ratio), "telemetry.trace_ratio must be from 0 to 1");
        let endpoint = &self.telemetry.otlp_endpoint;
        let is_url = endpoint.is_empty() || endpoint.starts_with("http://") || endpoint.starts_with("https://");
        check(is_url, "telemetry.otlp_endpoint must be a URL such as \"http://localhost:4317\", or empty");
        faults
    }

    /// The JSON Schema of the configuration file.
    #[must_use]
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}
