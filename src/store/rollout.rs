//! Rollouts in the state file: one for each model, the last one, with all that it has counted.
//!
//! Counts are written at each look, before anything is decided from them. So a decision never rests on
//! counts that a restart would lose, and what a restart does lose was never looked at: the guarantee of the
//! test stands.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, Transaction, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::{
    domain::{ModelName, Percent, Version},
    rollout::{Counts, Cuts, Kinds, Limits, OnDrift, Pair, Plan, Rollout, Seen, Segment, Status},
};

/// Beside the tables of the file's format: it is there or not, and older programs do not mind it.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS rollout (
        model TEXT PRIMARY KEY,
        body  TEXT NOT NULL,
        keys  BLOB NOT NULL
    ) STRICT;
";

/// A rollout as it is kept.
#[derive(Debug, Clone, Copy)]
pub struct RolloutRow<'a> {
    pub model: &'a ModelName,
    pub rollout: &'a Rollout,
    /// The keys that are in the counts of the step that goes on.
    pub keys: &'a [u8],
}

pub(super) fn write(transaction: &Transaction<'_>, row: &RolloutRow<'_>) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO rollout (model, body, keys) VALUES (?1, ?2, ?3)
         ON CONFLICT (model) DO UPDATE SET body = ?2, keys = ?3",
    )?;
    statement.execute(params![row.model.as_str(), encode(row.rollout), row.keys])?;
    Ok(())
}

/// All of them, with the keys of the step that goes on.
pub(super) fn read_all(connection: &Connection) -> Result<BTreeMap<ModelName, (Rollout, Vec<u8>)>, StoreError> {
    let mut statement = connection.prepare("SELECT model, body, keys FROM rollout")?;
    let mut rows = statement.query([])?;
    let mut rollouts = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (model, body): (String, String) = (row.get(0)?, row.get(1)?);
        let corrupt =
            |reason: String| StoreError::Corrupt { model: model.clone(), reason: format!("its rollout: {reason}") };
        let name = model.parse().map_err(|error: crate::domain::IdError| corrupt(error.to_string()))?;
        rollouts.insert(name, (decode(&body).map_err(corrupt)?, row.get(2)?));
    }
    Ok(rollouts)
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u64,
    stable: u64,
    steps: Vec<f64>,
    interval: Duration,
    alpha: f64,
    min_requests: u64,
    max_error_rate: f64,
    max_p99_ratio: f64,
    latency_tolerance: Duration,
    output_tolerance: f64,
    on_drift: String,
    status: String,
    step: usize,
    served: Duration,
    segments: Vec<StoredSegment>,
    cuts: Option<StoredCuts>,
    /// Since the epoch.
    started: Duration,
    ended: Option<Duration>,
    note: String,
}

#[derive(Serialize, Deserialize)]
struct StoredSegment {
    percent: f64,
    floor: f64,
    fresh: Sparse,
    keyed: Sparse,
    requests: [u64; 2],
    failures: [u64; 2],
    latency: Sparse,
}

#[derive(Serialize, Deserialize)]
struct StoredCuts {
    latency: Vec<Duration>,
    score: Vec<f64>,
}

/// Place, stable, canary: of the places that are not empty.
#[derive(Serialize, Deserialize)]
struct Sparse(Vec<(usize, u64, u64)>);

impl Sparse {
    fn of(pairs: &[Pair]) -> Self {
        let filled = pairs.iter().enumerate().filter(|(_, pair)| pair.all() > 0);
        Self(filled.map(|(place, pair)| (place, pair.stable, pair.canary)).collect())
    }

    fn fill(&self, pairs: &mut [Pair]) -> Result<(), String> {
        for (place, stable, canary) in &self.0 {
            *pairs.get_mut(*place).ok_or_else(|| format!("there is no count {place}"))? = Pair::new(*stable, *canary);
        }
        Ok(())
    }
}

fn encode(rollout: &Rollout) -> String {
    let Rollout { plan, stable, status, step, served, segments, cuts, started, ended, note, kinds: _ } = rollout;
    let Limits { max_error_rate, max_p99_ratio, latency_tolerance, output_tolerance, on_drift } = plan.limits;
    let since_epoch = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let stored = Stored {
        version: plan.version.get(),
        stable: stable.get(),
        steps: plan.steps.iter().map(|step| step.get()).collect(),
        interval: plan.interval,
        alpha: plan.alpha,
        min_requests: plan.min_requests,
        max_error_rate,
        max_p99_ratio,
        latency_tolerance,
        output_tolerance,
        on_drift: on_drift.as_str().into(),
        status: status.as_str().into(),
        step: *step,
        served: *served,
        segments: segments.iter().map(StoredSegment::of).collect(),
        cuts: cuts.as_ref().map(|cuts| StoredCuts { latency: cuts.latency.clone(), score: cuts.score.clone() }),
        started: since_epoch(*started),
        ended: ended.map(since_epoch),
        note: note.clone(),
    };
    serde_json::to_string(&stored).expect("numbers and text always have a JSON form")
}

