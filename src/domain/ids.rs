//! Names and numbers that identify things: models, versions, labels, requests, shares of traffic.

use std::{fmt, num::NonZeroU64, str::FromStr, sync::Arc};

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
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Longer ids are refused: an id is kept in logs, spans and the feedback index.
    pub const MAX_BYTES: usize = 1024;

    /// The client's id, or a new UUIDv7 (RFC 9562, ordered by time) when it gave none.
    ///
    /// # Errors
    /// When the id is longer than [`RequestId::MAX_BYTES`].
    pub fn given_or_new(given: &str) -> Result<Self, IdError> {
        match given.len() {
            0 => Ok(Self(uuid::Uuid::now_v7().to_string().into())),
            1..=Self::MAX_BYTES => Ok(Self(given.into())),
            _ => Err(IdError::RequestId),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
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
        assert!(RequestId::given_or_new(&"x".repeat(1025)).is_err());
    }
}
