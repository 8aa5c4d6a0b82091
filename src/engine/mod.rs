//! Runs models: the only room that names ONNX Runtime.
//!
//! A [`Model`] is synchronous and may be run by several threads at once, on one copy of its
//! weights; the `schedule` room decides where and when. Nothing of `ort` leaves this room: what comes out are domain tensors and
//! [`EngineError`].

mod convert;
mod load_words;
mod native;
mod onnx;
mod reshape;
mod words;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ort::environment::{Environment, GlobalThreadPoolOptions};

use self::native::memory;
pub use self::{onnx::OnnxModel, reshape::Reshape};
use crate::{
    domain::{Signature, Tensor, coarse_time_of_day},
    fault::{ErrorCode, Fault},
    telemetry::LogLimit,
};

/// A loaded model.
pub trait Model: Send + Sync {
    fn signature(&self) -> &Arc<Signature>;

    /// Whether several threads may run it at once. Where not, its lane runs it one by one.
    fn is_concurrent(&self) -> bool {
        true
    }

    /// Runs the model once on `inputs`, which fit the signature, and returns the outputs at these
    /// places of the signature, in that order.
    ///
    /// # Errors
    /// When the model refuses the inputs, or fails.
    fn run(&self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError>;

    /// As [`Model::run`], and gives back the memory that earlier runs needed and this one does not.
    ///
    /// # Errors
    /// When the model refuses the inputs, or fails.
    fn run_and_trim(&self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        self.run(inputs, outputs)
    }
}

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// ONNX Runtime says that the inputs cannot go together.
    #[error("the model refused the inputs: {0}")]
    Refused(String),
    /// The run would hold more than one run may.
    #[error("the request needs more memory than one run may hold ({}: scheduler.max_run_memory)", bytes(*limit))]
    TooMuchMemory { limit: usize },
    /// All runs together hold what they may.
    #[error("the requests that are running hold all memory that runs may hold (runtime.max_memory): try again later")]
    MemoryInUse,
    /// The outputs are more than a message can carry.
    #[error("the outputs of this request are larger than an answer can be (2 GiB)")]
    TooMuchOutput,
    /// The model failed while it ran.
    #[error("the model failed: {0}")]
    Failed(String),
    /// The model cannot be served; says why.
    #[error("{0}")]
    Unservable(String),
}

impl EngineError {
    /// The IR version that the model must be written with, where it has one that is too new.
    #[must_use]
    pub fn ir_version_to_take(&self) -> Option<i64> {
        match self {
            Self::Unservable(reason) => load_words::ir_version_to_take(reason),
            _ => None,
        }
    }

    /// It failed since memory could not be had.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::MemoryInUse => true,
            Self::Refused(_) | Self::TooMuchMemory { .. } | Self::TooMuchOutput => false,
            Self::Failed(reason) | Self::Unservable(reason) => lacks_memory(reason),
        }
    }
}

/// Whether ONNX Runtime's words are those of an allocation that failed.
fn lacks_memory(words: &str) -> bool {
    ["Failed to allocate", "bad_alloc"].iter().any(|known| words.contains(known))
}

impl Fault for EngineError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(_) => ErrorCode::BadRequest,
            Self::TooMuchMemory { .. } | Self::TooMuchOutput => ErrorCode::TooLarge,
            Self::MemoryInUse => ErrorCode::Overloaded,
            Self::Failed(_) | Self::Unservable(_) => ErrorCode::Internal,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Refused(reason) => format!("the model refused the inputs: {}", first_line(reason)),
            Self::TooMuchMemory { .. } | Self::TooMuchOutput | Self::MemoryInUse => self.to_string(),
            // The runtime's words name source files and nodes: they are for the log.
            Self::Failed(_) | Self::Unservable(_) => "the model failed on this request".into(),
        }
    }
}

/// A number of bytes, in words.
fn bytes(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// How a session is made.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// The memory that one run may hold at once, in bytes.
    pub max_run_bytes: usize,
    /// Threads of its own, for work inside operators. `None`: those that all sessions share.
    pub own_pool: Option<PoolOptions>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { max_run_bytes: usize::MAX, own_pool: None }
    }
}

/// A pool of threads for the work inside operators.
#[derive(Debug, Clone, Copy)]
pub struct PoolOptions {
    /// Threads that one run may use, its caller's included.
    pub threads: usize,
    /// Wait for the next run on the core for a moment, rather than asleep.
    pub spinning: bool,
}

/// Why the ONNX Runtime library could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error(
        "ONNX Runtime not found ({searched}): run `make setup`, or set ORT_DYLIB_PATH to a libonnxruntime of version 1.{} or later",
        ort::MINOR_VERSION
    )]
    Missing { searched: String },
    #[error(
        "ONNX Runtime at {} cannot be used: {reason}; run `make setup`, or set ORT_DYLIB_PATH to a libonnxruntime of version 1.{} or later",
        path.display(),
        ort::MINOR_VERSION
    )]
    Unusable { path: PathBuf, reason: String },
}

/// The ONNX Runtime library, loaded once per process.
#[derive(Clone)]
pub struct Runtime {
    environment: Environment,
    version: String,
}

