//! Verdicts that changed, and how they are told: one line for all features of a window.

use std::{fmt, sync::Arc, time::Duration};

use super::{DriftState, feature::Judged, metrics::window_label};

/// Features that a line names, at most, and those of which it says more.
const MOST_NAMED: usize = 10;
const MOST_DETAILED: usize = 3;

/// What looks at one window have changed since the last time that it was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub window: Duration,
    /// The worst state of all features, as told last.
    pub before: DriftState,
    /// What it is now.
    pub now: DriftState,
    /// The largest number of rows of any feature in the window.
    pub rows: u64,
    /// With fewer there is no verdict.
    pub min_rows: u64,
    /// How many features are in state `warning` or `drift`, of how many.
    pub alarms: usize,
    pub of: usize,
    /// Those whose state has changed, the worst first.
    pub features: Vec<FeatureChange>,
}

/// The state of a feature that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureChange {
    pub feature: String,
    pub before: DriftState,
    /// What it is now, and by how much.
    pub(super) now: Arc<Judged>,
}

impl FeatureChange {
    #[must_use]
    pub fn state(&self) -> DriftState {
        self.now.state
    }

    fn is_worse(&self) -> bool {
        self.now.state > self.before
    }
}

impl Change {
    /// Whether a feature is in a worse state than was told.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.features.iter().any(FeatureChange::is_worse)
    }

    /// The names of the features that changed, of many the worst.
    #[must_use]
    pub fn names(&self) -> String {
        named(&self.features.iter().map(|change| change.feature.clone()).collect::<Vec<_>>())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, before, now, rows, min_rows, alarms, of, features } = self;
        let (window, before) = (window_label(*window), before.as_str());
        match now {
            DriftState::TooFewRows => write!(f, "no verdict over {window}, was {before}: {rows} of {min_rows} rows")?,
            DriftState::Ok => write!(f, "ok over {window}, was {before}: {rows} rows")?,
            DriftState::Warning | DriftState::Drift => {
                let state = now.as_str();
                write!(
                    f,
                    "{state} over {window}, was {before}: {alarms} of {of} features in warning or drift, {rows} rows"
                )?;
            }
        }
        let (worse, better): (Vec<_>, Vec<_>) = features.iter().partition(|change| change.is_worse());
        let detailed = |(at, change): (usize, &&FeatureChange)| match at {
            0..MOST_DETAILED => format!("{} ({})", change.feature, Details(&change.now)),
            _ => change.feature.clone(),
        };
        if !worse.is_empty() {
            write!(f, "; {}", named(&worse.iter().enumerate().map(detailed).collect::<Vec<_>>()))?;
        }
        if !better.is_empty() {
            let names: Vec<_> = better.iter().map(|change| change.feature.clone()).collect();
            write!(f, "; better or over: {}", named(&names))?;
        }
        Ok(())
    }
}

/// Names, and of many how many more there are.
pub(super) fn named(names: &[String]) -> String {
    let shown = &names[..names.len().min(MOST_NAMED)];
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Why a feature is in its state.
struct Details<'a>(&'a Judged);

impl fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let judged = self.0;
        f.write_str(judged.state.as_str())?;
        if judged.distribution.is_alarm()
            && let Some(corrected) = judged.measures.psi_corrected
        {
            write!(f, "; corrected PSI {corrected:.4}, drift from {:.4}", judged.threshold)?;
            if let Some(effective) = judged.effective_rows.filter(|_| judged.design_effect > Some(1.0)) {
                write!(f, ", as rows that depend on one another are worth {effective:.0}")?;
            }
        }
        let percent = |share: f64| 100.0 * share;
        if let Some(rare) = &judged.rare_bin {
            let (live, reference) = (percent(rare.live), percent(rare.reference));
            write!(f, "; '{}' {live:.2} % of rows, {reference:.2} % in the reference", rare.bin)?;
        }
        for checked in judged.quality.checks.iter().filter(|checked| checked.state.is_alarm()) {
            let (check, live, reference) = (checked.check.as_str(), percent(checked.live), percent(checked.reference));
            match checked.check {
                // Its shares are of one value, and say nothing that the word does not.
                super::Check::Constant => write!(f, "; {check}")?,
                _ => write!(f, "; {check} {live:.2} % of rows, {reference:.2} % in the reference")?,
            }
        }
        Ok(())
    }
}