/// # Errors
/// What is wrong, in words.
fn decode(body: &str) -> Result<Rollout, String> {
    let stored: Stored = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let version = |number: u64| Version::new(number).ok_or_else(|| "version 0".to_owned());
    let unknown = |what: &str| format!("'{what}' is unknown");
    let on_drift = OnDrift::ALL.into_iter().find(|on_drift| on_drift.as_str() == stored.on_drift);
    let status = Status::ALL.into_iter().find(|status| status.as_str() == stored.status);
    let plan = Plan {
        version: version(stored.version)?,
        steps: stored.steps.iter().map(|step| percent(*step)).collect::<Result<_, _>>()?,
        interval: stored.interval,
        alpha: stored.alpha,
        min_requests: stored.min_requests,
        limits: Limits {
            max_error_rate: stored.max_error_rate,
            max_p99_ratio: stored.max_p99_ratio,
            latency_tolerance: stored.latency_tolerance,
            output_tolerance: stored.output_tolerance,
            on_drift: on_drift.ok_or_else(|| unknown(&stored.on_drift))?,
        },
    };
    plan.check().map_err(|error| error.to_string())?;
    if stored.step >= plan.steps.len() || stored.segments.is_empty() {
        return Err(format!(
            "it is at step {} of {}, with {} segments",
            stored.step,
            plan.steps.len(),
            stored.segments.len()
        ));
    }
    Ok(Rollout {
        plan,
        stable: version(stored.stable)?,
        status: status.ok_or_else(|| unknown(&stored.status))?,
        step: stored.step,
        served: stored.served,
        segments: stored.segments.iter().map(StoredSegment::segment).collect::<Result<_, _>>()?,
        kinds: Kinds::default(),
        cuts: stored.cuts.map(|cuts| Cuts { latency: cuts.latency, score: cuts.score }),
        started: UNIX_EPOCH + stored.started,
        ended: stored.ended.map(|at| UNIX_EPOCH + at),
        note: stored.note,
    })
}

fn percent(value: f64) -> Result<Percent, String> {
    Percent::new(value).map_err(|error| error.to_string())
}

impl StoredSegment {
    fn of(segment: &Segment) -> Self {
        let Seen { requests, failures, latency } = &segment.seen;
        Self {
            percent: segment.percent.get(),
            floor: segment.floor.get(),
            fresh: Sparse::of(segment.fresh.cells()),
            keyed: Sparse::of(segment.keyed.cells()),
            requests: [requests.stable, requests.canary],
            failures: [failures.stable, failures.canary],
            latency: Sparse::of(latency),
        }
    }

    fn segment(&self) -> Result<Segment, String> {
        let mut segment = Segment::new(percent(self.percent)?, percent(self.floor)?);
        let fill = |sparse: &Sparse, counts: &mut Counts| sparse.fill(counts.cells_mut());
        fill(&self.fresh, &mut segment.fresh)?;
        fill(&self.keyed, &mut segment.keyed)?;
        self.latency.fill(&mut segment.seen.latency)?;
        segment.seen.requests = Pair::new(self.requests[0], self.requests[1]);
        segment.seen.failures = Pair::new(self.failures[0], self.failures[1]);
        Ok(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rollout::cell, store::Store};

    fn rollout() -> Rollout {
        let limits = Limits {
            max_error_rate: 0.1,
            max_p99_ratio: 2.0,
            latency_tolerance: Duration::from_millis(2),
            output_tolerance: 0.1,
            on_drift: OnDrift::RollBack,
        };
        let steps = [0.5, 12.5, 100.0].map(|step| Percent::new(step).unwrap()).to_vec();
        let interval = Duration::from_mins(10);
        let plan = Plan { version: Version::new(4).unwrap(), steps, interval, alpha: 0.01, min_requests: 50, limits };
        let mut rollout =
            Rollout::start(plan, Version::new(3).unwrap(), UNIX_EPOCH + Duration::from_micros(7)).unwrap();
        rollout.advance();
        rollout.cuts = Some(Cuts { latency: vec![Duration::from_nanos(123_457)], score: vec![0.1, 1.0 / 3.0] });
        rollout.served = Duration::from_millis(1_234);
        let segment = rollout.segment_mut();
        segment.fresh.cells_mut()[cell::CLASS.start] = Pair::new(7, 1);
        segment.keyed.cells_mut()[0] = Pair::new(3, 2);
        segment.seen.requests = Pair::new(10, 3);
        segment.seen.latency[17] = Pair::new(1, 0);
        rollout
    }

    #[test]
    fn rollout_is_there_after_reopening_to_the_bit() {
        let directory = tempfile::tempdir().unwrap();
        let model: ModelName = "fraud".parse().unwrap();
        let mut rollout = rollout();
        let keys = [1, 2, 3];
        let mut store = Store::open(directory.path()).unwrap();
        store.commit_with(&[], &[RolloutRow { model: &model, rollout: &rollout, keys: &keys }]).unwrap();
        rollout.end(Status::RolledBack, "worse".into(), UNIX_EPOCH + Duration::from_secs(9));
        store.commit_with(&[], &[RolloutRow { model: &model, rollout: &rollout, keys: &keys }]).unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.rollouts().unwrap(), BTreeMap::from([(model, (rollout, keys.to_vec()))]));
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let good = encode(&rollout());
        for (from, to, words) in [
            (r#""status":"running""#, r#""status":"flying""#, "'flying' is unknown"),
            (r#""step":1"#, r#""step":3"#, "at step 3 of 3"),
            (r#""version":4"#, r#""version":0"#, "version 0"),
            ("[[0,3,2]]", "[[99,3,2]]", "no count 99"),
            ("12.5,100.0]", "12.5,50.0]", "'steps'"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            let error = decode(&bad).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(decode("{}").is_err());
    }
}
