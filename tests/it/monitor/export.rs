//! The bounds: rows that are counted in a second, and series that are exported.

use super::{drift, feature, repository, rows, send, start, usual};
use crate::harness::sample;

#[test]
fn rows_beyond_the_bound_are_left_out_and_every_row_is_one_or_the_other() {
    let repository = repository(1);
    let gateway = start(&repository, "max_rows_per_second = 200");
    for _ in 0..20 {
        send(&gateway, &usual(100));
    }
    let counted = rows(&drift(&gateway, "?window=1h"));
    let left_out = gateway.metric("tidegate_monitor_left_out_rows_total", &[]).unwrap();
    assert_eq!(counted as f64 + left_out, 2000.0);
    assert!(left_out > 0.0 && counted >= 200, "{counted}");
    let observed = gateway.metric("tidegate_feature_observations_total", &[("feature", "s")]);
    assert_eq!(observed, Some(counted as f64));
}

#[test]
fn features_that_are_not_exported_are_in_the_report_all_the_same() {
    let observed = "tidegate_feature_observations_total";
    for (settings, exported, is_dropped) in [
        ("", vec!["s", "t", "x", "y"], false),
        ("export = [\"x\", \"t\"]", vec!["t", "x"], false),
        ("max_series = 100", vec!["x"], true),
        ("max_series = 0", vec!["s", "t", "x", "y"], false),
        ("export = [\"s\"]\nmax_series = 10", vec![], true),
    ] {
        let repository = repository(1);
        let gateway = start(&repository, settings);
        send(&gateway, &usual(100));
        let text = gateway.metrics();
        let dropped = gateway.metric("tidegate_monitor_series_dropped", &[]).unwrap();
        let is_exported = |name: &&str| sample(&text, observed, &[("feature", *name)]).is_some();
        let found: Vec<_> = ["s", "t", "x", "y"].into_iter().filter(is_exported).collect();
        assert_eq!((found, dropped > 0.0), (exported, is_dropped), "{settings}: {dropped} dropped");
        let report = drift(&gateway, "");
        for name in ["x", "s", "y", "t"] {
            assert_eq!(feature(&report, name)["rows"], 100, "{settings}");
        }
    }
}
