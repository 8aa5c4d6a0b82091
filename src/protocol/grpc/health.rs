//! `grpc.health.v1`: the readiness of the gateway, asked for at the moment of the call.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::interval};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::SERVICES;
use crate::protocol::data_plane::DataPlane;

/// How soon a watcher learns of a change. Nothing is looked at while nobody watches.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn server<D: DataPlane>(gateway: Arc<D>, shutdown: CancellationToken) -> HealthServer<impl Health> {
    HealthServer::new(GatewayHealth { gateway, shutdown })
}

struct GatewayHealth<D> {
    gateway: Arc<D>,
    /// Ends the watches, which would otherwise hold up the drain.
    shutdown: CancellationToken,
}

#[tonic::async_trait]
impl<D: DataPlane> Health for GatewayHealth<D> {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !is_known(&service) {
            return Err(Status::not_found("the service is unknown: ask for '' or 'inference.GRPCInferenceService'"));
        }
        Ok(Response::new(said(status(self.gateway.as_ref(), true))))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = is_known(&request.into_inner().service);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(watch(Arc::clone(&self.gateway), known, sender, self.shutdown.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Tells a watcher of every change, until it leaves or the plane drains.
async fn watch<D: DataPlane>(
    gateway: Arc<D>,
    known: bool,
    watcher: mpsc::Sender<Result<HealthCheckResponse, Status>>,
    shutdown: CancellationToken,
) {
    let mut told = None;
    let mut looks = interval(WATCH_INTERVAL);
    loop {
        tokio::select! {
            () = watcher.closed() => return,
            () = shutdown.cancelled() => {
                // The watcher may be gone too; either way this is the last word.
                let _ = watcher.send(Ok(said(ServingStatus::NotServing))).await;
                return;
            }
            _ = looks.tick() => {}
        }
        let now = status(gateway.as_ref(), known);
        if told != Some(now) && watcher.send(Ok(said(now))).await.is_err() {
            return;
        }
        told = Some(now);
    }
}

fn status(gateway: &impl DataPlane, known: bool) -> ServingStatus {
    match (known, gateway.is_ready()) {
        (false, _) => ServingStatus::ServiceUnknown,
        (true, true) => ServingStatus::Serving,
        (true, false) => ServingStatus::NotServing,
    }
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// The empty name stands for the whole server.
fn is_known(service: &str) -> bool {
    service.is_empty() || service == SERVICES[0]
}
