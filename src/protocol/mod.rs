//! The doors of the data plane: Open Inference Protocol v2 over HTTP/JSON and over gRPC.
//!
//! A door turns wire messages into [`crate::domain`] types, calls the gateway and turns the
//! answer back. It decides nothing about models, versions or scheduling, and the two doors
//! know nothing of each other; what both need is in the first files:
//!
//! | file | what it holds |
//! | --- | --- |
//! | `data_plane` | what a door asks of the gateway, so that a test can stand in for it |
//! | `naming` | the model, version and label that a request names |
//! | `nonfinite` | how JSON answers say NaN and infinity |
//! | `elsewhere` | what Triton does here and this plane does not, and where it is done |
//! | `settings` | the trace and log settings, as Triton shows them |
//! | `deadline` | how long the caller will wait, as headers say |
//! | `budget` | the bound on the memory of all request bodies |
//! | `gathered` | the pieces of a body put together, with aligned elements |
//! | `refusal` | why a door refused a request, and the words shared by both protocols |
//! | `trace` | the span of a request, with the caller's W3C context |
//! | `model_config` | a model's configuration in Triton's form |
//! | `http/` | the plane server that all planes share, routes, JSON, answers |
//! | `metrics` | the metrics plane: `/metrics`, `/livez`, `/readyz` |
//! | `grpc/` | conversion, the services, what tonic refuses by itself in the contract's words |

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::http::HeaderName;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

#[doc(hidden)]
pub use self::http::bench_support;
pub use self::{
    budget::BodyBudget,
    http::{Cors, Listeners, MaxAge, is_origin},
    metrics::{MetricsDoor, serve_metrics},
    nonfinite::Nonfinite,
    settings::ServerSettings,
};
pub(crate) use self::{metrics::METRICS_PATHS, settings::LogSettings};
use crate::{
    domain::{OutputRequest, Tensor},
    gateway::Gateway,
};

mod budget;
mod data_plane;
mod deadline;
mod elsewhere;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gathered;
pub(crate) mod grpc;
pub(crate) mod http;
mod metrics;
mod model_config;
mod naming;
mod nonfinite;
mod refusal;
mod settings;
#[cfg(test)]
mod stand_in;
mod trace;

/// The inputs and the wanted outputs of an inference request in JSON, for who replays recorded ones.
///
/// # Errors
/// What is wrong with it, in the words that a client gets.
pub fn decode_json_request(body: &Bytes) -> Result<(Vec<Tensor>, Vec<OutputRequest>), String> {
    let decoded = http::decode_json(body).map_err(|refusal| refusal.to_string())?;
    Ok((decoded.inputs.to_vec(), decoded.outputs))
}

/// What this server calls itself in its metadata, on both protocols.
const SERVER_NAME: &str = "tidegate";
/// The protocol extensions that are really served. `model_repository` is none of them, though
/// the index is: a client would conclude that it may load and unload here.
const EXTENSIONS: [&str; 8] = [
    "classification",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
];
/// Triton's name for what runs the models, which its clients know.
const PLATFORM: &str = "onnxruntime_onnx";
/// The header or gRPC metadata key that makes routing sticky.
static ROUTING_KEY_HEADER: HeaderName = HeaderName::from_static("tidegate-routing-key");
/// The request parameter of the same meaning; the header wins.
const ROUTING_KEY_PARAMETER: &str = "routing_key";

/// The request parameter that says how the JSON answer writes numbers that are not finite.
const NONFINITE_PARAMETER: &str = "nonfinite";

/// The parameter of an answer that tells what the reference data never had.
const VIOLATION_PARAMETER: &str = "contract_violation";

/// Whether a parameter that is none of the protocol's is kept: a few short ones are, for the segments of the monitor.
fn is_kept(name: &str, value: &str, kept: usize) -> bool {
    kept < 16 && name.len() <= 64 && value.len() <= 128
}

