//! What is a profile and what is not.

use super::*;

const GOOD: &str = r#"{"format": 2, "rows": 10, "features": [
    {"tensor": "x", "column": 0, "feature": "age", "role": "input", "rows": 10, "missing": 1, "nonfinite": 2,
     "kind": {"numeric": {"min": 0.1, "max": 9, "mean": 4, "std": 2, "edges": [0.30000000000000004], "counts": [3, 4]}}},
    {"tensor": "y", "column": 0, "feature": "y", "role": "output", "rows": 10, "missing": 0, "nonfinite": 0,
     "kind": {"categorical": {"categories": [{"value": "a", "count": 5}, {"value": "b", "count": 3}], "other": 2}}}]}"#;

fn refusal(from: &str, to: &str) -> String {
    let json = GOOD.replacen(from, to, 1);
    assert_ne!(json, GOOD, "{from}");
    Profile::parse(json.as_bytes()).unwrap_err().to_string()
}

#[test]
fn profile_survives_its_file_to_the_bit() {
    let profile = Profile::parse(GOOD.as_bytes()).unwrap();
    assert_eq!(Profile::parse(profile.to_json().unwrap().as_bytes()).unwrap(), profile);
}

#[test]
fn model_that_a_profile_was_learnt_from_is_in_its_file_where_there_is_one() {
    let profile = Profile::parse(GOOD.as_bytes()).unwrap();
    assert!(profile.learnt_from.is_none() && !profile.to_json().unwrap().contains("learnt_from"));
    let learnt = Profile { learnt_from: Some("sha256:\"1\"".into()), ..profile };
    assert_eq!(Profile::parse(learnt.to_json().unwrap().as_bytes()).unwrap(), learnt);
}

#[test]
fn profile_of_the_first_format_is_read() {
    let first = Profile::parse(GOOD.replacen("\"format\": 2", "\"format\": 1", 1).as_bytes()).unwrap();
    assert_eq!(first.features, Profile::parse(GOOD.as_bytes()).unwrap().features);
}

