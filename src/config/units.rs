//! Values with units in the configuration: durations ("250ms") and sizes ("64MiB").

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// A duration, written with its unit: `250ms`, `5s`, `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes, written with its unit: `64MiB`, `1GB`, `512B`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|_| {
            format!("'{text}' is not a duration: write a number with a unit, such as \"250ms\", \"5s\" or \"1h\"")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 24 * 60 * 60;
        match (self.0.as_secs() / DAY, self.0) {
            // Not `1day`, which nobody writes.
            (days, whole) if days > 0 && whole == Duration::from_secs(days * DAY) => write!(f, "{days}d"),
            _ => humantime::format_duration(self.0).fmt(f),
        }
    }
}

/// Units of sizes, largest first within each family; a bare `B` last.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is not a size: write a whole number with a unit, such as \"64MiB\" or \"1GB\"");
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, bytes)| text.strip_suffix(name).map(|number| (number.trim(), *bytes)))
            .ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) =
            UNITS.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit)).copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

macro_rules! as_string {
    ($type:ident, $description:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($description)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "description": $description, "pattern": $pattern})
            }
        }
    };
}

as_string!(Span, "a duration with its unit, such as \"250ms\", \"5s\" or \"1h\"", r"^\s*(\d+\s*[a-zA-Zµ]+\s*)+$");
as_string!(ByteSize, "a size with its unit, such as \"64MiB\" or \"1GB\"", r"^\d+\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_trip() {
        for (text, bytes) in [("64MiB", 64 << 20), ("1GB", 1_000_000_000), ("512B", 512), ("0B", 0)] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, text));
        }
        for bad in ["64", "MiB", "-1MiB", "1.5GiB", "99999999999TiB", ""] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!("250ms".parse::<Span>().unwrap().0, Duration::from_millis(250));
        assert!("250".parse::<Span>().is_err());
    }

    #[test]
    fn number_without_quotes_is_refused_with_an_example() {
        #[derive(Debug, Deserialize)]
        struct Both {
            #[expect(dead_code, reason = "only read")]
            delay: Option<Span>,
            #[expect(dead_code, reason = "only read")]
            size: Option<ByteSize>,
        }
        for (text, words) in [
            ("delay = 5", "integer `5`, expected a duration with its unit, such as \"250ms\""),
            ("delay = 0.5", "expected a duration with its unit"),
            ("size = 64", "integer `64`, expected a size with its unit, such as \"64MiB\""),
            ("delay = \"5\"", "'5' is not a duration"),
        ] {
            let error = toml::from_str::<Both>(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(toml::from_str::<Both>("delay = \"5ms\"\nsize = \"1kB\"").is_ok());
    }
}
