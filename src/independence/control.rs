//! Operators that run graphs of their own: `If`, `Loop`, `Scan`.

use super::{
    rule::{Call, Outcome, Outputs, Stop, axis, counted, not_from_rows},
    size::{Number, Size, Symbol},
    value::{Spread, Tensor, Value},
};
use crate::proto::onnx::GraphProto;

/// How often a loop is gone through until what it carries stays as it is.
const ROUNDS: usize = 4;

fn graph<'a>(call: &Call<'a>, name: &str) -> Outcome<&'a GraphProto> {
    call.attribute(name).and_then(|attribute| attribute.g.as_ref()).ok_or_else(|| Stop::unknown("lacks its graph"))
}

/// A number or condition that decides what runs: for all rows at once.
fn decides(tensor: &Tensor, what: &str) -> Outcome<()> {
    match tensor.spread {
        Spread::Same => Ok(()),
        Spread::Rows(_) => Err(Stop::dependent(what)),
        Spread::Counted if tensor.scalar().and_then(Number::known).is_some() => Ok(()),
        Spread::Counted => Err(counted()),
    }
}

/// `If`: one of two graphs.
pub(super) fn branch(call: &Call<'_>) -> Outputs {
    let condition = call.tensor(0)?;
    decides(condition, "takes one branch for all rows")?;
    let run = |name: &str| call.subgraphs.run(graph(call, name)?, Vec::new(), false);
    match condition.scalar().and_then(Number::known) {
        Some(0) => run("else_branch"),
        Some(_) => run("then_branch"),
        None => {
            let (one, other) = (run("then_branch")?, run("else_branch")?);
            Ok(one.into_iter().zip(other).map(|(one, other)| met(call, one?, other?, Symbol::MAX)).collect())
        }
    }
}

/// What holds for both of two values. Sizes numbered from `since` on stand for any size already.
fn met(call: &Call<'_>, one: Value, other: Value, since: Symbol) -> Outcome<Value> {
    let unknown = || Stop::unknown("gives different things by what it takes");
    if one == other {
        return Ok(one);
    }
    let (Value::Tensor(one), Value::Tensor(other)) = (one, other) else { return Err(unknown()) };
    if one.padding.is_some() || other.padding.is_some() {
        return Err(unknown());
    }
    if one.spread == Spread::Counted || other.spread == Spread::Counted {
        return match (one.axis(), other.axis()) {
            (None, None) => Ok(Tensor::counted().into()),
            _ => Err(counted()),
        };
    }
    if one.spread != other.spread {
        return Err(unknown());
    }
    let (Some(left), Some(right)) = (&one.shape, &other.shape) else { return Ok(Tensor::same(None).into()) };
    if left.len() != right.len() {
        return if one.is_same() { Ok(Tensor::same(None).into()) } else { Err(unknown()) };
    }
    if one.axis().is_some_and(|rows| left[rows] != right[rows]) {
        return Err(unknown());
    }
    let any = |size: &Size| size.newest_symbol().is_some_and(|symbol| symbol >= since);
    let meet = |(left, right): (&Size, &Size)| {
        if left == right || any(left) { left.clone() } else { call.symbols.next() }
    };
    Ok(Tensor::with_axis(left.iter().zip(right).map(meet).collect(), one.axis())?.into())
}

/// Without what changes from round to round.
fn carried(value: &Value) -> Outcome<Value> {
    match value {
        Value::Tensor(tensor) => Ok(Tensor { elements: None, ..tensor.clone() }.into()),
        _ => Err(Stop::unknown("carries something that is no tensor")),
    }
}

/// A size that a loop changes is another one outside.
fn outside(call: &Call<'_>, value: Value, since: Symbol) -> Outcome<Value> {
    let Value::Tensor(tensor) = value else { return Err(Stop::unknown("carries something that is no tensor")) };
    let Some(shape) = &tensor.shape else { return Ok(tensor.into()) };
    let is_inside = |size: &Size| size.newest_symbol().is_some_and(|symbol| symbol >= since);
    if tensor.axis().is_some_and(|rows| is_inside(&shape[rows])) {
        return Err(Stop::unknown("changes the size of a row in each round"));
    }
    let shape = shape.iter().map(|size| if is_inside(size) { call.symbols.next() } else { size.clone() });
    match tensor.spread {
        Spread::Counted => Ok(Tensor::counted().into()),
        _ => Ok(Tensor::with_axis(shape.collect(), tensor.axis())?.into()),
    }
}

