//! Events on their way to a reader: picked, bounded, and kept alive while nothing happens.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use http_body::Frame;
use http_body_util::{Either, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

use super::{AdminError, wire};
use crate::{
    domain::ModelName,
    events::{Event, Events, Next, Topic},
    protocol::http::server::PlaneBody,
};

/// Readers at once; more are refused.
const MOST: usize = 64;
/// Events that wait for a reader's connection, beside those on the bus.
const AHEAD: usize = 16;
/// How long a reader hears nothing at most: proxies close what is silent.
const SILENCE: Duration = Duration::from_secs(15);

/// Which events a reader wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub model: Option<ModelName>,
    pub topic: Option<Topic>,
}

impl EventFilter {
    fn takes(&self, event: &Event) -> bool {
        self.model.as_ref().is_none_or(|model| *model == event.model)
            && self.topic.is_none_or(|topic| topic == event.topic)
    }
}

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Told {
    Event(Event),
    Missed(u64),
    /// Nothing happened for a while.
    Alive,
}

/// The events that `filter` takes, from now until the reader goes away or the gateway stops.
pub(super) fn follow(
    events: &Events,
    filter: EventFilter,
    stopping: CancellationToken,
) -> Result<ReceiverStream<Told>, AdminError> {
    let Some(mut listener) = events.listen_among(MOST) else { return Err(AdminError::TooManyReaders(MOST)) };
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            let told = tokio::select! {
                next = listener.next() => match next {
                    Some(Next::Event(event)) if filter.takes(&event) => Told::Event(event),
                    Some(Next::Event(_)) => continue,
                    Some(Next::Missed(missed)) => Told::Missed(missed),
                    None => return,
                },
                () = tokio::time::sleep(SILENCE) => Told::Alive,
                () = sender.closed() => return,
                () = stopping.cancelled() => return,
            };
            // A reader that takes nothing holds up its own events only, and misses the oldest.
            let sent = tokio::select! {
                sent = sender.send(told) => sent,
                () = stopping.cancelled() => return,
            };
            if sent.is_err() {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// The answer to `GET /admin/v1/events`, after the HTML standard's server-sent events.
pub(super) fn answer(told: ReceiverStream<Told>) -> Response<PlaneBody> {
    // Something at once, so that the reader knows that it is connected.
    let hello = tokio_stream::once(Bytes::from_static(b": events follow\n\n"));
    let frames = hello.chain(told.map(|told| text(&told))).map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let mut response = Response::new(Either::Right(tonic::body::Body::new(StreamBody::new(frames))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn text(told: &Told) -> Bytes {
    let (name, data) = match told {
        Told::Event(event) => (event.topic.as_str(), serde_json::to_string(&wire::Event::from(event))),
        Told::Missed(missed) => ("missed", serde_json::to_string(&wire::Missed { missed: *missed })),
        Told::Alive => return Bytes::from_static(b": nothing new\n\n"),
    };
    // JSON has no line breaks, which would end the data.
    let data = data.expect("wire types have text keys and no failing serializer");
    format!("event: {name}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn event(model: &str, topic: Topic) -> Event {
        Event::new(topic, &model.parse().unwrap(), "promote", "line 1\nline 2")
    }

    #[tokio::test]
    async fn reader_gets_what_its_filter_takes_until_the_gateway_stops() {
        let (events, stopping) = (Events::default(), CancellationToken::new());
        let filter = EventFilter { model: Some("m".parse().unwrap()), topic: Some(Topic::Release) };
        let told = follow(&events, filter, stopping.clone()).unwrap();
        for (model, topic) in [("other", Topic::Release), ("m", Topic::Version), ("m", Topic::Release)] {
            events.publish(event(model, topic));
        }
        let mut body = answer(told).into_body();
        let mut frame = async || body.frame().await.map(|frame| frame.unwrap().into_data().unwrap());
        assert_eq!(frame().await.unwrap(), ": events follow\n\n");
        let first = String::from_utf8(frame().await.unwrap().to_vec()).unwrap();
        assert!(first.starts_with("event: release\ndata: {") && first.ends_with("}\n\n"), "{first}");
        assert_eq!(first.lines().count(), 3, "{first}");
        stopping.cancel();
        assert!(frame().await.is_none());
    }

    #[tokio::test]
    async fn number_of_readers_is_bounded_and_a_place_is_free_once_one_leaves() {
        let (events, stopping) = (Events::default(), CancellationToken::new());
        let start = || follow(&events, EventFilter::default(), stopping.clone());
        let mut readers: Vec<_> = (0..MOST).map(|_| start().unwrap()).collect();
        assert!(matches!(start(), Err(AdminError::TooManyReaders(MOST))));
        readers.pop();
        while start().is_err() {
            tokio::task::yield_now().await;
        }
    }
}
