//! Operators that pick, cut, join and write elements along axes. The axis of the rows may only be taken whole.

use super::{
    axes::spare,
    broadcast::{broadcast, meeting_axis, plain, rows_size},
    layout::sizes_of,
    rule::{Call, Outcome, Outputs, Stop, axis, counted, not_from_rows, one},
    size::{Number, Size},
    value::{Shape, Spread, Tensor, Value},
};

/// From here on, an end of a slice means "to the end".
const FAR: i64 = i32::MAX as i64;

/// `Gather`: of `data`, the places along `axis` that `indices` says.
pub(super) fn gather(call: &Call<'_>) -> Outputs {
    let (data, indices) = (call.tensor(0)?, call.tensor(1)?);
    if indices.spread == Spread::Counted || data.spread == Spread::Counted {
        return Err(counted());
    }
    let (values, places) = (data.shape()?, indices.shape()?);
    let along = axis(call.int("axis", 0), values.len())?;
    let rows = match (data.axis(), indices.axis()) {
        (Some(_), Some(_)) => return Err(Stop::dependent("picks places that one row says out of other rows")),
        (Some(rows), None) if rows == along => return Err(Stop::dependent("picks single rows")),
        (Some(rows), None) if rows < along => Some(rows),
        (Some(rows), None) => Some(rows - 1 + places.len()),
        (None, Some(rows)) => Some(along + rows),
        (None, None) => None,
    };
    let shape = values[..along].iter().chain(places).chain(&values[along + 1..]).cloned();
    one(Tensor::with_axis(shape.collect(), rows)?)
}

/// `GatherElements`: for each place of `indices`, the element of `data` that stands there but for `axis`.
pub(super) fn gather_elements(call: &Call<'_>) -> Outputs {
    let (data, indices) = (call.tensor(0)?, call.tensor(1)?);
    let along = axis(call.int("axis", 0), indices.rank()?)?;
    let rows = match (data.axis(), indices.axis()) {
        (Some(data_rows), Some(rows)) if data_rows == rows && rows != along => {
            rows_size([&data.shape()?[rows], &indices.shape()?[rows]])?;
            Some(rows)
        }
        (None, Some(rows)) if rows == along => Some(rows),
        (None, None) => None,
        (None, Some(_)) => return Err(Stop::dependent("gives the rows values by their place")),
        (Some(_), _) => return Err(Stop::dependent("picks elements of single rows")),
    };
    one(Tensor::with_axis(indices.shape()?.clone(), rows)?)
}

/// `GatherND`: the last axis of `indices` says a place along the first axes of `data`, behind `batch_dims` that go along.
pub(super) fn gather_nd(call: &Call<'_>) -> Outputs {
    let (data, indices) = (call.tensor(0)?, call.tensor(1)?);
    let (values, places) = (data.shape()?, indices.shape()?);
    let unknown = || Stop::unknown("gives a shape that cannot be followed");
    let shared = usize::try_from(call.int("batch_dims", 0)).map_err(|_| unknown())?;
    let depth =
        places.last().and_then(Size::known).and_then(|depth| usize::try_from(depth).ok()).ok_or_else(unknown)?;
    let last = places.len() - 1;
    let taken = shared.checked_add(depth).filter(|&taken| taken <= values.len()).ok_or_else(unknown)?;
    let rows = match (data.axis(), indices.axis()) {
        (_, Some(rows)) if rows == last => return Err(Stop::dependent("takes rows for places")),
        (Some(data_rows), Some(rows)) if data_rows == rows && rows < shared => {
            rows_size([&values[rows], &places[rows]])?;
            Some(rows)
        }
        (None, Some(rows)) if rows >= shared => Some(rows),
        (Some(rows), None) if rows >= taken => Some(last + rows - taken),
        (None, None) => None,
        _ => return Err(Stop::dependent("picks elements of single rows")),
    };
    let shape = places[..last].iter().chain(&values[taken..]).cloned();
    one(Tensor::with_axis(shape.collect(), rows)?)
}

/// `ScatterElements`: `updates` written to the places of `data` that `indices` says along `axis`.
pub(super) fn scatter_elements(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let along = axis(call.int("axis", 0), data.rank()?)?;
    let Some(rows) = data.axis() else {
        return Err(Stop::dependent("writes what rows say into one tensor"));
    };
    spare(data, [along], "writes to places")?;
    for other in [call.tensor(1)?, call.tensor(2)?] {
        if other.axis() != Some(rows) || other.shape()?[rows] != data.shape()?[rows] {
            return Err(Stop::dependent("writes to some of the rows only"));
        }
    }
    one(plain(data))
}

