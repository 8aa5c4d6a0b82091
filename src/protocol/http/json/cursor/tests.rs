//! Places in JSON text, and what is refused where.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Any JSON value, written by another hand.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn is_json(text: &str) -> bool {
    let mut cursor = Cursor::new(text);
    cursor.skip().and_then(|()| cursor.end()).is_ok()
}

#[test]
fn skip_knows_the_grammar() {
    for good in [
        "NaN",
        "[Infinity,-Infinity]",
        "1",
        "-0",
        "0.5e-3",
        "[ ]",
        "{}",
        "[[],{},\"\"]",
        r#"{"a":[1,{"b":null}]}"#,
        r#""\u00e4\n""#,
    ] {
        assert!(is_json(good), "{good}");
    }
    for bad in [
        "",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "{1:2}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "]",
        "01",
        "1.",
        ".5",
        "-",
        "+1",
        "1e",
        "nan",
        "-NaN",
        "Infinit",
        "-Inf",
        "NaNs",
        "nul",
        "truex",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\n\"",
        "[}",
        "1 2",
    ] {
        assert!(!is_json(bad), "{bad}");
    }
}

#[test]
fn fault_is_told_with_its_place() {
    let text = "{\n \"a\": x}";
    let fault = Cursor::new(text).skip().unwrap_err();
    assert_eq!(fault.refusal(text).to_string(), "the request is not valid JSON: expected value at line 2 column 7");
}

proptest! {
    #[test]
    fn value_of_another_writer_is_skipped_to_its_end(value in any_json(), is_pretty in any::<bool>()) {
        let text = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        prop_assert!(is_json(&text.unwrap()));
    }

    #[test]
    fn text_is_json_where_serde_finds_it_so(text in r#"[\[\]{}:, "\\a0-9.eEtrufalsn\n-]{0,16}"#) {
        let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        prop_assert_eq!(is_json(&text), theirs, "{:?}", text);
    }

    #[test]
    fn plain_length_is_that_of_a_simple_search(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let simple = bytes.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
        prop_assert_eq!(plain_length(&bytes), simple.unwrap_or(bytes.len()));
    }
}
