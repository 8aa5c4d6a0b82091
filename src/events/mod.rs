//! What happened, for whoever watches: a bounded bus from the rooms to `GET /admin/v1/events`.
//!
//! Publishing never waits, and costs next to nothing when nobody listens. A reader that is too slow
//! misses the oldest events and is told how many ([`Next::Missed`]); nothing is kept for later, the
//! audit log is what lasts.

use std::time::SystemTime;

use tokio::sync::broadcast;

use crate::domain::{ModelName, Version};

/// Events that a reader may be behind.
const CAPACITY: usize = 1024;

/// What an event is about; the name of the server-sent event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A model's release changed.
    Release,
    /// A version's state changed.
    Version,
    /// The state of a version's drift changed.
    Drift,
    /// A progressive rollout went on.
    Rollout,
}

impl Topic {
    pub const ALL: [Self; 4] = [Self::Release, Self::Version, Self::Drift, Self::Rollout];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Version => "version",
            Self::Drift => "drift",
            Self::Rollout => "rollout",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_str() == text)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub at: SystemTime,
    pub topic: Topic,
    pub model: ModelName,
    pub version: Option<Version>,
    /// The topic's own word, such as an operation (`promote`) or a state (`ready`).
    pub what: String,
    /// One line for people.
    pub message: String,
}

impl Event {
    #[must_use]
    pub fn new(topic: Topic, model: &ModelName, what: impl Into<String>, message: impl Into<String>) -> Self {
        let (what, message) = (what.into(), message.into());
        Self { at: SystemTime::now(), topic, model: model.clone(), version: None, what, message }
    }

    #[must_use]
    pub fn of_version(self, version: Version) -> Self {
        Self { version: Some(version), ..self }
    }
}

/// The bus. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }
}

impl Events {
    /// Tells all who listen now. Never waits.
    pub fn publish(&self, event: Event) {
        // An error means that nobody listens.
        let _ = self.0.send(event);
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }

    /// Listens from now on, unless `most` do already.
    #[must_use]
    pub fn listen_among(&self, most: usize) -> Option<Listener> {
        (self.0.receiver_count() < most).then(|| self.listen())
    }
}

/// One reader's place on the bus.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Event>);

/// What a reader gets next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    Event(Event),
    /// This many events went by unread.
    Missed(u64),
}

impl Listener {
    /// Waits for the next event; `None` when the bus is gone.
    pub async fn next(&mut self) -> Option<Next> {
        match self.0.recv().await {
            Ok(event) => Some(Next::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: usize) -> Event {
        Event::new(Topic::Release, &"m".parse().unwrap(), "promote", number.to_string())
    }

    #[tokio::test]
    async fn every_listener_gets_what_is_published_after_it_came() {
        let events = Events::default();
        events.publish(event(0));
        let mut listeners = [events.listen(), events.listen()];
        events.publish(event(1));
        for listener in &mut listeners {
            let Some(Next::Event(got)) = listener.next().await else { panic!("an event") };
            assert_eq!(got.message, "1");
        }
        drop(events);
        assert_eq!(listeners[0].next().await, None);
    }

    #[tokio::test]
    async fn slow_listener_is_told_how_much_it_missed() {
        let events = Events::default();
        let mut slow = events.listen();
        for number in 0..CAPACITY + 3 {
            events.publish(event(number));
        }
        assert_eq!(slow.next().await, Some(Next::Missed(3)));
        let Some(Next::Event(got)) = slow.next().await else { panic!("an event") };
        assert_eq!(got.message, "3");
    }
}
