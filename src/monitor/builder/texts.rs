//! Texts: codes or sentences, and what is kept of codes.

use std::collections::HashMap;

use super::{Described, Values, categorical};
use crate::monitor::{
    HashBuckets, Source,
    buckets::{BUCKETS, bucket_of, hash_of},
    derived,
    profile::Distribution,
    rare::RareValues,
};

/// Values of a categorical feature beyond the most frequent hundred have no names.
pub(super) const MAX_CATEGORIES: usize = 100;
/// Longer texts are no categories: they are pooled.
const MAX_CATEGORY_BYTES: usize = 128;
/// Where there are more than [`MAX_CATEGORIES`] values, those have a name that at least one row in so many has…
const ROWS_FOR_EACH_NAMED: u64 = 200;
/// … and at least so many rows. Those that chance made frequent in the reference are less so among live rows: with fewer rows
/// named ones would seem to drift from the others.
const LEAST_ROWS_OF_NAMED: u64 = 50;
/// Or so many standard deviations (of the count, √rows) more rows than the next value: that is no chance.
const DEVIATIONS_OF_GAP: u64 = 3;
/// Where at least one row in so many has a value without a name, these are told apart by buckets.
const ROWS_FOR_EACH_IN_BUCKETS: u64 = 20;
/// And where at least one row in so many has a value that is there once, so that new ones are to be expected.
const ROWS_FOR_EACH_ONCE: u64 = 100;
/// White space of a row, on average, from which texts are sentences.
const SPACES_OF_SENTENCE: u64 = 4;

/// Texts, and how many rows have each. The empty one is not among them.
pub(super) type Texts = HashMap<Box<[u8]>, u64>;

/// Whether a text can have a name of its own.
fn can_be_named(text: &[u8]) -> bool {
    text.len() <= MAX_CATEGORY_BYTES && std::str::from_utf8(text).is_ok()
}

/// Rows of values that are there once.
pub(super) fn once(counts: &Texts) -> u64 {
    counts.values().filter(|count| **count == 1).count() as u64
}

/// White space of all rows.
pub(super) fn spaces(counts: &Texts) -> u64 {
    let of = |text: &[u8]| {
        text.utf8_chunks().flat_map(|chunk| chunk.valid().chars()).filter(|char| char.is_whitespace()).count()
    };
    counts.iter().map(|(text, count)| of(text) as u64 * count).sum()
}

/// Why the values are no categories but free text; `None` where they are categories.
pub(super) fn why_free(counts: &Texts) -> Option<String> {
    let rows: u64 = counts.values().sum();
    let long: u64 = counts.iter().filter(|(text, _)| !can_be_named(text)).map(|(_, count)| *count).sum();
    if 2 * long > rows {
        return Some(format!("most values are longer than {MAX_CATEGORY_BYTES} bytes, or not UTF-8"));
    }
    if counts.len() <= MAX_CATEGORIES {
        return None;
    }
    if 2 * once(counts) > rows {
        return Some("most values are there once".into());
    }
    let spaces = spaces(counts);
    (spaces >= SPACES_OF_SENTENCE * rows)
        .then(|| format!("sentences: {:.1} spaces in a value on average", spaces as f64 / rows as f64))
}

/// What is derived of free texts.
pub(super) fn of_free(source: Source, counts: &Texts, missing: u64) -> Option<Described> {
    let rows = counts.iter().flat_map(|(text, &count)| {
        std::iter::repeat_n(derived::of_text(source, text), usize::try_from(count).unwrap_or(usize::MAX))
    });
    let described = Values::Numbers(rows.collect()).of(source)?;
    Some(Described { rows: described.rows + missing, missing, ..described })
}

/// The distribution of codes: the frequent ones by name, the others by bucket.
pub(super) fn of_codes(counts: Texts) -> Option<Distribution> {
    let (all, rows) = (counts.len(), counts.values().sum::<u64>());
    let (mut values, mut rare) = (Vec::new(), Vec::new());
    for (bytes, count) in counts {
        match String::from_utf8(bytes.into()) {
            Ok(value) if value.len() <= MAX_CATEGORY_BYTES => values.push((value, count)),
            Ok(value) => rare.push((value.into_bytes(), count)),
            Err(error) => rare.push((error.into_bytes(), count)),
        }
    }
    // The most frequent first; of equally frequent ones the first in the alphabet.
    values.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    let named = if all <= MAX_CATEGORIES { values.len() } else { frequent(&values, rows) };
    let pooled = values.split_off(named);
    rare.extend(pooled.into_iter().map(|(value, count)| (value.into_bytes(), count)));
    let other: u64 = rare.iter().map(|(_, count)| count).sum();
    let once = rare.iter().filter(|(_, count)| *count == 1).count() as u64;
    let are_many = other.saturating_mul(ROWS_FOR_EACH_IN_BUCKETS) >= rows || once * ROWS_FOR_EACH_ONCE >= rows;
    let has_buckets = all > MAX_CATEGORIES && are_many;
    let known = RareValues::of(rare.iter().map(|(value, _)| value.as_slice()));
    let buckets = has_buckets.then(|| in_buckets(&rare, known.is_some()));
    categorical(values.into_iter(), other, known, buckets)
}

/// How many of many values, the most frequent first, are frequent enough for a name.
fn frequent(values: &[(String, u64)], rows: u64) -> usize {
    let is_frequent = |count: u64| count >= LEAST_ROWS_OF_NAMED && count.saturating_mul(ROWS_FOR_EACH_NAMED) >= rows;
    let frequent = values.iter().take(MAX_CATEGORIES).take_while(|(_, count)| is_frequent(*count)).count();
    let stands_out = |pair: &[(String, u64)]| {
        let gap = pair[0].1 - pair[1].1;
        gap.saturating_mul(gap) >= pair[0].1.saturating_mul(DEVIATIONS_OF_GAP.pow(2))
    };
    let gap = values.windows(2).take(MAX_CATEGORIES).rposition(stands_out);
    frequent.max(gap.map_or(0, |at| at + 1))
}

/// The rows of values by bucket. Where new values are told from known ones, those that are there once stand for new ones.
fn in_buckets(values: &[(Vec<u8>, u64)], are_known: bool) -> HashBuckets {
    let mut buckets = HashBuckets { counts: vec![0; BUCKETS], once: 0 };
    for (value, count) in values {
        if are_known && *count == 1 {
            buckets.once += 1;
        } else {
            buckets.counts[bucket_of(hash_of(value))] += count;
        }
    }
    buckets
}
