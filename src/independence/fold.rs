//! The arithmetic with which exporters compute shapes, done on what is known of the numbers: `[N, 3, S]` times, cut,
//! joined.

use super::{
    rule::Call,
    select::length,
    size::{Number, Size},
    value::{MOST_ELEMENTS, Tensor, Value},
};

/// The output of a node on small tensors without rows, with its elements; `None` where they are not known.
pub(super) fn fold(call: &Call<'_>, shape: Option<&Tensor>) -> Option<Tensor> {
    let input = |place: usize| match call.given(place) {
        Some(Value::Tensor(tensor)) => Some(tensor),
        _ => None,
    };
    let elements = |place: usize| input(place)?.elements.as_deref();
    let out = |elements: Vec<Number>| {
        let shape = shape?.shape.clone()?;
        let count = Size::product(&shape)?.known()?;
        (usize::try_from(count) == Ok(elements.len())).then(|| Tensor::of_elements(shape, elements))
    };
    if !matches!(call.node.domain(), "" | "ai.onnx") {
        return None;
    }
    match call.node.op_type() {
        "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => out(elements(0)?.to_vec()),
        "Transpose" if input(0)?.shape.as_ref()?.len() < 2 => out(elements(0)?.to_vec()),
        "Cast" => {
            let to = call.int("to", 0);
            out(elements(0)?.iter().map(|number| cast(number, to)).collect())
        }
        name @ ("Neg" | "Abs" | "Not" | "Floor" | "Ceil" | "Round" | "Sqrt") => {
            out(elements(0)?.iter().map(|number| unary(name, number)).collect())
        }
        name @ ("Add" | "Sub" | "Mul" | "Div" | "Mod" | "Equal" | "Less" | "Greater" | "LessOrEqual"
        | "GreaterOrEqual" | "And" | "Or" | "Min" | "Max")
            if call.inputs.len() == 2 =>
        {
            out(paired(elements(0)?, elements(1)?)?.map(|(a, b)| binary(name, a, b)).collect())
        }
        "Where" => {
            let chosen = paired(elements(1)?, elements(2)?)?.collect::<Vec<_>>();
            let conditions = elements(0)?;
            let count = chosen.len().max(conditions.len());
            if [chosen.len(), conditions.len()].iter().any(|&length| length != 1 && length != count) {
                return None;
            }
            let at = |index: usize| {
                let (a, b) = chosen[if chosen.len() == 1 { 0 } else { index }];
                match conditions[if conditions.len() == 1 { 0 } else { index }].known() {
                    Some(0) => b.clone(),
                    Some(_) => a.clone(),
                    None if a == b => a.clone(),
                    None => Number::some(
                        [a, b, &conditions[index.min(conditions.len() - 1)]].iter().any(|n| n.counts_rows()),
                    ),
                }
            };
            out((0..count).map(at).collect())
        }
        "Concat" => {
            let mut all = Vec::new();
            for place in 0..call.inputs.len() {
                let tensor = input(place)?;
                let [length] = tensor.shape.as_deref()? else { return None };
                let length = usize::try_from(length.known()?).ok().filter(|&length| length <= MOST_ELEMENTS)?;
                match &tensor.elements {
                    Some(elements) => all.extend(elements.iter().cloned()),
                    None => all.extend((0..length).map(|_| Number::some(!tensor.is_same()))),
                }
                if all.len() > MOST_ELEMENTS {
                    return None;
                }
            }
            Some(Tensor::vector(all))
        }
        "Gather" => {
            let (values, places) = (elements(0)?, input(1)?);
            let [_] = input(0)?.shape.as_deref()? else { return None };
            let at = |place: &Number| {
                let place = place.known()?;
                let count = i64::try_from(values.len()).ok()?;
                values.get(usize::try_from(if place < 0 { place + count } else { place }).ok()?).cloned()
            };
            let picked = places.elements.as_ref()?.iter().map(at).collect::<Option<Vec<_>>>()?;
            Some(Tensor::of_elements(places.shape.clone()?, picked))
        }
        "Slice" => {
            let values = elements(0)?;
            let [_] = input(0)?.shape.as_deref()? else { return None };
            let single = |name: &str, place: usize| match call.ints(name) {
                Some([only]) => Some(*only),
                _ => elements(place)?.first()?.known(),
            };
            let (start, end) = (single("starts", 1)?, single("ends", 2)?);
            let step = if call.has(4) { elements(4)?.first()?.known()? } else { 1 };
            let size = i64::try_from(values.len()).ok()?;
            let count = usize::try_from(length(size, start, end, step)?).ok()?;
            let start = usize::try_from(if start < 0 { (start.saturating_add(size)).max(0) } else { start }).ok()?;
            let step = usize::try_from(step).ok()?;
            Some(Tensor::vector(values.iter().skip(start).step_by(step).take(count).cloned().collect()))
        }
        name @ ("ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin") => {
            let name = match name {
                "ReduceProd" => "Mul",
                "ReduceSum" => "Add",
                "ReduceMax" => "Max",
                _ => "Min",
            };
            let values = elements(0)?;
            let first = values.first()?.clone();
            out(vec![values[1..].iter().fold(first, |all, number| binary(name, &all, number))])
        }
        "Range" => {
            let at = |place: usize| elements(place)?.first()?.known();
            let (start, limit, delta) = (at(0)?, at(1)?, at(2)?);
            let span = limit.checked_sub(start)?;
            let count = if delta == 0 {
                return None;
            } else {
                span.checked_div(delta)?.checked_add(i64::from(span % delta != 0))?
            };
            let count = i64::max(count, 0);
            if usize::try_from(count).ok()? > MOST_ELEMENTS || (span > 0) != (delta > 0) && span != 0 {
                return None;
            }
            let numbers = (0..count).map(|index| Some(Number::fixed(start.checked_add(index.checked_mul(delta)?)?)));
            Some(Tensor::vector(numbers.collect::<Option<_>>()?))
        }
        "ConstantOfShape" | "Expand" => {
            let count = Size::product(shape?.shape.as_ref()?)?.known()?;
            let count = usize::try_from(count).ok().filter(|&count| count <= MOST_ELEMENTS)?;
            let value = if call.node.op_type() == "Expand" {
                let [only] = elements(0)? else { return None };
                only.clone()
            } else {
                match call.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
                    Some(tensor) => super::constant::tensor(tensor).elements?.first()?.clone(),
                    None => Number::fixed(0),
                }
            };
            out(vec![value; count])
        }
        _ => None,
    }
}

