//! Looks at the windows of a version: once a second its distances and verdicts are computed from the counters, and
//! published for readers who ask at any other time.
//!
//! A look computes what has changed since the last: nothing where no rows came, and of features those with other rows.
//! What it finds is an immutable value, so a reader of it (a scrape) costs and disturbs nobody, and has numbers and
//! states of one moment. A verdict that stands, and that events tell of, changes only when its window has slid.

#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{
    Change, DriftState, FeatureChange, MonitorSettings, Series,
    counts::{Counts, Mark},
    feature::{Judged, MonitoredFeature, Side, Standing},
    verdict::Judge,
};

/// Changes of single features are told after so long at the earliest, unless they change the state of all: an incident is
/// one line and not one for each feature, and what comes and goes meanwhile is none.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// What a look found over one window.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) window: Duration,
    /// By feature.
    pub(super) features: Vec<Arc<Judged>>,
}

/// The looks at all windows of a version.
#[derive(Debug)]
pub(super) struct Looks {
    lengths: Vec<Duration>,
    /// Window by window. Held while a look computes; requests, the counting thread and scrapes never take this lock.
    windows: Mutex<Vec<Window>>,
    latest: ArcSwap<Vec<Arc<Seen>>>,
}

/// What the looks at one window left.
#[derive(Debug)]
struct Window {
    length: Duration,
    /// How often it slides.
    interval: Duration,
    /// The step of its sliding at which verdicts were looked at last.
    latest: Option<u128>,
    /// The verdicts that stand, by feature.
    standing: Vec<Standing>,
    /// The states that were told last, by feature, and when.
    told: (Vec<DriftState>, Option<Duration>),
    /// Of the rows that were seen; `None` before the first look.
    mark: Option<Mark>,
    /// By cell.
    live: Vec<u64>,
    /// By feature: so many of the latest numbers are one and the same.
    runs: Vec<u64>,
    seen: Arc<Seen>,
}

impl Looks {
    /// Before the first look, nothing was seen.
    pub(super) fn new(features: &[MonitoredFeature], judge: &Judge, settings: &MonitorSettings) -> Self {
        let cells = features.last().map_or(0, |feature| feature.cells.end);
        let windows: Vec<_> = settings
            .windows
            .iter()
            .map(|&length| {
                let seen = Arc::new(Seen { window: length, features: Vec::new() });
                let standing = vec![Standing::default(); features.len()];
                let interval = settings.look_interval(length);
                let (live, runs) = (vec![0; cells], vec![0; features.len()]);
                let told = (vec![DriftState::TooFewRows; features.len()], None);
                let mut window =
                    Window { length, interval, latest: None, standing, told, mark: None, live, runs, seen };
                window.seen = window.see(features, judge, (&window.live, &window.runs), &|_, _| Vec::new());
                window
            })
            .collect();
        Self {
            lengths: settings.windows.clone(),
            latest: ArcSwap::from_pointee(seen(&windows)),
            windows: windows.into(),
        }
    }

    /// Computes what has changed, publishes it, and tells which of the verdicts that stand changed.
    pub(super) fn look(
        &self,
        features: &[MonitoredFeature],
        judge: &Judge,
        counts: &Counts,
        now: Duration,
    ) -> Vec<Change> {
        let mut windows = self.windows();
        let known: Option<Vec<_>> = windows.iter().map(|window| window.mark.clone()).collect();
        let firsts = features.iter().map(|feature| feature.cells.start);
        if let Some(moment) = counts.moment(&self.lengths, firsts, now, &known.unwrap_or_default()) {
            for (window, mark) in windows.iter_mut().zip(moment.marks) {
                if window.mark.as_ref().is_none_or(|known| !known.is_same(&mark)) {
                    let live = mark.rows(&moment.totals);
                    let over_time = |cells: Range<usize>, length: Duration| counts.over_time(cells, length, now);
                    window.seen = window.see(features, judge, (&live, &moment.runs), &over_time);
                    (window.live, window.mark) = (live, Some(mark));
                    window.runs.clone_from(&moment.runs);
                }
            }
            self.latest.store(Arc::new(seen(&windows)));
        }
        windows.iter_mut().filter_map(|window| window.decide(features, judge, now)).collect()
    }

    /// What the latest look found, window by window.
    pub(super) fn latest(&self) -> Arc<Vec<Arc<Seen>>> {
        self.latest.load_full()
    }

