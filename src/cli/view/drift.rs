//! The drift report as a table with a picture of both distributions.

use comfy_table::{Cell, Color};

use super::{NONE, learning, table::Table};
use crate::{
    admin::wire::{Checked, DriftReport, Feature, Quality},
    cli::{
        output::{Look, printable},
        sparkline,
    },
};

const HEADERS: [&str; 12] = [
    "FEATURE",
    "KIND",
    "ROWS",
    "MISSING",
    "PSI",
    "CORRECTED",
    "95 % INTERVAL",
    "THRESHOLD",
    "STATE",
    "QUALITY",
    "REFERENCE",
    "LIVE",
];
const NUMBERS: [usize; 6] = [2, 3, 4, 5, 6, 7];
/// What a narrow terminal does without: the interval, the PSI as it is, the kind.
const OPTIONAL: [usize; 3] = [6, 4, 1];

pub(in crate::cli) fn drift(report: &DriftReport, look: Look) -> String {
    if let Some(progress) = &report.learning {
        let (model, version) = (printable(&report.model), report.version);
        return format!("{model} version {version}: learning its profile, {}\n", learning(progress));
    }
    let mut table = Table::new(&HEADERS, look);
    for column in NUMBERS {
        table.right(column);
    }
    for feature in worst_first(report) {
        let (reference, live) = sparkline::pair(&feature.bins);
        let colour = colour(&feature.state);
        table.row([
            Cell::new(feature_name(feature)),
            Cell::new(printable(&feature.kind)),
            Cell::new(feature.rows),
            Cell::new(feature.missing),
            Cell::new(score(feature.measures.psi)),
            Cell::new(score(feature.measures.psi_corrected)),
            Cell::new(interval(feature.psi_interval)),
            Cell::new(score(feature.threshold)),
            table.coloured(&spaced(&feature.state), colour),
            quality(feature, &table),
            Cell::new(reference),
            table.coloured(&live, colour),
        ]);
    }
    table.fit(&OPTIONAL);
    format!("{}\n\n{}{}", head(report), table.text(), segments(report))
}

/// The feature's name. A class that is called by a number alone would not say of which output it is.
fn feature_name(feature: &Feature) -> String {
    let name = printable(&feature.feature);
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && feature.tensor != feature.feature {
        format!("{}[{name}]", printable(&feature.tensor))
    } else {
        name
    }
}

fn head(report: &DriftReport) -> String {
    let against = match report.against.as_str() {
        "stable" => "the live rows of the stable version",
        _ => "its profile",
    };
    let segment = match report.segment.as_str() {
        "" => String::new(),
        segment => format!(" of {}", printable(segment)),
    };
    let (model, version, window) = (printable(&report.model), report.version, printable(&report.window));
    let verdict = match state(report) {
        // The words name the rows.
        too_few if report.state == TOO_FEW => too_few,
        state => {
            let (drifted, all) = drifted(report);
            let unjudged =
                report.features.iter().chain(&report.multivariate).filter(|feature| feature.state == TOO_FEW);
            let unjudged = match unjudged.count() {
                0 => String::new(),
                count => format!("{count} with too few rows, "),
            };
            format!("{state}, {drifted} of {all} features drifted, {unjudged}{} rows", report.rows)
        }
    };
    format!("{model} version {version}: {verdict}{segment} in the last {window} against {against}")
}

const TOO_FEW: &str = "too_few_rows";

/// The state of all features in words, such as `too few rows: 100 of 200`.
pub(in crate::cli) fn state(report: &DriftReport) -> String {
    match report.state.as_str() {
        TOO_FEW => format!("too few rows: {} of {}", report.rows, report.min_rows),
        state => spaced(state),
    }
}

/// The state of a feature in words.
pub(in crate::cli) fn spaced(state: &str) -> String {
    printable(&state.replace('_', " "))
}

fn segments(report: &DriftReport) -> String {
    if report.segments.is_empty() {
        return String::new();
    }
    let names: Vec<_> = report.segments.iter().map(|segment| printable(segment)).collect();
    format!("\nsegments (--segment): {}\n", names.join(", "))
}

/// How many features have drifted, and how many there are; all inputs together are one more.
pub(in crate::cli) fn drifted(report: &DriftReport) -> (usize, usize) {
    let all = || report.features.iter().chain(&report.multivariate);
    (all().filter(|feature| feature.state == "drift").count(), all().count())
}

/// By state, then by how far the score is.
pub(in crate::cli) fn worst_first(report: &DriftReport) -> Vec<&Feature> {
    let mut sorted: Vec<_> = report.features.iter().chain(&report.multivariate).collect();
    sorted.sort_by(|a, b| {
        let score = |feature: &Feature| feature.measures.psi_corrected.unwrap_or(f64::NEG_INFINITY);
        rank(&b.state).cmp(&rank(&a.state)).then_with(|| score(b).total_cmp(&score(a)))
    });
    sorted
}

/// The worst check of those that are not ok; of two alike, the one whose share has grown more.
fn worst(quality: &Quality) -> Option<(&'static str, &Checked)> {
    let growth = |checked: &Checked| checked.live - checked.reference;
    quality
        .named()
        .filter(|(_, checked)| rank(&checked.state) > 0)
        .max_by(|(_, a), (_, b)| rank(&a.state).cmp(&rank(&b.state)).then(growth(a).total_cmp(&growth(b))))
}

/// Such as `missing 22.1 % (10.0 %)`, or a rare bin that has changed, `'3' 0.42 % (0.20 %)`: the live share, and the
/// reference's.
fn quality(Feature { quality, rare_bin, .. }: &Feature, table: &Table) -> Cell {
    let Some((name, checked)) = worst(quality) else {
        let Some(rare) = rare_bin else { return Cell::new(spaced(&quality.state)) };
        let of = |share: f64| format!("{:.2} %", share * 100.0);
        let text = format!("'{}' {} ({})", printable(&rare.bin), of(rare.live), of(rare.reference));
        return table.coloured(&text, colour(&rare.state));
    };
    let text = match name {
        // Its shares are of one value, and say nothing that the word does not.
        "constant" => name.to_owned(),
        _ => format!("{} {} ({})", name.replace('_', " "), percent(checked.live), percent(checked.reference)),
    };
    table.coloured(&text, colour(&checked.state))
}

fn rank(state: &str) -> u8 {
    match state {
        "drift" => 2,
        "warning" => 1,
        _ => 0,
    }
}

pub(super) fn colour(state: &str) -> Option<Color> {
    match state {
        "drift" => Some(Color::Red),
        "warning" => Some(Color::Yellow),
        _ => None,
    }
}

pub(in crate::cli) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

pub(super) fn score(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.4}"))
}

fn interval(ends: Option<[f64; 2]>) -> String {
    ends.map_or_else(|| NONE.to_owned(), |[low, high]| format!("{low:.3} – {high:.3}"))
}
