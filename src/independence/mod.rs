//! Whether the rows of a model are independent: a proof from its graph, without running it.
//!
//! Requests may run together only if no row of an answer depends on another row of the inputs. A trial on some rows can
//! show that they depend; it cannot show that they do not. So the rows are followed from the inputs through every
//! operator to the outputs, by rules that read like the operators' documentation (`operators` is the table).
//!
//! Of every value it is known how it hangs together with the rows (`value::Spread`): it is the same whatever runs
//! together, has rows along an axis, or depends on how many rows there are, as shapes do. Sizes are products of numbers,
//! of names for sizes that are not known, and of N, the number of rows (`size`), so that the arithmetic with which
//! exporters write shapes can be done (`fold`). A rule says what an operator makes of that, or why it cannot be followed.
//!
//! What has no rule, and a shape that cannot be followed, is never taken for harmless. The proof is about mathematics:
//! other numbers of rows may round in another way.
#![allow(
    clippy::unnecessary_wraps,
    clippy::option_option,
    clippy::too_many_lines,
    reason = "rules have one type; a table of cases is read from top to bottom"
)]

mod axes;
mod broadcast;
mod constant;
mod control;
mod filters;
mod fold;
mod follow;
mod graph;
mod layout;
mod learners;
mod operators;
mod products;
mod recurrent;
mod rule;
mod select;
mod size;
#[cfg(test)]
mod tests;
mod value;
mod verdict;

pub use self::verdict::{BatchAxis, Proof, Reason, Verdict};
use self::{
    graph::Walk,
    rule::Failure,
    size::Size,
    value::{Spread, Tensor, Value},
};
use crate::proto::onnx::{GraphProto, ModelProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};

/// Whether the rows of `model` are independent. The rows of an input lie along its axis 0; every input that is no
/// initialiser has them.
#[must_use]
pub fn prove(model: &ModelProto) -> Verdict {
    let Some(graph) = &model.graph else {
        return Verdict::Unknown(Reason::of_model("the model has no graph"));
    };
    let is_initialised = |name: &str| graph.initializer.iter().any(|tensor| tensor.name() == name);
    let inputs: Vec<&ValueInfoProto> = graph.input.iter().filter(|input| !is_initialised(input.name())).collect();
    if inputs.is_empty() || graph.output.is_empty() {
        return Verdict::Unknown(Reason::of_model("the model has no inputs or no outputs"));
    }
    let walk = Walk::new(model);
    let scope = match walk.main(graph) {
        Ok(scope) => scope,
        Err(failure) => return verdict(&failure),
    };
    let mut outputs = Vec::with_capacity(graph.output.len());
    let mut failed: Option<Verdict> = None;
    for output in &graph.output {
        let name = output.name().escape_debug();
        let found = match scope.find(output.name()) {
            Some(Ok(value)) => output_axis(&value).map_err(|why| why(&name.to_string())),
            Some(Err(failure)) => Err(verdict(&failure)),
            None => Err(Verdict::Unknown(Reason::of_model(format!("nothing makes the output '{name}'")))),
        };
        match found {
            Ok(axis) => outputs.push(BatchAxis { name: output.name().to_owned(), axis }),
            Err(why) => {
                let is_worse =
                    matches!((&failed, &why), (None, _) | (Some(Verdict::Unknown(_)), Verdict::Dependent(_)));
                if is_worse {
                    failed = Some(why);
                }
            }
        }
    }
    failed.unwrap_or_else(|| {
        let warnings = warnings(graph, &inputs, &outputs);
        let inputs = inputs.iter().map(|input| BatchAxis { name: input.name().to_owned(), axis: 0 }).collect();
        Verdict::Independent(Proof { inputs, outputs, warnings })
    })
}

fn verdict(failure: &Failure) -> Verdict {
    let reason = failure.reason.clone();
    if failure.is_dependent { Verdict::Dependent(reason) } else { Verdict::Unknown(reason) }
}

type Why = fn(&str) -> Verdict;

/// The axis along which an output has one element, or one map, for each row.
fn output_axis(value: &Value) -> Result<usize, Why> {
    fn of_tensor(tensor: &Tensor) -> Result<usize, Why> {
        let dependent = |why: Why| Err(why);
        match tensor.spread {
            Spread::Rows(_) if tensor.padding.is_some() => dependent(|name| {
                Verdict::Dependent(Reason::of_model(format!("output '{name}' is as wide as the longest row")))
            }),
            Spread::Rows(_) if tensor.interleaved.is_some() => dependent(|name| {
                Verdict::Unknown(Reason::of_model(format!(
                    "output '{name}' has rows that do not stand one behind the other"
                )))
            }),
            Spread::Rows(axis) => match tensor.shape.as_ref().and_then(|shape| shape.get(axis)) {
                Some(size) if *size == Size::ROWS => Ok(axis),
                _ => Err(|name| {
                    Verdict::Unknown(Reason::of_model(format!("output '{name}' has several elements for each row")))
                }),
            },
            Spread::Same | Spread::Counted => Err(|name| {
                Verdict::Dependent(Reason::of_model(format!("output '{name}' has no rows: it is one for all")))
            }),
        }
    }
    match value {
        Value::Tensor(tensor) => of_tensor(tensor),
        Value::Maps => Ok(0),
        Value::Sequence(tensors) if !tensors.is_empty() => {
            let axes = tensors.iter().map(of_tensor).collect::<Result<Vec<_>, _>>()?;
            if axes.iter().all(|&axis| axis == axes[0]) {
                return Ok(axes[0]);
            }
            Err(|name| Verdict::Unknown(Reason::of_model(format!("output '{name}' has rows along different axes"))))
        }
        Value::Sequence(_) | Value::Absent => {
            Err(|name| Verdict::Unknown(Reason::of_model(format!("output '{name}' cannot be followed"))))
        }
    }
}

/// Names that a model gives to the axis of the rows and that do not go together. A number there, such as the 1 of every
/// classifier of `LightGBM`, is told where the model is loaded.
fn warnings(graph: &GraphProto, inputs: &[&ValueInfoProto], outputs: &[BatchAxis]) -> Vec<String> {
    let named = inputs.iter().find_map(|input| Some((input.name(), row_name(input, 0)?)));
    let Some((input, other)) = named else { return Vec::new() };
    let pairs = graph.output.iter().zip(outputs);
    let others = pairs.filter_map(|(output, axis)| {
        let own = row_name(output, axis.axis).filter(|own| *own != other)?;
        Some(format!("output '{}' calls its rows '{own}', input '{input}' calls them '{other}'", output.name()))
    });
    others.collect()
}

/// What a model calls the size along an axis. tf2onnx numbers sizes that it does not know, `unk__214`: no names.
fn row_name(value: &ValueInfoProto, axis: usize) -> Option<&str> {
    let type_proto::Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()? else { return None };
    match tensor.shape.as_ref()?.dim.get(axis)?.value.as_ref()? {
        dimension::Value::DimParam(name) if !name.is_empty() && !name.starts_with("unk__") => Some(name),
        _ => None,
    }
}
