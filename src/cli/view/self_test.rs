//! The monitor's self-test as a table.

use comfy_table::{Cell, Color};

use super::{NONE, drift::score, table::Table};
use crate::{
    admin::wire::{DriftSelfTest, FoundShift},
    cli::{
        output::{Look, printable},
        view::percent,
    },
};

pub(in crate::cli) fn self_test(test: &DriftSelfTest, look: Look) -> String {
    let headers =
        ["FEATURE", "KIND", "FALSE ALARMS", "BY CHANCE", "PSI 50 %", "FOUND", "PSI 80 %", "FOUND", "SHIFT 80 %"];
    let mut table = Table::new(&headers, look);
    for column in 2..headers.len() {
        table.right(column);
    }
    for feature in &test.features {
        let at = |power: f64| feature.shifts.iter().find(|shift| (shift.power - power).abs() < 0.01);
        let psi = |power: f64| Cell::new(score(at(power).map(|shift| shift.psi)));
        let found = |power: f64| Cell::new(at(power).map_or_else(|| NONE.to_owned(), |shift| percent(shift.found)));
        let alarms = feature.false_warnings + feature.false_drifts;
        table.row([
            Cell::new(printable(&feature.feature)),
            Cell::new(printable(&feature.kind)),
            table.coloured(&alarms.to_string(), (alarms > 0).then_some(Color::Red)),
            Cell::new(percent(feature.chance_rate)),
            psi(0.5),
            found(0.5),
            psi(0.8),
            found(0.8),
            Cell::new(at(0.8).map_or_else(|| NONE.to_owned(), sigma)),
        ]);
    }
    format!("{}\n{}", head(test), table.text())
}

fn head(test: &DriftSelfTest) -> String {
    let DriftSelfTest { rows, live_rows, looks, draws, miscounted, false_warnings, false_drifts, .. } = test;
    let now = if live_rows == rows { "as now".to_owned() } else { format!("{live_rows} now") };
    let features = test.features.len() as u64;
    format!(
        "{} version {}: rows drawn from its profile, through a monitor like its own: {rows} in a window of {} ({now})\n\
         miscounted: {miscounted} values\n\
         false alarms: {false_warnings} warning, {false_drifts} drift at {} looks, {looks} at each of {features} features; \
         promised for one test: {:.1e}\n\
         by chance, in a test without floors that allows {}: {}\n\
         found: of {draws} windows with each shift\n",
        printable(&test.model),
        test.version,
        printable(&test.window),
        features * looks,
        test.alpha,
        percent(test.chance_alpha),
        percent(test.chance_rate),
    )
}

/// Categories have no standard deviation.
fn sigma(shift: &FoundShift) -> String {
    shift.sigma.map_or_else(|| NONE.to_owned(), |sigma| format!("{sigma:.2} σ"))
}