/// `ScatterND`: the last axis of `indices` says a place along the first axes of `data`.
pub(super) fn scatter_nd(call: &Call<'_>) -> Outputs {
    let (data, indices, updates) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let unknown = || Stop::unknown("writes to places that may be those of other rows");
    let places = indices.shape()?;
    let depth =
        places.last().and_then(Size::known).and_then(|depth| usize::try_from(depth).ok()).ok_or_else(unknown)?;
    let Some(rows) = data.axis().filter(|&rows| rows >= depth) else {
        return Err(unknown());
    };
    let update_rows = places.len() - 1 + rows - depth;
    let fits = updates.axis() == Some(update_rows) && updates.shape()?[update_rows] == data.shape()?[rows];
    if !indices.is_same() || !fits {
        return Err(unknown());
    }
    one(plain(data))
}

/// `Slice`: from `starts` to `ends` along `axes`.
pub(super) fn slice(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let shape = data.shape()?;
    let (starts, ends) = (range_of(call, "starts", 1)?, range_of(call, "ends", 2)?);
    let axes = call.numbers("axes", 3)?;
    let steps = call.optional(4)?;
    steps.map_or(Ok(()), |steps| not_from_rows(steps, "steps"))?;
    let axes = match (axes, &starts) {
        (Some(axes), _) => axes,
        (None, Some(starts)) => (0..i64::try_from(starts.len()).unwrap_or(i64::MAX)).collect(),
        (None, None) => return Err(Stop::unknown("computes its starts while it runs")),
    };
    let mut cut = shape.clone();
    for (index, &place) in axes.iter().enumerate() {
        let place = axis(place, shape.len())?;
        let at = |given: Option<&[Number]>| given.and_then(|given| given.get(index).cloned());
        let (start, end) = (at(starts.as_deref()), at(ends.as_deref()));
        let step = steps.map_or(Some(Number::fixed(1)), |steps| at(steps.elements.as_deref()));
        let size = &shape[place];
        let known = |number: &Option<Number>| number.as_ref().and_then(Number::known);
        let is_whole = known(&start) == Some(0)
            && known(&step) == Some(1)
            && (known(&end).is_some_and(|end| end >= FAR) || end.as_ref().and_then(Number::size) == Some(size));
        if is_whole {
            continue;
        }
        if data.axis() == Some(place) {
            return Err(Stop::dependent("cuts single rows out"));
        }
        if [&start, &end, &step].into_iter().flatten().any(Number::counts_rows) {
            return Err(counted());
        }
        let length = || length(size.known()?, known(&start)?, known(&end)?, known(&step)?);
        cut[place] = length().map_or_else(|| call.symbols.next(), Size::fixed);
    }
    one(Tensor::with_axis(cut, data.axis())?)
}

/// What starts or ends are, where they are known; an attribute in old versions.
fn range_of(call: &Call<'_>, name: &str, place: usize) -> Outcome<Option<Vec<Number>>> {
    if let Some(ints) = call.ints(name) {
        return Ok(Some(ints.iter().copied().map(Number::fixed).collect()));
    }
    let tensor = call.tensor(place)?;
    not_from_rows(tensor, name)?;
    if tensor.elements.is_none() && tensor.spread == Spread::Counted {
        return Err(counted());
    }
    Ok(tensor.elements.clone())
}

/// How many elements a slice has; `None` where that is not plain.
pub(super) fn length(size: i64, start: i64, end: i64, step: i64) -> Option<i64> {
    if size < 0 {
        return None;
    }
    let clamp = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    if step > 0 {
        let (start, end) = (clamp(start).clamp(0, size), clamp(end).clamp(0, size));
        let span = end.checked_sub(start)?.max(0);
        Some(span / step + i64::from(span % step != 0))
    } else {
        None
    }
}

/// `Concat`: one behind the other along `axis`.
pub(super) fn concat(call: &Call<'_>) -> Outputs {
    let tensors = (0..call.inputs.len()).map(|place| call.tensor(place)).collect::<Outcome<Vec<_>>>()?;
    let first = tensors.first().ok_or_else(|| Stop::unknown("lacks an input"))?;
    one(joined(call, &tensors, axis(call.int("axis", 0), first.rank()?)?)?)
}

