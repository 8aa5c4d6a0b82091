//! Small models whose rows touch each other, or whose files say what is not so.

use prost::Message;
use tidegate::{
    domain::DataType,
    proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto},
};

use crate::onnx::{ANY, model, node, value};

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind), ..AttributeProto::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i: Some(i), ..attribute(name, 2) }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { ints: ints.into(), ..attribute(name, 7) }
}

fn with(attributes: Vec<AttributeProto>, node: NodeProto) -> NodeProto {
    NodeProto { attribute: attributes, ..node }
}

/// A constant of whole numbers.
fn constant(numbers: &[i64], name: &str) -> NodeProto {
    with(vec![ints("value_ints", numbers)], node("Constant", &[], &[name]))
}

/// A constant of one whole number, without dimensions.
fn scalar(number: i64, name: &str) -> NodeProto {
    with(vec![int("value_int", number)], node("Constant", &[], &[name]))
}

/// To an element type by ONNX's number.
fn cast(element: i64, from: &str, to: &str) -> NodeProto {
    with(vec![int("to", element)], node("Cast", &[from], &[to]))
}

fn named(name: &str, node: NodeProto) -> NodeProto {
    NodeProto { name: Some(name.into()), ..node }
}

fn graph(nodes: Vec<NodeProto>, input: ValueInfoProto, outputs: Vec<ValueInfoProto>) -> GraphProto {
    GraphProto { name: Some("rows".into()), node: nodes, input: vec![input], output: outputs, ..GraphProto::default() }
}

fn with_opsets(model: &[u8], opsets: &[(&str, i64)]) -> Vec<u8> {
    let mut model = ModelProto::decode(model).unwrap();
    let opset = |(domain, version): &(&str, i64)| OperatorSetIdProto {
        domain: Some((*domain).into()),
        version: Some(*version),
    };
    model.opset_import = opsets.iter().map(opset).collect();
    model.encode_to_vec()
}

fn rows_of(width: i64) -> ValueInfoProto {
    value("x", DataType::Fp32, &[ANY, width])
}

/// `y = x / max(x)`, where the maximum is over all rows.
pub fn over_the_maximum() -> Vec<u8> {
    let nodes = vec![named("all", node("ReduceMax", &["x"], &["most"])), node("Div", &["x", "most"], &["y"])];
    model(graph(nodes, rows_of(2), vec![value("y", DataType::Fp32, &[ANY, 2])]))
}

/// `y = x W` as `quantize_dynamic` writes it: the scale of `x` is taken over all rows.
pub fn dynamically_quantised() -> Vec<u8> {
    let nodes = vec![
        constant(&[1, 2, 3, 4], "whole"),
        cast(2, "whole", "bytes"),
        constant(&[2, 2], "square"),
        node("Reshape", &["bytes", "square"], &["w"]),
        scalar(0, "nothing"),
        cast(2, "nothing", "zero"),
        named("scale", node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"])),
        node("MatMulInteger", &["q", "w", "z", "zero"], &["product"]),
        cast(1, "product", "float"),
        node("Mul", &["float", "s"], &["y"]),
    ];
    model(graph(nodes, rows_of(2), vec![value("y", DataType::Fp32, &[ANY, 2])]))
}

/// Boxes and scores of three places of each image; `[detections, 3]`: the image, the class, the place.
pub fn detector() -> Vec<u8> {
    let nodes = vec![
        constant(&[4, 1], "sizes"),
        with(vec![int("axis", 2)], node("Split", &["x", "sizes"], &["boxes", "column"])),
        with(vec![ints("perm", &[0, 2, 1])], node("Transpose", &["column"], &["scores"])),
        scalar(3, "most"),
        scalar(0, "nothing"),
        cast(1, "nothing", "zero"),
        named("nms", node("NonMaxSuppression", &["boxes", "scores", "most", "zero", "zero"], &["y"])),
    ];
    let input = value("x", DataType::Fp32, &[ANY, 3, 5]);
    model(graph(nodes, input, vec![value("y", DataType::Int64, &[ANY, 3])]))
}

/// Texts into words: as wide as the text of the run that has most.
pub fn words() -> Vec<u8> {
    let nodes = vec![named("split", node("StringSplit", &["x"], &["y", "count"]))];
    let outputs = vec![value("y", DataType::Bytes, &[ANY, ANY]), value("count", DataType::Int64, &[ANY])];
    with_opsets(&model(graph(nodes, value("x", DataType::Bytes, &[ANY]), outputs)), &[("", 20)])
}

/// `y`: columns 0 and 1 of three, in a way that leaves its width to the run; declared as `declared`.
pub fn two_columns(declared: &[i64]) -> Vec<u8> {
    columns(&[1, 1, 0], declared)
}

/// The same with one column.
pub fn one_column(declared: &[i64]) -> Vec<u8> {
    columns(&[1, 0, 0], declared)
}

fn columns(kept: &[i64], declared: &[i64]) -> Vec<u8> {
    let nodes = vec![
        constant(kept, "kept"),
        cast(9, "kept", "which"),
        with(vec![int("axis", 1)], node("Compress", &["x", "which"], &["y"])),
    ];
    model(graph(nodes, rows_of(3), vec![value("y", DataType::Fp32, declared)]))
}

/// `y`: the class of each row, declared as `declared`.
pub fn label(declared: &[i64]) -> Vec<u8> {
    let nodes = vec![with(vec![int("axis", 1), int("keepdims", 0)], node("ArgMax", &["x"], &["y"]))];
    model(graph(nodes, rows_of(3), vec![value("y", DataType::Int64, declared)]))
}

/// One of three columns for each of three colours; a run fails on any other text.
pub fn encoder() -> Vec<u8> {
    let colours = ["red", "green", "blue"].map(|colour| colour.as_bytes().to_vec());
    let colours = AttributeProto { strings: colours.into(), ..attribute("cats_strings", 8) };
    let encode = with(vec![colours, int("zeros", 0)], node("OneHotEncoder", &["x"], &["encoded"]));
    let nodes = vec![
        NodeProto { domain: Some("ai.onnx.ml".into()), ..encode },
        constant(&[-1, 3], "flat"),
        node("Reshape", &["encoded", "flat"], &["y"]),
    ];
    let outputs = vec![value("y", DataType::Fp32, &[ANY, 3])];
    let bytes = model(graph(nodes, value("x", DataType::Bytes, &[ANY, 1]), outputs));
    with_opsets(&bytes, &[("", 17), ("ai.onnx.ml", 3)])
}

/// `y = x` with half of its values dropped, as if it were trained.
pub fn dropout() -> Vec<u8> {
    let nodes = vec![
        scalar(1, "one"),
        cast(9, "one", "training"),
        named("drop", node("Dropout", &["x", "", "training"], &["y"])),
    ];
    model(graph(nodes, rows_of(64), vec![value("y", DataType::Fp32, &[ANY, 64])]))
}
