//! The HTTP door: OIP v2 REST. From the wire inward:
//!
//! `server` and `connections` (shared by all planes) → `routes` (the path) → `handlers` (one
//! request) → `body` (its bytes) → `encoding` (inflated) → `json` or `raw` (its meaning), and back
//! out through `answer`. `extensions` answers what Triton's clients ask beside inference.

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{DoorOptions, data_plane::DataPlane, refusal::Refusal};

pub(crate) mod answer;
#[doc(hidden)]
pub mod bench_support;
pub(crate) mod body;
mod connections;
mod encoding;
mod extensions;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handlers;
mod json;
mod raw;
mod routes;
pub(crate) mod server;
#[cfg(test)]
mod transport_tests;
#[cfg(test)]
mod wire_tests;

/// See [`super::decode_json_request`].
pub(super) fn decode_json(body: &Bytes) -> Result<json::Decoded, Refusal> {
    json::decode(body, None)
}

/// See [`super::serve_http`].
pub(super) async fn serve<D: DataPlane>(
    listener: TcpListener,
    gateway: Arc<D>,
    options: DoorOptions,
    shutdown: CancellationToken,
) {
    let idle_timeout = options.idle_timeout;
    let door = Arc::new(handlers::Door::new(gateway, options));
    let handler = move |request, _| Arc::clone(&door).answer(request);
    server::serve_patiently("http", listener, handler, idle_timeout, shutdown).await;
}
