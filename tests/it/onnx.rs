//! Small ONNX models, written as the tests need them.

use prost::Message;
use tidegate::{
    domain::DataType,
    proto::onnx::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
        TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
    },
};

/// A dimension of any size.
pub const ANY: i64 = -1;

/// ONNX's number for an element type (`TensorProto.DataType`).
pub fn element_type(datatype: DataType) -> i32 {
    match datatype {
        DataType::Fp32 => 1,
        DataType::Uint8 => 2,
        DataType::Int8 => 3,
        DataType::Uint16 => 4,
        DataType::Int16 => 5,
        DataType::Int32 => 6,
        DataType::Int64 => 7,
        DataType::Bytes => 8,
        DataType::Bool => 9,
        DataType::Fp16 => 10,
        DataType::Fp64 => 11,
        DataType::Uint32 => 12,
        DataType::Uint64 => 13,
        DataType::Bf16 => 16,
    }
}

/// The name of an input or output with its type and shape.
pub fn value(name: &str, datatype: DataType, dimensions: &[i64]) -> ValueInfoProto {
    let dim = dimensions.iter().enumerate().map(|(index, &size)| tensor_shape_proto::Dimension {
        value: Some(if size == ANY {
            tensor_shape_proto::dimension::Value::DimParam(format!("d{index}"))
        } else {
            tensor_shape_proto::dimension::Value::DimValue(size)
        }),
    });
    let tensor = type_proto::Tensor {
        elem_type: Some(element_type(datatype)),
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }),
    }
}

/// One node.
pub fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|name| (*name).into()).collect(),
        output: outputs.iter().map(|name| (*name).into()).collect(),
        op_type: Some(operator.into()),
        ..NodeProto::default()
    }
}

/// A model of these nodes.
pub fn model(graph: GraphProto) -> Vec<u8> {
    ModelProto {
        ir_version: Some(8),
        producer_name: Some("tidegate tests".into()),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// A model with one more entry of metadata.
pub fn with_metadata(model: &[u8], key: &str, value: &str) -> Vec<u8> {
    let mut model = ModelProto::decode(model).unwrap();
    model.metadata_props.push(StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) });
    model.encode_to_vec()
}

/// `y = x`, of one type and shape.
pub fn identity(datatype: DataType, dimensions: &[i64]) -> Vec<u8> {
    model(GraphProto {
        name: Some("identity".into()),
        node: vec![node("Identity", &["x"], &["y"])],
        input: vec![value("x", datatype, dimensions)],
        output: vec![value("y", datatype, dimensions)],
        ..GraphProto::default()
    })
}

/// `y = x` of FP32, for a model that declares no shapes.
pub fn unranked_identity() -> Vec<u8> {
    let mut without_shape = ["x", "y"].map(|name| value(name, DataType::Fp32, &[]));
    for value in &mut without_shape {
        if let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }) = &mut value.r#type {
            tensor.shape = None;
        }
    }
    let [input, output] = without_shape.map(|value| vec![value]);
    let node = vec![node("Identity", &["x"], &["y"])];
    model(GraphProto { name: Some("unranked".into()), node, input, output, ..GraphProto::default() })
}

/// An identity on FP32 between tensors of these names.
pub fn named_identity(input: &str, output: &str) -> Vec<u8> {
    model(GraphProto {
        name: Some("named".into()),
        node: vec![node("Identity", &[input], &[output])],
        input: vec![value(input, DataType::Fp32, &[ANY])],
        output: vec![value(output, DataType::Fp32, &[ANY])],
        ..GraphProto::default()
    })
}

/// `y = x + constant` on FP32 `[rows, 1]`: the answer tells which version ran.
pub fn add(constant: i64) -> Vec<u8> {
    with_constant("Add", constant)
}

/// Answers 0 to every number, in the shape of [`add`].
pub fn zero() -> Vec<u8> {
    with_constant("Mul", 0)
}

