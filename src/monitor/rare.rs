//! The rare values of a categorical feature: those that its reference had and that are none of its categories. They are
//! known by hash alone, so that they can be told from values that the reference never had.

use std::{borrow::Cow, fmt::Write, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::buckets::hash_of;

/// The hexadecimal digits of a hash.
const DIGITS: usize = 16;

/// The XXH3 hashes (64 bits, seed 0) of the bytes of rare values, ascending.
///
/// Of values that are none of them, one in 2⁶⁴ divided by their number is taken for one: of a hundred
/// thousand, 5·10⁻¹⁵. The hash is no secret, so somebody who means to can make such a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RareValues(Arc<[u64]>);

impl RareValues {
    /// More than these are not kept: 1.6 MB of a profile.
    pub const MOST: usize = 100_000;

    /// `None` when there is none, or when they are more than [`RareValues::MOST`].
    #[must_use]
    pub fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut hashes: Vec<u64> = values.map(hash_of).collect();
        hashes.sort_unstable();
        hashes.dedup();
        (1..=Self::MOST).contains(&hashes.len()).then(|| Self(hashes.into()))
    }

    #[must_use]
    pub fn contains(&self, value: &[u8]) -> bool {
        self.contains_hash(hash_of(value))
    }

    /// Whether one of them has this hash.
    pub(super) fn contains_hash(&self, hash: u64) -> bool {
        self.0.binary_search(&hash).is_ok()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl From<RareValues> for String {
    fn from(values: RareValues) -> Self {
        let mut text = Self::with_capacity(DIGITS * values.0.len());
        for hash in &*values.0 {
            // Writing to a string never fails.
            let _ = write!(text, "{hash:016x}");
        }
        text
    }
}

impl TryFrom<String> for RareValues {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hash = |digits: &[u8]| {
            let is_hash = digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit);
            let digits = std::str::from_utf8(digits).ok().filter(|_| is_hash)?;
            u64::from_str_radix(digits, 16).ok()
        };
        let hashes: Option<Vec<u64>> = text.as_bytes().chunks(DIGITS).map(hash).collect();
        let hashes = hashes.ok_or("its rare values are not hashes of 16 hexadecimal digits each")?;
        if hashes.is_empty() || hashes.len() > Self::MOST {
            return Err(format!("it has {} rare values, 1 to {} are possible", hashes.len(), Self::MOST));
        }
        if !hashes.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err("the hashes of its rare values do not ascend".into());
        }
        Ok(Self(hashes.into()))
    }
}

impl JsonSchema for RareValues {
    fn schema_name() -> Cow<'static, str> {
        "RareValues".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9a-f]{16})+$",
            "maxLength": DIGITS * Self::MOST,
            "description": "The XXH3 hashes (64 bits, seed 0) of the values' bytes, ascending, as 16 hexadecimal digits each.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(count: usize) -> Option<RareValues> {
        let values: Vec<String> = (0..count).map(|at| format!("v{at}")).collect();
        RareValues::of(values.iter().map(String::as_bytes))
    }

    #[test]
    fn values_are_known_by_their_hashes_and_survive_their_text() {
        let rare = many(1000).unwrap();
        assert!((0..1000).all(|at| rare.contains(format!("v{at}").as_bytes())));
        assert!(!(1000..100_000).any(|at| rare.contains(format!("v{at}").as_bytes())));
        let text = String::from(rare.clone());
        assert_eq!((text.len(), RareValues::try_from(text)), (16_000, Ok(rare)));
    }

    #[test]
    fn hash_is_that_of_the_reference_implementation() {
        // `printf '' | xxhsum -H3`, and of "a".
        let text = |value: &[u8]| String::from(RareValues::of([value].into_iter()).unwrap());
        assert_eq!([text(b""), text(b"a")], ["2d06800538d394c2", "e6c632b61e964e1f"]);
    }

    #[test]
    fn none_and_too_many_are_not_kept() {
        assert_eq!(many(0), None);
        assert!(many(RareValues::MOST).is_some());
        assert_eq!(many(RareValues::MOST + 1), None);
    }

    #[test]
    fn text_that_is_no_list_of_hashes_is_refused() {
        let fault = |text: &str| RareValues::try_from(text.to_owned()).unwrap_err();
        for text in ["0123", "+123456789abcdef", "0123456789abcdeg", "é23456789abcdef0123456789abcdefgh"] {
            assert!(fault(text).contains("16 hexadecimal digits"), "{text}");
        }
        assert!(fault("").contains("it has 0 rare values"));
        assert!(fault(&"0".repeat(32)).contains("do not ascend"));
    }
}
