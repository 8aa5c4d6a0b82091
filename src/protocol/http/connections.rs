//! Which connections of a plane may stay: those that nothing happens on are ended, and all are when the plane stops.
//!
//! A timer for each request would cost more than the reading of its head. Here a request leaves a mark that it
//! was there, and the plane looks at all of its connections eight times in an idle timeout.
//!
//! Where connections have a greatest age, no request may fail by it. One over HTTP/2 is told with GOAWAY that no new request is
//! wanted, and a while later, when none can be on its way any more, which was the last (the first word is written here: h2 says the
//! second right after a round trip, and takes a `WINDOW_UPDATE` of a request that came behind it for a breach of the protocol,
//! which fails all the others). HTTP/1 has no such word: a connection that is closed while it is idle may have the next
//! request on its way already. So there the answer to the next request says `Connection: close`.

use std::{
    hash::{BuildHasher, RandomState},
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::Version;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

/// Looks in an idle timeout.
const LOOKS: u32 = 8;
/// Looks that a connection which was asked to end has for it, if nothing happens on it meanwhile.
const GRACE: u32 = 2;

/// How long a request that was sent before its client knew that none is wanted may be on its way.
const ON_THE_WAY: Duration = Duration::from_secs(2);
/// GOAWAY without an error, of the highest stream that there can be.
const NO_NEW_REQUESTS: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Pieces of no more together are written as one: to copy them costs less than the system's way with several.
const SHORT: usize = 1 << 10;

/// How old connections may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxAge {
    age: Duration,
    /// How long what has begun on an HTTP/2 connection may go on from then on; `None`: until its end.
    grace: Option<Duration>,
}

impl MaxAge {
    /// An `age` of zero is no limit (`None`), a `grace` of zero none for what has begun.
    #[must_use]
    pub fn new(age: Duration, grace: Duration) -> Option<Self> {
        (!age.is_zero()).then_some(Self { age, grace: (!grace.is_zero()).then_some(grace) })
    }

    /// The time between two looks at ages.
    pub(super) fn interval(self) -> Duration {
        (self.age / 20).clamp(Duration::from_millis(1), Duration::from_secs(1))
    }

    /// The age of one connection, up to a tenth more or less: those that came together must not all come again together.
    /// `draw` is any number.
    fn of_one(self, draw: u64) -> Duration {
        let share = (draw >> 11) as f64 / (1_u64 << 53) as f64;
        self.age.mul_f64(0.9 + 0.2 * share)
    }
}

/// The connections of a plane.
pub(super) struct Connections {
    /// Looks so far: the clock of all connections.
    looks: Arc<AtomicU32>,
    all: Vec<Known>,
    max_age: Option<MaxAge>,
    random: RandomState,
    /// Connections so far.
    count: u64,
}

/// A connection that there was.
struct Known {
    activity: Weak<Activity>,
    /// When it is too old.
    old_at: Option<Instant>,
    /// When it was told that it is too old.
    told_at: Option<Instant>,
}

impl Connections {
    pub(super) fn new(max_age: Option<MaxAge>) -> Self {
        Self { looks: Arc::default(), all: Vec::new(), max_age, random: RandomState::new(), count: 0 }
    }

    /// The time between two looks.
    pub(super) fn interval(idle_timeout: Duration) -> Duration {
        (idle_timeout / LOOKS).max(Duration::from_millis(1))
    }

    pub(super) fn add(&mut self, now: Instant) -> Arc<Activity> {
        let activity = Arc::new(Activity {
            last: AtomicU32::new(self.looks.load(Relaxed)),
            looks: Arc::clone(&self.looks),
            requests: AtomicUsize::new(0),
            lasts: AtomicBool::new(false),
            is_old: AtomicBool::new(false),
            stage: AtomicU8::new(Stage::Open as u8),
            waker: Mutex::default(),
        });
        self.count += 1;
        let draw = self.random.hash_one(self.count);
        let old_at = self.max_age.and_then(|max_age| now.checked_add(max_age.of_one(draw)));
        self.all.push(Known { activity: Arc::downgrade(&activity), old_at, told_at: None });
        activity
    }