#[test]
fn profile_says_which_format_it_needs() {
    let profile = Profile::parse(GOOD.as_bytes()).unwrap();
    assert!(profile.to_json().unwrap().contains("\"format\": 2,"), "older programs read it");
    let rare = GOOD.replacen(r#""other": 2"#, r#""other": 2, "rare": "2d06800538d394c2e6c632b61e964e1f""#, 1);
    let profile = Profile::parse(rare.as_bytes()).unwrap();
    let json = profile.to_json().unwrap();
    assert!(json.contains("\"format\": 3,"), "{json}");
    assert_eq!(Profile::parse(json.as_bytes()).unwrap(), profile);
}

#[test]
fn buckets_and_precision_need_the_fourth_format_and_are_checked() {
    let zeros = |last: u64| {
        let counts: Vec<String> = (0..63).map(|_| "0".to_owned()).chain([last.to_string()]).collect();
        counts.join(",")
    };
    let with = |buckets: &str| GOOD.replacen(r#""other": 2"#, &format!(r#""other": 2, "buckets": {buckets}"#), 1);
    let good = with(&format!(r#"{{"counts": [{}], "once": 1}}"#, zeros(1)));
    let profile = Profile::parse(good.as_bytes()).unwrap();
    let json = profile.to_json().unwrap();
    assert!(json.contains("\"format\": 4,"), "{json}");
    assert_eq!(Profile::parse(json.as_bytes()).unwrap(), profile);
    let refusal_of = |json: String| Profile::parse(json.as_bytes()).unwrap_err().to_string();
    for (counts, once) in [(zeros(2), 1), (zeros(1), 0), (zeros(u64::MAX), 3)] {
        let said = refusal_of(with(&format!(r#"{{"counts": [{counts}], "once": {once}}}"#)));
        assert!(said.contains("do not add up to its 2 other rows"), "{said}");
    }
    assert!(refusal_of(with(r#"{"counts": [1], "once": 1}"#)).contains("1 buckets, expected 64"));
    let rounded = GOOD.replacen(r#""nonfinite": 2,"#, r#""nonfinite": 2, "precision": "fp32","#, 1);
    let profile = Profile::parse(rounded.as_bytes()).unwrap();
    let json = profile.to_json().unwrap();
    assert!(json.contains("\"format\": 4,"), "{json}");
    assert_eq!(Profile::parse(json.as_bytes()).unwrap(), profile);
    let of_texts = GOOD.replacen(r#""nonfinite": 0,"#, r#""nonfinite": 0, "precision": "fp32","#, 1);
    assert!(refusal_of(of_texts).contains("only numbers have a precision"));
}

#[test]
fn column_without_a_value_is_a_feature_of_the_latest_format() {
    let empty = GOOD.replacen(r#""missing": 1, "nonfinite": 2"#, r#""missing": 8, "nonfinite": 2"#, 1).replacen(
        r#""edges": [0.30000000000000004], "counts": [3, 4]"#,
        r#""edges": [], "counts": [0]"#,
        1,
    );
    let profile = Profile::parse(empty.as_bytes()).unwrap();
    assert!(profile.features[0].is_empty() && !profile.features[1].is_empty());
    let json = profile.to_json().unwrap();
    assert!(json.contains("\"format\": 4,"), "{json}");
    assert_eq!(Profile::parse(json.as_bytes()).unwrap(), profile);
    let none =
        empty.replacen(r#""rows": 10, "missing": 8, "nonfinite": 2"#, r#""rows": 0, "missing": 0, "nonfinite": 0"#, 1);
    assert!(Profile::parse(none.as_bytes()).unwrap_err().to_string().contains("no value to compare with"));
}

#[test]
fn fine_bins_that_are_not_parts_of_the_bins_are_refused() {
    let with = |fine: &str| refusal(r#""counts": [3, 4]"#, &format!(r#""counts": [3, 4], "fine": {fine}"#));
    let whole = GOOD.replacen(
        r#""counts": [3, 4]"#,
        r#""counts": [3, 4], "fine": {"edges": [0.30000000000000004, 5], "counts": [3, 3, 1], "means": [0.2, 1, 6]}"#,
        1,
    );
    assert!(Profile::parse(whole.as_bytes()).is_ok());
    let not_parts = with(r#"{"edges": [0.4], "counts": [3, 4], "means": [0.2, 1]}"#);
    assert!(not_parts.contains("not parts of its bins"), "{not_parts}");
    let other_sums = with(r#"{"edges": [0.30000000000000004], "counts": [4, 3], "means": [0.2, 1]}"#);
    assert!(other_sums.contains("not parts of its bins"), "{other_sums}");
    let few_means = with(r#"{"edges": [0.30000000000000004], "counts": [3, 4], "means": [0.2]}"#);
    assert!(few_means.contains("a mean each"), "{few_means}");
}

#[test]
fn profile_numbers_survive_their_text_to_the_bit() {
    for bits in (0..10_000_u64).map(|i| 0x3fd3_3333_3333_3333 ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 14) {
        let number = f64::from_bits(bits);
        let text = serde_json::to_string(&number).unwrap();
        assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), bits, "{text}");
    }
}

#[test]
fn profile_that_contradicts_itself_is_refused_in_words() {
    let cases = [
        (r#""format": 2"#, r#""format": 5"#, "format 5, this program reads formats 1 to 4"),
        (r#""other": 2"#, r#""other": 2, "rare": "abc""#, "not hashes of 16 hexadecimal digits"),
        (r#""rows": 10, "f"#, r#""lines": 10, "f"#, "unknown field `lines`"),
        ("[3, 4]", "[3, 5]", "feature 'age' of 'x': its counts do not add up to its 10 rows"),
        ("[3, 4]", "[3, 18446744073709551615]", "do not add up"),
        ("[3, 4]", "[7]", "it has 1 counts for 1 edges, expected one more"),
        (r#"[0.30000000000000004], "counts": [3, 4]"#, r#"[1, 1], "counts": [3, 4, 0]"#, "edges do not ascend"),
        (r#""max": 9"#, r#""max": -9"#, "the range 0.1 to -9"),
        (r#""value": "a""#, r#""value": "c""#, "not sorted"),
        (r#""value": "a""#, r#""value": """#, "counts as missing"),
        (
            r#""tensor": "y", "column": 0, "feature": "y""#,
            r#""tensor": "x", "column": 1, "feature": "age""#,
            "'age' of tensor 'x' is listed twice",
        ),
        (
            r#""tensor": "y", "column": 0, "feature": "y", "role": "output""#,
            r#""tensor": "x", "column": 0, "feature": "y", "role": "input""#,
            "column 0 of tensor 'x' is listed twice",
        ),
    ];
    for (from, to, message) in cases {
        let refused = refusal(from, to);
        assert!(refused.contains(message), "{refused:?} should say {message:?}");
    }
}

#[test]
fn profile_with_several_faults_names_them_all() {
    let json = GOOD.replace("[3, 4]", "[9, 4]").replace(r#""count": 5"#, r#""count": 50"#);
    let refused = Profile::parse(json.as_bytes()).unwrap_err().to_string();
    assert_eq!(refused.matches("do not add up").count(), 2, "{refused}");
}

#[test]
fn profile_from_any_bytes_never_panics() {
    for junk in [&b""[..], b"{}", b"[]", b"\xff\xfe", b"{\"format\":1}", b"{\"format\":-1}"] {
        assert!(Profile::parse(junk).is_err());
    }
}
