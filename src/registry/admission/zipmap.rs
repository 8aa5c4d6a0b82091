//! Classifiers of scikit-learn end, by default, in a `ZipMap` node: it turns their
//! probabilities into a list of maps from class to probability, which no tensor can carry.
//!
//! Such an output is served as the tensor that the node takes, `[rows, classes]`: the same
//! numbers, the classes in the order of the node. The model's bytes are rewritten for that: in the
//! main graph the node becomes an `Identity` and the output a tensor. The rest is copied as it
//! is, since `proto/onnx.proto` knows only a part of the format. The names of the classes go into
//! the model's metadata, where labels are looked for anyhow.

use prost::Message;

use super::fields::{
    GRAPH_NODE, GRAPH_OUTPUT, GRAPH_VALUE_INFO, MODEL_GRAPH, MODEL_METADATA_PROPS, MODEL_OPSET_IMPORT, fields, put,
};
use crate::proto::onnx::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_shape_proto, type_proto,
};
use crate::registry::facts::LABELS_KEY;

/// ONNX's number for FP32, the only type that the node takes.
const FLOAT: i32 = 1;

/// The model with its maps as tensors; `None` when it has none that can be.
pub(super) fn flatten(model: &[u8]) -> Option<Vec<u8>> {
    let parsed = ModelProto::decode(model).ok()?;
    let graph = parsed.graph.as_ref()?;
    let maps: Vec<ZipMap> = (0..graph.node.len()).filter_map(|index| ZipMap::at(index, graph)).collect();
    if maps.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(model.len() + 1024);
    let fields = fields(model)?;
    // A graph in pieces is valid protobuf, but nobody's model.
    if fields.iter().filter(|field| field.number == MODEL_GRAPH).count() != 1 {
        return None;
    }
    for field in fields {
        match field.number {
            MODEL_GRAPH => put(MODEL_GRAPH, &rewritten(&model[field.content?], &maps)?, &mut out),
            _ => out.extend(&model[field.whole]),
        }
    }
    let is_default = |opset: &OperatorSetIdProto| matches!(opset.domain(), "" | "ai.onnx");
    if !parsed.opset_import.iter().any(is_default) {
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(13) };
        put(MODEL_OPSET_IMPORT, &opset.encode_to_vec(), &mut out);
    }
    for map in &maps {
        // Labels, not names of columns: the classes of several outputs may be the same, and a `0` alone says nothing.
        let key = format!("{LABELS_KEY}{}", map.output);
        if parsed.metadata_props.iter().all(|known| known.key() != key) {
            let value = serde_json::to_string(&map.classes).ok()?;
            let entry = StringStringEntryProto { key: Some(key), value: Some(value) };
            put(MODEL_METADATA_PROPS, &entry.encode_to_vec(), &mut out);
        }
    }
    Some(out)
}

/// A `ZipMap` node whose output is an output of the model and nothing else.
struct ZipMap {
    node: usize,
    input: String,
    output: String,
    classes: Vec<String>,
    /// The rows as the model's first input names them.
    rows: tensor_shape_proto::Dimension,
}

impl ZipMap {
    fn at(index: usize, graph: &GraphProto) -> Option<Self> {
        let node = &graph.node[index];
        let ([input], [output]) = (&node.input[..], &node.output[..]) else { return None };
        let is_output = graph.output.iter().any(|known| known.name() == output);
        let is_used = graph.node.iter().any(|other| other.input.contains(output));
        if node.op_type() != "ZipMap" || node.domain() != "ai.onnx.ml" || !is_output || is_used {
            return None;
        }
        let mut classes = Vec::new();
        for attribute in &node.attribute {
            match attribute.name() {
                "classlabels_int64s" => classes.extend(attribute.ints.iter().map(ToString::to_string)),
                "classlabels_strings" => {
                    classes.extend(attribute.strings.iter().map(|name| String::from_utf8_lossy(name).into_owned()));
                }
                _ => {}
            }
        }
        (!classes.is_empty()).then(|| Self {
            node: index,
            input: input.clone(),
            output: output.clone(),
            classes,
            rows: rows(graph).unwrap_or_default(),
        })
    }

    fn identity(&self) -> NodeProto {
        NodeProto {
            input: vec![self.input.clone()],
            output: vec![self.output.clone()],
            op_type: Some("Identity".into()),
            ..NodeProto::default()
        }
    }

