//! The literals `NaN`, `Infinity` and `-Infinity` in a golden request, which Python's `json` writes and serde does not read.
//!
//! Each becomes a text as long as itself, quotes included, so that a place in the text read by serde is the same place in the
//! file.

use std::borrow::Cow;

/// The literals, and the quoted texts of their length.
const LITERALS: [(&[u8], &[u8]); 3] =
    [(b"NaN", b"\"N\""), (b"-Infinity", b"\"-Infini\""), (b"Infinity", b"\"Infini\"")];

/// `text` with all literals quoted; borrowed where it has none.
pub(super) fn quoted(text: &[u8]) -> Cow<'_, [u8]> {
    let mut quoted = Cow::Borrowed(text);
    let (mut at, mut is_in_string) = (0, false);
    while let Some(&byte) = text.get(at) {
        let literal = LITERALS.iter().find(|(literal, _)| !is_in_string && text[at..].starts_with(literal));
        at += match (byte, literal) {
            (_, Some((literal, text))) => {
                quoted.to_mut()[at..at + literal.len()].copy_from_slice(text);
                literal.len()
            }
            (b'\\', _) if is_in_string => 2,
            (b'"', _) => {
                is_in_string = !is_in_string;
                1
            }
            _ => 1,
        };
    }
    quoted
}

/// What stands in `text` where `part` stands in `quoted`, of which it is a slice.
pub(super) fn original<'a>(text: &'a [u8], quoted: &[u8], part: &str) -> &'a [u8] {
    let start = part.as_ptr() as usize - quoted.as_ptr() as usize;
    &text[start..start + part.len()]
}

/// A number that is not finite, as its literal reads once it was quoted.
pub(super) fn of(value: f64) -> &'static str {
    match value {
        value if value.is_nan() => "N",
        value if value > 0.0 => "Infini",
        _ => "-Infini",
    }
}

pub(super) fn is_one(text: &str) -> bool {
    unquoted(text) != text
}

/// The literal again, for people.
pub(super) fn unquoted(text: &str) -> &str {
    match text {
        "N" => "NaN",
        "Infini" => "Infinity",
        "-Infini" => "-Infinity",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_outside_of_texts_are_quoted_in_place() {
        for (text, expected) in [
            ("[NaN, -Infinity,Infinity]", r#"["N", "-Infini","Infini"]"#),
            (r#"{"NaN": ["a\"NaN", "\\", NaN]}"#, r#"{"NaN": ["a\"NaN", "\\", "N"]}"#),
            ("[1, null]", "[1, null]"),
            (r#"["unfinished \"#, r#"["unfinished \"#),
        ] {
            let quoted = quoted(text.as_bytes());
            assert_eq!(std::str::from_utf8(&quoted).unwrap(), expected);
            assert_eq!(matches!(quoted, Cow::Borrowed(_)), text == expected);
        }
    }
}
