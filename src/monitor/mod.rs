//! The drift monitor.

mod report;

pub use report::{BinCount, DriftReport, DriftState, FeatureKind, FeatureReport, Measures};
