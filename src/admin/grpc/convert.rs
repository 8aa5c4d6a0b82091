//! From the domain to the messages of `tidegate_admin.proto`, where 0 stands for no version.

use crate::{
    admin::{events::Told, wire as json},
    domain, monitor,
    proto::admin::{self as wire, comparison, drift_report, drift_self_test, rollout, verification},
    registry, release,
    schedule::LaneStatus,
    shadow, store,
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
            rolled_back: release.rolled_back.iter().map(|version| version.get()).collect(),
            warnings: Vec::new(),
        }
    }
}

impl From<&registry::Changed> for wire::Release {
    fn from(changed: &registry::Changed) -> Self {
        Self { warnings: changed.warnings.clone(), ..Self::from(&changed.release) }
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
            traffic: Some(json::Traffic::from(&status.traffic).into()),
            monitored: status.monitored,
            learning: status.learning.as_ref().map(|progress| json::Learning::from(progress).into()),
            runs: status.lane.as_ref().map(wire::Runs::from),
            shadow_dropped: status
                .shadow_dropped
                .iter()
                .map(|(why, copies)| (why.as_str().to_owned(), *copies))
                .collect(),
            traffic_percent: None,
            files_changed: status.files_changed,
            changed: status
                .changed
                .as_ref()
                .map(|changed| wire::ChangedFiles { released: changed.released.clone(), found: changed.found.clone() }),
            admission: steps.into_iter().map(wire::AdmissionStep::from).collect(),
        }
    }
}

impl From<json::Traffic> for wire::Traffic {
    fn from(traffic: json::Traffic) -> Self {
        let json::Traffic { requests, errors, refusals, cancelled, recent } = traffic;
        Self { requests, errors, refusals, cancelled, recent: recent.map(wire::RecentTraffic::from) }
    }
}

impl From<json::RecentTraffic> for wire::RecentTraffic {
    fn from(recent: json::RecentTraffic) -> Self {
        let json::RecentTraffic {
            window_seconds,
            requests,
            errors,
            refusals,
            requests_per_second,
            p50_seconds,
            p99_seconds,
        } = recent;
        Self { window_seconds, requests, errors, refusals, requests_per_second, p50_seconds, p99_seconds }
    }
}

impl From<json::Unrouted> for wire::Unrouted {
    fn from(json::Unrouted { errors, refusals }: json::Unrouted) -> Self {
        Self { errors, refusals }
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
            batching_stopped: lane.is_merging_stopped,
            independence: Some(json::Independence::from(&*lane.verdict).into()),
        }
    }
}

impl From<json::Independence> for wire::Independence {
    fn from(independence: json::Independence) -> Self {
        let json::Independence { outcome, why, axes, warnings } = independence;
        let one = |json::RowAxis { role, tensor, axis }| wire::RowAxis { role, tensor, axis };
        let axes = axes.into_iter().map(one).collect();
        Self { outcome, why: why.unwrap_or_default(), axes, warnings }
    }
}

impl From<&registry::ModelStatus> for wire::ModelStatus {
    fn from(status: &registry::ModelStatus) -> Self {
        let with_traffic = |version: &registry::VersionStatus| wire::VersionStatus {
            traffic_percent: json::traffic_percent(&status.release, version.version).map(|share| share.0),
            ..wire::VersionStatus::from(version)
        };
        Self {
            model: status.name.to_string(),
            release: Some(wire::Release::from(&status.release)),
            versions: status.versions.iter().map(with_traffic).collect(),
            unrouted: Some(json::Unrouted::from(status.unrouted).into()),
            comparison: status.comparison.as_ref().map(wire::Comparison::from),
            misplaced: status.misplaced.iter().map(wire::Misplaced::from).collect(),
            warnings: status.warnings.clone(),
        }
    }
}

impl From<&registry::Misplaced> for wire::Misplaced {
    fn from(misplaced: &registry::Misplaced) -> Self {
        let json::Misplaced { path, state, reason } = json::Misplaced::from(misplaced);
        Self { path, state, reason }
    }
}

impl From<&shadow::ShadowReport> for wire::Comparison {
    fn from(report: &shadow::ShadowReport) -> Self {
        let report = json::Comparison::from(report);
        Self {
            version: report.version,
            against: report.against,
            copies: report.copies,
            against_seconds: report.against_seconds,
            version_seconds: report.version_seconds,
            outputs: report.outputs.into_iter().map(comparison::Output::from).collect(),
        }
    }
}