/// Elements that go together, where one tensor has as many as the other or one only.
fn paired<'a>(a: &'a [Number], b: &'a [Number]) -> Option<impl Iterator<Item = (&'a Number, &'a Number)>> {
    let count = a.len().max(b.len());
    let fits = |numbers: &[Number]| numbers.len() == count || numbers.len() == 1;
    let at = move |numbers: &'a [Number], index: usize| &numbers[if numbers.len() == 1 { 0 } else { index }];
    (fits(a) && fits(b)).then(|| (0..count).map(move |index| (at(a, index), at(b, index))))
}

fn cast(number: &Number, to: i64) -> Number {
    /// Types as the format numbers them.
    const FLOAT: i64 = 1;
    const INT32: i64 = 6;
    const INT64: i64 = 7;
    const BOOL: i64 = 9;
    const DOUBLE: i64 = 11;
    match (number, to) {
        (Number::Whole(size), BOOL) if size.known().is_some() => Number::fixed(i64::from(!size.is(0))),
        (Number::Whole(size), FLOAT | DOUBLE | INT32)
            if size.known().is_none_or(|known| known.unsigned_abs() < 1 << 24) =>
        {
            number.clone()
        }
        (Number::Whole(_), INT64) | (Number::Real(_), FLOAT | DOUBLE) => number.clone(),
        #[expect(clippy::cast_possible_truncation, reason = "bounded")]
        (Number::Real(real), INT32 | INT64) if real.abs() < f64::from(1 << 24) => Number::fixed(real.trunc() as i64),
        _ => Number::some(number.counts_rows()),
    }
}

fn unary(name: &str, number: &Number) -> Number {
    let unknown = || Number::some(number.counts_rows());
    match (name, number) {
        ("Neg", Number::Whole(size)) => size.negated().map_or_else(unknown, Number::Whole),
        ("Neg", Number::Real(real)) => Number::Real(-real),
        ("Abs", Number::Whole(size)) if size.is_size() => number.clone(),
        ("Not", Number::Whole(size)) if size.known().is_some() => Number::fixed(i64::from(size.is(0))),
        ("Floor" | "Ceil" | "Round", Number::Whole(_)) => number.clone(),
        _ => unknown(),
    }
}

fn real(number: &Number) -> Option<f64> {
    match number {
        Number::Real(real) => Some(*real),
        Number::Whole(size) => size.known().map(|known| known as f64),
        _ => None,
    }
}

fn binary(name: &str, a: &Number, b: &Number) -> Number {
    let unknown = || Number::some(a.counts_rows() || b.counts_rows());
    if let Some(b) = real(b)
        && let Some(a) = real(a)
        && (a.fract() != 0.0 || b.fract() != 0.0)
    {
        let result = match name {
            "Add" => a + b,
            "Sub" => a - b,
            "Mul" => a * b,
            "Div" => a / b,
            _ => return unknown(),
        };
        return Number::Real(result);
    }
    let (Number::Whole(a), Number::Whole(b)) = (a, b) else { return unknown() };
    let number = match name {
        "Add" => a.plus(b),
        "Sub" => b.negated().and_then(|b| a.plus(&b)),
        "Mul" => a.times(b),
        "Div" => a.over(b),
        "Mod" => match (a.known(), b.known()) {
            (Some(a), Some(b)) if a >= 0 && b > 0 => Some(Size::fixed(a % b)),
            _ => None,
        },
        "Min" | "Max" if a == b => Some(a.clone()),
        "Min" | "Max" => {
            a.known().zip(b.known()).map(|(a, b)| Size::fixed(if name == "Min" { a.min(b) } else { a.max(b) }))
        }
        _ => compare(name, a, b).map(|holds| Size::fixed(i64::from(holds))),
    };
    number.map_or_else(unknown, Number::Whole)
}

/// Whether a comparison holds whatever the sizes are.
fn compare(name: &str, a: &Size, b: &Size) -> Option<bool> {
    if let Some((a, b)) = a.known().zip(b.known()) {
        return Some(match name {
            "Equal" => a == b,
            "Less" => a < b,
            "Greater" => a > b,
            "LessOrEqual" => a <= b,
            "GreaterOrEqual" => a >= b,
            "And" => a != 0 && b != 0,
            "Or" => a != 0 || b != 0,
            _ => return None,
        });
    }
    match name {
        "Equal" if a == b => Some(true),
        // A size is never below zero.
        "Equal" if a.is_size() && b.is_negative() || a.is_negative() && b.is_size() => Some(false),
        "Less" | "LessOrEqual" if a.is_size() && b.is_negative() => Some(false),
        "Greater" | "GreaterOrEqual" if a.is_size() && b.is_negative() => Some(true),
        _ => None,
    }
}
