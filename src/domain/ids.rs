//! Names and numbers that identify things: models, versions, labels, requests, shares of traffic.

use std::{
    cell::Cell,
    fmt,
    hash::{BuildHasher, RandomState},
    num::NonZeroU64,
    str::FromStr,
    sync::Arc,
};

use uuid::fmt::Hyphenated;

use super::coarse_time_of_day;

/// Why a text is not a valid identifier. The message is fit for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("'{0}' is not a model name: use 1 to 128 letters, digits, '.', '_' or '-', not starting with '.'")]
    ModelName(String),
    #[error("'{0}' is not a version: versions are whole numbers from 1")]
    Version(String),
    #[error(
        "'{0}' is not a label: use 1 to 64 letters, digits, '.', '_' or '-', with at least one that is not a digit"
    )]
    Label(String),
    #[error("{0} is not a percentage: use a number from 0 to 100")]
    Percent(String),
    #[error("the request id is longer than {max} bytes", max = RequestId::MAX_BYTES)]
    RequestId,
}

/// The name of a model: the name of its directory in the repository.
///
/// 1 to 128 characters of `[A-Za-z0-9._-]`, not starting with a dot, so that no name can
/// leave the repository or hide in it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

impl ModelName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_word(text, 128) && !text.starts_with('.') {
            Ok(Self(text.into()))
        } else {
            Err(IdError::ModelName(shown(text)))
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The version of a model: a whole number from 1, the name of its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(NonZeroU64);

impl Version {
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Version {
    type Err = IdError;

    /// Accepts digits without a leading zero, so that one version has one spelling.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        canonical.then(|| text.parse().ok()).flatten().map(Self).ok_or_else(|| IdError::Version(shown(text)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A movable name for a version ("champion"). At least one character is not a digit, so
/// that a label can never be mistaken for a version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Label {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_word(text, 64) && !text.bytes().all(|b| b.is_ascii_digit()) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Label(shown(text)))
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A share of traffic, from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// Nothing.
    pub const ZERO: Self = Self(0.0);

    /// # Errors
    /// When `value` is not a number from 0 to 100.
    pub fn new(value: f64) -> Result<Self, IdError> {
        if (0.0..=100.0).contains(&value) { Ok(Self(value)) } else { Err(IdError::Percent(value.to_string())) }
    }

    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The id of a request: the client's own, or a UUIDv7 made at the door.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Id);

/// One that is made costs no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Id {
    Given(Arc<str>),
    Made([u8; Hyphenated::LENGTH]),
}

impl RequestId {
    /// Longer ids are refused: an id is kept in logs, spans and the feedback index.
    pub const MAX_BYTES: usize = 1024;

    /// The client's id, or a new UUIDv7 (RFC 9562, ordered by time) when it gave none.
    ///
    /// # Errors
    /// When the id is longer than [`RequestId::MAX_BYTES`].
    pub fn given_or_new(given: &str) -> Result<Self, IdError> {
        match given.len() {
            0 => {
                let mut text = [0; Hyphenated::LENGTH];
                new_uuid().hyphenated().encode_lower(&mut text);
                Ok(Self(Id::Made(text)))
            }
            1..=Self::MAX_BYTES => Ok(Self(Id::Given(given.into()))),
            _ => Err(IdError::RequestId),
        }
    }

    /// # Panics
    /// Never: an id that is made is ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Id::Given(text) => text,
            Id::Made(text) => std::str::from_utf8(text).expect("a UUID is hexadecimal digits and hyphens"),
        }
    }

    /// Made here, so that no other request has it. A client may give many requests one id.
    #[must_use]
    pub fn is_made(&self) -> bool {
        matches!(self.0, Id::Made(_))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

thread_local! {
    /// The time of this thread's last id, and the state of its random numbers.
    static LAST: Cell<(u64, u64)> = Cell::new((0, RandomState::new().hash_one(0)));
}

/// A new UUIDv7. An id is no secret: it needs to be unlike all others, not hard to guess, so that
/// each thread makes its own, without a lock and without asking the system for randomness
/// (`Uuid::now_v7` does both). Those of one thread are ordered by their milliseconds.
fn new_uuid() -> uuid::Uuid {
    let now = coarse_time_of_day();
    let (last, state) = LAST.get();
    // A clock that is set back must not break the order.
    let millis = last.max(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let (high, state) = split_mix(state);
    let (low, state) = split_mix(state);
    LAST.set((millis, state));
    let mut random = [0; 10];
    random[..8].copy_from_slice(&high.to_le_bytes());
    random[8..].copy_from_slice(&low.to_le_bytes()[..2]);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// The next random number and state (`SplitMix64`, Steele and others 2014).
fn split_mix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31), state)
}

fn is_word(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// A refused text as it may be shown: short, and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_name_refuses_what_could_leave_the_repository() {
        for bad in ["", "..", ".hidden", "a/b", "a\\b", "a b", "ä", "a\0b", &"x".repeat(129)] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?}");
        }
        for good in ["fraud", "car_loan", "resnet-50", "a.b", "7"] {
            assert_eq!(good.parse::<ModelName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn version_has_one_spelling() {
        for bad in ["", "0", "01", "-1", "+1", "1.0", " 1", "99999999999999999999999"] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
        assert_eq!("12".parse::<Version>().unwrap().get(), 12);
    }

    #[test]
    fn label_cannot_look_like_a_version() {
        assert!("3".parse::<Label>().is_err());
        assert!("v3".parse::<Label>().is_ok());
    }

    #[test]
    fn percent_refuses_what_is_no_share() {
        for bad in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert!(Percent::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Percent::new(12.5).unwrap().to_string(), "12.5");
    }

    #[test]
    fn request_id_is_kept_or_made() {
        assert_eq!(RequestId::given_or_new("abc").unwrap().as_str(), "abc");
        assert_eq!(RequestId::given_or_new("").unwrap().as_str().len(), 36);
        assert!(RequestId::given_or_new("").unwrap().is_made() && !RequestId::given_or_new("abc").unwrap().is_made());
        assert!(RequestId::given_or_new(&"x".repeat(1025)).is_err());
    }

    #[test]
    fn request_ids_of_all_threads_differ_and_are_uuids_of_version_7() {
        let make = || (0..10_000).map(|_| new_uuid()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(make)).collect();
        let mut all = std::collections::HashSet::new();
        for thread in threads {
            let ids = thread.join().unwrap();
            assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
            assert!(ids.is_sorted_by_key(|id| id.as_u128() >> 80), "in the order of time");
            all.extend(ids);
        }
        assert_eq!(all.len(), 40_000);
    }
}
