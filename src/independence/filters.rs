//! Operators on images and signals, `[batch, channels, …]`: convolutions, pools, resizing. They work on each element of
//! the batch (axis 0) alone.

use super::{
    axes::spare,
    broadcast::plain,
    layout::sizes_of,
    rule::{Call, Outcome, Outputs, Stop, counted, one},
    size::{Number, Size},
    value::{Shape, Spread, Tensor},
};

/// Stops where the rows are not the batch.
fn batch_first(data: &Tensor, what: &str) -> Outcome<()> {
    match data.axis() {
        None | Some(0) => Ok(()),
        Some(_) => Err(Stop::dependent(format!("{what} the rows"))),
    }
}

/// `Conv(x, w, b)`.
pub(super) fn conv(call: &Call<'_>) -> Outputs {
    convolve(call, 0, 1)
}

/// `ConvInteger(x, w, x_zero_point, w_zero_point)`.
pub(super) fn conv_integer(call: &Call<'_>) -> Outputs {
    convolve(call, 0, 1)
}

/// `QLinearConv(x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, b)`.
pub(super) fn qlinear_conv(call: &Call<'_>) -> Outputs {
    if call.int("channels_last", 0) != 0 {
        return Err(Stop::unknown("has its channels last"));
    }
    convolve(call, 0, 3)
}

/// `FusedConv(x, w, b, z)`: adds z, which has the shape of the output.
pub(super) fn fused_conv(call: &Call<'_>) -> Outputs {
    let Some(z) = call.optional(3)? else { return convolve(call, 0, 1) };
    let x = call.tensor(0)?;
    batch_first(x, "filters along")?;
    call.demand_same(1..3, "weights")?;
    let output = filtered(call, x, call.tensor(1)?)?;
    let is_alike = z.axis() == output.axis()
        && z.axis().is_some_and(|rows| {
            z.shape.as_ref().is_some_and(|shape| {
                shape[rows] == output.shape.as_ref().map_or(Size::ONE, |shape| shape[rows].clone())
            })
        });
    if is_alike || z.is_same() && output.is_same() {
        one(output)
    } else {
        Err(Stop::unknown("adds a tensor whose rows cannot be followed"))
    }
}

fn convolve(call: &Call<'_>, x: usize, w: usize) -> Outputs {
    let data = call.tensor(x)?;
    batch_first(data, "filters along")?;
    call.demand_same((0..call.inputs.len()).filter(|&place| place != x), "weights")?;
    // A scale for each row, if any, would have N elements, which nothing has that is the same for all.
    one(filtered(call, data, call.tensor(w)?)?)
}

fn filtered(call: &Call<'_>, data: &Tensor, weights: &Tensor) -> Outcome<Tensor> {
    let shape = data.shape()?;
    let rank = shape.len();
    if rank < 3 {
        return Err(Stop::unknown("takes a tensor without places to filter"));
    }
    let kernel = |place: usize| weights.shape.as_ref()?.get(place).cloned();
    let mut output: Shape = vec![shape[0].clone(), kernel(0).unwrap_or_else(|| call.symbols.next())];
    for place in 0..rank - 2 {
        let size = || window(call, shape[place + 2].known()?, kernel(place + 2)?.known()?, place, rank - 2, false);
        output.push(size().map_or_else(|| call.symbols.next(), Size::fixed));
    }
    Tensor::with_axis(output, data.axis())
}

/// How many places a window of `kernel` elements has along a spatial axis.
fn window(call: &Call<'_>, size: i64, kernel: i64, place: usize, count: usize, rounds_up: bool) -> Option<i64> {
    let at =
        |name: &str, place: usize, default: i64| call.ints(name).map_or(Some(default), |ints| ints.get(place).copied());
    let (stride, dilation) = (at("strides", place, 1)?, at("dilations", place, 1)?);
    if stride <= 0 || size < 0 {
        return None;
    }
    let ceil = |value: i64| Some(value / stride + i64::from(value % stride > 0));
    match call.text("auto_pad").unwrap_or("NOTSET") {
        "SAME_UPPER" | "SAME_LOWER" => ceil(size),
        padding => {
            let pads = match padding {
                "VALID" => 0,
                _ => at("pads", place, 0)?.checked_add(at("pads", place + count, 0)?)?,
            };
            let reach = kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
            let room = size.checked_add(pads)?.checked_sub(reach)?;
            // Which places at the end count is told in different ways when it is rounded up.
            if rounds_up && room % stride != 0 {
                return None;
            }
            (room >= 0).then(|| room / stride + 1)
        }
    }
}

