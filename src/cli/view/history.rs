//! The audit log for people.

use comfy_table::{Cell, Color};

use super::{NONE, difference, seconds, table::Table};
use crate::{
    admin::wire::{History, HistoryEntry, Verification},
    cli::output::{Look, printable},
};

pub(in crate::cli) fn history(history: &History, look: Look) -> String {
    table(history.entries.iter().map(|entry| (None, entry)), history.verification.as_ref(), look)
}

/// Entries with the models that they are of, or of one model that need not be named.
pub(super) fn table<'a>(
    entries: impl Iterator<Item = (Option<&'a str>, &'a HistoryEntry)>,
    found: Option<&Verification>,
    look: Look,
) -> String {
    let headers = ["SEQUENCE", "AT", "MODEL", "ACTOR", "OPERATION", "OUTCOME", "CHANGE", "REASON"];
    let mut table = Table::new(&headers, look);
    table.right(0);
    let mut is_of_one = false;
    for (model, entry) in entries {
        is_of_one |= model.is_none();
        let colour = match entry.outcome.as_str() {
            "failed" => Some(Color::Red),
            "refused" => Some(Color::Yellow),
            _ => None,
        };
        table.row([
            Cell::new(entry.sequence),
            Cell::new(seconds(&entry.at)),
            Cell::new(model.map_or_else(String::new, printable)),
            Cell::new(printable(&entry.actor)),
            Cell::new(printable(format!("{} {}", entry.operation, entry.asked).trim_end())),
            table.coloured(&outcome(entry), colour),
            Cell::new(change(entry)),
            Cell::new(entry.reason.as_deref().map_or_else(|| NONE.to_owned(), printable)),
        ]);
    }
    if is_of_one {
        table.hide(2);
    }
    // What a narrow terminal does without.
    table.fit(&[0]);
    table.wrap_last();
    table.text() + &found.map(verification).unwrap_or_default()
}

fn outcome(entry: &HistoryEntry) -> String {
    let times = if entry.attempts > 1 { format!(" ×{}", entry.attempts) } else { String::new() };
    format!("{}{times}", entry.outcome)
}

/// What is different since, or why nothing is.
fn change(entry: &HistoryEntry) -> String {
    let detail = || entry.detail.as_deref().map(printable);
    difference(&entry.from, &entry.to).or_else(detail).unwrap_or_else(|| NONE.to_owned())
}

fn verification(found: &Verification) -> String {
    let head = found.head.as_ref().map_or_else(String::new, |head| {
        format!(", up to entry {} with hash {}", head.sequence, printable(&head.hash))
    });
    if found.intact {
        return format!("\nThe audit log is intact: {} entries{head}\n", found.entries);
    }
    format!("\nThe audit log was tampered with: only its first {} entries are as written{head}\n", found.entries)
}