/// `Loop(rounds, condition, carried …)`: as often for all rows.
pub(super) fn repeat(call: &Call<'_>) -> Outputs {
    let body = graph(call, "body")?;
    for place in 0..2 {
        call.optional(place)?.map_or(Ok(()), |tensor| decides(tensor, "runs as often as the rows say"))?;
    }
    let single = || Value::from(Tensor::same(Some(Vec::new())));
    let initial = call.inputs.iter().skip(2).map(|value| carried(value)).collect::<Outcome<Vec<_>>>()?;
    let stacked = |outputs: &mut Vec<Outcome<Value>>| {
        outputs.drain(1 + initial.len()..).map(|output| stack(&output?, call.symbols.next())).collect::<Vec<_>>()
    };
    let since = call.symbols.count();
    rounds(call, initial.clone(), since, |state| {
        let inputs = [single(), single()].into_iter().chain(state.iter().cloned()).map(Ok);
        let mut outputs = call.subgraphs.run(body, inputs.collect(), false)?;
        if outputs.len() < 1 + initial.len() {
            return Err(Stop::unknown("has a graph of other outputs"));
        }
        match outputs[0].clone()? {
            Value::Tensor(goes_on) => decides(&goes_on, "runs as often as the rows say")?,
            _ => return Err(Stop::unknown("has a graph of other outputs")),
        }
        let stacked = stacked(&mut outputs);
        drop(outputs.remove(0));
        Ok((outputs, stacked))
    })
}

/// What a round gives: what it carries on, and what is put together of all rounds.
type Round = (Vec<Outcome<Value>>, Vec<Outcome<Value>>);

/// Until what is carried stays as it is.
fn rounds(call: &Call<'_>, mut state: Vec<Value>, since: Symbol, run: impl Fn(&[Value]) -> Outcome<Round>) -> Outputs {
    for _ in 0..ROUNDS {
        let (next, stacked) = run(&state)?;
        let mut met_state = Vec::with_capacity(state.len());
        for (old, new) in state.iter().zip(next) {
            met_state.push(met(call, old.clone(), carried(&new?)?, since)?);
        }
        if met_state == state {
            let values = state.into_iter().map(Ok).chain(stacked);
            return Ok(values.map(|value| outside(call, value?, since)).collect());
        }
        state = met_state;
    }
    Err(Stop::unknown("carries something that is another thing in each round"))
}

/// Outputs of all rounds along a new first axis.
fn stack(value: &Value, count: Size) -> Outcome<Value> {
    let Value::Tensor(tensor) = value else { return Err(Stop::unknown("gives something that is no tensor")) };
    if tensor.padding.is_some() {
        return Err(Stop::unknown("gives rows of changing width"));
    }
    if tensor.spread == Spread::Counted {
        return Ok(Tensor::counted().into());
    }
    let Some(shape) = &tensor.shape else { return Ok(Tensor::same(None).into()) };
    let shape = std::iter::once(count).chain(shape.iter().cloned());
    Ok(Tensor::with_axis(shape.collect(), tensor.axis().map(|rows| rows + 1))?.into())
}

