//! From the domain to the messages of `tidegate_admin.proto`, where 0 stands for no version.

use crate::{
    admin::wire as json,
    domain, monitor,
    proto::admin::{self as wire, drift_report},
    registry, release,
    schedule::LaneStatus,
};

impl From<release::Split> for wire::Split {
    fn from(split: release::Split) -> Self {
        Self { version: split.version.get(), percent: split.percent.get() }
    }
}

impl From<&release::Release> for wire::Release {
    fn from(release: &release::Release) -> Self {
        Self {
            generation: release.generation,
            stable: release.stable.map_or(0, domain::Version::get),
            previous: release.previous.map_or(0, domain::Version::get),
            canary: release.canary.map(wire::Split::from),
            shadow: release.shadow.map(wire::Split::from),
            labels: release.labels.iter().map(|(label, version)| (label.to_string(), version.get())).collect(),
        }
    }
}

impl From<&registry::VersionStatus> for wire::VersionStatus {
    fn from(status: &registry::VersionStatus) -> Self {
        let steps = status.admission.as_deref().map(json::admission).unwrap_or_default();
        Self {
            version: status.version.get(),
            state: status.state.as_str().to_owned(),
            reason: status.reason.clone().unwrap_or_default(),
            digest: status.digest.clone().unwrap_or_default(),
            memory_bytes: status.memory_bytes.unwrap_or_default(),
            loaded_at: status.loaded_at.map(json::timestamp).unwrap_or_default(),
            requests: status.requests,
            monitored: status.monitored,
            runs: status.lane.as_ref().map(wire::Runs::from),
            admission: steps.into_iter().map(wire::AdmissionStep::from).collect(),
        }
    }
}

impl From<json::AdmissionStep> for wire::AdmissionStep {
    fn from(step: json::AdmissionStep) -> Self {
        let json::AdmissionStep { step, outcome, why, seconds } = step;
        Self { step, outcome, why, seconds }
    }
}

impl From<&LaneStatus> for wire::Runs {
    fn from(lane: &LaneStatus) -> Self {
        Self {
            placement: lane.placement.as_str().to_owned(),
            run_seconds: lane.run.as_secs_f64(),
            row_seconds: lane.per_row.as_secs_f64(),
            max_batch_rows: lane.max_batch_rows as u64,
            max_delay_seconds: lane.max_delay.as_secs_f64(),
            instances: lane.instances as u64,
            waiting: lane.waiting as u64,
            alone: lane.alone.clone().unwrap_or_default(),
        }
    }
}

impl From<&registry::ModelStatus> for wire::ModelStatus {
    fn from(status: &registry::ModelStatus) -> Self {
        Self {
            model: status.name.to_string(),
            release: Some(wire::Release::from(&status.release)),
            versions: status.versions.iter().map(wire::VersionStatus::from).collect(),
        }
    }
}

impl From<&registry::HistoryEntry> for wire::HistoryEntry {
    fn from(entry: &registry::HistoryEntry) -> Self {
        Self {
            sequence: entry.sequence,
            at: json::timestamp(entry.at),
            actor: entry.actor.clone(),
            operation: entry.operation.clone(),
            from: release_json(&entry.from),
            to: release_json(&entry.to),
            reason: entry.reason.clone().unwrap_or_default(),
        }
    }
}

impl From<&monitor::DriftReport> for wire::DriftReport {
    fn from(report: &monitor::DriftReport) -> Self {
        let report = json::DriftReport::from(report);
        Self {
            model: report.model,
            version: report.version,
            window: report.window,
            rows: report.rows,
            state: report.state,
            features: report.features.into_iter().map(drift_report::Feature::from).collect(),
        }
    }
}

impl From<json::Feature> for drift_report::Feature {
    fn from(feature: json::Feature) -> Self {
        let bin = |bin: json::Bin| drift_report::Bin { bin: bin.bin, reference: bin.reference, live: bin.live };
        Self {
            tensor: feature.tensor,
            feature: feature.feature,
            kind: feature.kind,
            rows: feature.rows,
            missing: feature.missing,
            state: feature.state,
            // The message has no null: where there is no threshold, nothing reaches it.
            threshold: feature.threshold.unwrap_or(f64::INFINITY),
            measures: feature.measures.named().map(|(name, value)| (name.to_owned(), value)).collect(),
            bins: feature.bins.into_iter().map(bin).collect(),
        }
    }
}

fn release_json(release: &release::Release) -> String {
    serde_json::to_string(&json::Release::from(release)).expect("a release has text keys only")
}