impl From<json::OutputComparison> for comparison::Output {
    fn from(output: json::OutputComparison) -> Self {
        Self {
            output: output.output,
            rows: output.rows,
            agreement: output.agreement,
            elements: output.elements,
            mean_difference: output.mean_difference,
            max_difference: output.max_difference,
            incomparable: output.incomparable,
            mismatched: output.mismatched,
            psi: output.psi,
            edges: output.edges,
            against_bins: output.against_bins,
            version_bins: output.version_bins,
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
            asked: entry.asked.clone(),
            outcome: entry.outcome.as_str().to_owned(),
            detail: entry.detail.clone().unwrap_or_default(),
            attempts: entry.attempts,
            hash: entry.hash.clone(),
        }
    }
}

impl From<&store::Verification> for wire::Verification {
    fn from(found: &store::Verification) -> Self {
        let entry = |sequence, text: &str| verification::Entry { sequence, text: text.to_owned() };
        Self {
            intact: found.broken.is_none(),
            entries: found.entries,
            head: found.head.as_ref().map(|head| entry(head.sequence, &head.hash)),
            broken: found.broken.as_ref().map(|broken| entry(broken.sequence, &broken.why)),
        }
    }
}

impl wire::Event {
    /// `None` where there is nothing to tell.
    pub(super) fn of(told: &Told) -> Option<Self> {
        match told {
            Told::Event(event) => Some(Self {
                at: json::timestamp(event.at),
                topic: event.topic.as_str().to_owned(),
                model: event.model.to_string(),
                version: event.version.map_or(0, domain::Version::get),
                what: event.what.clone(),
                message: event.message.clone(),
                missed: 0,
            }),
            Told::Missed(missed) => Some(Self { topic: "missed".to_owned(), missed: *missed, ..Self::default() }),
            Told::Alive => None,
        }
    }
}

impl From<&monitor::Drift> for wire::DriftReport {
    fn from(drift: &monitor::Drift) -> Self {
        let report = json::DriftReport::from(drift);
        Self {
            model: report.model,
            version: report.version,
            window: report.window,
            rows: report.rows,
            min_rows: report.min_rows,
            state: report.state,
            features: report.features.into_iter().map(drift_report::Feature::from).collect(),
            multivariate: report.multivariate.map(drift_report::Feature::from),
            alpha: report.alpha,
            against: report.against,
            segment: report.segment,
            segments: report.segments,
            learning: report.learning.map(wire::Learning::from),
        }
    }
}

impl From<json::Learning> for wire::Learning {
    fn from(learning: json::Learning) -> Self {
        let json::Learning { rows, min_rows, rows_left, since, length, earliest_end, seconds_left, full } = learning;
        let (since, earliest_end) = (since.unwrap_or_default(), earliest_end.unwrap_or_default());
        Self { rows, min_rows, rows_left, since, length, earliest_end, seconds_left, full }
    }
}

impl From<json::Feature> for drift_report::Feature {
    fn from(feature: json::Feature) -> Self {
        let bin = |bin: json::Bin| drift_report::Bin { bin: bin.bin, reference: bin.reference, live: bin.live };
        let checked = |(name, checked): (&str, &json::Checked)| {
            let json::Checked { ref state, reference, live, threshold, design_effect } = *checked;
            let state = state.clone();
            (name.to_owned(), drift_report::Checked { state, reference, live, threshold, design_effect })
        };
        Self {
            tensor: feature.tensor,
            feature: feature.feature,
            kind: feature.kind,
            rows: feature.rows,
            missing: feature.missing,
            state: feature.state,
            rare_bin: feature.rare_bin.map(|rare| {
                let json::RareBin { bin, state, reference, live, design_effect } = rare;
                drift_report::RareBin { bin, state, reference, live, design_effect }
            }),
            // The message has no null: where there is no threshold, nothing reaches it.
            threshold: feature.threshold.unwrap_or(f64::INFINITY),
            measures: feature.measures.named().map(|(name, value)| (name.to_owned(), value)).collect(),
            psi_interval: feature.psi_interval.into_iter().flatten().collect(),
            quality: feature.quality.named().map(checked).collect(),
            design_effect: feature.design_effect,
            effective_rows: feature.effective_rows,
            bins: feature.bins.into_iter().map(bin).collect(),
        }
    }
}

