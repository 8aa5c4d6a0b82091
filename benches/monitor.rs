//! What counting costs: rows of 20 FP32 features against their profile. And what a request pays for the hand-over.

use std::{sync::Arc, time::Duration};

use divan::{Bencher, counter::ItemsCount};
use tidegate::{
    domain::{DataType, Dim, Shape, Signature, Tensor, TensorSpec, Version},
    monitor::{Answered, Monitor, MonitorSettings, Observation, ProfileBuilder, VersionMonitor, Watch},
};

const COLUMNS: usize = 20;

fn main() {
    divan::main();
}

/// Rows of numbers that fill all bins, always the same.
fn rows(rows: usize) -> Tensor {
    let mut state = 1_u64;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32
    };
    let bytes: Vec<u8> = (0..rows * COLUMNS).flat_map(|_| number().to_le_bytes()).collect();
    let dimensions = [rows, COLUMNS].map(|size| i64::try_from(size).expect("a small number")).to_vec();
    let shape = Shape::new(dimensions).expect("a small shape");
    Tensor::plain("x", DataType::Fp32, shape, bytes.into()).expect("as many bytes as the shape needs")
}

fn monitor() -> VersionMonitor {
    let mut builder = ProfileBuilder::default();
    builder.add(&[rows(10_000)], &[]);
    let shape = vec![Dim::Any, Dim::Fixed(COLUMNS as u64)];
    let spec = TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape, optional: false };
    let signature = Signature { inputs: vec![spec], outputs: vec![] };
    let settings = MonitorSettings::default();
    VersionMonitor::new(builder.finish().profile, &signature, &settings).expect("the profile is of this signature")
}

/// Items are rows: 20 values each.
#[divan::bench(args = [1, 1000])]
fn count(bencher: Bencher<'_, '_>, batch: usize) {
    let (monitor, inputs) = (monitor(), [rows(batch)]);
    bencher
        .counter(ItemsCount::new(batch))
        .bench_local(|| monitor.count(Answered::new(&inputs, &[]), Duration::from_secs(1)));
}

/// Leaves a request of one row to the thread that counts, which has another core if there is one.
#[divan::bench]
fn offer(bencher: Bencher<'_, '_>) {
    let service = Monitor::start(Arc::new(|| Duration::from_secs(1)), 0).expect("a thread");
    let (handle, watch) = (service.handle(), Arc::new(Watch::with(Some(Arc::new(monitor())))));
    let (inputs, outputs): (Arc<[Tensor]>, Arc<[Tensor]>) = (Arc::from([rows(1)]), Arc::from([]));
    let version = Version::new(1).expect("not 0");
    bencher.bench_local(|| {
        handle.offer(Observation {
            watch: &watch,
            stable: None,
            version,
            inputs: &inputs,
            outputs: &outputs,
            parameters: &[],
        });
    });
}

/// A report of the 20 features over a window. The look once a second does as much work for each window with new rows.
#[divan::bench]
fn report(bencher: Bencher<'_, '_>) {
    let (monitor, now) = (monitor(), Duration::from_secs(1));
    monitor.count(Answered::new(&[rows(1000)], &[]), now);
    let model = "bench".parse().expect("a name");
    let version = Version::new(1).expect("not 0");
    bencher.bench_local(|| monitor.report(&model, version, Duration::from_mins(5), now));
}
