//! What each column was taken for, and why; and which columns look like an id or a time.

use super::texts::{Texts, spaces};
use crate::monitor::{FeatureRole, column_types::ColumnType};

/// Fewer values than these say nothing about what a column is.
const LEAST_VALUES: usize = 100;
/// Whole numbers that come in no order are an id only where so many all differ.
const LEAST_VALUES_IN_NO_ORDER: usize = 1000;

/// A column, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    pub tensor: String,
    /// The name of the column; of the tensor where it is looked at as a whole.
    pub column: String,
    pub role: FeatureRole,
    /// `numeric`, `categorical`, `boolean`, `text`, `embedding`, `ignore`, or `nothing` where no row has a value.
    pub kind: &'static str,
    /// Different values; `None` where they are not counted.
    pub values: Option<u64>,
    pub rows: u64,
    pub missing: u64,
    pub why: String,
    /// Why it will seem to drift for ever: it looks like an id or a time.
    pub warning: Option<String>,
}

/// What is found out of a column's values.
pub(super) struct Facts {
    pub(super) kind: &'static str,
    pub(super) values: Option<u64>,
    pub(super) why: String,
    pub(super) warning: Option<String>,
}

impl Facts {
    pub(super) fn new(kind: &'static str, values: Option<usize>, why: impl Into<String>) -> Self {
        Self { kind, values: values.map(|values| values as u64), why: why.into(), warning: None }
    }

    /// Nothing is suspicious about a column whose type somebody has chosen.
    pub(super) fn chosen(mut self, wanted: Option<ColumnType>) -> Self {
        if let Some(wanted) = wanted {
            (self.why, self.warning) = (format!("as chosen: {wanted}"), None);
        }
        self
    }
}

/// Whether finite numbers, in the order of their rows, look like an id or a time, `values` of them different.
pub(super) fn suspicion_of_numbers(numbers: &[f64], values: usize) -> Option<String> {
    let count = numbers.len();
    if count < LEAST_VALUES || 2 * values < count {
        return None;
    }
    if let Some(unit) = unit_of_time(numbers) {
        return Some(format!("its values are like times in {unit} since 1970"));
    }
    let pairs = || numbers.windows(2);
    if pairs().all(|pair| pair[0] <= pair[1]) {
        return Some("it rises from row to row, as a counter or a time does".into());
    }
    if pairs().all(|pair| pair[0] >= pair[1]) {
        return Some("it falls from row to row, as a counter or a time does".into());
    }
    let is_id =
        values == count && count >= LEAST_VALUES_IN_NO_ORDER && numbers.iter().all(|number| number.fract() == 0.0);
    is_id.then(|| "all its values are different whole numbers, as those of an id are".into())
}

/// The unit in which all numbers are times from 2000 to 2100.
fn unit_of_time(numbers: &[f64]) -> Option<&'static str> {
    const FROM: f64 = 946_684_800.0;
    const TO: f64 = 4_102_444_800.0;
    let units = [("seconds", 1.0), ("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9)];
    let is_it = |scale: f64| numbers.iter().all(|number| (FROM * scale..TO * scale).contains(number));
    units.into_iter().find(|(_, scale)| is_it(*scale)).map(|(unit, _)| unit)
}

/// Whether texts look like an id or a time.
pub(super) fn suspicion_of_texts(counts: &Texts) -> Option<String> {
    let rows = counts.values().sum::<u64>();
    if rows < LEAST_VALUES as u64 {
        return None;
    }
    if counts.len() > 1 && counts.keys().all(|text| is_date(text)) {
        return Some("its values are dates".into());
    }
    let is_id = counts.len() as u64 == rows && spaces(counts) < rows;
    is_id.then(|| "all its values are different, as those of an id are".into())
}

/// Whether a text begins like `2026-01-31`.
fn is_date(text: &[u8]) -> bool {
    text.len() >= 10
        && text[..10]
            .iter()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: impl IntoIterator<Item = f64>) -> Option<String> {
        let values: Vec<f64> = values.into_iter().collect();
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.dedup();
        suspicion_of_numbers(&values, sorted.len())
    }

    #[test]
    fn ids_counters_and_times_are_told() {
        let ids = |count: u32| (0..count).map(|at| f64::from(at.wrapping_mul(2_654_435_761) % 1_000_003));
        assert!(numbers(ids(2000)).unwrap().contains("different whole numbers"));
        assert!(numbers((0..500).map(|at| f64::from(at) * 0.7)).unwrap().contains("rises"));
        assert!(numbers((0..500).map(|at| -f64::from(at))).unwrap().contains("falls"));
        let times = |scale: f64| numbers((0..500).map(|at| (1.7e9 + f64::from(at * 7919 % 1009)) * scale)).unwrap();
        assert!(
            times(1.0).contains("in seconds")
                && times(1e3).contains("milliseconds")
                && times(1e9).contains("nanoseconds")
        );
    }

    #[test]
    fn measurements_codes_and_few_rows_are_not() {
        let noise = |at: u32| f64::from(at.wrapping_mul(2_654_435_761));
        assert_eq!(numbers((0..2000).map(|at| noise(at) / 7.0)), None, "different, but not whole");
        assert_eq!(numbers((0..2000).map(|at| noise(at) % 50.0)), None, "few values");
        assert_eq!(numbers((0..500).map(noise)), None, "few rows in no order");
        assert_eq!(numbers((0..50).map(f64::from)), None);
        assert_eq!(numbers((0..1000).map(|at| f64::from(at / 100))), None, "sorted codes");
    }

    #[test]
    fn texts_that_all_differ_and_dates_are_told() {
        let told = |texts: &mut dyn Iterator<Item = String>| {
            let mut counts = Texts::new();
            texts.for_each(|text| *counts.entry(text.into_bytes().into()).or_default() += 1);
            suspicion_of_texts(&counts)
        };
        assert!(told(&mut (0..200).map(|at| format!("order-{at}"))).unwrap().contains("as those of an id"));
        assert!(told(&mut (0..200).map(|at| format!("2026-01-{:02}T00:00", at % 28))).unwrap().contains("dates"));
        assert_eq!(told(&mut (0..200).map(|at| format!("a long review {at}"))), None);
        assert_eq!(told(&mut (0..200).map(|at| format!("code-{}", at % 150))), None);
        assert_eq!(told(&mut (0..50).map(|at| format!("order-{at}"))), None);
    }
}
