//! Text models of scikit-learn change the case of words with a `StringNormalizer` node, and ONNX Runtime then wants the locale
//! `en_US.UTF-8` of the operating system, also where the node names none. Slim images do not have it, and the whole model would
//! not load. `C.UTF-8` is always there and changes the case of all letters alike, so such nodes are rewritten to ask for that.
//!
//! A node that asks for another language is left as it is: Turkish, for one, has other rules.

use prost::Message;

use super::fields::{
    ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS, FUNCTION_NODE, GRAPH_NODE, MODEL_FUNCTIONS, MODEL_GRAPH, NODE_ATTRIBUTE, fields,
    put,
};
use crate::proto::onnx::{AttributeProto, ModelProto, NodeProto};

/// The locale that is always there.
const ALWAYS_THERE: &[u8] = b"C.UTF-8";
/// ONNX's number for an attribute that is a string.
const STRING: i32 = 3;
/// Subgraphs within subgraphs: as deep as prost reads messages.
const MAX_DEPTH: usize = 25;

/// The model with its English nodes rewritten, and how many they were; `None` when there are none.
pub(super) fn rewrite(model: &[u8]) -> Option<(Vec<u8>, usize)> {
    // Most models have no such node: the name of the operator is looked for first.
    let is_there = model.windows(NAME.len()).any(|window| window == NAME.as_bytes());
    if !is_there || ModelProto::decode(model).is_err() {
        return None;
    }
    let mut count = 0;
    let rewritten = message(model, Kind::Model, &mut count, 0)?;
    (count > 0).then_some((rewritten, count))
}

const NAME: &str = "StringNormalizer";

/// The messages that a node may be in.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Function,
    Graph,
    Node,
    Attribute,
}

impl Kind {
    /// What the field of this number holds, where nodes may be in it.
    fn of_field(self, number: u32) -> Option<Self> {
        match (self, number) {
            (Self::Model, MODEL_GRAPH) | (Self::Attribute, ATTRIBUTE_GRAPH | ATTRIBUTE_GRAPHS) => Some(Self::Graph),
            (Self::Model, MODEL_FUNCTIONS) => Some(Self::Function),
            (Self::Function, FUNCTION_NODE) | (Self::Graph, GRAPH_NODE) => Some(Self::Node),
            (Self::Node, NODE_ATTRIBUTE) => Some(Self::Attribute),
            _ => None,
        }
    }
}

fn message(bytes: &[u8], kind: Kind, count: &mut usize, depth: usize) -> Option<Vec<u8>> {
    if depth > 4 * MAX_DEPTH {
        return None;
    }
    if matches!(kind, Kind::Node)
        && let Some(node) = NodeProto::decode(bytes).ok().filter(is_english)
    {
        *count += 1;
        return node_of(bytes, &node);
    }
    let mut out = Vec::with_capacity(bytes.len() + 64);
    for field in fields(bytes)? {
        match (kind.of_field(field.number), field.content) {
            (Some(inner), Some(content)) => {
                put(field.number, &message(&bytes[content], inner, count, depth + 1)?, &mut out);
            }
            _ => out.extend(&bytes[field.whole]),
        }
    }
    Some(out)
}

fn is_english(node: &NodeProto) -> bool {
    let is_normalizer = node.op_type() == NAME && matches!(node.domain(), "" | "ai.onnx" | "com.microsoft");
    let named = node.attribute.iter().find(|attribute| attribute.name() == "locale");
    let is_english = |locale: &[u8]| locale.is_empty() || locale.starts_with(b"en_") || locale == b"en";
    is_normalizer && named.is_none_or(|attribute| is_english(attribute.s()))
}

