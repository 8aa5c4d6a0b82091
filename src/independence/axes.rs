//! Operators that work along some axes, and on each of the other places alone: reductions, softmax, norms. They must not
//! work along the axis of the rows.

use super::{
    broadcast::{broadcast, plain},
    rule::{Call, Outcome, Outputs, Stop, axis, counted, one},
    size::{Number, Size},
    value::{Spread, Tensor, Value},
};

/// Stops where the rows lie along one of `axes`.
pub(super) fn spare(tensor: &Tensor, axes: impl IntoIterator<Item = usize>, what: &str) -> Outcome<()> {
    match tensor.axis() {
        Some(rows) if axes.into_iter().any(|axis| axis == rows) => {
            Err(Stop::dependent(format!("{what} over the rows")))
        }
        _ => Ok(()),
    }
}

/// `ReduceSum` and its like: over `axes` (attribute, in newer versions the second input); over all without any.
pub(super) fn reduce(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let axes = call.numbers("axes", 1)?.unwrap_or_default();
    if axes.is_empty() && call.int("noop_with_empty_axes", 0) != 0 {
        return one(plain(data));
    }
    let rank = data.rank()?;
    let axes = if axes.is_empty() {
        (0..rank).collect()
    } else {
        axes.iter().map(|&place| axis(place, rank)).collect::<Outcome<Vec<_>>>()?
    };
    one(reduced(data, &axes, call.int("keepdims", 1) != 0)?)
}

fn reduced(data: &Tensor, axes: &[usize], keeps: bool) -> Outcome<Tensor> {
    spare(data, axes.iter().copied(), "reduces")?;
    let shape = data.shape()?.iter().enumerate();
    let shape = shape.filter_map(
        |(place, size)| if axes.contains(&place) { keeps.then_some(Size::ONE) } else { Some(size.clone()) },
    );
    let before = |rows: usize| if keeps { 0 } else { axes.iter().filter(|&&axis| axis < rows).count() };
    Tensor::with_axis(shape.collect(), data.axis().map(|rows| rows - before(rows)))
}

/// `ArgMax`, `ArgMin`.
pub(super) fn arg(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let along = axis(call.int("axis", 0), data.rank()?)?;
    one(reduced(data, &[along], call.int("keepdims", 1) != 0)?)
}

/// `TopK`: the `k` largest along an axis.
pub(super) fn top_k(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let along = axis(call.int("axis", -1), data.rank()?)?;
    spare(data, [along], "sorts")?;
    call.demand_same([1], "k")?;
    let k = call.optional(1)?.and_then(|k| k.scalar()).and_then(Number::size).filter(|k| k.is_size()).cloned();
    let mut shape = data.shape()?.clone();
    shape[along] = k.unwrap_or_else(|| call.symbols.next());
    call.alike(&Tensor::with_axis(shape, data.axis())?)
}

/// `CumSum`: along the axis of the second input.
pub(super) fn cumulative(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let along = call.tensor(1)?.scalar().and_then(Number::known);
    let along = axis(along.ok_or_else(|| Stop::unknown("computes its axis while it runs"))?, data.rank()?)?;
    spare(data, [along], "adds up")?;
    one(plain(data))
}

/// `Softmax` and its like: along `axis`; before version 13 over all axes from `axis` on.
pub(super) fn softmax(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let rank = data.rank()?;
    let is_old = call.version < 13;
    let along = axis(call.int("axis", if is_old { 1 } else { -1 }), rank)?;
    spare(data, along..if is_old { rank } else { along + 1 }, "normalises")?;
    one(plain(data))
}

/// `QLinearSoftmax(x, x_scale, x_zero_point, y_scale, y_zero_point)`: of the version that the attribute `opset` says.
pub(super) fn quantised_softmax(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    call.demand_same(1..5, "scale")?;
    let rank = data.rank()?;
    let is_old = call.int("opset", 0) < 13;
    let along = axis(call.int("axis", if is_old { 1 } else { -1 }), rank)?;
    spare(data, along..if is_old { rank } else { along + 1 }, "normalises")?;
    one(plain(data))
}

/// `LpNormalization`.
pub(super) fn along_axis(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    spare(data, [axis(call.int("axis", -1), data.rank()?)?], "normalises")?;
    one(plain(data))
}