/// The text of a parameter that is a number, one for all ways to send it: `5` for 5 and 5.0, `1.5`, `1e300`. `None` for NaN
/// and infinity, which JSON does not have.
fn number_text(number: f64) -> Option<String> {
    /// Whole numbers up to here are exact, 2⁵³.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number {
        number if !number.is_finite() => None,
        // The sum has no negative zero.
        number if number.fract() == 0.0 && number.abs() <= EXACT => Some((number + 0.0).to_string()),
        number => Some(format!("{number:?}")),
    }
}

/// The same of a number in JSON.
fn literal_text(literal: &str) -> Option<String> {
    let signed = literal.parse::<i64>().map(|number| number.to_string());
    let whole = signed.or_else(|_| literal.parse::<u64>().map(|number| number.to_string()));
    whole.ok().or_else(|| number_text(literal.parse().ok()?))
}

/// The states of Triton's repository index that this plane tells apart.
const INDEX_READY: &str = "READY";
const INDEX_UNAVAILABLE: &str = "UNAVAILABLE";

/// A time as Triton's statistics have it: since the epoch, 0 for never.
fn milliseconds(at: Option<SystemTime>) -> u64 {
    let since = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The header or gRPC metadata key that says how long the caller will wait, as a duration with
/// its unit.
static TIMEOUT_HEADER: HeaderName = HeaderName::from_static("tidegate-timeout");
/// The same as Envoy says it by itself, in milliseconds.
static ENVOY_TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// What both doors are configured with.
#[derive(Debug, Clone)]
pub struct DoorOptions {
    /// The largest HTTP request body, and the largest gRPC message; both after decompression.
    pub max_body_bytes: usize,
    /// The bound on all request bodies in flight, which both doors share.
    pub budget: Arc<BodyBudget>,
    /// How long an HTTP request body may send nothing before it is given up.
    pub body_timeout: Duration,
    /// How long an HTTP/1 connection may be without a request.
    pub idle_timeout: Duration,
    /// How old connections may become; `None`: as old as they like.
    pub max_age: Option<MaxAge>,
    /// Which web pages may ask over HTTP; `None`: none of another origin.
    pub cors: Option<Cors>,
    /// How JSON answers say numbers that are not finite, unless the request says otherwise.
    pub nonfinite: Nonfinite,
    /// What the settings endpoints tell.
    pub settings: ServerSettings,
}

/// Serves the HTTP inference plane until `shutdown` is cancelled and every request that had
/// begun is answered. The caller bounds the wait; dropping the future closes all connections.
pub async fn serve_http(
    listeners: Listeners,
    gateway: Arc<Gateway>,
    options: DoorOptions,
    shutdown: CancellationToken,
) {
    http::serve(listeners, gateway, options, shutdown).await;
}

/// Serves the gRPC inference plane, with health and reflection; ends as [`serve_http`] does.
pub async fn serve_grpc(
    listeners: Listeners,
    gateway: Arc<Gateway>,
    options: DoorOptions,
    shutdown: CancellationToken,
) {
    grpc::serve(listeners, gateway, options, shutdown).await;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameter_that_is_a_number_has_one_text() {
        for (literal, text) in [
            ("5", "5"),
            ("-0", "0"),
            ("5.0", "5"),
            ("-0.0", "0"),
            ("1.50", "1.5"),
            ("1e2", "100"),
            ("1E-7", "1e-7"),
            ("9223372036854775807", "9223372036854775807"),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551616", "1.8446744073709552e19"),
        ] {
            assert_eq!(literal_text(literal).as_deref(), Some(text), "{literal}");
        }
        assert_eq!((literal_text("1e999"), number_text(f64::NAN), number_text(f64::INFINITY)), (None, None, None));
    }

    proptest! {
        #[test]
        fn number_has_the_same_text_in_json(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            prop_assert_eq!(literal_text(&serde_json::to_string(&number).unwrap()), number_text(number));
        }

        #[test]
        fn whole_number_has_the_same_text_as_a_float(number in -(1_i64 << 53)..=1 << 53) {
            prop_assert_eq!(number_text(number as f64), Some(number.to_string()));
            prop_assert_eq!(literal_text(&number.to_string()), Some(number.to_string()));
        }
    }
}