    /// Tells the connections that are too old to end, and cuts those over HTTP/2 that have not within their grace.
    pub(super) fn age(&mut self, now: Instant) {
        let grace = self.max_age.and_then(|max_age| max_age.grace);
        for known in &mut self.all {
            if known.old_at.is_none_or(|old_at| now < old_at) {
                continue;
            }
            let Some(activity) = known.activity.upgrade() else { continue };
            activity.is_old.store(true, Relaxed);
            if !activity.lasts.load(Relaxed) {
                continue;
            }
            let Some(told_at) = known.told_at else {
                known.told_at = Some(now);
                activity.wake();
                continue;
            };
            let since = now.saturating_duration_since(told_at);
            if since >= ON_THE_WAY {
                activity.raise(Stage::Ending);
            }
            if grace.is_some_and(|grace| since >= grace) {
                activity.raise(Stage::Cut);
            }
        }
    }

    /// Ends the connections that have been idle, and forgets those that are gone.
    pub(super) fn look(&mut self) {
        let now = self.looks.fetch_add(1, Relaxed).wrapping_add(1);
        self.all.retain(|known| match known.activity.upgrade() {
            Some(activity) => {
                activity.look(now);
                true
            }
            None => false,
        });
    }

    /// Asks all connections to end when what they have begun is answered.
    pub(super) fn end(&self) {
        self.all.iter().filter_map(|known| known.activity.upgrade()).for_each(|activity| activity.raise(Stage::Ending));
    }
}

/// What is to become of a connection. It only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Open,
    /// What has begun is answered, nothing new is taken.
    Ending,
    /// It was asked to end, and still nothing happens: half a head, or an answer that nobody reads.
    Cut,
}

/// What happens on a connection.
pub(super) struct Activity {
    looks: Arc<AtomicU32>,
    /// The look after which something happened last.
    last: AtomicU32,
    /// Requests that are being answered.
    requests: AtomicUsize,
    /// Once it has had a request over HTTP/2, a connection may idle: its pings tell whether the client is there.
    lasts: AtomicBool,
    /// The answer to its next request is to be its last, over HTTP/1.
    is_old: AtomicBool,
    stage: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Activity {
    fn touch(&self) {
        self.last.store(self.looks.load(Relaxed), Relaxed);
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    pub(super) fn is_old(&self) -> bool {
        self.is_old.load(Relaxed)
    }

    fn is_answering_http_1(&self) -> bool {
        self.requests.load(SeqCst) > 0 && !self.lasts.load(Relaxed)
    }

    fn look(&self, now: u32) {
        // Asked first: a request leaves its mark before it is over, so that what is read then is no older than its end.
        if self.requests.load(SeqCst) > 0 || self.lasts.load(Relaxed) {
            return;
        }
        let quiet = now.wrapping_sub(self.last.load(Relaxed));
        // The look at which something happened was some time before it.
        if quiet <= LOOKS {
            return;
        }
        let was_asked = self.stage.load(SeqCst) >= Stage::Ending as u8;
        self.raise(if was_asked && quiet > LOOKS + GRACE { Stage::Cut } else { Stage::Ending });
    }

    fn raise(&self, stage: Stage) {
        if self.stage.fetch_max(stage as u8, SeqCst) < stage as u8 {
            self.wake();
        }
    }

    /// The stage; `waker` is told when it changes.
    pub(super) fn stage(&self, waker: &Waker, known: &mut Option<Waker>) -> Stage {
        // The task of a connection always has the same waker: it is noted once.
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
            *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        }
        match self.stage.load(SeqCst) {
            0 => Stage::Open,
            1 => Stage::Ending,
            _ => Stage::Cut,
        }
    }
}

/// A request of a connection, until it is dropped.
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    pub(super) fn new(activity: &Arc<Activity>, version: Version) -> Self {
        if version >= Version::HTTP_2 {
            activity.lasts.store(true, Relaxed);
        }
        activity.requests.fetch_add(1, SeqCst);
        Self(Arc::clone(activity))
    }

