//! The HTTP door: OIP v2 REST. From the wire inward:
//!
//! `listeners`, `server` and `connections` (shared by all planes) → `cors` (which web pages may ask) → `routes` (the path) → `handlers` (one
//! request) → `body` (its bytes) → `encoding` (inflated) → `json` or `raw` (its meaning), and back
//! out through `answer`. `extensions` answers what Triton's clients ask beside inference.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{DoorOptions, data_plane::DataPlane, refusal::Refusal};

pub(crate) mod answer;
#[doc(hidden)]
pub mod bench_support;
pub(crate) mod body;
mod connections;
mod cors;
mod encoding;
mod extensions;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handlers;
mod json;
mod listeners;
mod raw;
mod routes;
pub(crate) mod server;
#[cfg(test)]
mod transport_tests;
#[cfg(test)]
mod wire_tests;

use self::server::ConnectionLimits;
pub use self::{
    connections::MaxAge,
    cors::{Cors, is_origin},
    listeners::Listeners,
};

/// See [`super::decode_json_request`].
pub(super) fn decode_json(body: &Bytes) -> Result<json::Decoded, Refusal> {
    json::decode(body, None)
}

/// See [`super::serve_http`].
pub(super) async fn serve<D: DataPlane>(
    listeners: Listeners,
    gateway: Arc<D>,
    options: DoorOptions,
    shutdown: CancellationToken,
) {
    let connections = ConnectionLimits { idle_timeout: options.idle_timeout, max_age: options.max_age };
    let cors = options.cors.clone().map(Arc::new);
    let door = Arc::new(handlers::Door::new(gateway, options));
    match cors {
        None => {
            let handler = move |request, _| Arc::clone(&door).answer(request);
            server::serve_within("http", listeners, handler, connections, shutdown).await;
        }
        Some(cors) => {
            let handler = move |request, _| {
                let (door, cors) = (Arc::clone(&door), Arc::clone(&cors));
                async move { cors.answer(request, |request| door.answer(request)).await }
            };
            server::serve_within("http", listeners, handler, connections, shutdown).await;
        }
    }
}
