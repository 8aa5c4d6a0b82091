//! Classifiers with several targets (scikit-learn's `MultiOutputClassifier`) end in a `SequenceConstruct` node: their
//! probabilities are a sequence of tensors, one for each target, which no message can carry.
//!
//! Such an output is served as the tensors that the node takes: the output `probabilities` of two targets becomes
//! `probabilities_0` and `probabilities_1`. The model's bytes are rewritten for that as `zipmap` does: in the main graph the node
//! becomes an `Identity` for each tensor, and the output as many.

use prost::Message;

use super::fields::{GRAPH_NODE, GRAPH_OUTPUT, GRAPH_VALUE_INFO, MODEL_GRAPH, fields, put};
use crate::proto::onnx::{GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, type_proto};

/// The model with its sequences as tensors; `None` when it has none that can be.
pub(super) fn flatten(model: &[u8]) -> Option<Vec<u8>> {
    let parsed = ModelProto::decode(model).ok()?;
    let graph = parsed.graph.as_ref()?;
    let sequences: Vec<Sequence> = (0..graph.node.len()).filter_map(|index| Sequence::at(index, graph)).collect();
    if sequences.is_empty() {
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
            MODEL_GRAPH => put(MODEL_GRAPH, &rewritten(&model[field.content?], &sequences)?, &mut out),
            _ => out.extend(&model[field.whole]),
        }
    }
    Some(out)
}

/// A `SequenceConstruct` node whose output is an output of the model and nothing else.
struct Sequence {
    node: usize,
    output: String,
    /// The tensors, and what they are called as outputs.
    tensors: Vec<(String, String)>,
    element_type: i32,
}

impl Sequence {
    fn at(index: usize, graph: &GraphProto) -> Option<Self> {
        let node = &graph.node[index];
        let [output] = &node.output[..] else { return None };
        let declared = graph.output.iter().find(|known| known.name() == output)?;
        let is_used = graph.node.iter().any(|other| other.input.contains(output));
        let is_standard = matches!(node.domain(), "" | "ai.onnx");
        if node.op_type() != "SequenceConstruct" || !is_standard || is_used || node.input.is_empty() {
            return None;
        }
        let Some(type_proto::Value::SequenceType(sequence)) = &declared.r#type.as_ref()?.value else { return None };
        let Some(type_proto::Value::TensorType(tensor)) = &sequence.elem_type.as_ref()?.value else { return None };
        let name = |(place, input): (usize, &String)| (input.clone(), format!("{output}_{place}"));
        let tensors: Vec<(String, String)> = node.input.iter().enumerate().map(name).collect();
        let is_taken = |name: &String| {
            let values = graph.input.iter().chain(&graph.output).map(ValueInfoProto::name);
            let produced = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
            let weights = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref());
            values.chain(produced).chain(weights).any(|known| known == name)
        };
        let is_free = tensors.iter().all(|(_, name)| !is_taken(name));
        is_free.then(|| Self { node: index, output: output.clone(), tensors, element_type: tensor.elem_type() })
    }
}

fn rewritten(graph: &[u8], sequences: &[Sequence]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(graph.len() + 1024);
    let mut node = 0;
    for field in fields(graph)? {
        let named = || {
            let value = ValueInfoProto::decode(&graph[field.content.clone()?]).ok()?;
            sequences.iter().find(|sequence| sequence.output == value.name())
        };
        match field.number {
            GRAPH_NODE => {
                match sequences.iter().find(|sequence| sequence.node == node) {
                    Some(sequence) => {
                        let nodes = sequence.tensors.iter().map(identity);
                        nodes.for_each(|node| put(GRAPH_NODE, &node.encode_to_vec(), &mut out));
                    }
                    None => out.extend(&graph[field.whole]),
                }
                node += 1;
            }
            GRAPH_OUTPUT => match named() {
                Some(sequence) => {
                    let values = sequence.tensors.iter().map(|(_, name)| value(name, sequence.element_type));
                    values.for_each(|value| put(GRAPH_OUTPUT, &value.encode_to_vec(), &mut out));
                }
                None => out.extend(&graph[field.whole]),
            },
            // What was said of the sequence is not true of the tensors.
            GRAPH_VALUE_INFO if named().is_some() => {}
            _ => out.extend(&graph[field.whole]),
        }
    }
    Some(out)
}

fn identity((input, output): &(String, String)) -> NodeProto {
    NodeProto {
        input: vec![input.clone()],
        output: vec![output.clone()],
        op_type: Some("Identity".into()),
        ..NodeProto::default()
    }
}

/// Of unknown shape: ONNX Runtime finds it out.
fn value(name: &str, element_type: i32) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: Some(element_type), shape: None };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> GraphProto {
        let tensor = TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(1), shape: None })),
        };
        let sequence = type_proto::Sequence { elem_type: Some(Box::new(tensor)) };
        let kind = TypeProto { value: Some(type_proto::Value::SequenceType(Box::new(sequence))) };
        let value = |name: &str| ValueInfoProto { name: Some(name.into()), r#type: Some(kind.clone()) };
        let construct = NodeProto {
            input: vec!["a".into(), "b".into()],
            output: vec!["probabilities".into()],
            op_type: Some("SequenceConstruct".into()),
            ..NodeProto::default()
        };
        GraphProto { node: vec![construct], output: vec![value("probabilities")], ..GraphProto::default() }
    }

    fn encoded(graph: GraphProto) -> Vec<u8> {
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
    }

    #[test]
    fn sequence_becomes_the_tensors_that_it_was_made_of() {
        let model = ModelProto::decode(&flatten(&encoded(graph())).unwrap()[..]).unwrap();
        let graph = model.graph.unwrap();
        let nodes: Vec<_> = graph.node.iter().map(|node| (node.op_type(), &*node.input[0], &*node.output[0])).collect();
        assert_eq!(nodes, [("Identity", "a", "probabilities_0"), ("Identity", "b", "probabilities_1")]);
        let outputs: Vec<_> = graph.output.iter().map(ValueInfoProto::name).collect();
        assert_eq!(outputs, ["probabilities_0", "probabilities_1"]);
    }

    #[test]
    fn other_models_are_left_alone() {
        let mut used = graph();
        used.node.push(NodeProto { input: vec!["probabilities".into()], ..NodeProto::default() });
        let mut taken = graph();
        taken.node.push(NodeProto { output: vec!["probabilities_1".into()], ..NodeProto::default() });
        let mut inner = graph();
        inner.output.clear();
        for other in [GraphProto::default(), used, taken, inner] {
            assert_eq!(flatten(&encoded(other)), None);
        }
        assert_eq!(flatten(b"not onnx"), None);
    }
}
