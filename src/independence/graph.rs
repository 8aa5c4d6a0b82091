//! Goes through a graph node by node, with what is known of each value.

use std::{cell::Cell, collections::HashMap, rc::Rc, sync::Arc};

use super::{
    Reason, constant,
    follow::follow,
    operators,
    rule::{Call, Failure, Outcome, Outputs, Stop, Subgraphs, Symbols},
    size::Size,
    value::{Tensor, Value},
};
use crate::proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
    tensor_shape_proto::dimension, type_proto,
};

/// Graphs in graphs, functions in functions.
const DEEPEST: usize = 48;
/// Nodes, inputs and outputs that are looked at, those of functions and loops each time.
const MOST_STEPS: u64 = 1_000_000;
/// Elements that are kept of all small tensors together.
const MOST_KEPT: usize = 200_000;
/// Operators changed what they mean before ONNX Runtime's oldest.
const OLDEST: i64 = 7;

pub(super) type Found = Result<Rc<Value>, Arc<Failure>>;

/// The names in a graph.
#[derive(Default)]
pub(super) struct Scope<'a> {
    values: HashMap<String, Found>,
    around: Option<&'a Scope<'a>>,
    hides_rows: bool,
}

impl Scope<'_> {
    pub(super) fn find(&self, name: &str) -> Option<Found> {
        if let Some(found) = self.values.get(name) {
            return Some(found.clone());
        }
        let found = self.around?.find(name)?;
        let is_same = |value: &Rc<Value>| matches!(&**value, Value::Tensor(tensor) if tensor.is_same());
        if self.hides_rows && found.as_ref().is_ok_and(|value| !is_same(value)) {
            let why = "a graph that goes through the rows takes a value of all rows".to_owned();
            return Some(Err(Arc::new(Failure { is_dependent: true, reason: Reason::of_model(why) })));
        }
        Some(found)
    }
}

/// Where a node stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    versions: &'a HashMap<&'a str, i64>,
    lent: &'a [(&'a str, &'a AttributeProto)],
    depth: usize,
}

pub(super) struct Walk<'a> {
    functions: HashMap<(&'a str, &'a str), Vec<&'a FunctionProto>>,
    versions: HashMap<&'a str, i64>,
    symbols: Symbols,
    steps: Cell<u64>,
    kept: Cell<usize>,
}

/// ONNX's own operators have a domain of two names.
fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

fn versions(imports: &[OperatorSetIdProto]) -> HashMap<&str, i64> {
    imports.iter().map(|import| (domain(import.domain()), import.version())).collect()
}

fn unknown(why: impl Into<String>) -> Arc<Failure> {
    Arc::new(Failure { is_dependent: false, reason: Reason::of_model(why) })
}

fn failure(node: &NodeProto, stop: Stop) -> Arc<Failure> {
    let (is_dependent, why) = match stop {
        Stop::Inside(failure) => return failure,
        Stop::Dependent(why) => (true, why),
        Stop::Unknown(why) => (false, why),
    };
    let operator = match node.domain() {
        "" | "ai.onnx" | "ai.onnx.ml" => node.op_type().to_owned(),
        domain => format!("{domain}.{}", node.op_type()),
    };
    let first = node.output.iter().find(|name| !name.is_empty()).map_or("", String::as_str);
    let name = if node.name().is_empty() { first } else { node.name() };
    Arc::new(Failure { is_dependent, reason: Reason { operator, node: name.to_owned(), why: why.to_string() } })
}

impl<'a> Walk<'a> {
    pub(super) fn new(model: &'a ModelProto) -> Self {
        let mut functions: HashMap<_, Vec<_>> = HashMap::new();
        for function in &model.functions {
            functions.entry((domain(function.domain()), function.name())).or_default().push(function);
        }
        Self {
            functions,
            versions: versions(&model.opset_import),
            symbols: Symbols::default(),
            steps: Cell::new(0),
            kept: Cell::new(0),
        }
    }

