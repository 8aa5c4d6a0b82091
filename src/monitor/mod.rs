//! The drift monitor.
//!
//! A version's [`Profile`] says what its inputs and outputs looked like when it was made. Every
//! answered request is offered to the [`Monitor`], whose own thread counts its rows into the bins
//! of the profile ([`VersionMonitor`]). Scores and verdicts are computed from the counts once a second, and
//! when somebody asks for a report, never on the way of a request or of a scrape. [`ProfileBuilder`] and [`Table`] make profiles.

mod buckets;
mod builder;
mod change;
mod column_types;
mod columns;
mod comparison;
mod counts;
mod derived;
mod edges;
mod exported;
mod feature;
mod fit;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod histogram;
mod intake;
mod joint;
mod keeper;
#[cfg(test)]
mod kinds;
mod learning;
mod leb128;
mod leftovers;
mod looks;
mod lot;
pub mod measures;
mod metrics;
mod pca;
mod precision;
mod profile;
mod quality;
mod quantile;
mod rare;
mod report;
mod row_batch;
mod runs;
mod saved;
mod segments;
mod self_test;
mod service;
mod settings;
mod simulation;
mod table;
#[cfg(test)]
mod truth;
mod verdict;
mod version_monitor;
mod watch;
mod window;

pub use buckets::HashBuckets;
pub use builder::{Built, ProfileBuilder, Skipped, Taken};
pub use change::{Change, FeatureChange};
pub use column_types::{ColumnType, ColumnTypes};
pub use columns::{ColumnNames, MAX_COLUMNS, feature_names, numbers};
pub use feature::Violation;
pub use keeper::{
    Keeper, KeeperOptions, KnownVersions, Teller, Watched, learning_path, learnt_profile_path, restore, save, write,
};
pub use learning::{Learning, LearningOptions, LearningProgress};
pub use metrics::{ExportSettings, MonitorCollector, window_label};
pub use pca::{ComponentFeature, MAX_COMPONENT_FEATURES, Moments, PrincipalComponents};
pub use precision::Precision;
pub use profile::{Category, Distribution, FeatureProfile, FeatureRole, FineBins, Profile, ProfileError, Source};
pub use quality::{Check, Checked, Quality};
pub use quantile::inner_edges;
pub use rare::RareValues;
pub use report::{
    Against, BinCount, Drift, DriftQuery, DriftReport, DriftState, FeatureKind, FeatureReport, Measures, RareBin,
    SegmentName,
};
pub use saved::SavedError;
pub use self_test::{CHANCE_ALPHA, FeatureSelfTest, FoundShift, SelfTest};
pub use service::{Clock, Monitor, MonitorHandle, Observation};
pub use settings::{Baseline, Contract, MonitorSettings};
pub use table::{Batch, Batches, MissingColumn, Table, TableError, TableOptions};
pub use verdict::{
    Judge, RareBinVerdict, RareFloors, Sample, Series, ShareSample, ShareVerdict, SmallestShift, Tests, Thresholds,
    Verdict, smallest_shift,
};
pub use version_monitor::{Answered, VersionMonitor};
pub use watch::{Lacking, MakeMonitor, Watch};
