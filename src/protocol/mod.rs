//! The doors of the data plane: Open Inference Protocol v2 over HTTP/JSON and over gRPC.
//!
//! A door turns wire messages into [`crate::domain`] types, calls the gateway and turns the
//! answer back. It decides nothing about models, versions or scheduling, and the two doors
//! know nothing of each other; what both need is in the first six files:
//!
//! | file | what it holds |
//! | --- | --- |
//! | `data_plane` | what a door asks of the gateway, so that a test can stand in for it |
//! | `naming` | the model, version and label that a request names |
//! | `deadline` | how long the caller will wait, as headers say |
//! | `budget` | the bound on the memory of all request bodies |
//! | `refusal` | why a door refused a request, and the words shared by both protocols |
//! | `trace` | the span of a request, with the caller's W3C context |
//! | `http/` | the plane server that all planes share, routes, JSON, answers |
//! | `metrics` | the metrics plane: `/metrics`, `/livez`, `/readyz` |
//! | `grpc/` | conversion, the services, what tonic refuses by itself in the contract's words |

use std::{sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::budget::BodyBudget;
pub use self::metrics::{MetricsDoor, serve_metrics};
use crate::gateway::Gateway;

mod budget;
mod data_plane;
mod deadline;
pub(crate) mod grpc;
pub(crate) mod http;
mod metrics;
mod naming;
mod refusal;
#[cfg(test)]
mod stand_in;
mod trace;

/// What this server calls itself in its metadata, on both protocols.
const SERVER_NAME: &str = "tidegate";
/// The protocol extensions that are really served.
const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "parameters"];
/// Triton's name for what runs the models, which its clients know.
const PLATFORM: &str = "onnxruntime_onnx";
/// The header or gRPC metadata key that makes routing sticky.
const ROUTING_KEY_HEADER: &str = "tidegate-routing-key";
/// The request parameter of the same meaning; the header wins.
const ROUTING_KEY_PARAMETER: &str = "routing_key";

/// The header or gRPC metadata key that says how long the caller will wait, as a duration with
/// its unit.
const TIMEOUT_HEADER: &str = "tidegate-timeout";
/// The same as Envoy says it by itself, in milliseconds.
const ENVOY_TIMEOUT_HEADER: &str = "x-envoy-expected-rq-timeout-ms";

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
}

/// Serves the HTTP inference plane until `shutdown` is cancelled and every request that had
/// begun is answered. The caller bounds the wait; dropping the future closes all connections.
pub async fn serve_http(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    options: DoorOptions,
    shutdown: CancellationToken,
) {
    http::serve(listener, gateway, options, shutdown).await;
}

/// Serves the gRPC inference plane, with health and reflection; ends as [`serve_http`] does.
pub async fn serve_grpc(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    options: DoorOptions,
    shutdown: CancellationToken,
) {
    grpc::serve(listener, gateway, options, shutdown).await;
}
