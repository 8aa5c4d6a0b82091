//! What a monitor has to say: of all rows, of a segment, of another version.

use std::{ops::Range, time::Duration};

use super::VersionMonitor;
use crate::{
    domain::{ModelName, Version},
    monitor::{
        Against, DriftReport, DriftState, SegmentName, Series,
        feature::{MonitoredFeature, Rows, Side, Standing},
    },
};

/// Tells the rows of cells by sub-window, as [`crate::monitor::counts::Counts::over_time`] does.
type OverTime<'a> = &'a dyn Fn(Range<usize>) -> Vec<Series>;

impl VersionMonitor {
    /// The comparison of the rows of the last `window` with the profile.
    #[must_use]
    pub fn report(&self, model: &ModelName, version: Version, window: Duration, now: Duration) -> DriftReport {
        let (live, runs) = self.counts.within_and_runs(window, now, self.first_cells());
        let rows = |at: usize, feature: &MonitoredFeature| (feature.reference(), feature.rows_and_run(&live, runs[at]));
        let over_time = |cells: Range<usize>| self.counts.over_time(cells, window, now);
        self.compare((model, version), window, &self.looks.standing(window), rows, [&|_| Vec::new(), &over_time])
    }

    /// The report that says most: of the worst state, over the shortest window of these; where all is well, over the
    /// shortest that has rows enough for a verdict, or the longest.
    #[must_use]
    pub fn telling_report(&self, model: &ModelName, version: Version, now: Duration) -> Option<DriftReport> {
        self.telling(|window| Some(self.report(model, version, window, now)))
    }

    /// The same among what `report` gives for each window.
    #[must_use]
    pub fn telling(&self, report: impl FnMut(Duration) -> Option<DriftReport>) -> Option<DriftReport> {
        let mut reports: Vec<_> = self.window_lengths().iter().copied().filter_map(report).collect();
        reports.sort_by_key(|report| report.window);
        let worst = reports.iter().map(|report| report.state).max()?;
        let tells = |report: &DriftReport| report.state == worst && worst != DriftState::TooFewRows;
        let at = reports.iter().position(tells).unwrap_or(reports.len() - 1);
        Some(reports.swap_remove(at))
    }

    /// The comparison of the rows of one segment with the profile; `None` when there never was one.
    #[must_use]
    pub fn report_of_segment(
        &self,
        (model, version): (&ModelName, Version),
        segment: &SegmentName,
        window: Duration,
        now: Duration,
    ) -> Option<DriftReport> {
        let live = self.segments.within(segment, window, now)?;
        let rows = |_, feature: &MonitoredFeature| (feature.reference(), feature.rows(&live));
        // Segments have too few sub-windows to tell how their rows depend on one another.
        let mut report = self.compare((model, version), window, &[], rows, [&|_| Vec::new(); 2]);
        // The feature that makes the segment has one value in it: that is no drift.
        for feature in report.features.iter_mut().filter(|feature| feature.feature == segment.key) {
            let has_verdict = feature.state != DriftState::TooFewRows;
            feature.state = if has_verdict { DriftState::Ok } else { DriftState::TooFewRows };
            (feature.distribution, feature.rare_bin) = (feature.state, None);
            feature.quality.checks.clear();
        }
        report.state = report.features.iter().map(|feature| feature.state).max().unwrap_or(DriftState::Ok);
        Some(DriftReport { segment: Some(segment.clone()), ..report })
    }

    /// The comparison of the rows that a canary answered with those that this version did meanwhile; `None` when it
    /// answered none as canary of this one.
    #[must_use]
    pub fn report_of_canary(
        &self,
        (model, version): (&ModelName, Version),
        window: Duration,
        now: Duration,
    ) -> Option<DriftReport> {
        let canary = self.canary.load_full().filter(|canary| canary.is_of(version))?;
        let own = self.counts.within(window, now);
        let (live, runs) = canary.within_and_runs(window, now, self.first_cells());
        let own = canary.meanwhile(own, &self.totals());
        let rows = |at: usize, feature: &MonitoredFeature| (feature.rows(&own), feature.rows_and_run(&live, runs[at]));
        let own_over_time = |cells: Range<usize>| self.counts.over_time(cells, window, now);
        let over_time = |cells: Range<usize>| canary.over_time(cells, window, now);
        let report = self.compare((model, version), window, &[], rows, [&own_over_time, &over_time]);
        Some(DriftReport { against: Against::Stable, segments: Vec::new(), ..report })
    }

    /// The first cell of each feature.
    fn first_cells(&self) -> impl Iterator<Item = usize> {
        self.features.iter().map(|feature| feature.cells.start)
    }

    fn compare(
        &self,
        (model, version): (&ModelName, Version),
        window: Duration,
        standing: &[Standing],
        rows: impl Fn(usize, &MonitoredFeature) -> (Rows, Rows),
        over_time: [OverTime<'_>; 2],
    ) -> DriftReport {
        let look = self.settings.look_interval(window);
        let report = |(at, feature): (usize, &MonitoredFeature)| {
            let (reference, live) = rows(at, feature);
            let series = over_time.map(|of| move || feature.over_time(of(feature.cells.clone())));
            let sides = [(&reference, &series[0]), (&live, &series[1])];
            let [one, other] = sides.map(|(rows, over_time)| Side { rows, over_time });
            let standing = standing.get(at).copied().unwrap_or_default();
            feature.report(&reference, &live, feature.judge(one, other, &self.judge, look, standing))
        };
        let features: Vec<_> = self.features.iter().enumerate().map(report).collect();
        DriftReport {
            model: model.clone(),
            version,
            window,
            rows: features.iter().map(|feature| feature.rows).max().unwrap_or(0),
            min_rows: self.judge.min_rows(),
            state: features.iter().map(|feature| feature.state).max().unwrap_or(DriftState::Ok),
            alpha: self.judge.alpha(look),
            against: Against::Profile,
            segment: None,
            segments: self.segments.known(),
            features,
        }
    }
}
