//! What a rule for an operator gets and says.

use std::{cell::Cell, sync::Arc};

use super::{
    Reason,
    size::{Size, Symbol},
    value::{Spread, Tensor, Value},
};
use crate::proto::onnx::{AttributeProto, GraphProto, NodeProto};

/// Why the rows cannot be followed through a node; the words continue its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    Dependent(Arc<str>),
    Unknown(Arc<str>),
    /// At a node of a graph that the node runs.
    Inside(Arc<Failure>),
}

/// A node through which the rows cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) is_dependent: bool,
    pub(super) reason: Reason,
}

impl Stop {
    pub(super) fn dependent(why: impl AsRef<str>) -> Self {
        Self::Dependent(why.as_ref().into())
    }

    pub(super) fn unknown(why: impl AsRef<str>) -> Self {
        Self::Unknown(why.as_ref().into())
    }
}

pub(super) type Outcome<T> = Result<T, Stop>;

/// The outputs of a node; each may be followed or not.
pub(super) type Outputs = Outcome<Vec<Outcome<Value>>>;

/// What a node makes of its inputs.
pub(super) type Rule = fn(&Call<'_>) -> Outputs;

/// Numbers the symbols.
#[derive(Debug, Default)]
pub(super) struct Symbols(Cell<Symbol>);

impl Symbols {
    pub(super) fn next(&self) -> Size {
        let symbol = self.0.get();
        self.0.set(symbol.saturating_add(1));
        Size::symbol(symbol)
    }

    /// Those numbered before now are below.
    pub(super) fn count(&self) -> Symbol {
        self.0.get()
    }
}

/// Runs the graphs that nodes hold.
pub(super) trait Subgraphs {
    /// The outputs of `graph` for these inputs; what it does not get it takes from around it, where rows may be hidden.
    fn run(&self, graph: &GraphProto, inputs: Vec<Outcome<Value>>, hides_rows: bool) -> Outputs;
}

/// A node as its rule sees it.
pub(super) struct Call<'a> {
    pub(super) node: &'a NodeProto,
    /// The version of the operator's domain.
    pub(super) version: i64,
    pub(super) inputs: Vec<&'a Value>,
    pub(super) symbols: &'a Symbols,
    pub(super) subgraphs: &'a dyn Subgraphs,
    /// What the function around gives to its attributes.
    pub(super) lent: &'a [(&'a str, &'a AttributeProto)],
}

impl<'a> Call<'a> {
    pub(super) fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        let own = self.node.attribute.iter().find(|attribute| attribute.name() == name)?;
        match own.ref_attr_name() {
            "" => Some(own),
            reference => self.lent.iter().find(|(name, _)| *name == reference).map(|(_, attribute)| *attribute),
        }
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| &attribute.ints[..])
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.attribute(name).and_then(|attribute| std::str::from_utf8(attribute.s.as_deref()?).ok())
    }

    /// An input, unless it is left out.
    pub(super) fn given(&self, place: usize) -> Option<&'a Value> {
        self.inputs.get(place).copied().filter(|value| **value != Value::Absent)
    }

    pub(super) fn has(&self, place: usize) -> bool {
        self.given(place).is_some()
    }

    /// An input that must be there and a tensor.
    pub(super) fn tensor(&self, place: usize) -> Outcome<&'a Tensor> {
        match self.given(place) {
            Some(Value::Tensor(tensor)) => Ok(tensor),
            Some(_) => Err(Stop::unknown("takes something that is no tensor")),
            None => Err(Stop::unknown("lacks an input")),
        }
    }

    pub(super) fn optional(&self, place: usize) -> Outcome<Option<&'a Tensor>> {
        if self.has(place) { self.tensor(place).map(Some) } else { Ok(None) }
    }

    /// Stops where an input from `places` comes from the rows: weights, scales, tables.
    pub(super) fn demand_same(&self, places: impl IntoIterator<Item = usize>, what: &str) -> Outcome<()> {
        for place in places {
            let Some(tensor) = self.optional(place)? else { continue };
            match tensor.spread {
                Spread::Same => {}
                Spread::Rows(_) => return Err(Stop::dependent(format!("takes its {what} from the rows"))),
                Spread::Counted => return Err(counted()),
            }
        }
        Ok(())
    }

    /// Whole numbers that an attribute gives, in newer versions an input. `Ok(None)` where neither is there.
    pub(super) fn numbers(&self, attribute: &str, place: usize) -> Outcome<Option<Vec<i64>>> {
        if let Some(ints) = self.ints(attribute) {
            return Ok(Some(ints.to_vec()));
        }
        let Some(tensor) = self.optional(place)? else { return Ok(None) };
        not_from_rows(tensor, attribute)?;
        let known = tensor.known();
        known.map(Some).ok_or_else(|| Stop::unknown(format!("computes its {attribute} while it runs")))
    }

    /// Every output is this one.
    pub(super) fn alike(&self, tensor: &Tensor) -> Outputs {
        Ok((0..self.node.output.len()).map(|_| Ok(tensor.clone().into())).collect())
    }
}

pub(super) fn one(tensor: Tensor) -> Outputs {
    Ok(vec![Ok(tensor.into())])
}

/// What is computed with the number of rows is another thing for other companions.
pub(super) fn counted() -> Stop {
    Stop::dependent("computes with the number of rows that run together")
}

/// Shapes, axes and places must not come from the rows.
pub(super) fn not_from_rows(tensor: &Tensor, what: &str) -> Outcome<()> {
    match tensor.spread {
        Spread::Rows(_) => Err(Stop::dependent(format!("takes its {what} from the values of the rows"))),
        Spread::Same | Spread::Counted => Ok(()),
    }
}

/// An axis counted from the front.
pub(super) fn axis(axis: i64, rank: usize) -> Outcome<usize> {
    let count = i64::try_from(rank).unwrap_or(i64::MAX);
    let axis = if axis < 0 { axis.saturating_add(count) } else { axis };
    let place = usize::try_from(axis).ok().filter(|&place| place < rank);
    place.ok_or_else(|| Stop::unknown("names an axis that its input does not have"))
}