/// `MeanVarianceNormalization`: over `axes`.
pub(super) fn mean_variance(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let rank = data.rank()?;
    let axes = call.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes = axes.iter().map(|&place| axis(place, rank)).collect::<Outcome<Vec<_>>>()?;
    spare(data, axes, "normalises")?;
    one(plain(data))
}

/// `LRN`: over neighbours along axis 1, the channels.
pub(super) fn local_response(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    spare(data, [1], "normalises")?;
    one(plain(data))
}

/// `BatchNormalization`: with one mean and variance for each channel (axis 1) that training left behind. In training
/// mode, with those of the batch.
pub(super) fn batch_norm(call: &Call<'_>) -> Outputs {
    let trains = if call.version >= 14 {
        call.int("training_mode", 0) != 0
    } else {
        call.node.output.iter().skip(1).any(|name| !name.is_empty())
    };
    if trains {
        return Err(Stop::dependent("is in training mode: it takes mean and variance over all rows"));
    }
    call.demand_same(1..5, "statistics")?;
    channels(call, call.tensor(0)?)
}

/// Along the channels (axis 1), something of theirs is applied; along the axes behind, the norm is taken.
fn channels(call: &Call<'_>, data: &Tensor) -> Outputs {
    if data.rank()? < 2 && data.axis().is_some() {
        return Err(Stop::unknown("takes the rows for channels"));
    }
    spare(data, [1], "takes the rows for channels and normalises")?;
    call.alike(&plain(data))
}

/// `InstanceNormalization`: over all axes behind the channels.
pub(super) fn instance_norm(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    spare(data, 2..data.rank()?, "normalises")?;
    call.demand_same(1..3, "weights")?;
    channels(call, data)
}

/// `GroupNormalization`: over groups of channels and all axes behind them.
pub(super) fn group_norm(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    spare(data, 1..data.rank()?, "normalises")?;
    call.demand_same(1..3, "weights")?;
    one(plain(data))
}

/// `LayerNormalization`, `RMSNormalization`: over `axis` and all behind it; mean and deviation may be outputs too.
pub(super) fn layer_norm(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let along = axis(call.int("axis", -1), data.rank()?)?;
    spare(data, along..data.rank()?, "normalises")?;
    weights_fit(call, data, &[1, 2])?;
    let statistics = reduced(data, &(along..data.rank()?).collect::<Vec<_>>(), true)?;
    let mut outputs = vec![Ok(plain(data).into())];
    outputs.extend((1..call.node.output.len()).map(|_| Ok(statistics.clone().into())));
    Ok(outputs)
}

/// Weights are the same for all, and broadcast to `data` without touching its rows.
pub(super) fn weights_fit(call: &Call<'_>, data: &Tensor, places: &[usize]) -> Outcome<()> {
    call.demand_same(places.iter().copied(), "weights")?;
    for &place in places {
        if let Some(weights) = call.optional(place)?.filter(|_| data.axis().is_some()) {
            let merged = broadcast(call.symbols, &[data, weights])?;
            if merged.rank()? != data.rank()? {
                return Err(Stop::unknown("has weights of more dimensions than its input"));
            }
        }
    }
    Ok(())
}

/// `SkipLayerNormalization`: the norm, over the last axis, of a sum of the first two inputs.
pub(super) fn skip_layer_norm(call: &Call<'_>) -> Outputs {
    let sum = broadcast(call.symbols, &[call.tensor(0)?, call.tensor(1)?])?;
    spare(&sum, [sum.rank()?.saturating_sub(1)], "normalises")?;
    weights_fit(call, &sum, &[2, 3, 4])?;
    let statistics = reduced(&sum, &[sum.rank()?.saturating_sub(1)], true)?;
    let outputs = [&sum, &statistics, &statistics, &sum];
    Ok(outputs.map(|tensor| Ok(plain(tensor).into())).into())
}

/// The losses of training: one number over all rows, unless `reduction` is `none`.
pub(super) fn loss(call: &Call<'_>) -> Outputs {
    if call.text("reduction") != Some("none") {
        return Err(Stop::dependent("takes one loss over all rows"));
    }
    let (scores, labels) = (call.tensor(0)?, call.tensor(1)?);
    call.demand_same([2], "weights")?;
    if scores.axis() != Some(0) || labels.axis() != Some(0) || scores.shape()?[0] != labels.shape()?[0] {
        return Err(Stop::unknown("takes scores and labels whose rows cannot be followed"));
    }
    Ok(vec![Ok(plain(labels).into()), Ok(plain(scores).into())])
}

