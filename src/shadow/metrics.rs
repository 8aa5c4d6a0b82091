//! The comparisons as gauges, collected at scrape time: of each shadow version the newest pair.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{OutputReport, Shared};
use crate::telemetry::{Sample, gauge_family};

type Value = fn(&OutputReport) -> Option<f64>;

const FAMILIES: [(&str, &str, Value); 3] = [
    (
        "tidegate_shadow_difference_mean",
        "Mean absolute difference of the shadow's numbers from the answers'.",
        |output| output.mean_difference,
    ),
    (
        "tidegate_shadow_difference_max",
        "Largest absolute difference of the shadow's numbers from the answers'.",
        |output| output.max_difference,
    ),
    (
        "tidegate_shadow_score_psi",
        "Population stability index of the shadow's scores against the answers'.",
        |output| output.psi,
    ),
];

/// Holds the shadow weakly: metrics must not keep its threads alive.
pub(super) struct ShadowCollector {
    shared: Weak<Shared>,
    descriptions: Vec<Desc>,
}

impl ShadowCollector {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let labels = ["model", "version", "output"].map(str::to_owned).to_vec();
        let describe = |(name, help, _): (&str, &str, Value)| {
            Desc::new(name.into(), help.into(), labels.clone(), HashMap::new())
                .expect("the name and the labels are valid")
        };
        Self { shared: Arc::downgrade(shared), descriptions: FAMILIES.map(describe).to_vec() }
    }
}

impl Collector for ShadowCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let newest = shared.comparisons.newest();
        let family = |(name, help, value): (&str, &str, Value)| {
            let samples: Vec<Sample> = newest
                .iter()
                .flat_map(|((model, version), report)| {
                    report.outputs.iter().map(move |output| (model, version, output))
                })
                .filter_map(|(model, version, output)| {
                    let labels = vec![
                        ("model", model.to_string()),
                        ("version", version.to_string()),
                        ("output", output.output.clone()),
                    ];
                    Some((labels, value(output)?))
                })
                .collect();
            (!samples.is_empty()).then(|| gauge_family(name, help, samples))
        };
        FAMILIES.into_iter().filter_map(family).collect()
    }
}
