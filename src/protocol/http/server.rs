//! The server under every plane: accepts connections, speaks HTTP/1.1 and cleartext HTTP/2
//! on one port, survives what goes wrong in one of them, and drains when told to stop.
//!
//! A plane is a handler, `Fn(Request<Incoming>, Peer) -> impl Future<Output = Response<PlaneBody>>`.
//! It may answer from memory or stream, and may pass gRPC on to tonic (see [`is_grpc`]).

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, header::CONTENT_TYPE};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::answer;
use crate::fault::ErrorCode;

/// The body of an answer: bytes in memory, or a stream (`tonic::body::Body::new` takes any
/// body and is what tonic itself answers with).
pub(crate) type PlaneBody = Either<Full<Bytes>, tonic::body::Body>;

/// Who asks, where the system says it: the audit log of the admin plane wants to know.
pub(crate) type Peer = Option<SocketAddr>;

/// How long an HTTP/1 connection may be without a request, or take to send its head, unless the
/// plane says otherwise. HTTP/2 connections may idle as long as they answer pings.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
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
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<PlaneBody>> + Send + 'static,
{
    serve_patiently(plane, listener, handler, IDLE_TIMEOUT, shutdown).await;
}

/// As [`serve`], with the plane's own `idle_timeout`.
pub(crate) async fn serve_patiently<H, F>(
    plane: &'static str,
    listener: TcpListener,
    handler: H,
    idle_timeout: Duration,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<PlaneBody>> + Send + 'static,
{
    let builder = connection_builder(idle_timeout);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            stream = accept(plane, &listener) => {
                let (builder, handler, shutdown) = (builder.clone(), handler.clone(), shutdown.clone());
                connections.spawn(serve_connection(plane, stream, builder, handler, idle_timeout, shutdown));
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

fn connection_builder(idle_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle_timeout);
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
    idle_timeout: Duration,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<PlaneBody>> + Send + 'static,
{
    // hyper's own timeout starts only once it knows the protocol, from the first bytes.
    tokio::select! {
        () = shutdown.cancelled() => return,
        first = timeout(idle_timeout, stream.readable()) => if first.is_err() { return },
    }
    let peer = stream.peer_addr().ok();
    let activity = Arc::new(Activity::new());
    let watched = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        let busy = Busy::new(&watched, request.version());
        async move {
            let response = guard(plane, handler, request, peer).await;
            drop(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ends = async {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = activity.idles_for(idle_timeout) => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // What is being answered is answered to its end.
        () = ends => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(plane, %error, "a connection ended early");
    }
}

/// Whether a connection has requests, and since when it has none.
struct Activity(Mutex<(usize, Instant)>);

impl Activity {
    fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn state(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when there has been no request for so long. hyper minds only the time that a head
    /// takes from its first byte on.
    async fn idles_for(&self, timeout: Duration) {
        loop {
            let left = match *self.state() {
                (0, since) => timeout.saturating_sub(since.elapsed()),
                _ => timeout,
            };
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

/// A request of a connection, until it is dropped.
struct Busy {
    activity: Arc<Activity>,
    /// Once it speaks HTTP/2, a connection may idle: its pings tell whether the client is there.
    lasts: bool,
}

impl Busy {
    fn new(activity: &Arc<Activity>, version: Version) -> Self {
        activity.state().0 += 1;
        Self { activity: Arc::clone(activity), lasts: version >= Version::HTTP_2 }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.0 -= usize::from(!self.lasts);
        state.1 = Instant::now();
    }
}

/// Runs the handler; if it panics, the request is answered with 500 and nothing else suffers.
async fn guard<H, F>(plane: &'static str, handler: H, request: Request<Incoming>, peer: Peer) -> Response<PlaneBody>
where
    H: Fn(Request<Incoming>, Peer) -> F,
    F: Future<Output = Response<PlaneBody>>,
{
    let grpc = is_grpc(request.headers());
    let mut answered = pin!(async move { handler(request, peer).await });
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
