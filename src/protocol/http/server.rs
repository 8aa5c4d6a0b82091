//! The server under every plane: accepts connections, speaks HTTP/1.1 and cleartext HTTP/2
//! on one port, survives what goes wrong in one of them, and drains when told to stop.
//!
//! A plane is a handler, `Fn(Request<Incoming>) -> impl Future<Output = Response<PlaneBody>>`.
//! It may answer from memory or stream, and may pass gRPC on to tonic (see [`is_grpc`]).

use std::{
    convert::Infallible,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header::CONTENT_TYPE};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::answer;
use crate::fault::ErrorCode;

/// The body of an answer: bytes in memory, or a stream (`tonic::body::Body::new` takes any
/// body and is what tonic itself answers with).
pub(crate) type PlaneBody = Either<Full<Bytes>, tonic::body::Body>;

/// How long a client may take to send a request head; an idle connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after a failed accept: most often no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// An HTTP/2 peer that is silent for this long is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_mins(1);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests at once on one HTTP/2 connection; gRPC clients put all of theirs on one.
const STREAMS_PER_CONNECTION: u32 = 1024;

/// Serves `handler` until `shutdown` is cancelled and every request that had begun is
/// answered. `plane` names the plane in the log. The caller bounds the wait: dropping the
/// future closes all connections.
pub(crate) async fn serve<H, F>(plane: &'static str, listener: TcpListener, handler: H, shutdown: CancellationToken)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<PlaneBody>> + Send + 'static,
{
    let builder = connection_builder();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            stream = accept(plane, &listener) => {
                connections.spawn(serve_connection(plane, stream, builder.clone(), handler.clone(), shutdown.clone()));
            }
        }
    }
    // New clients are turned away by the system from here on, rather than left waiting.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// True when the request is gRPC, whatever its message encoding.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    builder
}

/// The next connection. An error is never the end of the plane.
async fn accept(plane: &'static str, listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Fails only when the peer is already gone, which the connection finds out itself.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(plane, %error, "cannot accept a connection, trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The peer gave up between its SYN and our accept: nothing is wrong here.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve_connection<H, F>(
    plane: &'static str,
    stream: TcpStream,
    builder: auto::Builder<TokioExecutor>,
    handler: H,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<PlaneBody>> + Send + 'static,
{
    // hyper's own timeout starts only once it knows the protocol, from the first bytes.
    tokio::select! {
        () = shutdown.cancelled() => return,
        first = timeout(HEAD_TIMEOUT, stream.readable()) => if first.is_err() { return },
    }
    // Who asks: the audit log of the admin plane wants to know.
    let peer = stream.peer_addr().ok();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let handler = handler.clone();
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        async move { Ok::<_, Infallible>(guard(plane, handler, request).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(plane, %error, "a connection ended early");
    }
}

/// Runs the handler; if it panics, the request is answered with 500 and nothing else suffers.
async fn guard<H, F>(plane: &'static str, handler: H, request: Request<Incoming>) -> Response<PlaneBody>
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<PlaneBody>>,
{
    let grpc = is_grpc(request.headers());
    let mut answered = pin!(async move { handler(request).await });
    let outcome =
        std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| answered.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        });
    if let Some(response) = outcome.await {
        return response;
    }
    tracing::error!(plane, "a request handler panicked; the panic is in the log above");
    let message = "the gateway failed on this request";
    if grpc {
        tonic::Status::new(ErrorCode::Internal.grpc(), message).into_http().map(Either::Right)
    } else {
        answer::error(ErrorCode::Internal, message)
    }
}
