//! All models in one table.

use comfy_table::Cell;

use super::{NONE, drift, history, table::Table};
use crate::{
    admin::wire::{DriftReport, History},
    cli::output::{Look, printable},
};

/// The newest entries of all models, at most so many.
pub(in crate::cli) fn histories(histories: &[History], limit: usize, look: Look) -> String {
    let mut entries: Vec<_> = histories
        .iter()
        .flat_map(|history| history.entries.iter().map(move |entry| (&*history.model, entry)))
        .collect();
    entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.sequence));
    let verification = histories.iter().find_map(|history| history.verification.as_ref());
    history::table(entries.into_iter().take(limit).map(|(model, entry)| (Some(model), entry)), verification, look)
}

/// A line for each model; those that are not watched last, with the cause.
pub(in crate::cli) fn drift_of_all(reports: &[DriftReport], unwatched: &[(String, String)], look: Look) -> String {
    let mut table = Table::new(&["MODEL", "VERSION", "ROWS", "WINDOW", "DRIFTED", "WORST", "STATE"], look);
    table.right(1).right(2);
    for report in reports {
        let (drifted, all) = super::drifted(report);
        let worst = super::worst_first(report).first().map_or(NONE.to_owned(), |feature| printable(&feature.feature));
        let window = if report.window.is_empty() { NONE.to_owned() } else { printable(&report.window) };
        table.row([
            Cell::new(printable(&report.model)),
            Cell::new(report.version),
            Cell::new(report.rows),
            Cell::new(window),
            Cell::new(format!("{drifted} of {all}")),
            Cell::new(worst),
            table.coloured(&drift::state(report), drift::colour(&report.state)),
        ]);
    }
    for (model, why) in unwatched {
        let none = || Cell::new(NONE);
        table.row([
            Cell::new(printable(model)),
            none(),
            none(),
            none(),
            none(),
            none(),
            Cell::new(format!("not watched: {}", printable(why))),
        ]);
    }
    table.wrap_last();
    table.text()
}
