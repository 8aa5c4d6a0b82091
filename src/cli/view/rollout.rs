//! A rollout as a line on where it is, and a table of what was found.

use std::time::Duration;

use comfy_table::{Cell, Color};

use super::{NONE, table::Table};
use crate::{
    admin::wire::{Arms, MetricEvidence, RolloutStatus},
    cli::output::{Look, printable},
    rollout::shown_evidence as number,
};

pub(in crate::cli) fn rollout(rollout: &RolloutStatus, dry_run: bool, look: Look) -> String {
    let mut table = Table::new(&["METRIC", "EVIDENCE", "WEIGHT", "DISTANCE", "COUNTS", "CANARY", "STABLE"], look);
    table.right(1).right(2).right(3);
    for metric in &rollout.evidence.metrics {
        let colour =
            (metric.material && metric.evidence * metric.weight >= rollout.evidence.limit).then_some(Color::Red);
        table.row([
            Cell::new(printable(&metric.metric)),
            table.coloured(&number(metric.evidence), colour),
            Cell::new(metric.weight),
            Cell::new(metric.distance.map_or_else(|| NONE.to_owned(), |distance| format!("{distance:.3}"))),
            Cell::new(if metric.material { "yes" } else { "no" }),
            Cell::new(arm(metric, |arms| arms.canary)),
            Cell::new(arm(metric, |arms| arms.stable)),
        ]);
    }
    let note = if dry_run { " (dry run: nothing changed)" } else { "" };
    format!("{}{note}\n{}\n\n{}\n{}\n", head(rollout), printable(&rollout.note), table.text(), tail(rollout))
}

fn head(rollout: &RolloutStatus) -> String {
    let steps: Vec<_> = rollout.steps.iter().map(|step| format!("{}%", step.0)).collect();
    format!(
        "{}: version {} beside {}, {}, step {} of {} ({})",
        printable(&rollout.model),
        rollout.version,
        rollout.stable,
        printable(&rollout.state).replace('_', " "),
        rollout.step,
        steps.len(),
        steps.join(", "),
    )
}

fn tail(rollout: &RolloutStatus) -> String {
    let served = Duration::try_from_secs_f64(rollout.served_seconds).unwrap_or_default();
    let served = humantime::format_duration(Duration::from_secs(served.as_secs()));
    let evidence = &rollout.evidence;
    let missing: Vec<_> =
        rollout.missing.iter().map(|missing| format!("still missing: {}\n", printable(missing))).collect();
    let missing = missing.concat();
    format!(
        "this step: {served} of {}, {} requests on the canary (at least {}), {} failed\n\
         {missing}evidence against the canary: {}; it is rolled back at {}",
        printable(&rollout.interval),
        rollout.requests.canary,
        rollout.min_requests,
        rollout.failures.canary,
        number(evidence.combined),
        number(evidence.limit),
    )
}

/// Events of requests, or requests alone.
fn arm(metric: &MetricEvidence, of: fn(&Arms) -> u64) -> String {
    let requests = of(&metric.requests);
    metric.events.as_ref().map_or_else(|| requests.to_string(), |events| format!("{} of {requests}", of(events)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::{Evidence, Limits, Release, Share};

    fn status() -> RolloutStatus {
        let metric = |name: &str, evidence, material, events, distance| MetricEvidence {
            metric: name.into(),
            evidence,
            weight: 0.5,
            material,
            requests: Arms { stable: 1800, canary: 200 },
            events,
            compared: None,
            distance,
        };
        RolloutStatus {
            model: "fraud".into(),
            version: 4,
            stable: 3,
            state: "rolled_back".into(),
            note: "rolled back at 5 %: failures".into(),
            step: 2,
            percent: Share(5.0),
            steps: [1.0, 5.0, 100.0].map(Share).to_vec(),
            interval: "10m".into(),
            served_seconds: 61.7,
            min_requests: 200,
            missing: vec!["score: 137 of 200 compared requests of stable".into()],
            requests: Arms { stable: 900, canary: 100 },
            failures: Arms { stable: 1, canary: 9 },
            evidence: Evidence {
                alpha: 0.01,
                limit: 100.0,
                combined: 1.5e7,
                metrics: vec![
                    metric("failures", 3e7, true, Some(Arms { stable: 2, canary: 12 }), None),
                    metric("class", 0.25, false, None, Some(0.0312)),
                ],
            },
            limits: Limits {
                max_error_rate: 0.1,
                max_p99_ratio: 2.0,
                latency_tolerance: "2ms".into(),
                output_tolerance: 0.1,
                on_drift: "hold".into(),
            },
            started_at: "2026-01-02T03:04:05.678Z".into(),
            ended_at: None,
            release: Release::default(),
        }
    }

    #[test]
    fn rollout_says_where_it_is_and_what_was_found() {
        let shown = rollout(&status(), false, Look { colours: false, width: None });
        let expected = "\
fraud: version 4 beside 3, rolled back, step 2 of 3 (1%, 5%, 100%)
rolled back at 5 %: failures

METRIC    EVIDENCE  WEIGHT  DISTANCE  COUNTS  CANARY     STABLE
failures     3.0e7     0.5         -  yes     12 of 200  2 of 1800
class         0.25     0.5     0.031  no      200        1800

this step: 1m 1s of 10m, 100 requests on the canary (at least 200), 9 failed
still missing: score: 137 of 200 compared requests of stable
evidence against the canary: 1.5e7; it is rolled back at 100.00
";
        assert_eq!(shown, expected);
        assert!(rollout(&status(), true, Look { colours: false, width: None }).contains("(dry run: nothing changed)"));
    }

    #[test]
    fn metric_that_rolls_back_is_red_on_a_terminal() {
        assert!(rollout(&status(), false, Look { colours: true, width: None }).contains("\u{1b}["));
    }
}