pub(super) fn joined(call: &Call<'_>, tensors: &[&Tensor], along: usize) -> Outcome<Tensor> {
    let first = tensors.first().ok_or_else(|| Stop::unknown("joins nothing"))?;
    let rows = meeting_axis(tensors.iter().map(|tensor| tensor.axis()))?;
    if rows == Some(along) {
        return Err(Stop::dependent("joins along the rows"));
    }
    let mut total = Some(Size::fixed(0));
    let mut shape = first.shape()?.clone();
    for tensor in tensors {
        let own = tensor.shape()?;
        if own.len() != shape.len() || along >= own.len() {
            return Err(Stop::unknown("joins tensors of different numbers of axes"));
        }
        if let Some(rows) = rows {
            if tensor.axis() != Some(rows) {
                return Err(Stop::dependent("joins rows with a tensor that has no rows"));
            }
            shape[rows] = rows_size([&shape[rows], &own[rows]])?;
        }
        total = total.and_then(|total| total.plus(&own[along]));
    }
    shape[along] = total.unwrap_or_else(|| call.symbols.next());
    Tensor::with_axis(shape, rows)
}

/// `Split`: into pieces along `axis`.
pub(super) fn split(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let along = axis(call.int("axis", 0), data.rank()?)?;
    spare(data, [along], "cuts")?;
    let pieces = call.node.output.len();
    let sizes = match call.optional(1)? {
        Some(given) => {
            not_from_rows(given, "sizes")?;
            if given.spread == Spread::Counted {
                return Err(counted());
            }
            given.known()
        }
        None => call.ints("split").map(<[i64]>::to_vec),
    };
    let even = || {
        let all = data.shape.as_ref()?[along].known().filter(|&all| all >= 0)?;
        let pieces = i64::try_from(pieces).ok().filter(|&pieces| pieces > 0)?;
        let piece = all / pieces + i64::from(all % pieces != 0);
        Some((0..pieces).map(|index| (all - index * piece).clamp(0, piece)).collect::<Vec<_>>())
    };
    let has_sizes = sizes.is_some() || call.has(1);
    let sizes = if has_sizes { sizes } else { even() };
    let piece = |index: usize| {
        let mut shape: Shape = data.shape()?.clone();
        let size = sizes.as_ref().and_then(|sizes| sizes.get(index)).filter(|&&size| size >= 0);
        shape[along] = size.map_or_else(|| call.symbols.next(), |&size| Size::fixed(size));
        Tensor::with_axis(shape, data.axis()).map(Value::from)
    };
    Ok((0..pieces).map(piece).collect())
}