/// `ConvTranspose(x, w, b)`.
pub(super) fn conv_transpose(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    batch_first(data, "filters along")?;
    call.demand_same(1..call.inputs.len(), "weights")?;
    let (shape, weights) = (data.shape()?, call.tensor(1)?.shape.as_deref().unwrap_or_default());
    let rank = shape.len();
    if rank < 3 {
        return Err(Stop::unknown("takes a tensor without places to filter"));
    }
    let channels = || weights.get(1)?.known()?.checked_mul(call.int("group", 1)).filter(|&channels| channels >= 0);
    let mut output = vec![shape[0].clone(), channels().map_or_else(|| call.symbols.next(), Size::fixed)];
    for place in 0..rank - 2 {
        let at = |name: &str, place: usize, default: i64| {
            call.ints(name).map_or(Some(default), |ints| ints.get(place).copied())
        };
        let size = || {
            if call.ints("output_shape").is_some() || call.text("auto_pad").is_some_and(|padding| padding != "NOTSET") {
                return None;
            }
            let reach = weights.get(place + 2)?.known()?.checked_sub(1)?.checked_mul(at("dilations", place, 1)?)?;
            let stretched = shape[place + 2].known()?.checked_sub(1)?.checked_mul(at("strides", place, 1)?)?;
            let pads = at("pads", place, 0)?.checked_add(at("pads", place + rank - 2, 0)?)?;
            let size = stretched.checked_add(at("output_padding", place, 0)?)?.checked_add(reach)?.checked_add(1)?;
            size.checked_sub(pads).filter(|&size| size >= 0)
        };
        output.push(size().map_or_else(|| call.symbols.next(), Size::fixed));
    }
    one(Tensor::with_axis(output, data.axis())?)
}

/// `MaxPool`, `AveragePool`, `LpPool`: over windows behind the channels. Indices of `MaxPool` count through all rows.
pub(super) fn pool(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let shape = data.shape()?;
    call.demand_same(1..call.inputs.len(), "scale")?;
    if call.int("channels_last", 0) != 0 {
        return Err(Stop::unknown("has its channels last"));
    }
    let rank = shape.len();
    spare(data, 2..rank, "pools")?;
    if rank < 3 {
        return Err(Stop::unknown("takes a tensor without places to pool"));
    }
    let mut output = shape[..2].to_vec();
    let rounds_up = call.int("ceil_mode", 0) != 0;
    for place in 0..rank - 2 {
        let kernel = || call.ints("kernel_shape")?.get(place).copied();
        let size = || window(call, shape[place + 2].known()?, kernel()?, place, rank - 2, rounds_up);
        output.push(size().map_or_else(|| call.symbols.next(), Size::fixed));
    }
    let pooled = Tensor::with_axis(output, data.axis())?;
    let indices = if data.is_same() {
        Ok(pooled.clone().into())
    } else {
        Err(Stop::dependent("counts its indices through all rows"))
    };
    Ok(vec![Ok(pooled.into()), indices])
}

/// `GlobalAveragePool` and its like: one element for each channel.
pub(super) fn global_pool(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let shape = data.shape()?;
    call.demand_same(1..call.inputs.len(), "scale")?;
    if call.int("channels_last", 0) != 0 {
        return Err(Stop::unknown("has its channels last"));
    }
    spare(data, 2..shape.len(), "pools")?;
    let output = shape.iter().enumerate().map(|(place, size)| if place < 2 { size.clone() } else { Size::ONE });
    one(Tensor::with_axis(output.collect(), data.axis())?)
}

