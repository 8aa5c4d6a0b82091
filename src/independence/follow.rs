//! What an operator makes of its inputs: its rule, and what holds whatever the rule.

use super::{
    fold::fold,
    operators::Kind,
    rule::{Call, Outcome, Outputs, Rule, Stop, counted},
    size::{Number, Size, Symbol},
    value::{Spread, Tensor, Value},
};

/// The outputs of a node, by its rule and by what it takes.
pub(super) fn follow(call: &Call<'_>, (rule, kind): (Rule, Kind)) -> Outputs {
    let tensors = || {
        call.inputs.iter().filter_map(|value| match value {
            Value::Tensor(tensor) => Some(tensor),
            _ => None,
        })
    };
    let is_padded = tensors().any(|tensor| tensor.padding.is_some());
    let takes_padding = matches!(call.node.op_type(), "TfIdfVectorizer" | "Identity");
    if is_padded && !takes_padding && tensors().any(|tensor| tensor.axis().is_some()) {
        return match squeezed_padding(call, rule) {
            Some(outputs) => outputs,
            None => Err(Stop::dependent("works on rows that are as wide as the longest of them")),
        };
    }
    if tensors().any(|tensor| tensor.interleaved.is_some()) {
        return interleaved(call, rule);
    }
    let has_rows = call.inputs.iter().any(|value| match value {
        Value::Tensor(tensor) => tensor.axis().is_some(),
        Value::Maps | Value::Sequence(_) => true,
        Value::Absent => false,
    });
    let counts = tensors().any(|tensor| tensor.spread == Spread::Counted);
    if kind == Kind::Any || kind == Kind::Random {
        return rule(call);
    }
    if has_rows {
        if counts && kind == Kind::Plain {
            return Err(counted());
        }
        return rule(call);
    }
    // Without rows, every operator gives the same for all; its rule only says which shape.
    let since = call.symbols.count();
    let outputs = rule(call);
    if call.node.op_type() == "Dropout" && outputs.is_err() {
        return outputs;
    }
    let first = match &outputs {
        Ok(outputs) => outputs.first().and_then(|output| match output {
            Ok(Value::Tensor(tensor)) => Some(tensor),
            _ => None,
        }),
        Err(_) => None,
    };
    if first.is_none_or(|tensor| tensor.elements.is_none() && tensor.axis().is_none())
        && let Some(folded) = fold(call, first)
    {
        return Ok(vec![Ok(folded.into())]);
    }
    let mut made = outputs.unwrap_or_default();
    made.resize_with(call.node.output.len().max(made.len()), || Err(Stop::unknown("")));
    let plain = |output: Outcome<Value>| match output {
        Ok(Value::Tensor(tensor)) if tensor.axis().is_some() || tensor.spread == Spread::Counted => tensor,
        Ok(Value::Tensor(tensor)) if counts => of_counted(tensor, since),
        _ if counts => Tensor::counted(),
        Ok(Value::Tensor(tensor)) => Tensor { padding: None, ..tensor },
        _ => Tensor::same(None),
    };
    Ok(made.into_iter().map(|output| Ok(plain(output).into())).collect())
}

/// What a rule makes of tensors that depend on the number of rows. A size that it does not know, which it numbers with a
/// new symbol (`since`), may depend on that number too.
fn of_counted(tensor: Tensor, since: Symbol) -> Tensor {
    let is_new = |size: &Size| size.newest_symbol().is_some_and(|symbol| symbol >= since);
    let mut sizes = tensor.shape.iter().flatten().chain(tensor.elements.iter().flatten().filter_map(Number::size));
    if sizes.any(is_new) { Tensor::counted() } else { Tensor { spread: Spread::Counted, ..tensor } }
}

/// Operators that work on each place along the axis of the rows alone: interleaved rows stay so.
const PLACE_BY_PLACE: [&str; 30] = [
    "Abs",
    "Add",
    "Cast",
    "Clip",
    "DequantizeLinear",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "Gemm",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LayerNormalization",
    "LeakyRelu",
    "LogSoftmax",
    "MatMul",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Pow",
    "QuantizeLinear",
    "Relu",
    "Sigmoid",
    "Softmax",
    "Sqrt",
    "Sub",
    "Tanh",
];

fn interleaved(call: &Call<'_>, rule: Rule) -> Outputs {
    if matches!(call.node.op_type(), "Reshape" | "Shape") && call.node.domain().is_empty() {
        return rule(call);
    }
    let mut order: Option<(&Size, &Size)> = None;
    for value in &call.inputs {
        let Value::Tensor(tensor) = value else { continue };
        let own =
            tensor.axis().and_then(|rows| Some((tensor.interleaved.as_ref()?, tensor.shape.as_ref()?.get(rows)?)));
        let is_alike = own.is_some_and(|own| *order.get_or_insert(own) == own);
        if !is_alike && !tensor.is_same() {
            return Err(Stop::unknown("brings rows together with rows in another order"));
        }
    }
    let is_plain = call.node.domain().is_empty() && PLACE_BY_PLACE.contains(&call.node.op_type());
    let Some((outer, size)) = order.filter(|_| is_plain) else {
        return Err(Stop::unknown("takes rows that do not stand one behind the other"));
    };
    let keep = |output: Outcome<Value>| match output? {
        Value::Tensor(tensor)
            if tensor.axis().is_some_and(|rows| tensor.shape.as_ref().is_some_and(|shape| shape[rows] == *size)) =>
        {
            Ok(Tensor { interleaved: Some(outer.clone()), ..tensor }.into())
        }
        _ => Err(Stop::unknown("takes rows that do not stand one behind the other")),
    };
    Ok(rule(call)?.into_iter().map(keep).collect())
}

/// Rows that are filled up stay so where only axes of size 1 in between are dropped.
fn squeezed_padding(call: &Call<'_>, rule: Rule) -> Option<Outputs> {
    let Some(Value::Tensor(data)) = call.inputs.first() else { return None };
    let width = data.shape.as_ref()?.last()?.clone();
    if !matches!(call.node.op_type(), "Squeeze" | "Reshape" | "Flatten") || data.padding.is_none() {
        return None;
    }
    let Ok(outputs) = rule(call) else { return None };
    let [Ok(Value::Tensor(made))] = outputs.as_slice() else { return None };
    let keeps_width =
        made.axis() == Some(0) && made.shape.as_ref()?.last() == Some(&width) && made.shape.as_ref()?.len() == 2;
    keeps_width.then(|| Ok(vec![Ok(Tensor { padding: data.padding.clone(), ..made.clone() }.into())]))
}
