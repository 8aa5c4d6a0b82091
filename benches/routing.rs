//! What choosing a version costs, with and without a canary and a shadow.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use divan::Bencher;
use tidegate::{
    domain::{Batching, ModelName, Percent, Priority, ServingSettings, Signature, Target, Tensor, Version},
    engine::{EngineError, Model},
    observe::{RecentBudget, RecentRequests, VersionMetrics},
    release::{Release, Split},
    route::{ModelRoute, Servable},
    schedule::{Lane, Pool, Trial},
    telemetry::Metrics,
};

fn main() {
    divan::main();
}

/// A model that is chosen but never runs.
struct Idle(Arc<Signature>);

impl Model for Idle {
    fn signature(&self) -> &Arc<Signature> {
        &self.0
    }

    fn run(&self, _: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        Ok(Vec::new())
    }
}

fn model_name() -> ModelName {
    "bench".parse().expect("a name")
}

fn version(number: u64) -> Version {
    Version::new(number).expect("not 0")
}

fn servable(number: u64, pool: &Pool) -> Arc<Servable> {
    let signature = Arc::new(Signature { inputs: vec![], outputs: vec![] });
    let settings = Arc::new(ServingSettings {
        max_queue: 1,
        max_queue_bytes: 1,
        max_wait: Duration::from_secs(1),
        instances: 1,
        inline_limit: Duration::ZERO,
        default_priority: Priority::from_wire(1).expect("not 0"),
        default_timeout: None,
        batching: Batching::Off,
    });
    let model = Box::new(Idle(Arc::clone(&signature)));
    let lane = Lane::new(model, Arc::clone(&settings), Trial::none(), pool.clone(), || {});
    let metrics = VersionMetrics::new(&Metrics::new(), &model_name(), version(number));
    let facts = Arc::default();
    let recent = Arc::new(RecentRequests::new(0, RecentBudget::default()));
    Arc::new(Servable {
        version: version(number),
        signature,
        settings,
        facts,
        lane,
        watch: Arc::default(),
        metrics,
        recent,
    })
}

/// Versions 1 to 3 are ready, 1 is stable; `percent` of the requests are for 2, and go to 3 too.
fn route(percent: Option<f64>) -> ModelRoute {
    let percent = percent.map(|value| Percent::new(value).expect("from 0 to 100"));
    let split = |number| percent.map(|percent| Split { version: version(number), percent });
    let release = Release { stable: Some(version(1)), canary: split(2), shadow: split(3), ..Release::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let pool = Pool::start(1, runtime.handle().clone()).expect("threads");
    let versions: BTreeMap<_, _> = (1..=3).map(|number| (version(number), servable(number, &pool))).collect();
    ModelRoute {
        release,
        versions,
        not_ready: BTreeSet::new(),
        allow_pinning: true,
        comparison: None,
        unrouted: Arc::default(),
    }
}

fn choose(bencher: Bencher<'_, '_>, route: &ModelRoute, target: &Target) {
    let (model, key) = (model_name(), "0198c0de-0000-7000-8000-000000000000");
    bencher.bench_local(|| route.choose(&model, target, key).map(|choice| choice.servable.version));
}

#[divan::bench]
fn stable(bencher: Bencher<'_, '_>) {
    choose(bencher, &route(None), &Target::Release);
}

#[divan::bench]
fn stable_with_canary_and_shadow(bencher: Bencher<'_, '_>) {
    choose(bencher, &route(Some(10.0)), &Target::Release);
}

#[divan::bench]
fn pinned(bencher: Bencher<'_, '_>) {
    choose(bencher, &route(None), &Target::Version(version(2)));
}
