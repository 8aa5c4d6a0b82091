//! The part of the ONNX format that the bench models need, to write. (`proto/onnx.proto` is the
//! part that the gateway reads, and leaves the weights out on purpose.)

use prost::Message;

const FLOAT: i32 = 1;
const INT64: i32 = 7;

#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    data_type: Option<i32>,
    #[prost(string, optional, tag = "8")]
    name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "9")]
    raw_data: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    s: Option<Vec<u8>>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    strings: Vec<Vec<u8>>,
    #[prost(int32, optional, tag = "20")]
    r#type: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, optional, tag = "4")]
    op_type: Option<String>,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
    #[prost(string, optional, tag = "7")]
    domain: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, optional, tag = "1")]
    elem_type: Option<i32>,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, optional, tag = "1")]
    domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    version: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, optional, tag = "1")]
    ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    producer_name: Option<String>,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSet>,
}

impl Tensor {
    /// FP32 weights.
    pub fn weights(name: &str, dims: &[i64], values: impl Iterator<Item = f32>) -> Self {
        let raw = values.flat_map(f32::to_le_bytes).collect();
        Self { dims: dims.to_vec(), data_type: Some(FLOAT), name: Some(name.into()), raw_data: Some(raw) }
    }
}

impl Attribute {
    fn of(name: &str, kind: i32) -> Self {
        Self { name: Some(name.into()), r#type: Some(kind), ..Self::default() }
    }

    pub fn int(name: &str, value: i64) -> Self {
        Self { i: Some(value), ..Self::of(name, 2) }
    }

    pub fn string(name: &str, value: &str) -> Self {
        Self { s: Some(value.into()), ..Self::of(name, 3) }
    }

    pub fn floats(name: &str, values: Vec<f32>) -> Self {
        Self { floats: values, ..Self::of(name, 6) }
    }

    pub fn ints(name: &str, values: Vec<i64>) -> Self {
        Self { ints: values, ..Self::of(name, 7) }
    }

    pub fn strings(name: &str, values: &[&str]) -> Self {
        Self { strings: values.iter().map(|value| value.as_bytes().to_vec()).collect(), ..Self::of(name, 8) }
    }
}

impl Node {
    pub fn new(operator: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> Self {
        Self {
            input: inputs.iter().map(|&name| name.into()).collect(),
            output: vec![output.into()],
            op_type: Some(operator.into()),
            attribute,
            domain: None,
        }
    }

    /// The same node with another name for its output.
    pub fn renamed(mut self, output: &str) -> Self {
        self.output = vec![output.into()];
        self
    }

    /// An operator of the domain of classical models.
    pub fn classical(mut self, more_outputs: &[&str]) -> Self {
        self.domain = Some("ai.onnx.ml".into());
        self.output.extend(more_outputs.iter().map(|&name| name.into()));
        self
    }
}

impl Value {
    /// An FP32 tensor of any number of rows.
    pub fn floats(name: &str, row: &[i64]) -> Self {
        Self::of(name, FLOAT, row)
    }

    pub fn integers(name: &str, row: &[i64]) -> Self {
        Self::of(name, INT64, row)
    }

    fn of(name: &str, element: i32, row: &[i64]) -> Self {
        let rows = Dimension { dim_value: None, dim_param: Some("rows".into()) };
        let rest = row.iter().map(|&size| Dimension { dim_value: Some(size), dim_param: None });
        let shape = Shape { dim: std::iter::once(rows).chain(rest).collect() };
        let tensor = TensorType { elem_type: Some(element), shape: Some(shape) };
        Self { name: Some(name.into()), r#type: Some(Type { tensor_type: Some(tensor) }) }
    }
}

impl Graph {
    /// The file of a model of this graph.
    pub fn file(self) -> Vec<u8> {
        let set = |domain: &str, version| OperatorSet { domain: Some(domain.into()), version: Some(version) };
        let model = Model {
            ir_version: Some(8),
            producer_name: Some("tidegate benches".into()),
            graph: Some(self),
            opset_import: vec![set("", 17), set("ai.onnx.ml", 3)],
        };
        model.encode_to_vec()
    }
}
