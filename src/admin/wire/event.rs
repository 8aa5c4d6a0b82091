//! Events as JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::timestamp;
use crate::events;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// RFC 3339, UTC.
    pub at: String,
    /// `release`, `version`, `drift` or `rollout`.
    pub topic: String,
    pub model: String,
    pub version: Option<u64>,
    /// The topic's own word, such as an operation (`promote`) or a state (`ready`).
    pub what: String,
    /// One line for people.
    pub message: String,
}

/// The data of the event `missed`: the reader was too slow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Missed {
    /// How many events went by unread.
    pub missed: u64,
}

impl From<&events::Event> for Event {
    fn from(event: &events::Event) -> Self {
        Self {
            at: timestamp(event.at),
            topic: event.topic.as_str().to_owned(),
            model: event.model.to_string(),
            version: event.version.map(crate::domain::Version::get),
            what: event.what.clone(),
            message: event.message.clone(),
        }
    }
}