    /// The verdicts that stand over a window; none where it is not looked at.
    pub(super) fn standing(&self, length: Duration) -> Vec<Standing> {
        let windows = self.windows();
        windows.iter().find(|window| window.length == length).map(|window| window.standing.clone()).unwrap_or_default()
    }

    /// Goes on from the verdicts that stood for the same features: what was told before is no news.
    pub(super) fn adopt(&self, before: &Self) {
        for window in &mut *self.windows() {
            let windows = before.windows();
            let known = windows.iter().find(|known| known.length == window.length);
            if let Some(known) = known.filter(|known| known.standing.len() == window.standing.len()) {
                window.standing.clone_from(&known.standing);
                window.told.clone_from(&known.told);
            }
        }
    }

    fn windows(&self) -> MutexGuard<'_, Vec<Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seen(windows: &[Window]) -> Vec<Arc<Seen>> {
    windows.iter().map(|window| Arc::clone(&window.seen)).collect()
}

impl Window {
    /// What these rows are like; features whose rows are those of the last look are as they were.
    /// `over_time` tells the rows of cells by sub-window of a window, as [`Counts::over_time`] does: it is asked only where
    /// rows that do not depend on one another would be a drift.
    fn see(
        &self,
        features: &[MonitoredFeature],
        judge: &Judge,
        (live, runs): (&[u64], &[u64]),
        over_time: &dyn Fn(Range<usize>, Duration) -> Vec<Series>,
    ) -> Arc<Seen> {
        let of_feature = |(at, feature): (usize, &MonitoredFeature)| {
            let cells = feature.cells.clone();
            let rows = || feature.rows_and_run(live, runs[at]);
            // As many rows in each cell, and as many of one number.
            let is_same = || {
                live[cells.clone()] == self.live[cells.clone()]
                    && (runs[at] == self.runs[at]
                        || rows().is_one_number() == feature.rows_and_run(&self.live, self.runs[at]).is_one_number())
            };
            match self.seen.features.get(at) {
                Some(known) if is_same() => Arc::clone(known),
                _ => {
                    let (reference, live) = (feature.reference(), rows());
                    let series = || feature.over_time(over_time(cells.clone(), self.length));
                    let live = Side { rows: &live, over_time: &series };
                    Arc::new(feature.judge(
                        Side::independent(&reference),
                        live,
                        judge,
                        self.interval,
                        self.standing[at],
                    ))
                }
            }
        };
        let features = features.iter().enumerate().map(of_feature).collect();
        Arc::new(Seen { window: self.length, features })
    }

    /// Lets the verdicts stand, where the window has slid; what there is to tell of them.
    fn decide(&mut self, features: &[MonitoredFeature], judge: &Judge, now: Duration) -> Option<Change> {
        let step = now.as_nanos() / self.interval.as_nanos();
        if self.latest.replace(step) == Some(step) {
            return None;
        }
        let seen = &self.seen.features;
        self.standing = seen.iter().map(|judged| Standing::after(judged)).collect();
        let (told, told_at) = &mut self.told;
        let worst = |states: &[DriftState]| states.iter().copied().max().unwrap_or(DriftState::TooFewRows);
        let states: Vec<_> = seen.iter().map(|judged| judged.state).collect();
        let (before, after) = (worst(told), worst(&states));
        // That there is a verdict, or none, is no news of itself.
        let is_news = |before: DriftState, after: DriftState| before != after && before.max(after).is_alarm();
        let waits = told_at.is_some_and(|told_at| now.saturating_sub(told_at) < TELL_EVERY);
        let has_changed = told.iter().zip(&states).any(|(before, after)| is_news(*before, *after));
        if !has_changed || (waits && !is_news(before, after)) {
            return None;
        }
        let found =
            features.iter().zip(seen).zip(&*told).filter(|((_, judged), before)| is_news(**before, judged.state));
        let mut changes: Vec<_> = found
            .map(|((feature, judged), &before)| {
                let name = feature.profile.feature.clone();
                FeatureChange { feature: name, before, now: Arc::clone(judged) }
            })
            .collect();
        changes.sort_by(|a, b| b.now.cmp_by_severity(&a.now));
        let change = Change {
            window: self.length,
            before,
            now: after,
            rows: seen.iter().map(|judged| judged.rows).max().unwrap_or(0),
            min_rows: judge.min_rows(),
            alarms: states.iter().filter(|state| state.is_alarm()).count(),
            of: features.len(),
            features: changes,
        };
        self.told = (states, Some(now));
        Some(change)
    }
}
