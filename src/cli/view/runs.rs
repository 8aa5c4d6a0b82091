//! How the runs of each version happen.

use comfy_table::Cell;

use super::{NONE, table::Table};
use crate::{
    admin::wire::{Independence, RowAxis, VersionStatus},
    cli::output::{Look, printable},
};

/// A table of the versions that are loaded, and below it why requests to some run alone; `None`
/// when none is loaded.
pub(super) fn runs(versions: &[VersionStatus], look: Look) -> Option<String> {
    let loaded: Vec<_> = versions.iter().filter_map(|version| Some((version, version.runs.as_ref()?))).collect();
    if loaded.is_empty() {
        return None;
    }
    let headers = ["VERSION", "RUNS ON", "ONE RUN", "PER ROW", "BATCH ROWS", "DELAY", "INSTANCES", "WAITING"];
    let mut table = Table::new(&headers, look);
    for column in (0..headers.len()).filter(|&column| column != 1) {
        table.right(column);
    }
    for (version, runs) in &loaded {
        table.row([
            Cell::new(version.version),
            Cell::new(printable(&runs.placement)),
            Cell::new(measured(runs.run_seconds)),
            Cell::new(measured(runs.row_seconds)),
            Cell::new(runs.max_batch_rows),
            Cell::new(time(runs.max_delay_seconds)),
            Cell::new(runs.instances),
            Cell::new(runs.waiting),
        ]);
    }
    // Prose of its own lines: in a column it would make the table wider than a terminal.
    let alone = loaded.iter().filter_map(|(version, runs)| {
        let reason = printable(runs.alone.as_deref()?);
        Some(format!("version {} runs each request alone: {reason}\n", version.version))
    });
    let rows = loaded.iter().filter_map(|(version, runs)| {
        let found = rows_in_words(&runs.independence)?;
        Some(format!("version {} {found}\n", version.version))
    });
    Some(table.text() + &alone.chain(rows).collect::<String>())
}

/// What was found of the rows; `None` of a gateway that does not say.
fn rows_in_words(independence: &Independence) -> Option<String> {
    let outcome = printable(&independence.outcome);
    let why = independence.why.as_deref().map(|why| format!(": {}", printable(why))).unwrap_or_default();
    let elsewhere = |axis: &&RowAxis| axis.axis != 0;
    let one = |axis: &RowAxis| format!("'{}' along axis {}", printable(&axis.tensor), axis.axis);
    let axes: Vec<String> = independence.axes.iter().filter(elsewhere).map(one).collect();
    let axes = if axes.is_empty() { String::new() } else { format!(" (rows of {})", axes.join(", ")) };
    let mut warnings = String::new();
    for warning in &independence.warnings {
        warnings += "; warning: ";
        warnings += &printable(warning);
    }
    let found = match &*outcome {
        "" => return None,
        "independent" => "has independent rows, proven from the graph".to_owned(),
        "dependent" => "has rows that depend on each other".to_owned(),
        _ => "has rows of which it is unknown whether they are independent".to_owned(),
    };
    Some(format!("{found}{axes}{why}{warnings}"))
}

/// A time that is zero as long as nothing was measured.
fn measured(seconds: f64) -> String {
    if seconds > 0.0 { time(seconds) } else { NONE.to_owned() }
}

/// A time in the unit that fits, such as `6.5 µs`.
pub(super) fn time(seconds: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")];
    // From what would be rounded to 1000 of a smaller unit on.
    let fitting = units.into_iter().find(|(unit, _)| seconds >= unit * 0.9995);
    let (value, unit) = match fitting {
        Some((unit, name)) => (seconds / unit, name),
        None if seconds > 0.0 => (seconds / 1e-9, "ns"),
        None => return "0 s".to_owned(),
    };
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}
