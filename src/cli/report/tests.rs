//! The page as text; `tests/clients/test_report.py` opens it in a browser.

use super::*;

fn feature(name: &str, kind: &str, bins: &[(&str, u64, u64)]) -> Feature {
    let bin = |&(bin, reference, live): &(&str, u64, u64)| Bin { bin: bin.to_owned(), reference, live };
    let checked =
        Checked { state: "drift".to_owned(), reference: 0.1, live: 0.221, threshold: 0.115, design_effect: None };
    Feature {
        tensor: "input".to_owned(),
        feature: name.to_owned(),
        kind: kind.to_owned(),
        rows: 12_345,
        missing: 3,
        state: "drift".to_owned(),
        rare_bin: None,
        threshold: Some(0.03),
        design_effect: Some(4.5),
        effective_rows: Some(2743.0),
        psi_interval: Some([0.4, 0.6]),
        measures: Measures { psi: Some(0.51), psi_corrected: Some(0.5), p_value: Some(1e-9), ..Measures::default() },
        quality: Quality { state: "drift".to_owned(), missing: Some(checked), ..Quality::default() },
        bins: bins.iter().map(bin).collect(),
    }
}

fn report() -> DriftReport {
    let many: Vec<_> = (0..40).map(|_| ("<b>", 5, 1)).collect();
    DriftReport {
        model: "fraud".to_owned(),
        version: 2,
        window: "5m".to_owned(),
        rows: 12_345,
        min_rows: 200,
        state: "drift".to_owned(),
        alpha: 1e-7,
        against: "profile".to_owned(),
        segment: "country=<script>".to_owned(),
        segments: Vec::new(),
        multivariate: None,
        learning: None,
        features: vec![
            feature("age", "numeric", &[("0", 50, 100), ("1", 50, 0), ("above", 0, 0)]),
            feature("\"><script>alert('x')</script>&", "categorical", &[("<i>de</i>", 50, 1), ("fr", 50, 99)]),
            feature("many", "categorical", &many),
            feature("none", "numeric", &[]),
        ],
    }
}

#[test]
fn page_has_every_feature_and_what_is_known_of_it() {
    let page = page(&report(), SystemTime::UNIX_EPOCH);
    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
    assert_eq!(page.matches("<section class=\"feature\"").count(), 4);
    for text in [
        "Drift of fraud version 2",
        "12,345",
        "1970-01-01 00:00:00 UTC",
        ">age</a>",
        "0.5000",
        "0.400 – 0.600",
        "1.0e-9",
        "4.5000",
        "2743",
        "10.0 → 22.1 %",
        "10.0 % → 22.1 %",
        "<title>0: reference 50 (50.0 %), live 100 (100.0 %)</title>",
        "drift from 11.5 %",
    ] {
        assert!(page.contains(text), "{text}");
    }
    // Nothing is drawn of a bin that nobody saw, and only the largest of many; the table has all of those.
    assert!(!page.contains("<title>above"));
    assert_eq!(page.matches("<title>&lt;b&gt;: ").count(), 20);
    assert_eq!(page.matches("<th scope=\"row\">&lt;b&gt;</th>").count(), 40);
}

#[test]
fn page_says_that_there_are_too_few_rows_and_which_rare_bin_has_changed() {
    let rare =
        RareBin { bin: "2".to_owned(), state: "drift".to_owned(), reference: 0.002, live: 0.004, design_effect: None };
    let features = vec![Feature { rare_bin: Some(rare), ..feature("label", "categorical", &[]) }];
    let page = page(
        &DriftReport { state: "too_few_rows".to_owned(), rows: 100, features, ..report() },
        SystemTime::UNIX_EPOCH,
    );
    for text in [
        "<span class=\"state too_few_rows\">too few rows: 100 of 200</span>",
        "<title>Drift of fraud version 2: too few rows: 100 of 200</title>",
        "<dt>Rare bin 2</dt><dd class=\"drift\">0.20 % → 0.40 %</dd>",
    ] {
        assert!(page.contains(text), "{text} is not in {page}");
    }
}

#[test]
fn page_of_a_version_that_learns_says_how_far_it_is_and_shows_no_features() {
    let learning = Learning {
        rows: 120,
        min_rows: 200,
        rows_left: 80,
        since: Some("<b>.".to_owned()),
        length: "1d".to_owned(),
        earliest_end: Some("2026-01-03T03:04:05.678Z".to_owned()),
        seconds_left: 60.0,
        full: false,
    };
    let learns =
        DriftReport { state: "learning".to_owned(), features: Vec::new(), learning: Some(learning), ..report() };
    let page = page(&learns, SystemTime::UNIX_EPOCH);
    for text in ["state learning\">learning<", "120 of at least 200 rows", "since &lt;b&gt;", "1970-01-01 00:00:00 UTC"]
    {
        assert!(page.contains(text), "{text} is not in {page}");
    }
    assert!(!page.contains("<table") && !page.contains("<b>"), "{page}");
}

#[test]
fn names_never_become_markup_and_nothing_is_fetched() {
    let page = page(&report(), SystemTime::UNIX_EPOCH);
    assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("<i>de"), "{page}");
    assert!(page.contains("&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;"));
    for word in ["http:", "https:", "src=", "url(", "@import"] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn numbers_are_short_and_whole_ones_grouped() {
    assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    let numbers = [None, Some(0.0), Some(0.12345), Some(2e-5), Some(12_345.6)].map(number);
    assert_eq!(numbers, ["–", "0.0000", "0.1235", "2.0e-5", "12346"]);
}
