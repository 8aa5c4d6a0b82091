//! How far a version has learnt its profile, in a sentence.

use std::time::Duration;

use super::seconds;
use crate::{admin::wire::Learning, cli::output::printable};

/// Such as `120 of at least 200 rows since 2026-01-02T03:04:05Z, 80 rows and 3h 12m left: ends at … at the earliest`.
pub(in crate::cli) fn learning(learning: &Learning) -> String {
    let Learning { rows, min_rows, rows_left, since, length, earliest_end, seconds_left, full } = learning;
    let (Some(since), Some(end)) = (since, earliest_end) else {
        return format!("no row has come yet, it takes {} from the first one and {min_rows} rows", printable(length));
    };
    let (since, end) = (seconds(since), seconds(end));
    // What it was sent with is bounded by the format, not by sense.
    let time_left = Duration::try_from_secs_f64(seconds_left.ceil()).unwrap_or(Duration::MAX);
    let time = humantime::format_duration(time_left);
    let rest = match (*rows_left, time_left.is_zero()) {
        (0, true) => "ends with the next row".to_owned(),
        (0, false) => format!("{time} left: ends at {end} at the earliest"),
        (rows_left, true) => format!("{rows_left} rows left"),
        (rows_left, false) => format!("{rows_left} rows and {time} left: ends at {end} at the earliest"),
    };
    let bound = if *rows_left > 0 { format!(" of at least {min_rows}") } else { String::new() };
    let full = if *full { " (all that there is room for)" } else { "" };
    format!("{rows}{bound} rows{full} since {since}, {rest}")
}