    /// The values of the main graph.
    pub(super) fn main(&self, graph: &GraphProto) -> Result<Scope<'static>, Arc<Failure>> {
        if self.versions.get("").is_some_and(|&version| version < OLDEST) {
            return Err(unknown("the model is of an operator set before 7, in which operators meant other things"));
        }
        let mut scope = Scope::default();
        self.initialise(graph, &mut scope)?;
        for input in &graph.input {
            if !scope.values.contains_key(input.name()) {
                scope.values.insert(input.name().to_owned(), Ok(Rc::new(self.input(input)?.into())));
            } else if let Some(Ok(value)) = scope.values.get_mut(input.name()) {
                // A request may give another one, of the same shape.
                if let Value::Tensor(tensor) = &**value {
                    *value = Rc::new(Tensor { elements: None, ..tensor.clone() }.into());
                }
            }
        }
        let place = Place { versions: &self.versions, lent: &[], depth: 0 };
        self.nodes(&graph.node, &mut scope, place);
        Ok(scope)
    }

    /// An input of the model: rows along its first axis.
    fn input(&self, input: &ValueInfoProto) -> Result<Tensor, Arc<Failure>> {
        let name = input.name().escape_debug();
        let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref())
        else {
            return Err(unknown(format!("input '{name}' is no tensor")));
        };
        let Some(shape) = &tensor.shape else {
            return Err(unknown(format!("input '{name}' declares no shape")));
        };
        let fixed = |value: &Option<dimension::Value>| match value {
            Some(dimension::Value::DimValue(size)) if *size > 0 => Some(*size),
            _ => None,
        };
        let mut sizes = shape.dim.iter().map(|dimension| fixed(&dimension.value));
        match sizes.next() {
            None => return Err(unknown(format!("input '{name}' is a scalar: it has no axis for rows"))),
            Some(Some(size)) => {
                return Err(unknown(format!(
                    "input '{name}' takes exactly {size} row{}: nothing can join them",
                    if size == 1 { "" } else { "s" }
                )));
            }
            Some(None) => {}
        }
        let free = sizes.map(|size| size.map_or_else(|| self.symbols.next(), Size::fixed));
        let shape = std::iter::once(Size::ROWS).chain(free);
        Tensor::rows(shape.collect(), 0).map_err(|_| unknown(format!("input '{name}' has too many dimensions")))
    }

    fn initialise(&self, graph: &GraphProto, scope: &mut Scope<'_>) -> Result<(), Arc<Failure>> {
        for initialiser in &graph.initializer {
            self.step(1).map_err(|()| unknown("the model is too large to be followed"))?;
            let tensor = self.kept(constant::tensor(initialiser));
            scope.values.insert(initialiser.name().to_owned(), Ok(Rc::new(tensor.into())));
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |values| values.name());
            let shape = sparse.dims.iter().map(|&size| (size >= 0).then(|| Size::fixed(size))).collect();
            scope.values.insert(name.to_owned(), Ok(Rc::new(Tensor::same(shape).into())));
        }
        Ok(())
    }

    fn step(&self, count: usize) -> Result<(), ()> {
        self.steps.set(self.steps.get().saturating_add(count as u64));
        if self.steps.get() > MOST_STEPS { Err(()) } else { Ok(()) }
    }

    /// Forgets elements once very many are kept.
    fn kept(&self, mut tensor: Tensor) -> Tensor {
        let count = self.kept.get() + tensor.elements.as_ref().map_or(0, Vec::len);
        if count > MOST_KEPT {
            tensor.elements = None;
        } else {
            self.kept.set(count);
        }
        tensor
    }

    fn nodes(&self, nodes: &[NodeProto], scope: &mut Scope<'_>, place: Place<'_>) {
        for node in nodes {
            let outputs = self.node(node, scope, place);
            for (index, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let made = match outputs.get(index) {
                    _ if scope.values.contains_key(name) => {
                        Err(unknown(format!("the name '{}' is given twice", name.escape_debug())))
                    }
                    Some(made) => made.clone(),
                    None => Err(failure(node, Stop::unknown("gives an output that its rule does not know"))),
                };
                scope.values.insert(name.clone(), made);
            }
        }
    }

    fn node(&self, node: &NodeProto, scope: &Scope<'_>, place: Place<'_>) -> Vec<Found> {
        let all = |failure: Arc<Failure>| vec![Err(failure); node.output.len()];
        let stop = |stop: Stop| all(failure(node, stop));
        if self.step(1 + node.input.len() + node.output.len()).is_err() || place.depth > DEEPEST {
            return all(unknown("the model is too large to be followed"));
        }
        let mut inputs = Vec::with_capacity(node.input.len());
        let mut failed: Option<Arc<Failure>> = None;
        for name in &node.input {
            match scope.find(name) {
                _ if name.is_empty() => inputs.push(Rc::new(Value::Absent)),
                Some(Ok(value)) => inputs.push(value),
                Some(Err(failure)) => {
                    if failed.as_ref().is_none_or(|known| failure.is_dependent && !known.is_dependent) {
                        failed = Some(failure);
                    }
                }
                None => return stop(Stop::unknown("takes a value that nothing before it gives")),
            }
        }
        if let Some(failure) = failed {
            return all(failure);
        }
        let own = domain(node.domain());
        if own.is_empty() && !place.versions.contains_key(own) {
            return stop(Stop::unknown("is of no version that the model names"));
        }
        let found = operators::rule(own, node.op_type());
        let named = self.functions.get(&(own, node.op_type()));
        let is_constant = own.is_empty() && node.op_type() == "Constant";
        let called = match (found, named) {
            (Some(_), Some(_)) => return stop(Stop::unknown("is defined by the model and by ONNX Runtime")),
            (None, Some(_)) if is_constant => {
                return stop(Stop::unknown("is defined by the model and by ONNX Runtime"));
            }
            (None, Some(named)) => {
                let mut named = named.iter().filter(|function| function.overload() == node.overload());
                return match (named.next(), named.next()) {
                    (Some(function), None) => self.call(node, function, inputs, place),
                    _ => stop(Stop::unknown("is no function that the model defines once")),
                };
            }
            (None, None) if is_constant => {
                let value = node.attribute.iter().find(|attribute| attribute.name() != "sparse_value");
                let lent = |attribute: &'_ AttributeProto| {
                    let lent = place.lent.iter().find(|(name, _)| *name == attribute.ref_attr_name());
                    match lent {
                        // The name of its own, the value of the other.
                        Some((_, given)) => {
                            constant::attribute(&AttributeProto { name: attribute.name.clone(), ..(*given).clone() })
                        }
                        None if attribute.ref_attr_name().is_empty() => constant::attribute(attribute),
                        None => Tensor::same(None),
                    }
                };
                let tensor = value.map_or(Tensor::same(None), lent);
                return vec![Ok(Rc::new(self.kept(tensor).into()))];
            }
            (None, None) => return stop(Stop::unknown("is an operator without a rule")),
            (Some(found), None) => found,
        };
        let subgraphs = Inside { walk: self, scope, place };
        let call = Call {
            node,
            version: place.versions.get(node.domain()).or(place.versions.get("")).copied().unwrap_or(1),
            inputs: inputs.iter().map(|value| &**value).collect(),
            symbols: &self.symbols,
            subgraphs: &subgraphs,
            lent: place.lent,
        };
        let made = match follow(&call, called) {
            Ok(made) => made,
            Err(why) => return stop(why),
        };
        let found = made.into_iter().map(|made| match made {
            Ok(Value::Tensor(tensor)) => Ok(Rc::new(self.kept(tensor).into())),
            Ok(other) => Ok(Rc::new(other)),
            Err(why) => Err(failure(node, why)),
        });
        found.collect()
    }

    /// A function of the model's own: as if its nodes stood there.
    fn call(&self, node: &NodeProto, function: &FunctionProto, inputs: Vec<Rc<Value>>, place: Place<'_>) -> Vec<Found> {
        let mut scope = Scope::default();
        let mut given = inputs.into_iter();
        for name in &function.input {
            let value = given.next().unwrap_or_else(|| Rc::new(Value::Absent));
            scope.values.insert(name.clone(), Ok(value));
        }
        let own = node.attribute.iter().filter_map(|attribute| match attribute.ref_attr_name() {
            "" => Some((attribute.name(), attribute)),
            reference => {
                let (_, lent) = place.lent.iter().find(|(name, _)| *name == reference)?;
                Some((attribute.name(), *lent))
            }
        });
        let defaults = function.attribute_proto.iter().map(|attribute| (attribute.name(), attribute));
        // The first of a name is taken.
        let lent: Vec<(&str, &AttributeProto)> = own.chain(defaults).collect();
        let imports = versions(&function.opset_import);
        let mut versions = place.versions.clone();
        versions.extend(imports);
        let inner = Place { versions: &versions, lent: &lent, depth: place.depth + 1 };
        self.nodes(&function.node, &mut scope, inner);
        let lost = || Err(failure(node, Stop::unknown("gives an output that its function does not make")));
        function.output.iter().map(|name| scope.find(name).unwrap_or_else(lost)).collect()
    }
}