/// The node with its locale as it is to be.
fn node_of(bytes: &[u8], node: &NodeProto) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    let mut attributes = node.attribute.iter();
    for field in fields(bytes)? {
        let is_locale = field.number == NODE_ATTRIBUTE && attributes.next()?.name() == "locale";
        if !is_locale {
            out.extend(&bytes[field.whole]);
        }
    }
    let locale = AttributeProto {
        name: Some("locale".into()),
        s: Some(ALWAYS_THERE.into()),
        r#type: Some(STRING),
        ..AttributeProto::default()
    };
    put(NODE_ATTRIBUTE, &locale.encode_to_vec(), &mut out);
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::onnx::{FunctionProto, GraphProto};

    fn string(name: &str, value: &str) -> AttributeProto {
        let (name, s) = (Some(name.into()), Some(value.into()));
        AttributeProto { name, s, r#type: Some(STRING), ..AttributeProto::default() }
    }

    fn normalizer(locale: Option<&str>) -> NodeProto {
        let lower = string("case_change_action", "LOWER");
        let attribute = [lower].into_iter().chain(locale.map(|locale| string("locale", locale))).collect();
        NodeProto { op_type: Some(NAME.into()), attribute, ..NodeProto::default() }
    }

    fn encoded(node: Vec<NodeProto>, functions: Vec<FunctionProto>) -> Vec<u8> {
        let graph = GraphProto { node, ..GraphProto::default() };
        ModelProto { graph: Some(graph), functions, ..ModelProto::default() }.encode_to_vec()
    }

    fn locales(node: &NodeProto) -> Vec<String> {
        let named = node.attribute.iter().filter(|attribute| attribute.name() == "locale");
        named.map(|attribute| String::from_utf8_lossy(attribute.s()).into_owned()).collect()
    }

    #[test]
    fn english_and_absent_locales_become_one_that_is_always_there() {
        let nodes = [None, Some("en_US"), Some("en_US.UTF-8"), Some("en_GB.UTF-8")].map(normalizer).to_vec();
        let (bytes, count) = rewrite(&encoded(nodes, Vec::new())).unwrap();
        let model = ModelProto::decode(&bytes[..]).unwrap();
        assert_eq!(count, 4);
        for node in model.graph.unwrap().node {
            assert_eq!(locales(&node), ["C.UTF-8"]);
            assert_eq!(node.attribute[0], string("case_change_action", "LOWER"));
        }
    }

    #[test]
    fn other_languages_keep_their_rules() {
        let nodes = [Some("tr_TR.UTF-8"), Some("de_DE"), Some("C.UTF-8"), Some("C")].map(normalizer).to_vec();
        assert_eq!(rewrite(&encoded(nodes, Vec::new())), None);
        assert_eq!(rewrite(b"StringNormalizer, but not ONNX"), None);
    }

    #[test]
    fn nodes_in_subgraphs_and_functions_are_found() {
        let inner = GraphProto { node: vec![normalizer(None)], ..GraphProto::default() };
        let branch = AttributeProto { g: Some(inner), ..AttributeProto::default() };
        let outer = NodeProto { op_type: Some("If".into()), attribute: vec![branch], ..NodeProto::default() };
        let function = FunctionProto { node: vec![normalizer(Some("en_US"))], ..FunctionProto::default() };
        let (bytes, count) = rewrite(&encoded(vec![outer], vec![function])).unwrap();
        let model = ModelProto::decode(&bytes[..]).unwrap();
        assert_eq!(count, 2);
        let inner = model.graph.as_ref().unwrap().node[0].attribute[0].g.as_ref().unwrap();
        assert_eq!(
            (locales(&inner.node[0]), locales(&model.functions[0].node[0])),
            (vec!["C.UTF-8".into()], vec!["C.UTF-8".into()])
        );
    }

    proptest! {
        #[test]
        fn broken_model_never_panics(cut in 0_usize..200, noise in any::<u8>()) {
            let mut model = encoded(vec![normalizer(None)], Vec::new());
            let place = cut % model.len();
            model[place] ^= noise;
            let _ = rewrite(&model);
            let _ = rewrite(&model[..place]);
        }
    }
}