impl From<&monitor::SelfTest> for wire::DriftSelfTest {
    fn from(test: &monitor::SelfTest) -> Self {
        let test = json::DriftSelfTest::from(test);
        Self {
            model: test.model,
            version: test.version,
            window: test.window,
            live_rows: test.live_rows,
            rows: test.rows,
            looks: test.looks,
            draws: test.draws,
            alpha: test.alpha,
            miscounted: test.miscounted,
            false_warnings: test.false_warnings,
            false_drifts: test.false_drifts,
            chance_alpha: test.chance_alpha,
            chance_rate: test.chance_rate,
            features: test.features.into_iter().map(drift_self_test::Feature::from).collect(),
        }
    }
}

impl From<json::FeatureSelfTest> for drift_self_test::Feature {
    fn from(test: json::FeatureSelfTest) -> Self {
        let shift = |json::FoundShift { power, psi, sigma, found }| drift_self_test::Shift { power, psi, sigma, found };
        Self {
            tensor: test.tensor,
            feature: test.feature,
            kind: test.kind,
            miscounted: test.miscounted,
            false_warnings: test.false_warnings,
            false_drifts: test.false_drifts,
            chance_rate: test.chance_rate,
            shifts: test.shifts.into_iter().map(shift).collect(),
        }
    }
}

/// An empty text or list asks for nothing.
impl From<wire::StartRolloutRequest> for json::RolloutBody {
    fn from(request: wire::StartRolloutRequest) -> Self {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let steps = request.steps.into_iter().map(json::Share).collect::<Vec<_>>();
        Self {
            version: request.version,
            steps: Some(steps).filter(|steps| !steps.is_empty()),
            interval: text(request.interval),
            alpha: request.alpha,
            min_requests: request.min_requests,
            max_error_rate: request.max_error_rate,
            max_p99_ratio: request.max_p99_ratio,
            latency_tolerance: text(request.latency_tolerance),
            output_tolerance: request.output_tolerance,
            on_drift: text(request.on_drift),
            reason: None,
        }
    }
}

impl From<&registry::RolloutStatus> for wire::Rollout {
    fn from(status: &registry::RolloutStatus) -> Self {
        let of = json::RolloutStatus::from(status);
        Self {
            model: of.model,
            version: of.version,
            stable: of.stable,
            state: of.state,
            note: of.note,
            step: of.step,
            percent: of.percent.0,
            steps: of.steps.iter().map(|step| step.0).collect(),
            interval: of.interval,
            served_seconds: of.served_seconds,
            min_requests: of.min_requests,
            requests: Some(of.requests.into()),
            failures: Some(of.failures.into()),
            alpha: of.evidence.alpha,
            evidence_limit: of.evidence.limit,
            evidence: of.evidence.combined,
            metrics: of.evidence.metrics.into_iter().map(rollout::Metric::from).collect(),
            max_error_rate: of.limits.max_error_rate,
            max_p99_ratio: of.limits.max_p99_ratio,
            latency_tolerance: of.limits.latency_tolerance,
            output_tolerance: of.limits.output_tolerance,
            on_drift: of.limits.on_drift,
            started_at: of.started_at,
            ended_at: of.ended_at.unwrap_or_default(),
            release: Some(wire::Release::from(&status.release)),
            missing: of.missing,
        }
    }
}

impl From<json::Arms> for rollout::Arms {
    fn from(arms: json::Arms) -> Self {
        Self { stable: arms.stable, canary: arms.canary }
    }
}

impl From<json::MetricEvidence> for rollout::Metric {
    fn from(metric: json::MetricEvidence) -> Self {
        Self {
            metric: metric.metric,
            evidence: metric.evidence,
            weight: metric.weight,
            material: metric.material,
            requests: Some(metric.requests.into()),
            events: metric.events.map(rollout::Arms::from),
            distance: metric.distance,
            compared: metric.compared.map(rollout::Arms::from),
        }
    }
}

fn release_json(release: &release::Release) -> String {
    serde_json::to_string(&json::Release::from(release)).expect("a release has text keys only")
}
