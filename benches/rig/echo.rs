//! Bare servers: they read a request and answer with a message from a file, on one thread. What
//! they reach is what the protocol costs, with nothing of a gateway in it.

use std::{convert::Infallible, fs, future::Ready, net::SocketAddr, path::Path, task::Poll};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use prost::Message;
use tidegate::proto::inference::{ModelInferRequest, ModelInferResponse};
use tokio::net::TcpListener;
use tonic::{
    server::{Grpc, NamedService, UnaryService},
    transport::server::TcpIncoming,
};
use tower_service::Service;

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// A free port, and says which.
async fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

fn read(answer: &Path) -> Result<Vec<u8>> {
    fs::read(answer).with_context(|| format!("cannot read {}", answer.display()))
}

/// Answers every gRPC call with the `ModelInferResponse` in a file.
pub fn grpc(answer: &Path) -> Result<()> {
    let answer = ModelInferResponse::decode(Bytes::from(read(answer)?))?;
    block_on(async {
        let incoming = TcpIncoming::from(listen().await?).with_nodelay(Some(true));
        let server = tonic::transport::Server::builder().add_service(Echo { answer });
        Ok(server.serve_with_incoming(incoming).await?)
    })
}

/// What tonic generates for a service of one method.
#[derive(Clone)]
struct Echo {
    answer: ModelInferResponse,
}

impl NamedService for Echo {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl UnaryService<ModelInferRequest> for Echo {
    type Response = ModelInferResponse;
    type Future = Ready<Result<tonic::Response<ModelInferResponse>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<ModelInferRequest>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(self.answer.clone())))
    }
}

impl Service<Request<tonic::body::Body>> for Echo {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(Grpc::new(tonic_prost::ProstCodec::default()).unary(service, request).await) })
    }
}

/// Answers every HTTP/1.1 request with the body in a file.
pub fn http(answer: &Path) -> Result<()> {
    let body = Bytes::from(read(answer)?);
    block_on(async {
        let listener = listen().await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let body = body.clone();
            let service = service_fn(move |request: Request<Incoming>| answer_http(request, body.clone()));
            tokio::spawn(async move {
                // A client that leaves is no error here.
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn answer_http(request: Request<Incoming>, body: Bytes) -> Result<Response<Full<Bytes>>, hyper::Error> {
    request.into_body().collect().await?.to_bytes();
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