/// `QuantizeLinear`, `DequantizeLinear`: with scales that are the same for all, one or one along `axis`.
pub(super) fn quantize(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    call.demand_same(1..3, "scale")?;
    let scales = [call.tensor(1)?].into_iter().chain(call.optional(2)?);
    let mut is_single = scales.map(|scale| scale.is_single() || scale.shape.as_ref().is_some_and(Vec::is_empty));
    if data.axis().is_some() && !is_single.all(|is_single| is_single) {
        let along = axis(call.int("axis", 1), data.rank()?)?;
        spare(data, [along], "has a scale for each place")?;
        // In blocks, every other axis of the scales is as long as that of the data.
        if call.int("block_size", 0) != 0 || call.tensor(1)?.rank()? != 1 {
            return Err(Stop::unknown("has scales of a shape that cannot be followed"));
        }
    }
    one(plain(data))
}

/// `DynamicQuantizeLinear` and its like.
pub(super) fn one_scale(_: &Call<'_>) -> Outputs {
    Err(Stop::dependent("takes one scale over all rows"))
}

/// `OneHot`: a new axis, with a 1 at the place that the index says.
pub(super) fn one_hot(call: &Call<'_>) -> Outputs {
    let indices = call.tensor(0)?;
    call.demand_same(1..3, "depth and values")?;
    let mut shape = indices.shape()?.clone();
    let place = axis(call.int("axis", -1), shape.len() + 1)?;
    let depth = call.tensor(1)?.scalar().and_then(Number::size).filter(|depth| depth.is_size()).cloned();
    shape.insert(place, depth.unwrap_or_else(|| call.symbols.next()));
    one(Tensor::with_axis(shape, indices.axis().map(|rows| rows + usize::from(rows >= place)))?)
}

/// `Trilu`, `Det`, `Inverse`: on the matrices of the last two axes.
pub(super) fn matrices(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    call.demand_same(1..2, "diagonal")?;
    let rank = data.rank()?;
    spare(data, rank.saturating_sub(2)..rank, "works on matrices")?;
    let keeps = if call.node.op_type() == "Det" { rank.saturating_sub(2) } else { rank };
    one(Tensor::with_axis(data.shape()?[..keeps].to_vec(), data.axis())?)
}

/// `DFT`, `STFT` and its like: along `axis`, or the axis of the third input.
pub(super) fn fourier(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    call.demand_same(1..3, "settings")?;
    let rank = data.rank()?;
    let along = match call.optional(2)? {
        Some(given) => {
            given.scalar().and_then(Number::known).ok_or_else(|| Stop::unknown("computes its axis while it runs"))?
        }
        None => call.int("axis", if call.version >= 20 { -2 } else { 1 }),
    };
    let along = axis(along, rank)?;
    spare(data, [along, rank - 1], "transforms")?;
    let mut shape = data.shape()?.clone();
    shape[along] = call.symbols.next();
    shape[rank - 1] = if call.int("inverse", 0) == 1 { call.symbols.next() } else { Size::fixed(2) };
    one(Tensor::with_axis(shape, data.axis())?)
}

/// `STFT`: of each signal of `[signals, length, …]`.
pub(super) fn short_fourier(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    call.demand_same(1..4, "settings")?;
    spare(data, 1..data.rank()?, "transforms")?;
    let signals = data.shape()?.first().ok_or_else(|| Stop::unknown("takes a tensor without axes"))?.clone();
    let shape = [signals, call.symbols.next(), call.symbols.next(), Size::fixed(2)];
    one(Tensor::with_axis(shape.into(), data.axis())?)
}

/// `Scan` over nothing, and what else makes a value that only the runtime knows: never where rows are.
pub(super) fn only_same(call: &Call<'_>) -> Outputs {
    for value in &call.inputs {
        match value {
            Value::Tensor(Tensor { spread: Spread::Rows(_), .. }) | Value::Maps | Value::Sequence(_) => {
                return Err(Stop::unknown("has no rule for rows"));
            }
            Value::Tensor(Tensor { spread: Spread::Counted, .. }) => return Err(counted()),
            _ => {}
        }
    }
    call.alike(&Tensor::same(None))
}