    /// True where the connection stays, whether it has requests or not.
    pub(super) fn lasts(&self) -> bool {
        self.0.lasts.load(Relaxed)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.requests.fetch_sub(1, SeqCst);
    }
}

/// The stream of a connection: what is written shows that somebody reads, and the end of what the client sends that
/// nobody waits for the answer any more: a client that closes its side while it waits is gone, as for hyper.
///
/// hyper would look for that end itself, but by reading: it gets new memory for what may come while a request holds
/// the old one, so each request would cost a buffer.
pub(super) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// More than the request has come, so that an end would not show.
    has_more: bool,
    /// How much of [`NO_NEW_REQUESTS`] is written; `None` where it is not to be.
    told: Option<usize>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity, has_more: false, told: None }
    }

    /// Writes what is left of the word that no new request is wanted, before anything else is written.
    fn poll_tell(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(written) = self.told.filter(|written| *written < NO_NEW_REQUESTS.len()) {
            let more = ready!(Pin::new(&mut self.stream).poll_write(context, &NO_NEW_REQUESTS[written..]))?;
            if more == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.told = Some(written + more);
        }
        Poll::Ready(Ok(()))
    }

    /// An error when the client is gone; the task is told when it goes.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while let Poll::Ready(ready) = self.stream.poll_read_ready(context) {
            ready?;
            match self.stream.poll_peek(context, &mut ReadBuf::new(&mut [0])) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Poll::Ready(Ok(_)) => {
                    self.has_more = true;
                    return Ok(());
                }
                Poll::Ready(Err(error)) => return Err(error),
                // It was not so: what is ready is asked again.
                Poll::Pending => {}
            }
        }
        Ok(())
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.has_more = false;
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_tell(context))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, from));
        self.activity.touch();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if from.iter().map(|piece| piece.len()).sum::<usize>() > SHORT {
            ready!(self.poll_tell(context))?;
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, from));
            self.activity.touch();
            return Poll::Ready(written);
        }
        let mut whole = [0; SHORT];
        let mut length = 0;
        for piece in from {
            whole[length..length + piece.len()].copy_from_slice(piece);
            length += piece.len();
        }
        self.poll_write(context, &whole[..length])
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Asked whenever the connection has done what it can: over HTTP/2 all that was written so far are whole frames then.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_more && self.activity.is_answering_http_1() {
            self.poll_gone(context)?;
        }
        if self.told.is_none() && self.activity.is_old() && self.activity.lasts.load(Relaxed) {
            self.told = Some(0);
        }
        ready!(self.poll_tell(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(activity: &Activity) -> Stage {
        activity.stage(Waker::noop(), &mut None)
    }

    fn look(connections: &mut Connections, times: u32) {
        (0..times).for_each(|_| connections.look());
    }

    #[test]
    fn connection_ends_after_its_time_without_a_request_and_is_cut_if_that_does_not_help() {
        let mut connections = Connections::new(None);
        let activity = connections.add(Instant::now());
        look(&mut connections, LOOKS);
        assert_eq!(stage(&activity), Stage::Open, "the time is not over before one more look");
        look(&mut connections, 1);
        assert_eq!(stage(&activity), Stage::Ending);
        look(&mut connections, GRACE);
        assert_eq!(stage(&activity), Stage::Cut);
    }

    #[test]
    fn connection_is_asked_before_it_is_cut_however_late_the_look() {
        let mut connections = Connections::new(None);
        let activity = connections.add(Instant::now());
        connections.looks.fetch_add(10 * LOOKS, Relaxed);
        look(&mut connections, 1);
        assert_eq!(stage(&activity), Stage::Ending);
        look(&mut connections, 1);
        assert_eq!(stage(&activity), Stage::Cut);
    }

    #[test]
    fn connection_with_a_request_or_a_reader_stays() {
        let mut connections = Connections::new(None);
        let activity = connections.add(Instant::now());
        let busy = Busy::new(&activity, Version::HTTP_11);
        look(&mut connections, 10 * LOOKS);
        assert_eq!(stage(&activity), Stage::Open);
        drop(busy);
        for _ in 0..5 {
            look(&mut connections, LOOKS);
            assert_eq!(stage(&activity), Stage::Open);
            activity.touch();
        }
        look(&mut connections, LOOKS + 1);
        assert_eq!(stage(&activity), Stage::Ending);
    }

    #[test]
    fn http_2_idles_as_long_as_it_likes_but_ends_with_the_plane() {
        let mut connections = Connections::new(None);
        let activity = connections.add(Instant::now());
        drop(Busy::new(&activity, Version::HTTP_2));
        look(&mut connections, 10 * LOOKS);
        assert_eq!(stage(&activity), Stage::Open);
        connections.end();
        assert_eq!(stage(&activity), Stage::Ending);
    }

    #[test]
    fn task_is_told_of_each_new_stage_once() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let mut connections = Connections::new(None);
        let activity = connections.add(Instant::now());
        let count = Arc::new(Count(AtomicUsize::new(0)));
        activity.stage(&Waker::from(Arc::clone(&count)), &mut None);
        connections.end();
        connections.end();
        assert_eq!(count.0.load(SeqCst), 1);
        look(&mut connections, LOOKS + GRACE + 1);
        assert_eq!(count.0.load(SeqCst), 2);
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn old_http_2_connection_is_told_and_after_its_grace_cut() {
        let start = Instant::now();
        let mut connections = Connections::new(MaxAge::new(10 * MINUTE, MINUTE));
        let activity = connections.add(start);
        let _busy = Busy::new(&activity, Version::HTTP_2);
        connections.age(start + 9 * MINUTE - Duration::from_millis(1));
        assert_eq!(stage(&activity), Stage::Open);
        let told = start + 11 * MINUTE;
        connections.age(told);
        assert_eq!((activity.is_old(), stage(&activity)), (true, Stage::Open), "a request may be on its way");
        connections.age(told + ON_THE_WAY);
        assert_eq!(stage(&activity), Stage::Ending);
        connections.age(told + MINUTE - Duration::from_millis(1));
        assert_eq!(stage(&activity), Stage::Ending, "what has begun goes on");
        connections.age(told + MINUTE);
        assert_eq!(stage(&activity), Stage::Cut);

        let mut connections = Connections::new(MaxAge::new(10 * MINUTE, Duration::ZERO));
        let activity = connections.add(start);
        drop(Busy::new(&activity, Version::HTTP_2));
        (1..100).for_each(|times| connections.age(start + times * 10 * MINUTE));
        assert_eq!(stage(&activity), Stage::Ending, "without a limit for what has begun it is never cut");
    }

    #[test]
    fn old_http_1_connection_is_never_closed_but_by_the_next_answer() {
        let start = Instant::now();
        let mut connections = Connections::new(MaxAge::new(MINUTE, MINUTE));
        let activity = connections.add(start);
        drop(Busy::new(&activity, Version::HTTP_11));
        connections.age(start + Duration::from_secs(53));
        assert!(!activity.is_old());
        let busy = Busy::new(&activity, Version::HTTP_11);
        for times in 2..20 {
            connections.age(start + times * MINUTE);
            assert_eq!((activity.is_old(), stage(&activity)), (true, Stage::Open));
        }
        drop(busy);
    }

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        assert_eq!(MaxAge::new(Duration::ZERO, MINUTE), None);
        let max_age = MaxAge::new(10 * MINUTE, MINUTE).unwrap();
        assert_eq!(max_age.of_one(0), 9 * MINUTE);
        assert!(max_age.of_one(u64::MAX) <= 11 * MINUTE);
        let start = Instant::now();
        let mut connections = Connections::new(Some(max_age));
        let kept: Vec<_> = (0..1000).map(|_| connections.add(start)).collect();
        connections.age(start + 10 * MINUTE);
        let old = kept.iter().filter(|activity| activity.is_old()).count();
        assert!((400..600).contains(&old), "{old}");
        connections.age(start + 11 * MINUTE);
        assert!(kept.iter().all(|activity| activity.is_old()));
    }

    #[test]
    fn connections_that_are_gone_are_forgotten() {
        let mut connections = Connections::new(None);
        drop(connections.add(Instant::now()));
        look(&mut connections, 1);
        assert!(connections.all.is_empty());
    }
}
