//! Operators that draw at random: answers of a model with one of them are no function of the request.

use crate::proto::onnx::{GraphProto, ModelProto, NodeProto};

const RANDOM: [&str; 6] =
    ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"];

/// The first such node, in words. A Dropout is one where it may be active: where it has an input that says whether it trains.
pub(super) fn operator(model: &ModelProto) -> Option<String> {
    let functions = model.functions.iter().flat_map(|function| &function.node);
    let found = model
        .graph
        .as_ref()
        .and_then(|graph| in_nodes(&graph.node))
        .or_else(|| functions.into_iter().find_map(in_node))?;
    let name = if found.name().is_empty() { found.output.first().map_or("", |name| name) } else { found.name() };
    Some(format!("{} at node '{}'", found.op_type(), name.escape_debug()))
}

fn in_nodes(nodes: &[NodeProto]) -> Option<&NodeProto> {
    nodes.iter().find_map(in_node)
}

fn in_node(node: &NodeProto) -> Option<&NodeProto> {
    let is_standard = matches!(node.domain(), "" | "ai.onnx");
    let may_drop = node.op_type() == "Dropout" && node.input.get(2).is_some_and(|training| !training.is_empty());
    if is_standard && (may_drop || RANDOM.contains(&node.op_type())) {
        return Some(node);
    }
    let bodies = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    bodies.into_iter().find_map(|body: &GraphProto| in_nodes(&body.node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::onnx::AttributeProto;

    fn node(operator: &str, inputs: &[&str]) -> NodeProto {
        NodeProto {
            op_type: Some(operator.into()),
            input: inputs.iter().map(|name| (*name).into()).collect(),
            output: vec![format!("{operator}_0")],
            ..NodeProto::default()
        }
    }

    fn of(nodes: Vec<NodeProto>) -> Option<String> {
        operator(&ModelProto {
            graph: Some(GraphProto { node: nodes, ..GraphProto::default() }),
            ..ModelProto::default()
        })
    }

    #[test]
    fn random_operators_are_found_wherever_they_are() {
        assert_eq!(of(vec![node("Add", &["x", "y"]), node("Dropout", &["x"]), node("Dropout", &["x", "r"])]), None);
        assert_eq!(of(vec![node("Dropout", &["x", "", "t"])]).unwrap(), "Dropout at node 'Dropout_0'");
        let body = GraphProto { node: vec![node("RandomNormal", &[])], ..GraphProto::default() };
        let attribute = AttributeProto { g: Some(body), ..AttributeProto::default() };
        let branch = NodeProto { attribute: vec![attribute], ..node("If", &["c"]) };
        assert_eq!(of(vec![branch]).unwrap(), "RandomNormal at node 'RandomNormal_0'");
        let elsewhere = NodeProto { domain: Some("my".into()), ..node("Bernoulli", &["x"]) };
        assert_eq!(of(vec![elsewhere]), None);
    }
}
