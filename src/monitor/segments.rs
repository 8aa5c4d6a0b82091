//! Rows counted apart by segment: by the value of a feature, or of a request's parameter.
//!
//! The segments of each key are bounded in number: the first values that come are told apart, the others are `other`.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use super::{
    SegmentName,
    counts::{Counting, Counts},
    feature::MonitoredFeature,
    saved::SavedCounts,
    settings::MonitorSettings,
    version_monitor::Answered,
};
use crate::monitor::profile::FeatureRole;

/// What segments beyond the bound are counted as.
const OTHER: &str = "other";
/// Windows of segments slide in fewer steps than those of all rows: there are many.
const SUB_WINDOWS: usize = 12;

/// The segments of a version.
#[derive(Debug)]
pub(super) struct Segments {
    keys: Vec<Key>,
    windows: Vec<Duration>,
    cells: usize,
    /// Of each key.
    most: usize,
    /// By key and value. Written by the thread that counts, when a value comes for the first time.
    known: RwLock<BTreeMap<(usize, String), Arc<Counts>>>,
}

/// What a segment is the value of.
#[derive(Debug)]
struct Key {
    name: String,
    /// The feature of that name; a request's parameter where there is none.
    feature: Option<usize>,
}

/// The rows of a request that belong to one segment.
#[derive(Debug)]
pub(super) struct Segment {
    counts: Arc<Counts>,
    /// Row by row; `None`: all.
    rows: Option<Vec<bool>>,
}

/// The right to count rows of a segment.
pub(super) struct SegmentCounting<'a> {
    counting: Counting<'a>,
    rows: Option<&'a [bool]>,
}

impl SegmentCounting<'_> {
    /// Counts those of the rows from `row` on that belong to the segment, see [`Counting::add_all`].
    pub(super) fn add_all(&self, row: usize, first: usize, chosen: Option<&[bool]>, cells: &[u32]) {
        let Some(own) = self.rows else { return self.counting.add_all(first, chosen, cells) };
        let own = own.get(row..).unwrap_or_default();
        let Some(chosen) = chosen else { return self.counting.add_all(first, Some(own), cells) };
        let both: Vec<_> = own.iter().zip(chosen).map(|(own, chosen)| *own && *chosen).collect();
        self.counting.add_all(first, Some(&both), cells);
    }
}

impl Segment {
    pub(super) fn begin(&self, now: Duration) -> SegmentCounting<'_> {
        SegmentCounting { counting: self.counts.begin(now), rows: self.rows.as_deref() }
    }
}

impl Segments {
    pub(super) fn new(settings: &MonitorSettings, features: &[MonitoredFeature]) -> Self {
        let of_name = |name: &String| {
            let is_it = |feature: &MonitoredFeature| {
                feature.profile.role == FeatureRole::Input && feature.profile.feature == *name
            };
            Key { name: name.clone(), feature: features.iter().position(is_it) }
        };
        Self {
            keys: settings.segments.iter().map(of_name).collect(),
            windows: settings.windows.clone(),
            cells: features.last().map_or(0, |feature| feature.cells.end),
            most: settings.max_segments,
            known: RwLock::default(),
        }
    }

    /// Whether one of the keys is a parameter.
    pub(super) fn are_of_parameters(&self) -> bool {
        self.keys.iter().any(|key| key.feature.is_none())
    }

    /// The segments that rows belong to.
    pub(super) fn of(&self, answered: Answered<'_>, features: &[MonitoredFeature]) -> Vec<Segment> {
        let mut segments = Vec::new();
        for (at, key) in self.keys.iter().enumerate() {
            if let Some(feature) = key.feature {
                let by_value = rows_by_value(&features[feature], answered);
                segments.extend(by_value.into_iter().map(|(value, rows)| self.segment(at, value, Some(rows))));
            } else if let Some((_, value)) = answered.parameters.iter().find(|(name, _)| **name == *key.name) {
                segments.push(self.segment(at, value, None));
            }
        }
        merged(segments)
    }

    fn segment(&self, key: usize, value: &str, rows: Option<Vec<bool>>) -> Segment {
        let place = (key, value.to_owned());
        let found = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&place).cloned();
        let counts = found.unwrap_or_else(|| {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            let told_apart = known.keys().filter(|(of, value)| *of == key && value != OTHER).count();
            let place = if told_apart < self.most { place } else { (key, OTHER.to_owned()) };
            let new = || Arc::new(Counts::new(self.cells, &self.windows, SUB_WINDOWS));
            Arc::clone(known.entry(place).or_insert_with(new))
        });
        Segment { counts, rows }
    }

    /// The rows of a segment in the last `window`; `None` when there never was one.
    pub(super) fn within(&self, segment: &SegmentName, window: Duration, now: Duration) -> Option<Vec<u64>> {
        let place = (self.keys.iter().position(|known| known.name == segment.key)?, segment.value.clone());
        let counts = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&place).cloned()?;
        Some(counts.within(window, now))
    }

    /// All that is needed to go on counting later.
    pub(super) fn save(&self) -> Vec<(SegmentName, SavedCounts)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let name =
            |(key, value): &(usize, String)| SegmentName { key: self.keys[*key].name.clone(), value: value.clone() };
        known.iter().map(|(place, counts)| (name(place), counts.save())).collect()
    }

    /// Goes on from what was saved of a segment, if it is told apart still.
    pub(super) fn restore(&self, segment: &SegmentName, saved: SavedCounts, now: Duration) {
        let Some(key) = self.keys.iter().position(|known| known.name == segment.key) else { return };
        let counts = self.segment(key, &segment.value, None).counts;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.get(&(key, segment.value.clone())).is_some_and(|own| Arc::ptr_eq(own, &counts)) {
            counts.restore(saved, now);
        }
    }

    /// The segments that came up.
    pub(super) fn known(&self) -> Vec<SegmentName> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .keys()
            .map(|(key, value)| SegmentName { key: self.keys[*key].name.clone(), value: value.clone() })
            .collect()
    }
}

/// The rows of each value of a feature.
fn rows_by_value<'a>(feature: &'a MonitoredFeature, answered: Answered<'_>) -> BTreeMap<&'a str, Vec<bool>> {
    let mut rows: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
    let Some(tensor) = answered.inputs.iter().find(|tensor| tensor.name() == feature.profile.tensor) else {
        return rows;
    };
    let count = tensor.shape().rows();
    feature.classifier.each_cell(tensor, |row, cell| {
        let bin = feature.classifier.bin_of_cell(cell);
        rows.entry(&feature.labels[bin]).or_insert_with(|| vec![false; count])[row] = true;
    });
    rows
}

/// Segments of the same counts as one: counts must not be begun twice.
fn merged(segments: Vec<Segment>) -> Vec<Segment> {
    let mut merged: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments {
        let same = merged.iter_mut().find(|known| Arc::ptr_eq(&known.counts, &segment.counts));
        match (same, segment.rows) {
            (Some(Segment { rows: Some(rows), .. }), Some(more)) => {
                for (row, more) in rows.iter_mut().zip(more) {
                    *row |= more;
                }
            }
            (Some(known), _) => known.rows = None,
            (None, rows) => merged.push(Segment { rows, ..segment }),
        }
    }
    merged
}
