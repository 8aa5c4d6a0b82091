//! Buckets by hash: where the values of a categorical feature are counted that are too many to be named one by one.
//!
//! A value belongs to the bucket that the highest six bits of its hash say: XXH3, 64 bits, seed 0, of the value's bytes, the same
//! hash that [`RareValues`](super::RareValues) knows values by. So buckets are the same in every gateway and every
//! version, and their counts can be added up.
//!
//! A value that the reference had once is as likely to be one that nobody has seen yet: the share of such rows is about the
//! share of rows whose value is new (Good, 1953). So these rows are the reference of the bin `unseen`, and not of a bucket.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::rare::RareValues;

/// How many buckets there are.
pub(super) const BUCKETS: usize = 64;

/// Rows that a bucket should have on average before it is judged alone; with fewer rows neighbours are judged together.
const ROWS_OF_A_GROUP: f64 = 10.0;

/// The rows of values that are not named, by bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashBuckets {
    /// By bucket, of 64, the rows of values that the reference had more than once; of all values where `rare` is not known.
    pub counts: Vec<u64>,
    /// Rows of values that the reference had once: as many new ones are to be expected.
    pub once: u64,
}

impl HashBuckets {
    /// What contradicts itself, given the rows of all rarer values.
    pub(super) fn faults(&self, other: u64) -> Option<String> {
        if self.counts.len() != BUCKETS {
            return Some(format!("it has {} buckets, expected {BUCKETS}", self.counts.len()));
        }
        let sum = self.counts.iter().chain([&self.once]).try_fold(0_u64, |sum, rows| sum.checked_add(*rows));
        (sum != Some(other)).then(|| format!("the rows of its buckets do not add up to its {other} other rows"))
    }
}

/// The hash of a value.
pub(super) fn hash_of(value: &[u8]) -> u64 {
    XxHash3_64::oneshot(value)
}

/// The bucket of a value with this hash.
pub(super) fn bucket_of(hash: u64) -> usize {
    // Six bits.
    usize::try_from(hash >> (u64::BITS - BUCKETS.ilog2())).unwrap_or(0)
}

/// The label of a bucket: `bucket 00` to `bucket 63`.
pub(super) fn label(bucket: usize) -> String {
    format!("bucket {bucket:02}")
}

/// Whether a text is spelt like the label of a bucket.
pub(super) fn is_label(text: &str) -> bool {
    text.strip_prefix("bucket ").is_some_and(|number| number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The cells of values that are none of a feature's categories.
#[derive(Debug)]
pub(super) struct Pool {
    /// The cell of the first bucket, or of `other`.
    first: usize,
    unseen: usize,
    has_buckets: bool,
    rare: Option<RareValues>,
}

impl Pool {
    /// The cells behind those of so many categories.
    pub(super) fn new(categories: usize, unseen: usize, has_buckets: bool, rare: Option<RareValues>) -> Self {
        Self { first: categories, unseen, has_buckets, rare }
    }

    /// The cell of every value, where that is the same for all.
    pub(super) fn only_cell(&self) -> Option<usize> {
        (!self.has_buckets && self.rare.is_none()).then_some(self.unseen)
    }

    /// The cell of a value that is no category.
    pub(super) fn cell_of(&self, value: &[u8]) -> usize {
        if let Some(cell) = self.only_cell() {
            return cell;
        }
        let hash = hash_of(value);
        let is_known = self.rare.as_ref().is_none_or(|rare| rare.contains_hash(hash));
        match (is_known, self.has_buckets) {
            (false, _) => self.unseen,
            (true, false) => self.first,
            (true, true) => self.first + bucket_of(hash),
        }
    }
}

/// Neighbouring buckets that are judged together, because there are few rows. All buckets of a group begin with the same
/// bits of the hash: a group is a bucket of fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grouping {
    /// The place of the first bucket.
    first: usize,
    /// Buckets of a group; 1: nothing is put together.
    size: usize,
}

impl Grouping {
    /// Nothing is put together.
    pub(super) const NONE: Self = Self { first: 0, size: 1 };

    /// As many groups as `rows` live rows are enough for, where the reference has these rows by bin and its buckets begin at
    /// `first`.
    pub(super) fn new(reference: &[u64], first: usize, rows: u64) -> Self {
        let buckets = reference.get(first..first + BUCKETS).unwrap_or_default();
        let share = buckets.iter().sum::<u64>() as f64 / reference.iter().sum::<u64>().max(1) as f64;
        let of_bucket = share * rows as f64 / BUCKETS as f64;
        let sizes = std::iter::successors(Some(1), |size| Some(size * 2));
        let enough = |size: &usize| of_bucket * *size as f64 >= ROWS_OF_A_GROUP || *size == BUCKETS / 4;
        Self { first, size: sizes.into_iter().find(enough).unwrap_or(1) }
    }

    /// The bins with the buckets of each group added up.
    pub(super) fn of<T: Copy + std::iter::Sum>(self, bins: &[T]) -> Vec<T> {
        if self.size <= 1 || bins.len() < self.first + BUCKETS {
            return bins.to_vec();
        }
        let (before, from) = bins.split_at(self.first);
        let (buckets, behind) = from.split_at(BUCKETS);
        let groups = buckets.chunks(self.size).map(|group| group.iter().copied().sum());
        before.iter().copied().chain(groups).chain(behind.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bucket_is_in_the_highest_bits_of_the_hash_of_the_reference_implementation() {
        // `printf '' | xxhsum -H3`: 2d06800538d394c2, of "a": e6c632b61e964e1f.
        assert_eq!([bucket_of(hash_of(b"")), bucket_of(hash_of(b"a"))], [0x2d >> 2, 0xe6 >> 2]);
        assert_eq!((bucket_of(u64::MAX), bucket_of(0)), (BUCKETS - 1, 0));
    }

    #[test]
    fn label_of_a_bucket_is_told_from_a_category() {
        assert_eq!((label(7), label(63)), ("bucket 07".into(), "bucket 63".into()));
        assert!((0..BUCKETS).all(|bucket| is_label(&label(bucket))));
        assert!(!["bucket", "bucket 7", "bucket 007", "bucket ab", "Bucket 07"].iter().any(|text| is_label(text)));
    }

    #[test]
    fn few_rows_are_judged_in_few_groups() {
        let reference = [&[36_000][..], &[1000; BUCKETS], &[0]].concat();
        let size = |rows| Grouping::new(&reference, 1, rows).size;
        // A bucket has one of a hundred rows.
        assert_eq!([size(200), size(500), size(999), size(1000), size(100_000)], [8, 2, 2, 1, 1]);
        assert_eq!(size(0), 16, "never fewer than four groups");
    }

    proptest! {
        #[test]
        fn groups_keep_all_rows_and_the_bins_around(bins in prop::collection::vec(0_u64..1000, BUCKETS + 3), size in 0_u32..5) {
            let grouping = Grouping { first: 2, size: 1 << size };
            let grouped = grouping.of(&bins);
            prop_assert_eq!(grouped.iter().sum::<u64>(), bins.iter().sum::<u64>());
            prop_assert_eq!((&grouped[..2], grouped.last()), (&bins[..2], bins.last()));
            prop_assert_eq!(grouped.len(), 3 + (BUCKETS >> size));
        }
    }
}
