//! Each operator in a graph of one node or a few: rows that stay apart, and rows that touch each other.

use proptest::prelude::*;
use prost::Message;

use super::{Verdict, prove};
use crate::proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_shape_proto, type_proto,
};

/// An input: 0 is a size with the name of its place; the first is N.
fn input(name: &str, shape: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::dimension::Value;
    let dimension = |(place, &size): (usize, &i64)| {
        let value = if size > 0 { Value::DimValue(size) } else { Value::DimParam(format!("{name}{place}")) };
        tensor_shape_proto::Dimension { value: Some(value) }
    };
    let shape = TensorShapeProto { dim: shape.iter().enumerate().map(dimension).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind) }
}

fn numbers(name: &str, values: &[i64]) -> TensorProto {
    let dims = vec![i64::try_from(values.len()).unwrap()];
    TensorProto {
        name: Some(name.into()),
        dims,
        data_type: Some(7),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

fn weights(name: &str, shape: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: shape.to_vec(),
        data_type: Some(1),
        is_large: true,
        ..TensorProto::default()
    }
}

/// `Operator(input, …) -> output, … ; name=1 ; names=[1 2] ; text='a'`, one node a line.
fn node(line: &str) -> NodeProto {
    let mut parts = line.split(';').map(str::trim);
    let (call, outputs) = parts.next().unwrap().split_once("->").unwrap();
    let (operator, inputs) = call.trim().trim_end_matches(')').split_once('(').unwrap();
    let names = |names: &str| names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
    let (domain, operator) = operator.rsplit_once('/').unwrap_or(("", operator));
    let attribute = |part: &str| {
        let (name, value) = part.split_once('=').unwrap();
        let mut attribute = AttributeProto { name: Some(name.trim().into()), ..AttributeProto::default() };
        if let Some(text) = value.strip_prefix('\'') {
            attribute.s = Some(text.trim_end_matches('\'').as_bytes().to_vec());
        } else if let Some(list) = value.strip_prefix('[') {
            attribute.ints = list.trim_end_matches(']').split_whitespace().map(|n| n.parse().unwrap()).collect();
        } else {
            attribute.i = Some(value.parse().unwrap());
        }
        attribute
    };
    NodeProto {
        input: names(inputs),
        output: names(outputs),
        op_type: Some(operator.into()),
        domain: Some(domain.into()),
        name: Some("n".into()),
        attribute: parts.map(attribute).collect(),
        ..NodeProto::default()
    }
}

/// x [N, 4], y [N, 4], v [N], img [N, 4, 8, 8], seq [N, 6, 4], tok [N, S]; constants of several shapes.
fn model(version: i64, lines: &str) -> ModelProto {
    let nodes: Vec<NodeProto> = lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(node).collect();
    let used = |name: &str| nodes.iter().any(|node| node.input.iter().any(|input| input == name));
    let inputs = [
        input("x", &[0, 4]),
        input("y", &[0, 4]),
        input("v", &[0]),
        input("img", &[0, 4, 8, 8]),
        input("seq", &[0, 6, 4]),
        input("tok", &[0, 0]),
    ];
    let initializer = vec![
        weights("one", &[]),
        weights("w4", &[4]),
        weights("w44", &[4, 4]),
        weights("w3", &[3]),
        weights("table", &[20, 4]),
        weights("kernel", &[6, 4, 3, 3]),
        weights("lstm_w", &[1, 12, 4]),
        weights("lstm_r", &[1, 12, 3]),
        numbers("i0", &[0]),
        numbers("i1", &[1]),
        numbers("i2", &[2]),
        numbers("im1", &[-1]),
        numbers("far", &[i64::MAX]),
        numbers("m1_4", &[-1, 4]),
        numbers("m1_8", &[-1, 8]),
        numbers("m1_2", &[-1, 2]),
        numbers("zero_2_2", &[0, 2, 2]),
        numbers("four_m1", &[4, -1]),
        numbers("pads_last", &[0, 1, 0, 1]),
        numbers("pads_first", &[1, 0, 0, 0]),
        numbers("scales", &[1, 1, 2, 2]),
    ];
    ModelProto {
        opset_import: [("", version), ("ai.onnx.ml", 3), ("com.microsoft", 1)]
            .map(|(domain, version)| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) })
            .into(),
        graph: Some(GraphProto {
            input: inputs.into_iter().filter(|input| used(input.name())).collect(),
            output: vec![ValueInfoProto { name: Some("out".into()), r#type: None }],
            node: nodes,
            initializer,
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

fn outcome(version: i64, lines: &str) -> String {
    match prove(&model(version, lines)) {
        Verdict::Independent(proof) => format!("independent {}", proof.outputs[0].axis),
        other => other.name().into(),
    }
}

fn all(version: i64, expected: &str, cases: &[&str]) {
    for lines in cases {
        let verdict = prove(&model(version, lines));
        assert_eq!(outcome(version, lines), expected, "{lines}: {verdict}");
    }
}

#[test]
fn rows_that_stay_apart_are_proven_so() {
    all(
        18,
        "independent 0",
        &[
            "Relu(x) -> out",
            "Add(x, w4) -> out",
            "Add(x, y) -> out",
            "Where(x, y, one) -> out",
            "MatMul(x, w44) -> out",
            "Gemm(x, w44, w4) -> out ; transB=1",
            "Softmax(x) -> out",
            "ReduceMean(x, i1) -> out",
            "ReduceSum(seq, im1) -> out ; keepdims=0",
            "ArgMax(x) -> out ; axis=1",
            "TopK(x, i2) -> out, places",
            "LayerNormalization(seq, w4, w4) -> out",
            "BatchNormalization(img, w4, w4, w4, w4) -> out",
            "InstanceNormalization(img, w4, w4) -> out",
            "Conv(img, kernel) -> out",
            "MaxPool(img) -> out ; kernel_shape=[2 2]",
            "GlobalAveragePool(img) -> out",
            "Resize(img, , scales) -> out ; mode='nearest'",
            "Flatten(img) -> out",
            "Reshape(x, zero_2_2) -> out",
            "Reshape(x, m1_4) -> out",
            "Transpose(seq) -> a ; perm=[1 0 2]\nTranspose(a) -> out ; perm=[1 0 2]",
            "Unsqueeze(x, i1) -> a\nSqueeze(a, i1) -> out",
            "Concat(x, y) -> out ; axis=1",
            "Split(x) -> out, b ; axis=1",
            "Slice(x, i0, i2, i1) -> out",
            "Slice(x, i0, far, i0) -> out",
            "Pad(x, pads_last) -> out",
            "Gather(x, i0) -> out ; axis=1",
            "Gather(table, tok) -> out",
            "Einsum(seq, seq) -> out ; equation='bij,bkj->bik'",
            "Transpose(seq) -> a ; perm=[0 2 1]\nMatMul(seq, a) -> out",
            "Shape(x) -> s\nGather(s, i0) -> n\nConcat(n, im1) -> t ; axis=0\nReshape(x, t) -> out",
            "Shape(tok) -> s\nConstantOfShape(s) -> a\nAdd(tok, a) -> out",
            "ai.onnx.ml/TreeEnsembleClassifier(x) -> out, scores",
            "ai.onnx.ml/Scaler(x) -> out",
            "ArgMax(x) -> a ; axis=1 ; keepdims=0\nai.onnx.ml/ArrayFeatureExtractor(w3, a) -> b\nReshape(b, im1) -> out",
            "com.microsoft/FusedMatMul(x, w44) -> out",
            "DequantizeLinear(x, one) -> out",
            "Transpose(seq) -> a ; perm=[1 0 2]\nLSTM(a, lstm_w, lstm_r) -> b, out0\nTranspose(out0) -> out ; perm=[1 0 2]",
            "Transpose(seq) -> a ; perm=[1 0 2]\nReshape(a, m1_4) -> b\nGemm(b, w44) -> c\nShape(a) -> s\nReshape(c, s) -> d\nTranspose(d) -> out ; perm=[1 0 2]",
            "Reshape(seq, m1_4) -> a\nMatMul(a, w44) -> b\nShape(seq) -> s\nReshape(b, s) -> out",
        ],
    );
    all(18, "independent 1", &["Transpose(x) -> out", "Transpose(seq) -> out ; perm=[1 0 2]"]);
}

#[test]
fn rows_that_touch_each_other_are_found() {
    all(
        18,
        "dependent",
        &[
            "DynamicQuantizeLinear(x) -> out, scale, zero",
            "ReduceMax(x) -> a\nDiv(x, a) -> out",
            "ReduceMean(x, i0) -> a\nSub(x, a) -> out",
            "Softmax(x) -> out ; axis=0",
            "Transpose(x) -> a\nMatMul(x, a) -> out",
            "Transpose(x) -> a\nMatMul(a, w44) -> b\nTranspose(b) -> out",
            "Reshape(x, m1_8) -> out",
            "Reshape(x, four_m1) -> out",
            "Flatten(x) -> a ; axis=0\nSoftmax(a) -> out",
            "Concat(x, y) -> out ; axis=0",
            "Slice(x, i1, far, i0) -> out",
            "Pad(x, pads_first) -> out",
            "Gather(x, i0) -> out",
            "Gather(x, v) -> out",
            "Unsqueeze(v, i1) -> a\nAdd(v, a) -> out",
            "Add(v, w4) -> out",
            "Squeeze(x) -> out",
            "NonZero(x) -> out",
            "Unique(x) -> out",
            "NonMaxSuppression(seq, seq) -> out",
            "StringSplit(v) -> out, counts",
            "com.microsoft/Tokenizer(v) -> out",
            "CumSum(x, i0) -> out",
            "Einsum(x) -> out ; equation='ij->j'",
            "Einsum(x, y) -> out ; equation='ij,kj->ik'",
            "BatchNormalization(img, w4, w4, w4, w4) -> out ; training_mode=1",
            "LSTM(seq, lstm_w, lstm_r) -> out",
            "Shape(x) -> s\nGather(s, i0) -> n\nCast(n) -> f ; to=1\nDiv(x, f) -> out",
            "Shape(x) -> out",
            "RandomNormalLike(x) -> a\nAdd(x, a) -> out",
            "Split(x) -> out, b ; axis=0",
            "ai.onnx.ml/TreeEnsembleClassifier(v) -> out, scores",
            "com.microsoft/DynamicQuantizeMatMul(x, w44, w4) -> out",
            "MaxPool(img) -> a, out ; kernel_shape=[2 2]",
            "Identity(w4) -> out\nIdentity(x) -> unused",
        ],
    );
}

#[test]
fn what_has_no_rule_is_unknown() {
    all(
        18,
        "unknown",
        &["NoSuchOperator(x) -> out", "somebody/Relu(x) -> out", "Relu(nothing) -> out\nRelu(x) -> unused"],
    );
    all(6, "unknown", &["Relu(x) -> out"]);
    // Rows that do not stand one behind the other.
    let interleaved = "Transpose(seq) -> a ; perm=[1 0 2]\nReshape(a, m1_4) -> b\n";
    for rest in
        ["Relu(b) -> out", "Relu(b) -> c\nReshape(c, m1_8) -> out", "Add(b, x) -> out", "Split(b) -> out, c ; axis=1"]
    {
        assert_ne!(outcome(18, &format!("{interleaved}{rest}")), "independent 0", "{rest}");
    }
}

#[test]
fn old_softmax_takes_all_axes_from_its_own_on() {
    all(12, "independent 0", &["Softmax(seq) -> out"]);
    all(12, "dependent", &["Softmax(x) -> out ; axis=0", "Transpose(seq) -> a ; perm=[1 0 2]\nSoftmax(a) -> out"]);
    all(13, "independent 1", &["Transpose(seq) -> a ; perm=[1 0 2]\nSoftmax(a) -> out"]);
}

#[test]
fn reason_names_the_node() {
    let verdict = prove(&model(18, "DynamicQuantizeLinear(x) -> out, scale, zero"));
    assert_eq!(verdict.to_string(), "dependent: DynamicQuantizeLinear at node 'n' takes one scale over all rows");
}

#[test]
fn inputs_that_cannot_be_joined_are_said() {
    let mut fixed = model(18, "Relu(x) -> out");
    fixed.graph.as_mut().unwrap().input = vec![input("x", &[64, 4])];
    assert_eq!(prove(&fixed).to_string(), "unknown: input 'x' takes exactly 64 rows: nothing can join them");
    fixed.graph.as_mut().unwrap().input = vec![input("x", &[])];
    assert_eq!(prove(&fixed).name(), "unknown");
}

#[test]
fn names_of_rows_that_differ_are_a_warning() {
    let mut odd = model(18, "Relu(x) -> out");
    odd.graph.as_mut().unwrap().output = vec![input("out", &[0, 4])];
    let Verdict::Independent(proof) = prove(&odd) else { panic!("not proven") };
    assert_eq!(proof.warnings, ["output 'out' calls its rows 'out0', input 'x' calls them 'x0'"]);
}

/// Models of real exporters, which `tests/clients/independence.py` has run: rows alone against rows together.
#[test]
fn exports_that_mix_rows_are_never_proven_and_almost_all_others_are() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/exports");
    let truth = std::fs::read_to_string(directory.join("truth.json")).unwrap();
    let truth: std::collections::BTreeMap<String, String> = serde_json::from_str(&truth).unwrap();
    let (mut independent, mut unproven) = (0, Vec::new());
    for (name, seen) in &truth {
        let bytes = std::fs::read(directory.join(format!("{name}.onnx"))).unwrap();
        let verdict = prove(&ModelProto::decode(&bytes[..]).unwrap());
        let is_proven =
            matches!(&verdict, Verdict::Independent(proof) if proof.outputs.iter().all(|output| output.axis == 0));
        if seen == "mixes" {
            assert!(!is_proven, "{name}");
        } else if seen == "independent" {
            independent += 1;
            if !is_proven {
                unproven.push(format!("{name}: {verdict}"));
            }
        }
    }
    assert!(independent >= 150, "{independent}");
    assert!(unproven.len() * 20 <= independent, "{} of {independent}:\n{}", unproven.len(), unproven.join("\n"));
}

proptest! {
    /// Whatever a node gets, it is answered.
    #[test]
    fn no_graph_panics(
        nodes in proptest::collection::vec((any::<prop::sample::Index>(), proptest::collection::vec(any::<prop::sample::Index>(), 0..5)), 1..6),
        axis in -3_i64..4,
        version in 7_i64..26,
    ) {
        let operators = super::operators::names();
        let mut known: Vec<String> = ["x", "y", "v", "img", "seq", "tok", "one", "w4", "w44", "i0", "i1", "im1", "m1_4", ""].map(Into::into).into();
        let mut built = model(version, "Relu(x) -> a0\nRelu(y) -> a1\nRelu(v) -> a2\nRelu(img) -> a3\nRelu(seq) -> a4\nRelu(tok) -> a5");
        for (index, (operator, inputs)) in nodes.iter().enumerate() {
            let (domain, name) = operators[operator.index(operators.len())];
            let output = vec![format!("o{index}"), format!("p{index}"), format!("q{index}")];
            let attribute = |name: &str, attribute: AttributeProto| AttributeProto { name: Some(name.into()), ..attribute };
            let int = || AttributeProto { i: Some(axis), ..AttributeProto::default() };
            let ints = || AttributeProto { ints: vec![axis, 1], ..AttributeProto::default() };
            let attributes = [
                attribute("axis", int()), attribute("axes", ints()), attribute("perm", ints()), attribute("kernel_shape", ints()),
                attribute("pads", ints()), attribute("batch_dims", int()), attribute("blocksize", int()), attribute("group", int()),
                attribute("start", int()), attribute("split", ints()), attribute("N", int()), attribute("num_scan_inputs", int()),
                attribute("body", AttributeProto { g: Some(GraphProto::default()), ..AttributeProto::default() }),
            ];
            let node = NodeProto {
                op_type: Some(name.into()), domain: Some(domain.into()),
                input: inputs.iter().map(|place| known[place.index(known.len())].clone()).collect(),
                output: output.clone(), attribute: attributes.into(), ..NodeProto::default()
            };
            known.extend(output);
            let graph = built.graph.as_mut().unwrap();
            graph.node.push(node);
            graph.output = known.iter().filter(|name| !name.is_empty()).map(|name| ValueInfoProto { name: Some(name.clone()), r#type: None }).collect();
        }
        prop_assert!(!prove(&built).to_string().is_empty());
        let bytes = built.encode_to_vec();
        prop_assert!(ModelProto::decode(&bytes[..]).is_ok());
    }
}