    fn value_info(&self) -> ValueInfoProto {
        let classes = i64::try_from(self.classes.len()).unwrap_or(i64::MAX);
        let classes =
            tensor_shape_proto::Dimension { value: Some(tensor_shape_proto::dimension::Value::DimValue(classes)) };
        let shape = TensorShapeProto { dim: vec![self.rows.clone(), classes] };
        let tensor = type_proto::Tensor { elem_type: Some(FLOAT), shape: Some(shape) };
        let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
        ValueInfoProto { name: Some(self.output.clone()), r#type: Some(kind) }
    }
}

/// The first dimension of the model's first input, when it has a name: a number would be a guess.
fn rows(graph: &GraphProto) -> Option<tensor_shape_proto::Dimension> {
    let Some(type_proto::Value::TensorType(tensor)) = &graph.input.first()?.r#type.as_ref()?.value else { return None };
    let first = tensor.shape.as_ref()?.dim.first()?;
    matches!(first.value, Some(tensor_shape_proto::dimension::Value::DimParam(_))).then(|| first.clone())
}

fn rewritten(graph: &[u8], maps: &[ZipMap]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(graph.len() + 1024);
    let mut node = 0;
    for field in fields(graph)? {
        let named = || {
            let value = ValueInfoProto::decode(&graph[field.content.clone()?]).ok()?;
            maps.iter().find(|map| map.output == value.name())
        };
        match field.number {
            GRAPH_NODE => {
                match maps.iter().find(|map| map.node == node) {
                    Some(map) => put(GRAPH_NODE, &map.identity().encode_to_vec(), &mut out),
                    None => out.extend(&graph[field.whole]),
                }
                node += 1;
            }
            GRAPH_OUTPUT => match named() {
                Some(map) => put(GRAPH_OUTPUT, &map.value_info().encode_to_vec(), &mut out),
                None => out.extend(&graph[field.whole]),
            },
            // What was said of the map is not true of the tensor.
            GRAPH_VALUE_INFO if named().is_some() => {}
            _ => out.extend(&graph[field.whole]),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::onnx::AttributeProto;

    fn value(name: &str) -> ValueInfoProto {
        ValueInfoProto { name: Some(name.into()), r#type: None }
    }

    fn zip_map(input: &str, output: &str) -> NodeProto {
        let strings = vec!["no".into(), "yes".into()];
        let classes = AttributeProto { name: Some("classlabels_strings".into()), strings, ..AttributeProto::default() };
        NodeProto {
            input: vec![input.into()],
            output: vec![output.into()],
            op_type: Some("ZipMap".into()),
            domain: Some("ai.onnx.ml".into()),
            attribute: vec![classes],
            ..NodeProto::default()
        }
    }

    fn graph() -> GraphProto {
        let other = NodeProto { output: vec!["p".into()], op_type: Some("Other".into()), ..NodeProto::default() };
        GraphProto {
            node: vec![other, zip_map("p", "probabilities")],
            output: vec![value("label"), value("probabilities")],
            ..GraphProto::default()
        }
    }

    fn encoded(graph: GraphProto) -> Vec<u8> {
        let ml = OperatorSetIdProto { domain: Some("ai.onnx.ml".into()), version: Some(1) };
        ModelProto { graph: Some(graph), opset_import: vec![ml], ..ModelProto::default() }.encode_to_vec()
    }

    #[test]
    fn map_becomes_the_tensor_that_it_was_made_of() {
        let model = ModelProto::decode(&flatten(&encoded(graph())).unwrap()[..]).unwrap();
        let graph = model.graph.unwrap();
        assert_eq!((graph.node[0].op_type(), graph.node[1].op_type()), ("Other", "Identity"));
        assert_eq!((&graph.node[1].input[0][..], &graph.node[1].output[0][..]), ("p", "probabilities"));
        assert_eq!(graph.output[0], value("label"));
        let Some(type_proto::Value::TensorType(tensor)) = graph.output[1].r#type.clone().unwrap().value else {
            panic!("not a tensor")
        };
        assert_eq!((tensor.elem_type(), tensor.shape.unwrap().dim.len()), (FLOAT, 2));
        let metadata: Vec<_> = model.metadata_props.iter().map(|entry| (entry.key(), entry.value())).collect();
        let names = r#"["no","yes"]"#;
        let expected = [("tidegate.labels.probabilities", names)];
        assert_eq!(metadata, expected);
        assert!(model.opset_import.iter().any(|opset| opset.domain().is_empty()), "Identity needs its own");
    }

    #[test]
    fn what_is_not_understood_is_copied() {
        // Field 99 of the graph and field 98 of the model are in no format that we know.
        let mut inner = graph().encode_to_vec();
        put(99, b"inner", &mut inner);
        let mut model = Vec::new();
        put(98, b"before", &mut model);
        put(MODEL_GRAPH, &inner, &mut model);
        let flat = flatten(&model).unwrap();
        let contains = |words: &[u8]| flat.windows(words.len()).any(|window| window == words);
        assert!(contains(b"inner") && contains(b"before"));
    }

    #[test]
    fn other_models_are_left_alone() {
        let mut used = graph();
        let input = vec!["probabilities".into()];
        used.node.push(NodeProto { input, ..NodeProto::default() });
        let mut nameless = graph();
        nameless.node[1].attribute.clear();
        let mut hidden = graph();
        hidden.output.pop();
        for other in [GraphProto::default(), used, nameless, hidden] {
            assert_eq!(flatten(&encoded(other)), None);
        }
        assert_eq!(flatten(b"not onnx"), None);
    }

    proptest! {
        #[test]
        fn broken_model_never_panics(cut in 0_usize..400, noise in any::<u8>()) {
            let mut model = encoded(graph());
            let place = cut % model.len();
            model[place] ^= noise;
            let _ = flatten(&model);
            let _ = flatten(&model[..place]);
        }
    }
}
