//! The drift report as a table with a picture of both distributions.

use comfy_table::{Cell, Color};

use super::{NONE, table::Table};
use crate::{
    admin::wire::{DriftReport, Feature},
    cli::{
        output::{Look, printable},
        sparkline,
    },
};

pub(in crate::cli) fn drift(report: &DriftReport, look: Look) -> String {
    let headers = ["FEATURE", "KIND", "ROWS", "MISSING", "PSI", "CORRECTED", "THRESHOLD", "STATE", "REFERENCE", "LIVE"];
    let mut table = Table::new(&headers, look);
    table.right(2).right(3).right(4).right(5).right(6);
    for feature in worst_first(&report.features) {
        let (reference, live) = sparkline::pair(&feature.bins);
        let colour = colour(&feature.state);
        table.row([
            Cell::new(printable(&feature.feature)),
            Cell::new(printable(&feature.kind)),
            Cell::new(feature.rows),
            Cell::new(feature.missing),
            Cell::new(score(feature.measures.psi)),
            Cell::new(score(feature.measures.psi_corrected)),
            Cell::new(score(feature.threshold)),
            table.coloured(&feature.state, colour),
            Cell::new(reference),
            table.coloured(&live, colour),
        ]);
    }
    format!("{}\n\n{}", head(report), table.text())
}

fn head(report: &DriftReport) -> String {
    let drifted = report.features.iter().filter(|feature| feature.state == "drift").count();
    format!(
        "{} version {}: {}, {drifted} of {} features drifted, {} rows in the last {}",
        printable(&report.model),
        report.version,
        printable(&report.state),
        report.features.len(),
        report.rows,
        printable(&report.window),
    )
}

/// By state, then by how far the score is.
fn worst_first(features: &[Feature]) -> Vec<&Feature> {
    let mut sorted: Vec<_> = features.iter().collect();
    sorted.sort_by(|a, b| {
        let score = |feature: &Feature| feature.measures.psi_corrected.unwrap_or(f64::NEG_INFINITY);
        rank(&b.state).cmp(&rank(&a.state)).then_with(|| score(b).total_cmp(&score(a)))
    });
    sorted
}

fn rank(state: &str) -> u8 {
    match state {
        "drift" => 2,
        "warning" => 1,
        _ => 0,
    }
}

fn colour(state: &str) -> Option<Color> {
    match state {
        "drift" => Some(Color::Red),
        "warning" => Some(Color::Yellow),
        _ => None,
    }
}

fn score(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.4}"))
}