fn with_constant(operator: &str, constant: i64) -> Vec<u8> {
    let ints = AttributeProto {
        name: Some("value_int".into()),
        i: Some(constant),
        r#type: Some(2),
        ..AttributeProto::default()
    };
    let to_float = AttributeProto { name: Some("to".into()), i: Some(1), r#type: Some(2), ..AttributeProto::default() };
    let graph = GraphProto {
        name: Some("add".into()),
        node: vec![
            NodeProto { attribute: vec![ints], ..node("Constant", &[], &["c"]) },
            NodeProto { attribute: vec![to_float], ..node("Cast", &["c"], &["f"]) },
            node(operator, &["x", "f"], &["y"]),
        ],
        input: vec![value("x", DataType::Fp32, &[ANY, 1])],
        output: vec![value("y", DataType::Fp32, &[ANY, 1])],
        ..GraphProto::default()
    };
    model(graph)
}

/// `y = x + rounds` on FP32 `[rows, 1]`, added up one by one: a run takes as long as it is told to,
/// some microseconds a round. Its requests are never joined, since `rounds` has no rows.
pub fn counting_loop() -> Vec<u8> {
    let one =
        AttributeProto { name: Some("value_int".into()), i: Some(1), r#type: Some(2), ..AttributeProto::default() };
    let to_float = AttributeProto { name: Some("to".into()), i: Some(1), r#type: Some(2), ..AttributeProto::default() };
    let body = GraphProto {
        name: Some("round".into()),
        node: vec![
            NodeProto { attribute: vec![one], ..node("Constant", &[], &["one"]) },
            NodeProto { attribute: vec![to_float], ..node("Cast", &["one"], &["step"]) },
            node("Add", &["sum", "step"], &["next"]),
            node("Identity", &["goes_on"], &["still"]),
        ],
        input: vec![
            value("round", DataType::Int64, &[]),
            value("goes_on", DataType::Bool, &[]),
            value("sum", DataType::Fp32, &[ANY, 1]),
        ],
        output: vec![value("still", DataType::Bool, &[]), value("next", DataType::Fp32, &[ANY, 1])],
        ..GraphProto::default()
    };
    let body =
        AttributeProto { name: Some("body".into()), g: Some(body), r#type: Some(5), ..AttributeProto::default() };
    model(GraphProto {
        name: Some("counting_loop".into()),
        node: vec![NodeProto { attribute: vec![body], ..node("Loop", &["rounds", "", "x"], &["y"]) }],
        input: vec![value("x", DataType::Fp32, &[ANY, 1]), value("rounds", DataType::Int64, &[1])],
        output: vec![value("y", DataType::Fp32, &[ANY, 1])],
        ..GraphProto::default()
    })
}

/// `y = x + 10` as [`add`], but a run fails when a value of `x` is `limit` or more: it is looked up in a
/// table of so many zeros.
pub fn fails_from(limit: usize) -> Vec<u8> {
    let attribute = |name: &str, kind: i32| AttributeProto {
        name: Some(name.into()),
        r#type: Some(kind),
        ..AttributeProto::default()
    };
    let zeros = AttributeProto { ints: vec![0; limit], ..attribute("value_ints", 7) };
    let ten = AttributeProto { i: Some(10), ..attribute("value_int", 2) };
    let cast = |element: i64, from: &str, into: &str| NodeProto {
        attribute: vec![AttributeProto { i: Some(element), ..attribute("to", 2) }],
        ..node("Cast", &[from], &[into])
    };
    model(GraphProto {
        name: Some("fails_from".into()),
        node: vec![
            NodeProto { attribute: vec![zeros], ..node("Constant", &[], &["table"]) },
            NodeProto { attribute: vec![ten], ..node("Constant", &[], &["ten"]) },
            cast(7, "x", "place"),
            node("Gather", &["table", "place"], &["zero"]),
            node("Add", &["zero", "ten"], &["added"]),
            cast(1, "added", "float"),
            node("Add", &["x", "float"], &["y"]),
        ],
        input: vec![value("x", DataType::Fp32, &[ANY, 1])],
        output: vec![value("y", DataType::Fp32, &[ANY, 1])],
        ..GraphProto::default()
    })
}

/// Two inputs, `a` and `b`, and two outputs: `sum` and `product`.
pub fn sum_and_product() -> Vec<u8> {
    let tensor = |name| value(name, DataType::Int64, &[ANY]);
    model(GraphProto {
        name: Some("sum_and_product".into()),
        node: vec![node("Add", &["a", "b"], &["sum"]), node("Mul", &["a", "b"], &["product"])],
        input: vec![tensor("a"), tensor("b")],
        output: vec![tensor("sum"), tensor("product")],
        ..GraphProto::default()
    })
}

/// `y = x + bias` where `bias` is an input with a default (an initializer of the same name): 0
/// by 1 zeros, that is one FP32 whose bytes were left out and so read as given in `dims`.
pub fn optional_bias() -> Vec<u8> {
    let mut bias =
        TensorProto { data_type: Some(1), dims: vec![1], name: Some("bias".into()), ..TensorProto::default() };
    bias.external_data.clear();
    let graph = GraphProto {
        name: Some("optional".into()),
        node: vec![node("Add", &["x", "bias"], &["y"])],
        initializer: vec![bias],
        input: vec![value("x", DataType::Fp32, &[ANY]), value("bias", DataType::Fp32, &[1])],
        output: vec![value("y", DataType::Fp32, &[ANY])],
        ..GraphProto::default()
    };
    let mut bytes = model(graph);
    insert_bias_value(&mut bytes);
    bytes
}

/// The reduced message has no field for tensor contents: `float_data = [10.0]` is put in by hand.
fn insert_bias_value(bytes: &mut Vec<u8>) {
    let mut model = ModelProto::decode(bytes.as_slice()).unwrap();
    let tensor = model.graph.as_mut().unwrap().initializer.remove(0);
    let mut raw_tensor = tensor.encode_to_vec();
    raw_tensor.extend([0x22, 4]); // field 4 (float_data), 4 bytes, packed
    raw_tensor.extend(10.0_f32.to_le_bytes());
    let mut graph = model.graph.take().unwrap().encode_to_vec();
    graph.push(0x2a); // field 5 (initializer)
    prost::encoding::encode_varint(raw_tensor.len() as u64, &mut graph);
    graph.extend(raw_tensor);
    let mut encoded = model.encode_to_vec();
    encoded.push(0x3a); // field 7 (graph)
    prost::encoding::encode_varint(graph.len() as u64, &mut encoded);
    encoded.extend(graph);
    *bytes = encoded;
}

/// An identity whose weights would lie in the file `location`.
pub fn external_data(location: &str) -> Vec<u8> {
    let entry = |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    let weights = TensorProto {
        data_type: Some(1),
        dims: vec![1],
        name: Some("w".into()),
        external_data: vec![entry("location", location), entry("length", "4")],
        data_location: Some(1),
        ..TensorProto::default()
    };
    model(GraphProto {
        name: Some("external".into()),
        node: vec![node("Add", &["x", "w"], &["y"])],
        initializer: vec![weights],
        input: vec![value("x", DataType::Fp32, &[ANY, 1])],
        output: vec![value("y", DataType::Fp32, &[ANY, 1])],
        ..GraphProto::default()
    })
}

/// A model whose run never ends: a loop without a limit, which changes nothing.
pub fn endless_loop() -> Vec<u8> {
    let body = GraphProto {
        name: Some("body".into()),
        node: vec![node("Identity", &["go_on"], &["going_on"]), node("Identity", &["v"], &["w"])],
        input: vec![
            value("turn", DataType::Int64, &[]),
            value("go_on", DataType::Bool, &[]),
            value("v", DataType::Fp32, &[ANY, 1]),
        ],
        output: vec![value("going_on", DataType::Bool, &[]), value("w", DataType::Fp32, &[ANY, 1])],
        ..GraphProto::default()
    };
    let body =
        AttributeProto { name: Some("body".into()), g: Some(body), r#type: Some(5), ..AttributeProto::default() };
    model(GraphProto {
        name: Some("endless".into()),
        node: vec![NodeProto { attribute: vec![body], ..node("Loop", &["", "", "x"], &["y"]) }],
        input: vec![value("x", DataType::Fp32, &[ANY, 1])],
        output: vec![value("y", DataType::Fp32, &[ANY, 1])],
        ..GraphProto::default()
    })
}

/// `y = x` and a sum over so many FP32 zeros, which a few bytes of model ask for.
pub fn zeros(count: i64) -> Vec<u8> {
    let shape = AttributeProto {
        name: Some("value_ints".into()),
        ints: vec![count],
        r#type: Some(7),
        ..AttributeProto::default()
    };
    let keep =
        AttributeProto { name: Some("keepdims".into()), i: Some(0), r#type: Some(2), ..AttributeProto::default() };
    model(GraphProto {
        name: Some("zeros".into()),
        node: vec![
            NodeProto { attribute: vec![shape], ..node("Constant", &[], &["shape"]) },
            node("ConstantOfShape", &["shape"], &["zeros"]),
            NodeProto { attribute: vec![keep], ..node("ReduceSum", &["zeros"], &["sum"]) },
            node("Add", &["x", "sum"], &["y"]),
        ],
        input: vec![value("x", DataType::Fp32, &[ANY, 1])],
        output: vec![value("y", DataType::Fp32, &[ANY, 1])],
        ..GraphProto::default()
    })
}
