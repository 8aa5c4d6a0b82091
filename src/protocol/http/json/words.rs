//! The words that are values: JSON's own three, and those for numbers that are not finite.

/// The last three are beyond JSON.
pub(super) const VALUES: [&str; 6] = ["true", "false", "null", "NaN", "Infinity", "-Infinity"];

/// The number that is not finite at the beginning of `text`, and its word. `null` is one: JSON has no other way to say that a
/// number is missing.
pub(super) fn nonfinite(text: &str) -> Option<(&'static str, f64)> {
    let words = [("NaN", f64::NAN), ("null", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)];
    words.into_iter().find(|(word, _)| text.starts_with(word))
}

/// The way to write it, where `text` begins with what other languages have for a number that is missing or not finite.
pub(super) fn for_misspelt(text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches(['-', '+']).as_bytes();
    let is = |word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let is_such = [&b"nan"[..], b"inf", b"none", b"null", b"nil", b"undefined", b"na,", b"na]"].into_iter().any(is);
    is_such.then_some(
        "expected value: a number that is missing is null or NaN here, others that are not finite are Infinity and -Infinity, all \
         without quotes,",
    )
}