/// `Scan(carried …, scanned …)`: through the elements along an axis of each scanned input.
///
/// That may be the axis of the rows, where nothing is carried from one to the next.
pub(super) fn scan(call: &Call<'_>) -> Outputs {
    let body = graph(call, "body")?;
    if call.version < 9 {
        return Err(Stop::unknown("is of an old version"));
    }
    let scanned = usize::try_from(call.int("num_scan_inputs", 0)).unwrap_or(usize::MAX);
    let carries = call.inputs.len().checked_sub(scanned).ok_or_else(|| Stop::unknown("has too few inputs"))?;
    let plain_outputs = call.ints("scan_output_axes").is_none_or(|axes| axes.iter().all(|&axis| axis == 0));
    let forward = |name| call.ints(name).is_none_or(|ways| ways.iter().all(|&way| way == 0));
    if !plain_outputs {
        return Err(Stop::unknown("puts its outputs together along another axis"));
    }
    let mut elements: Vec<Value> = Vec::with_capacity(scanned);
    let mut rows: Option<Size> = None;
    let mut others = false;
    for index in 0..scanned {
        let tensor = call.tensor(carries + index)?;
        let shape = tensor.shape()?;
        let along = call.ints("scan_input_axes").and_then(|axes| axes.get(index).copied()).unwrap_or(0);
        let along = axis(along, shape.len())?;
        let mut element = shape.clone();
        let length = element.remove(along);
        if tensor.axis() == Some(along) {
            if *rows.get_or_insert_with(|| length.clone()) != length {
                return Err(Stop::unknown("goes through rows of different sizes"));
            }
            elements.push(Tensor::same(Some(element)).into());
        } else {
            others = true;
            let axis = tensor.axis().map(|rows| rows - usize::from(rows > along));
            elements.push(Tensor::with_axis(element, axis)?.into());
        }
    }
    let state = call.inputs[..carries].iter().map(|value| carried(value)).collect::<Outcome<Vec<_>>>()?;
    let since = call.symbols.count();
    let run = |state: &[Value], hides_rows: bool| {
        let inputs = state.iter().chain(&elements).cloned().map(Ok).collect();
        let mut outputs = call.subgraphs.run(body, inputs, hides_rows)?;
        if outputs.len() < carries {
            return Err(Stop::unknown("has a graph of other outputs"));
        }
        let scanned = outputs.split_off(carries);
        Ok((outputs, scanned))
    };
    let Some(rows) = rows else {
        return rounds(call, state, since, |state| {
            let (next, parts) = run(state, false)?;
            let stacked = parts.into_iter().map(|value| stack(&value?, call.symbols.next())).collect();
            Ok((next, stacked))
        });
    };
    if others || !forward("scan_input_directions") || !forward("scan_output_directions") {
        return Err(Stop::unknown("goes through rows together with something else"));
    }
    if !(0..carries).all(|place| hands_through(body, place)) {
        return Err(Stop::dependent("carries something from one row to the next"));
    }
    for value in &call.inputs[..carries] {
        match value {
            Value::Tensor(tensor) if tensor.is_same() => {}
            Value::Tensor(tensor) => {
                not_from_rows(tensor, "start")?;
                return Err(counted());
            }
            _ => return Err(Stop::unknown("carries something that is no tensor")),
        }
    }
    let (_, scanned) = run(&state, true)?;
    // Within the graph, the element of a row is as good as a constant; its size must not come from its values.
    let whole = |value: Outcome<Value>| match value? {
        Value::Tensor(Tensor { spread: Spread::Same, padding: None, shape: Some(shape), .. })
            if shape.iter().all(|size| size.newest_symbol().is_none_or(|symbol| symbol < since)) =>
        {
            let shape = std::iter::once(rows.clone()).chain(shape);
            Ok(Tensor::rows(shape.collect(), 0)?.into())
        }
        _ => Err(Stop::unknown("gives something for a row that cannot be followed")),
    };
    Ok(state.into_iter().map(Ok).chain(scanned.into_iter().map(whole)).collect())
}

/// Whether an output of a graph is its input of the same place, as it is.
fn hands_through(body: &GraphProto, place: usize) -> bool {
    let (Some(input), Some(output)) = (body.input.get(place), body.output.get(place)) else { return false };
    let mut name = output.name();
    for _ in 0..=body.node.len().min(64) {
        if name == input.name() {
            return true;
        }
        let made = body.node.iter().find(|node| node.output.iter().any(|made| made == name));
        match made {
            Some(node) if node.op_type() == "Identity" && node.domain().is_empty() => match node.input.first() {
                Some(from) => name = from,
                None => return false,
            },
            _ => return false,
        }
    }
    false
}
