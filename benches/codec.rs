//! What reading and writing HTTP bodies costs: a car loan, and an image of 3×128×128 floats.

use bytes::Bytes;
use divan::{Bencher, counter::BytesCount};
use tidegate::{
    domain::{DataType, InferReply, RequestId, Shape, Tensor},
    protocol::bench_support::{decode, encode},
};

const CAR_LOAN: &[u8] = include_bytes!("../models/car_loan/request.json");
const IMAGE: usize = 3 * 128 * 128;

fn main() {
    divan::main();
}

/// Numbers from -1 to 1, always the same.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| number()).collect()
}

/// Half a megabyte: numbers as short as FP32 can be told.
fn image_json() -> Bytes {
    let data = serde_json::to_string(&numbers(IMAGE)).expect("numbers have a JSON form");
    format!(r#"{{"inputs":[{{"name":"x","shape":[1,3,128,128],"datatype":"FP32","data":{data}}}]}}"#).into()
}

/// The body, and where its raw tensor begins.
fn image_binary() -> (Bytes, usize) {
    let head = format!(
        r#"{{"inputs":[{{"name":"x","shape":[1,3,128,128],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}]}}"#,
        4 * IMAGE
    );
    let mut body = head.clone().into_bytes();
    body.extend(numbers(IMAGE).into_iter().flat_map(f32::to_le_bytes));
    (body.into(), head.len())
}

fn floats(name: &str, shape: Vec<i64>) -> Tensor {
    let shape = Shape::new(shape).expect("a small shape");
    let bytes: Vec<u8> = numbers(shape.elements()).into_iter().flat_map(f32::to_le_bytes).collect();
    Tensor::plain(name, DataType::Fp32, shape, bytes.into()).expect("as many bytes as the shape needs")
}

fn reply(outputs: Vec<Tensor>) -> InferReply {
    InferReply {
        model: "bench".parse().expect("a name"),
        version: "1".parse().expect("a version"),
        id: RequestId::given_or_new("bench").expect("an id"),
        outputs: outputs.into(),
        violation: None,
    }
}

/// As a classifier answers one row.
fn small_reply() -> InferReply {
    let one = Shape::new(vec![1]).expect("a small shape");
    let label = Tensor::plain("label", DataType::Int64, one, 1_i64.to_le_bytes().to_vec().into());
    reply(vec![label.expect("8 bytes"), floats("probabilities", vec![1, 2])])
}

fn bench_decode(bencher: Bencher<'_, '_>, body: &Bytes, json_length: Option<usize>) {
    bencher.counter(BytesCount::new(body.len())).bench_local(|| decode(body, json_length));
}

fn bench_encode(bencher: Bencher<'_, '_>, reply: &InferReply, binary: bool) {
    bencher.counter(BytesCount::new(encode(reply, binary).len())).bench_local(|| encode(reply, binary));
}

#[divan::bench]
fn decode_car_loan_json(bencher: Bencher<'_, '_>) {
    bench_decode(bencher, &Bytes::from_static(CAR_LOAN), None);
}

#[divan::bench]
fn decode_image_json(bencher: Bencher<'_, '_>) {
    bench_decode(bencher, &image_json(), None);
}

#[divan::bench]
fn decode_image_binary(bencher: Bencher<'_, '_>) {
    let (body, length) = image_binary();
    bench_decode(bencher, &body, Some(length));
}

#[divan::bench]
fn encode_small_json(bencher: Bencher<'_, '_>) {
    bench_encode(bencher, &small_reply(), false);
}

#[divan::bench]
fn encode_small_binary(bencher: Bencher<'_, '_>) {
    bench_encode(bencher, &small_reply(), true);
}

#[divan::bench]
fn encode_image_json(bencher: Bencher<'_, '_>) {
    bench_encode(bencher, &reply(vec![floats("y", vec![1, 3, 128, 128])]), false);
}