/// `Resize(x, roi, scales, sizes)`; `Upsample(x, scales)`: to other sizes along some axes.
pub(super) fn resize(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let shape = data.shape()?;
    if call.text("coordinate_transformation_mode") == Some("tf_crop_and_resize") {
        return Err(Stop::unknown("crops while it resizes"));
    }
    let (scales, sizes) = match (call.node.op_type(), call.version) {
        ("Upsample", _) | (_, ..=10) => (call.optional(1)?, None),
        _ => (call.optional(2)?, call.optional(3)?),
    };
    let is_empty = |tensor: &&Tensor| {
        tensor.elements.as_ref().is_some_and(Vec::is_empty)
            || tensor.shape.as_ref().is_some_and(|shape| shape.len() == 1 && shape[0].is(0))
    };
    let (scales, sizes) = (scales.filter(|scales| !is_empty(scales)), sizes.filter(|sizes| !is_empty(sizes)));
    let given = if sizes.is_some() {
        if call.version > 10 { 3 } else { 1 }
    } else if call.node.op_type() == "Upsample" || call.version <= 10 {
        1
    } else {
        2
    };
    if scales.is_none() && sizes.is_none() {
        return Err(Stop::unknown("lacks scales and sizes"));
    }
    let numbers = sizes_of(call, given, if sizes.is_some() { "sizes" } else { "scales" })?;
    let rank = shape.len();
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|&place| super::rule::axis(place, rank)).collect::<Outcome<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if axes.len() != numbers.len() {
        return Err(Stop::unknown("has other sizes than axes"));
    }
    let keeps_ratio =
        sizes.is_some() && call.text("keep_aspect_ratio_policy").is_some_and(|policy| policy != "stretch");
    let mut output = shape.clone();
    for (&place, number) in axes.iter().zip(numbers) {
        let stays = match number {
            Number::Real(scale) => sizes.is_none() && (*scale - 1.0).abs() < f64::EPSILON,
            Number::Whole(size) if sizes.is_some() => *size == shape[place],
            Number::Whole(scale) => scale.is(1),
            Number::Some | Number::Counted => false,
        };
        if data.axis() == Some(place) {
            if !stays || keeps_ratio {
                return Err(Stop::dependent("resizes along the rows"));
            }
            continue;
        }
        if number.counts_rows() {
            return Err(counted());
        }
        output[place] = match number {
            _ if stays && !keeps_ratio => continue,
            Number::Whole(size) if sizes.is_some() && !keeps_ratio && size.is_size() => size.clone(),
            Number::Whole(scale) if sizes.is_none() && scale.is_size() => {
                shape[place].times(scale).unwrap_or_else(|| call.symbols.next())
            }
            _ => call.symbols.next(),
        };
    }
    one(Tensor::with_axis(output, data.axis())?)
}

/// `GridSample(x, grid)`: each image with a grid of its own.
pub(super) fn grid_sample(call: &Call<'_>) -> Outputs {
    let (data, grid) = (call.tensor(0)?, call.tensor(1)?);
    let (shape, places) = (data.shape()?, grid.shape()?);
    let is_fit = data.axis() == Some(0) && grid.axis() == Some(0) && shape[0] == places[0];
    if !is_fit || shape.len() < 3 || places.len() < 2 {
        return Err(Stop::unknown("takes images and grids whose rows cannot be followed"));
    }
    let output = shape[..2].iter().chain(&places[1..places.len() - 1]).cloned();
    one(Tensor::rows(output.collect(), 0)?)
}

/// `AffineGrid(theta, size)`: a grid for each theta.
pub(super) fn affine_grid(call: &Call<'_>) -> Outputs {
    let theta = call.tensor(0)?;
    let sizes = sizes_of(call, 1, "size")?;
    let rows = theta.shape()?.first().filter(|_| theta.axis() == Some(0));
    let first = sizes.first().and_then(Number::size);
    if rows.is_none() || first != rows || sizes.len() < 4 {
        return Err(Stop::unknown("takes a size whose rows cannot be followed"));
    }
    let spatial = i64::try_from(sizes.len() - 2).unwrap_or(i64::MAX);
    let free =
        |number: &Number| number.size().filter(|size| size.is_size()).cloned().unwrap_or_else(|| call.symbols.next());
    let mut output: Shape = rows.into_iter().cloned().chain(sizes[2..].iter().map(free)).collect();
    output.push(Size::fixed(spatial));
    one(Tensor::rows(output, 0)?)
}

/// `DeformConv(x, w, offset, b, mask)`: offsets and masks go with each image.
pub(super) fn deform_conv(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    batch_first(data, "filters along")?;
    call.demand_same([1, 3], "weights")?;
    for other in [call.optional(2)?, call.optional(4)?].into_iter().flatten() {
        if other.axis() != data.axis() || data.axis().is_some() && other.shape()?[0] != data.shape()?[0] {
            return Err(Stop::unknown("takes offsets whose rows cannot be followed"));
        }
    }
    one(filtered(call, data, call.tensor(1)?)?)
}

/// `Col2Im(x, image_shape, block_shape)`: an image of each `[channels × block, places]`.
pub(super) fn columns_to_image(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    batch_first(data, "puts an image together along")?;
    call.demand_same(1..3, "shape")?;
    let image = sizes_of(call, 1, "shape")?;
    let free =
        |number: &Number| number.size().filter(|size| size.is_size()).cloned().unwrap_or_else(|| call.symbols.next());
    let first = data.shape()?.first().cloned().ok_or_else(|| Stop::unknown("takes a tensor without axes"))?;
    let output = [first, call.symbols.next()].into_iter().chain(image.iter().map(free));
    one(Tensor::with_axis(output.collect(), data.axis())?)
}

/// `MaxUnpool(x, indices)`: by indices that count through all rows.
pub(super) fn max_unpool(call: &Call<'_>) -> Outputs {
    match call.tensor(0)?.spread {
        Spread::Same if call.tensor(1)?.is_same() => one(plain(&Tensor::same(None))),
        _ => Err(Stop::dependent("takes indices that count through all rows")),
    }
}