/// `Pad`: something before and behind each axis.
pub(super) fn pad(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let rank = data.rank()?;
    if let Some(value) = call.optional(2)?.filter(|value| !value.is_same()) {
        not_from_rows(value, "value")?;
        return Err(counted());
    }
    let old = call.ints("pads").map(|pads| pads.iter().copied().map(Number::fixed).collect::<Vec<_>>());
    let pads = match &old {
        Some(pads) => pads,
        None => sizes_of(call, 1, "pads")?,
    };
    if pads.iter().any(Number::counts_rows) {
        return Err(counted());
    }
    let axes = match call.numbers("axes", 3)? {
        Some(axes) => axes.iter().map(|&place| axis(place, rank)).collect::<Outcome<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != axes.len() * 2 {
        return Err(Stop::unknown("has other pads than axes"));
    }
    let mut shape = data.shape()?.clone();
    for (index, &place) in axes.iter().enumerate() {
        let (before, behind) = (pads[index].known(), pads[index + axes.len()].known());
        if (before, behind) == (Some(0), Some(0)) {
            continue;
        }
        if data.axis() == Some(place) {
            return Err(Stop::dependent("puts something before or behind the rows"));
        }
        let sum = || shape[place].known()?.checked_add(before?)?.checked_add(behind?).filter(|&size| size >= 0);
        shape[place] = sum().map_or_else(|| call.symbols.next(), Size::fixed);
    }
    one(Tensor::with_axis(shape, data.axis())?)
}

/// `ReverseSequence`: along `time_axis`, for each place of `batch_axis` as far as its length says.
pub(super) fn reverse_sequence(call: &Call<'_>) -> Outputs {
    let (data, lengths) = (call.tensor(0)?, call.tensor(1)?);
    let rank = data.rank()?;
    let (time, batch) = (axis(call.int("time_axis", 0), rank)?, axis(call.int("batch_axis", 1), rank)?);
    spare(data, [time], "reverses")?;
    let fits = match (data.axis(), lengths.axis()) {
        (Some(rows), Some(0)) => rows == batch && data.shape()?[rows] == lengths.shape()?[0],
        (rows, None) => lengths.is_same() && rows != Some(batch),
        _ => false,
    };
    if fits { one(plain(data)) } else { Err(Stop::unknown("takes lengths whose rows cannot be followed")) }
}

/// `Compress`: the places along `axis` where a condition that is the same for all holds; without axis, of all elements.
pub(super) fn compress(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    if call.attribute("axis").is_none() {
        return Err(Stop::dependent("picks elements out of all rows"));
    }
    let along = axis(call.int("axis", 0), data.rank()?)?;
    spare(data, [along], "picks places")?;
    call.demand_same([1], "condition")?;
    let mut shape = data.shape()?.clone();
    shape[along] = call.symbols.next();
    one(Tensor::with_axis(shape, data.axis())?)
}

/// Operators that look at all rows at once.
pub(super) fn over_all(call: &Call<'_>) -> Outputs {
    Err(Stop::dependent(match call.node.op_type() {
        "NonZero" => "lists the places of elements over all rows",
        "Unique" => "looks for equal elements over all rows",
        "NonMaxSuppression" => "chooses boxes over all rows, as many as it likes",
        "RoiAlign" | "MaxRoiPool" | "CropAndResize" => "takes regions out of any row",
        "EyeLike" => "gives the rows values by their place",
        "IsAllFinite" => "answers once for all rows",
        "Tokenizer" => "makes all rows as wide as the longest one",
        _ => "looks at all rows at once",
    }))
}

/// Operators that draw random numbers.
pub(super) fn random(_: &Call<'_>) -> Outputs {
    Err(Stop::dependent("draws new random numbers in each run, in the order of the rows"))
}

/// `Shape`: from `start` to `end`.
pub(super) fn shape(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let Some(sizes) = &data.shape else {
        return if data.spread == Spread::Counted { Err(counted()) } else { one(Tensor::same(None)) };
    };
    let rank = i64::try_from(sizes.len()).unwrap_or(i64::MAX);
    let place = |at: i64| {
        let at = if at < 0 { at.saturating_add(rank) } else { at };
        usize::try_from(at.clamp(0, rank)).unwrap_or_default()
    };
    let (start, end) = (place(call.int("start", 0)), place(call.int("end", rank)));
    let sizes = sizes.get(start..end).unwrap_or_default();
    one(Tensor::vector(sizes.iter().cloned().map(Number::Whole).collect()))
}

/// `Size`: how many elements.
pub(super) fn size(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let counts_rows = !data.is_same();
    let size = data.shape.as_ref().and_then(Size::product).map_or(Number::some(counts_rows), Number::Whole);
    one(Tensor::of_elements(Vec::new(), vec![size]))
}

/// `CenterCropPad`: to a size along `axes`.
pub(super) fn center(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let rank = data.rank()?;
    let sizes = sizes_of(call, 1, "shape")?;
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|&place| axis(place, rank)).collect::<Outcome<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    let mut shape = data.shape()?.clone();
    for (&place, size) in axes.iter().zip(sizes) {
        if data.axis() == Some(place) && size.size() != Some(&shape[place]) {
            return Err(Stop::dependent("cuts the rows to a number"));
        }
        shape[place] = match size {
            Number::Whole(size) if size.is_size() => size.clone(),
            Number::Counted => return Err(counted()),
            _ => call.symbols.next(),
        };
    }
    one(Tensor::with_axis(shape, data.axis())?)
}

/// `Range`: numbers one behind the other.
pub(super) fn range(call: &Call<'_>) -> Outputs {
    if (0..call.inputs.len()).any(|place| call.tensor(place).is_ok_and(|tensor| tensor.axis().is_some())) {
        return Err(Stop::dependent("takes its length from the values of the rows"));
    }
    one(Tensor::same(Some(vec![call.symbols.next()])))
}

/// `Where` of three, `Clip` and the like: element by element of the first, with single settings.
pub(super) fn clip(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let others = (1..3).filter_map(|place| call.optional(place).transpose());
    let others = others.collect::<Outcome<Vec<_>>>()?;
    if others.iter().all(|other| other.is_same()) {
        return one(plain(data));
    }
    let all: Vec<&Tensor> = std::iter::once(data).chain(others).collect();
    one(broadcast(call.symbols, &all)?)
}