impl Runtime {
    /// Loads the library at `path`. `pool` is the one pool that sessions share; `max_bytes` the
    /// memory that all their runs together may hold.
    ///
    /// # Errors
    /// When it cannot be loaded or is too old; the message says what to do.
    pub fn load(path: &Path, pool: PoolOptions, max_bytes: usize) -> Result<Self, RuntimeError> {
        let unusable = |reason: String| RuntimeError::Unusable { path: path.into(), reason };
        let builder = ort::init_from(path).map_err(|error| unusable(in_plain_words(&error)))?;
        let shared = shared_pool(pool).map_err(|error| unusable(error.message().into()))?;
        let environment = builder
            .with_global_thread_pool(shared)
            .with_name("tidegate")
            .with_telemetry(false)
            .with_logger(Arc::new(log_line))
            .build()
            .map_err(|error| unusable(error.message().into()))?;
        memory::register(&environment, max_bytes).map_err(|error| unusable(error.message().into()))?;
        Ok(Self { environment, version: version_in_name(path).unwrap_or_else(|| ort::info().into()) })
    }

    /// Gives back memory that sessions keep for their next runs, and that none has used since the call before the last. To be
    /// called now and then ([`Self::AGING_INTERVAL`]).
    pub fn release_unused_memory(&self) {
        memory::age();
    }

    /// How often [`Self::release_unused_memory`] is to be called: memory is worth keeping while runs follow each other.
    pub const AGING_INTERVAL: Duration = Duration::from_secs(5);

    /// The version of the loaded library, such as `1.31.1`; its build line where its file name
    /// carries none.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Opens an ONNX model.
    ///
    /// # Errors
    /// When ONNX Runtime cannot load it, or its inputs or outputs have no form on the wire.
    pub fn open(&self, file: &ModelFile<'_>, options: EngineOptions) -> Result<OnnxModel, EngineError> {
        OnnxModel::open(&self.environment, file, options)
    }
}

fn shared_pool(pool: PoolOptions) -> ort::Result<GlobalThreadPoolOptions> {
    GlobalThreadPoolOptions::default()
        .with_intra_threads(pool.threads)?
        .with_inter_threads(1)?
        .with_spin_control(pool.spinning)
}

/// A model to be opened.
#[derive(Debug, Clone, Copy)]
pub struct ModelFile<'a> {
    /// Already read and checked: what was checked is what is loaded.
    pub bytes: &'a [u8],
    /// Where weights lie that the bytes name, for ONNX Runtime to open; `None`: the bytes are the whole model.
    pub weights: Option<&'a Path>,
    /// Files of weights that were read already, by the names that the bytes give them.
    pub in_memory: &'a [(String, Arc<[u8]>)],
}

/// The `1.31.1` of `libonnxruntime.so.1.31.1` or `libonnxruntime.1.31.1.dylib`, links resolved.
pub(crate) fn version_in_name(path: &Path) -> Option<String> {
    let real = path.canonicalize().ok()?;
    let name = real.file_name()?.to_str()?;
    let numbers = name.split('.').filter(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let version = numbers.collect::<Vec<_>>().join(".");
    (!version.is_empty()).then_some(version)
}

fn in_plain_words(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::BadVersion { version_str, .. } => format!("it is version {version_str}"),
        ort::LoadDynamicError::Dlopen { error, .. } => error.to_string(),
        other => other.to_string(),
    }
}

/// Of ONNX Runtime's lines: it writes one for each run that fails, and clients can make runs fail.
static LINES: LogLimit = LogLimit::new();

/// ONNX Runtime's log lines as events of ours. Its own informational lines are debug to an operator.
fn log_line(level: ort::logging::LogLevel, _category: &str, _id: &str, _location: &str, message: &str) {
    use ort::logging::LogLevel;
    match level {
        LogLevel::Fatal | LogLevel::Error => {
            // A load or a run that failed is told by who asked for it, with the model's name.
            if load_words::is_told_elsewhere(message) {
                tracing::debug!(target: "onnxruntime", "{message}");
            } else if let Some(left_out) = LINES.admit(coarse_time_of_day()) {
                tracing::warn!(target: "onnxruntime", left_out, "{}", load_words::plain(message));
            }
        }
        LogLevel::Warning => tracing::debug!(target: "onnxruntime", "{message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(target: "onnxruntime", "{message}"),
    }
}

/// Finds the library: the variable `ORT_DYLIB_PATH` wins; then the configured path; then
/// beside the program; then `.artifacts/onnxruntime` (where `make setup` puts it) here or above
/// the program.
///
/// # Errors
/// When there is none; the message names where it was looked for.
pub fn find_library(variable: Option<PathBuf>, configured: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    if let Some(given) = variable.filter(|path| !path.as_os_str().is_empty()).or_else(|| configured.map(Into::into)) {
        return if given.is_file() {
            Ok(given)
        } else {
            Err(RuntimeError::Missing { searched: format!("no file at {}", given.display()) })
        };
    }
    let name = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let program = std::env::current_exe().ok();
    let beside = program.iter().filter_map(|program| program.parent()).map(|folder| folder.join(&name));
    let above = program.iter().flat_map(|program| program.ancestors().skip(1)).take(5);
    let fetched =
        std::iter::once(Path::new(".")).chain(above).map(|folder| folder.join(".artifacts/onnxruntime").join(&name));
    beside.chain(fetched).find(|path| path.is_file()).ok_or_else(|| RuntimeError::Missing {
        searched: format!("no {name} beside the program or in .artifacts/onnxruntime"),
    })
}
