//! How versions were admitted, or why not.

use comfy_table::{Cell, Color};

use super::{NONE, runs::time, table::Table};
use crate::{
    admin::wire::{AdmissionStep, VersionStatus},
    cli::output::{Look, printable},
};

/// How the admissions of versions went, step by step.
pub(super) fn admissions(versions: &[VersionStatus], look: Look) -> String {
    admitted(versions).map(|version| in_full(version, look)).collect()
}

/// The same, but a line where all went well.
pub(super) fn admissions_in_short(versions: &[VersionStatus], look: Look) -> String {
    let is_plain = |version: &VersionStatus| {
        let has_failed = version.admission.iter().any(|step| step.outcome == "failed");
        !has_failed && !["failed", "loading"].contains(&version.state.as_str())
    };
    let (plain, telling): (Vec<_>, Vec<_>) = admitted(versions).partition(|version| is_plain(version));
    let mut text: String = plain.iter().map(|version| in_a_line(version)).collect();
    if !text.is_empty() {
        text.insert(0, '\n');
    }
    text.extend(telling.iter().map(|version| in_full(version, look)));
    text
}

fn admitted(versions: &[VersionStatus]) -> impl Iterator<Item = &VersionStatus> {
    versions.iter().filter(|version| !version.admission.is_empty())
}

fn in_full(version: &VersionStatus, look: Look) -> String {
    format!("\nadmission of version {}\n\n{}", version.version, admission(&version.admission, look))
}

fn in_a_line(version: &VersionStatus) -> String {
    let steps = &version.admission;
    let skipped = steps.iter().filter(|step| step.outcome == "skipped").count();
    let seconds = steps.iter().map(|step| step.seconds).sum();
    let (number, passed) = (version.version, steps.len() - skipped);
    format!("admission of version {number}: {passed} steps passed, {skipped} skipped, {}\n", time(seconds))
}

/// The steps of an admission; a line for each thing found.
pub(in crate::cli) fn admission(steps: &[AdmissionStep], look: Look) -> String {
    let mut table = Table::new(&["STEP", "OUTCOME", "TIME", "WHY"], look);
    table.right(2);
    for step in steps {
        let colour = match step.outcome.as_str() {
            "passed" => Some(Color::Green),
            "failed" => Some(Color::Red),
            _ => None,
        };
        let time = if step.outcome == "skipped" { NONE.to_owned() } else { format!("{:.1} ms", step.seconds * 1e3) };
        let first = step.why.first().map(|why| printable(why)).unwrap_or_default();
        table.row([
            Cell::new(printable(&step.step)),
            table.coloured(&step.outcome, colour),
            Cell::new(time),
            Cell::new(first),
        ]);
        for why in step.why.iter().skip(1) {
            table.row([Cell::new(""), Cell::new(""), Cell::new(""), Cell::new(printable(why))]);
        }
    }
    table.text()
}
