//! A verdict that changed, and how it is told.

use std::{fmt, time::Duration};

use super::{DriftState, FeatureReport, metrics::window_label};

/// The verdict on a feature that a look changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub window: Duration,
    pub before: DriftState,
    /// What it is now, and by how much.
    pub now: FeatureReport,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, before, now } = self;
        let (state, before, window) = (now.state.as_str(), before.as_str(), window_label(*window));
        write!(f, "feature '{}' is in state {state}, was {before}, over {window} with {} rows", now.feature, now.rows)?;
        if let Some(corrected) = now.measures.psi_corrected {
            write!(f, ": corrected PSI {corrected:.4}, drift from {:.4}", now.threshold)?;
            if let Some(effective) = now.effective_rows.filter(|_| now.design_effect > Some(1.0)) {
                write!(f, ", as rows that depend on one another are worth {effective:.0}")?;
            }
        }
        for checked in now.quality.checks.iter().filter(|checked| checked.state != DriftState::Ok) {
            let (check, live, reference) = (checked.check.as_str(), 100.0 * checked.live, 100.0 * checked.reference);
            write!(f, "; {check} {live:.2} % of rows, {reference:.2} % in the reference")?;
        }
        Ok(())
    }
}
