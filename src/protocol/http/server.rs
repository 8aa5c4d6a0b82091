//! The server under every plane: accepts connections, speaks HTTP/1.1 and cleartext HTTP/2
//! on one port, survives what goes wrong in one of them, and drains when told to stop.
//!
//! A plane is a handler, `Fn(Request<Incoming>, Peer) -> impl Future<Output = Response<PlaneBody>>`.
//! It may answer from memory or stream, and may pass gRPC on to tonic (see [`is_grpc`]).

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, Version,
    header::{CONNECTION, CONTENT_TYPE},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    answer,
    connections::{Activity, Busy, Connections, MaxAge, Stage, Watched},
    listeners::Listeners,
};
use crate::fault::ErrorCode;

/// The body of an answer: bytes in memory, or a stream (`tonic::body::Body::new` takes any
/// body and is what tonic itself answers with).
pub(crate) type PlaneBody = Either<Full<Bytes>, tonic::body::Body>;

/// Who asks, where the system says it: the audit log of the admin plane wants to know.
pub(crate) type Peer = Option<SocketAddr>;

/// How long an HTTP/1 connection may be without a request, take to send its head, or read nothing of an answer, unless
/// the plane says otherwise. HTTP/2 connections may idle as long as they answer pings.
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
pub(crate) async fn serve<H, F>(plane: &'static str, listeners: Listeners, handler: H, shutdown: CancellationToken)
where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<PlaneBody>> + Send + 'static,
{
    serve_within(plane, listeners, handler, ConnectionLimits::default(), shutdown).await;
}

/// How long the connections of a plane may last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// Of one without a request; see [`IDLE_TIMEOUT`].
    pub(crate) idle_timeout: Duration,
    /// Of any; `None`: there is no such limit.
    pub(crate) max_age: Option<MaxAge>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { idle_timeout: IDLE_TIMEOUT, max_age: None }
    }
}

/// As [`serve`], with the plane's own limits.
pub(crate) async fn serve_within<H, F>(
    plane: &'static str,
    listeners: Listeners,
    handler: H,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<PlaneBody>> + Send + 'static,
{
    let builder = connection_builder();
    let mut connections = Connections::new(limits.max_age);
    let mut looks = interval(Connections::interval(limits.idle_timeout));
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // Where there is no age, it is never looked at.
    let mut ages = interval(limits.max_age.map_or(Duration::MAX, MaxAge::interval));
    ages.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = tasks.join_next() => {}
            _ = looks.tick() => connections.look(),
            _ = ages.tick(), if limits.max_age.is_some() => connections.age(Instant::now()),
            stream = accept(plane, &listeners) => {
                let activity = connections.add(Instant::now());
                tasks.spawn(serve_connection(plane, stream, builder.clone(), handler.clone(), activity));
            }
        }
    }
    // New clients are turned away by the system from here on, rather than left waiting.
    drop(listeners);
    connections.end();
    loop {
        tokio::select! {
            joined = tasks.join_next() => if joined.is_none() { break },
            _ = looks.tick() => connections.look(),
        }
    }
}

/// True when the request is gRPC, whatever its message encoding.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// HTTP/1 gets no timer, and does not look for the end of what a client sends while it waits: [`Connections`] and
/// [`Watched`] do so with less effort.
fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    builder
}

/// The next connection. An error is never the end of the plane.
async fn accept(plane: &'static str, listeners: &Listeners) -> TcpStream {
    loop {
        match listeners.accept().await {
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
    activity: Arc<Activity>,
) where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<PlaneBody>> + Send + 'static,
{
    let peer = stream.peer_addr().ok();
    let watched = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        let busy = Busy::new(&watched, request.version());
        let is_http1 = request.version() < Version::HTTP_2;
        let activity = Arc::clone(&watched);
        async move {
            let is_grpc = is_grpc(request.headers());
            let answered = pin!(handler(request, peer));
            let mut response = guarded(plane, is_grpc, answered).await;
            if is_http1 && activity.is_old() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| until_sent(body, busy)))
        }
    });
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let (mut is_ending, mut waker) = (false, None);
    let ended = poll_fn(|context| {
        match activity.stage(context.waker(), &mut waker) {
            Stage::Ending if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
            Stage::Cut => return Poll::Ready(Ok(())),
            Stage::Open | Stage::Ending => {}
        }
        connection.as_mut().poll(context)
    });
    if let Err(error) = ended.await {
        tracing::debug!(plane, %error, "a connection ended early");
    }
}

/// A body that comes bit by bit keeps its connection busy until its end; one that is there, only as long as it is read.
/// HTTP/2 connections last anyway.
fn until_sent(body: PlaneBody, busy: Busy) -> PlaneBody {
    match body {
        Either::Right(stream) if !busy.lasts() && stream.size_hint().exact().is_none() => {
            Either::Right(tonic::body::Body::new(Held { stream, _busy: busy }))
        }
        other => other,
    }
}

/// A body, and the mark that its request is not over.
struct Held {
    stream: tonic::body::Body,
    _busy: Busy,
}

impl Body for Held {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        Pin::new(&mut self.stream).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }
}

/// What the handler answers; if it panics, the request is answered with 500 and nothing else suffers. The handler stays
/// where it was made: to move it costs more than some of its work.
async fn guarded<F>(plane: &'static str, is_grpc: bool, mut answered: Pin<&mut F>) -> Response<PlaneBody>
where
    F: Future<Output = Response<PlaneBody>>,
{
    let outcome = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| answered.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    });
    if let Some(response) = outcome.await {
        return response;
    }
    tracing::error!(plane, "a request handler panicked; the panic is in the log above");
    let message = "the gateway failed on this request";
    if is_grpc {
        tonic::Status::new(ErrorCode::Internal.grpc(), message).into_http().map(Either::Right)
    } else {
        answer::error(ErrorCode::Internal, message)
    }
}