/// The graphs of a node.
struct Inside<'a> {
    walk: &'a Walk<'a>,
    scope: &'a Scope<'a>,
    place: Place<'a>,
}

impl Subgraphs for Inside<'_> {
    fn run(&self, graph: &GraphProto, inputs: Vec<Outcome<Value>>, hides_rows: bool) -> Outputs {
        let mut scope = Scope { values: HashMap::new(), around: Some(self.scope), hides_rows };
        self.walk.initialise(graph, &mut scope).map_err(Stop::Inside)?;
        if graph.input.len() < inputs.len() {
            return Err(Stop::unknown("has a graph of other inputs"));
        }
        let mut inputs = inputs.into_iter();
        for input in &graph.input {
            match inputs.next() {
                Some(value) => drop(scope.values.insert(input.name().to_owned(), Ok(Rc::new(value?)))),
                None if scope.values.contains_key(input.name()) => {}
                None => return Err(Stop::unknown("has a graph of other inputs")),
            }
        }
        let place = Place { depth: self.place.depth + 1, ..self.place };
        self.walk.nodes(&graph.node, &mut scope, place);
        let made = |output: &ValueInfoProto| match scope.find(output.name()) {
            Some(Ok(value)) => match &*value {
                Value::Tensor(Tensor { interleaved: Some(_), .. }) => {
                    Err(Stop::unknown("gives rows that do not stand one behind the other"))
                }
                other => Ok(other.clone()),
            },
            Some(Err(failure)) => Err(Stop::Inside(failure)),
            None => Err(Stop::unknown("has a graph that does not make its outputs")),
        };
        Ok(graph.output.iter().map(made).collect())
    }
}
