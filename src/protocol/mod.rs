//! The doors of the data plane: Open Inference Protocol v2 over HTTP/JSON and over gRPC.
//!
//! A door turns wire messages into [`crate::domain`] types, calls the gateway and turns the
//! answer back. It decides nothing about models, versions or scheduling, and the two doors
//! know nothing of each other; what both need is in the first five files:
//!
//! | file | what it holds |
//! | --- | --- |
//! | `data_plane` | what a door asks of the gateway, so that a test can stand in for it |
//! | `naming` | the model, version and label that a request names |
//! | `refusal` | why a door refused a request, and the words shared by both protocols |
//! | `trace` | the span of a request, with the caller's W3C context |
//! | `model_config` | a model's configuration in Triton's form |
//! | `http/` | the plane server that all planes share, routes, JSON, answers |
//! | `metrics` | the metrics plane: `/metrics`, `/livez`, `/readyz` |
//! | `grpc/` | conversion, the services, what tonic refuses by itself in the contract's words |

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::metrics::{MetricsDoor, serve_metrics};
use crate::gateway::Gateway;

mod data_plane;
pub(crate) mod grpc;
pub(crate) mod http;
mod metrics;
mod model_config;
mod naming;
mod refusal;
#[cfg(test)]
mod stand_in;
mod trace;

/// What this server calls itself in its metadata, on both protocols.
const SERVER_NAME: &str = "tidegate";
/// The protocol extensions that are really served.
const EXTENSIONS: [&str; 3] = ["binary_tensor_data", "model_configuration", "parameters"];
/// Triton's name for what runs the models, which its clients know.
const PLATFORM: &str = "onnxruntime_onnx";
/// The header or gRPC metadata key that makes routing sticky.
const ROUTING_KEY_HEADER: &str = "tidegate-routing-key";
/// The request parameter of the same meaning; the header wins.
const ROUTING_KEY_PARAMETER: &str = "routing_key";

/// What both doors are configured with.
#[derive(Debug, Clone, Copy)]
pub struct DoorOptions {
    /// The largest HTTP request body, and the largest gRPC message after decompression.
    pub max_body_bytes: usize,
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
