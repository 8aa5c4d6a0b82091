//! The requests of a model's versions by outcome.

use comfy_table::{Cell, Color};

use super::{NONE, Table};
use crate::{
    admin::wire::{ModelStatus, RecentTraffic, Traffic, VersionStatus},
    cli::output::Look,
};

/// A table with a line for each version that had requests, and what failed before it reached one; empty where there was
/// nothing.
pub(super) fn traffic(model: &ModelStatus, look: Look) -> String {
    let busy: Vec<_> = model.versions.iter().filter(|version| version.traffic.requests > 0).collect();
    let mut text = String::new();
    if !busy.is_empty() {
        text = format!("\n{}", table(&busy, look));
    }
    let unrouted = model.unrouted;
    if unrouted.errors + unrouted.refusals > 0 {
        let (refusals, errors) = (unrouted.refusals, unrouted.errors);
        text.push_str(&format!("\nbefore a version was chosen: {refusals} requests refused, {errors} failed\n"));
    }
    text
}

fn table(versions: &[&VersionStatus], look: Look) -> String {
    let headers = ["VERSION", "REQUESTS", "ERRORS", "REFUSED", "LAST", "RATE", "ERRORS", "REFUSED", "P50", "P99"];
    let mut table = Table::new(&headers, look);
    for column in 0..headers.len() {
        table.right(column);
    }
    for version in versions {
        let Traffic { requests, errors, refusals, ref recent, .. } = version.traffic;
        let recently = |show: &dyn Fn(&RecentTraffic) -> String| recent.as_ref().map_or_else(|| NONE.to_owned(), show);
        let red = |count: u64| (count > 0).then_some(Color::Red);
        let recent_errors = recent.as_ref().map_or(0, |recent| recent.errors);
        table.row([
            Cell::new(version.version),
            Cell::new(requests),
            table.coloured(&errors.to_string(), red(errors)),
            Cell::new(refusals),
            Cell::new(recently(&|recent| window(recent.window_seconds))),
            Cell::new(recently(&|recent| rate(recent.requests_per_second))),
            table.coloured(&recently(&|recent| recent.errors.to_string()), red(recent_errors)),
            Cell::new(recently(&|recent| recent.refusals.to_string())),
            Cell::new(recently(&|recent| latency(recent.p50_seconds))),
            Cell::new(recently(&|recent| latency(recent.p99_seconds))),
        ]);
    }
    table.text()
}

/// Requests a second of all versions, in the last minutes.
pub(super) fn model_rate(model: &ModelStatus) -> String {
    let recent = model.versions.iter().filter_map(|version| version.traffic.recent.as_ref());
    rate(recent.map(|recent| recent.requests_per_second).sum())
}

/// A count over all versions, since the start.
pub(super) fn sum(model: &ModelStatus, count: impl Fn(&Traffic) -> u64) -> u64 {
    model.versions.iter().map(|version| count(&version.traffic)).sum()
}

fn window(seconds: f64) -> String {
    if seconds >= 60.0 { format!("{:.0}m", (seconds / 60.0).floor()) } else { format!("{seconds:.0}s") }
}

fn rate(per_second: f64) -> String {
    // A sum of no numbers is -0.
    let per_second = per_second + 0.0;
    if per_second >= 100.0 || per_second == 0.0 { format!("{per_second:.0}/s") } else { format!("{per_second:.2}/s") }
}

fn latency(seconds: Option<f64>) -> String {
    match seconds {
        None => NONE.to_owned(),
        Some(seconds) if seconds < 1.0 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units() {
        assert_eq!([window(300.0), window(42.4), window(61.0)], ["5m", "42s", "1m"]);
        assert_eq!([rate(-0.0), rate(0.067), rate(38_300.2)], ["0/s", "0.07/s", "38300/s"]);
        assert_eq!([latency(None), latency(Some(0.000_25)), latency(Some(2.5))], ["-", "0.2ms", "2.5s"]);
    }
}
