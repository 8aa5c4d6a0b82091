//! Operators that lay the same elements out in another shape.
//!
//! Elements stand in row-major order. A new shape keeps the rows apart where as many elements stand before the rows as
//! before, and the rows' axis is again a multiple of N: then each row has its elements at one place, one behind the
//! other. Where fewer stand before, the rows are interleaved.

use super::{
    broadcast::plain,
    rule::{Call, Outcome, Outputs, Stop, axis, counted, not_from_rows, one},
    size::{Number, Size},
    value::{MOST_DIMENSIONS, Shape, Spread, Tensor},
};

/// The elements of a shape that an input gives.
pub(super) fn sizes_of<'a>(call: &'a Call<'_>, place: usize, what: &str) -> Outcome<&'a [Number]> {
    let tensor = call.tensor(place)?;
    not_from_rows(tensor, what)?;
    tensor.elements.as_deref().ok_or_else(|| match tensor.spread {
        Spread::Counted => counted(),
        _ => Stop::unknown(format!("computes its {what} while it runs")),
    })
}

/// `Reshape`: 0 keeps a size (unless `allowzero`), -1 is what is left.
pub(super) fn reshape(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let keeps_zero = call.int("allowzero", 0) == 0;
    let wanted = sizes_of(call, 1, "shape")?;
    let mut target = Vec::with_capacity(wanted.len());
    let old = if data.axis().is_some() { data.shape()?.as_slice() } else { data.shape.as_deref().unwrap_or_default() };
    for (place, number) in wanted.iter().enumerate() {
        target.push(match number {
            Number::Whole(size) if size.is(0) && keeps_zero => Some(old.get(place).cloned()),
            Number::Whole(size) if size.is_size() => Some(Some(size.clone())),
            Number::Whole(size) if size.is(-1) => None,
            _ => Some(None),
        });
    }
    one(reshaped(call, data, &target)?)
}

/// `None` in `target`: what is left; `Some(None)`: not known.
fn reshaped(call: &Call<'_>, data: &Tensor, target: &[Option<Option<Size>>]) -> Outcome<Tensor> {
    if target.len() > MOST_DIMENSIONS {
        return Err(Stop::unknown("has too many dimensions to be followed"));
    }
    // What is left, where all other sizes are known.
    let left = || {
        let others = target.iter().flatten().map(Option::as_ref).collect::<Option<Vec<_>>>()?;
        Size::product(data.shape.as_ref()?)?.over(&Size::product(others)?)
    };
    let left = if target.iter().filter(|size| size.is_none()).count() == 1 { left() } else { None };
    let sizes: Vec<Option<Size>> = target.iter().map(|size| size.clone().unwrap_or_else(|| left.clone())).collect();
    let fill = |size: &Option<Size>| size.clone().unwrap_or_else(|| call.symbols.next());
    let Some(rows) = data.axis() else {
        let shape: Shape = sizes.iter().map(fill).collect();
        if shape.iter().any(Size::counts_rows) {
            return Err(counted());
        }
        return Ok(Tensor::same(Some(shape)));
    };
    let before = Size::product(data.shape()?[..rows].iter().chain(&data.interleaved))
        .ok_or_else(|| Stop::unknown("gives a shape that cannot be followed"))?;
    let (before, sizes) = solved(data, target, &before, &sizes).unwrap_or((before, sizes));
    let mut product = Size::ONE;
    for (place, size) in sizes.iter().enumerate() {
        let Some(size) = size else {
            let all = Size::product(data.shape()?).and_then(|all| all.known_factor());
            let is_left = target[place].is_none();
            return Err(if is_left && all.is_some() {
                Stop::dependent("cuts the elements into pieces that do not end where rows end")
            } else {
                Stop::unknown("gives a shape that cannot be followed")
            });
        };
        if size.counts_rows() {
            let outer = before.over(&product).filter(|outer| size.is_rows() && size.over(outer).is_some());
            let Some(outer) = outer else {
                let is_known = before.known().is_some() && product.known().is_some();
                let why = "lays elements of several rows out along one another";
                return Err(if is_known { Stop::dependent(why) } else { Stop::unknown(why) });
            };
            let shape = Tensor::rows(sizes.iter().map(fill).collect(), place)?;
            return Ok(Tensor { interleaved: (!outer.is(1)).then_some(outer), ..shape });
        }
        product = product.times(size).ok_or_else(|| Stop::unknown("gives a shape that cannot be followed"))?;
    }
    let is_fixed = sizes.iter().all(|size| size.as_ref().is_some_and(|size| size.known().is_some()));
    Err(if is_fixed {
        Stop::dependent("has the number of rows written into its shape")
    } else {
        Stop::unknown("gives a shape that cannot be followed")
    })
}

/// As many elements must stand in the new shape as in the old one, which says what a size is that only one of them names:
/// exporters write some sizes as numbers that others compute.
fn solved(
    data: &Tensor,
    target: &[Option<Option<Size>>],
    before: &Size,
    sizes: &[Option<Size>],
) -> Option<(Size, Vec<Option<Size>>)> {
    if target.iter().any(Option::is_none) {
        return None;
    }
    let old = Size::product(data.shape.as_ref()?)?;
    let new = Size::product(sizes.iter().map(Option::as_ref).collect::<Option<Vec<_>>>()?)?;
    let value = |of: &Size, other: &Size| {
        let symbol = of.only_symbol()?;
        let value = other.over(&of.with(symbol, 1)?)?.known().filter(|&value| value > 0)?;
        Some((symbol, value))
    };
    let (symbol, value) = value(&old, &new).or_else(|| value(&new, &old))?;
    let with = |size: &Option<Size>| size.as_ref()?.with(symbol, value);
    Some((before.with(symbol, value)?, sizes.iter().map(with).collect()))
}

/// `Flatten`: two dimensions, the first of all sizes before `axis`.
pub(super) fn flatten(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let shape = data.shape()?;
    let at = axis(call.int("axis", 1), shape.len() + 1)?;
    let product = |sizes: &[Size]| Size::product(sizes);
    let target = [product(&shape[..at]), product(&shape[at..])];
    one(reshaped(call, data, &target.map(Some))?)
}

/// `Transpose`.
pub(super) fn transpose(call: &Call<'_>) -> Outputs {
    one(transposed(call.tensor(0)?, call.ints("perm"))?)
}

/// With the axes in this order; backwards without any.
pub(super) fn transposed(data: &Tensor, order: Option<&[i64]>) -> Outcome<Tensor> {
    let shape = data.shape()?;
    let order = match order {
        Some(order) => order.iter().map(|&place| axis(place, shape.len())).collect::<Outcome<Vec<_>>>()?,
        None => (0..shape.len()).rev().collect(),
    };
    let is_order = order.len() == shape.len() && (0..shape.len()).all(|place| order.contains(&place));
    if !is_order {
        return Err(Stop::unknown("names an order that is none of its axes"));
    }
    let rows = data.axis().and_then(|rows| order.iter().position(|&place| place == rows));
    Tensor::with_axis(order.iter().map(|&place| shape[place].clone()).collect(), rows)
}

/// The last two axes exchanged.
pub(super) fn exchanged(data: &Tensor) -> Outcome<Tensor> {
    let rank = i64::try_from(data.rank()?).unwrap_or(i64::MAX);
    if rank < 2 {
        return Ok(plain(data));
    }
    let order: Vec<i64> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
    transposed(data, Some(&order))
}

/// `Squeeze`: without these axes, each of size 1; without any, of all that have size 1.
pub(super) fn squeeze(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let shape = data.shape()?;
    let Some(axes) = call.numbers("axes", 1)? else {
        if data.axis().is_some() {
            return Err(Stop::dependent("drops every axis of size 1: that of the rows too, where one runs alone"));
        }
        let sizes = shape.iter().map(Size::known).collect::<Option<Vec<_>>>();
        let sizes = sizes.ok_or_else(|| Stop::unknown("gives a shape that cannot be followed"))?;
        return one(Tensor::same(Some(sizes.into_iter().filter(|&size| size != 1).map(Size::fixed).collect())));
    };
    let axes = axes.iter().map(|&place| axis(place, shape.len())).collect::<Outcome<Vec<_>>>()?;
    if let Some(rows) = data.axis().filter(|rows| axes.contains(rows)) {
        let why = "drops the axis of the rows: it takes one at a time";
        return Err(if shape[rows].is_rows() { Stop::dependent(why) } else { Stop::unknown(why) });
    }
    let kept = shape.iter().enumerate().filter(|(place, _)| !axes.contains(place)).map(|(_, size)| size.clone());
    let rows = data.axis().map(|rows| rows - axes.iter().filter(|&&axis| axis < rows).count());
    one(Tensor::with_axis(kept.collect(), rows)?)
}

/// `Unsqueeze`: with new axes of size 1 at these places of the output.
pub(super) fn unsqueeze(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let axes = call.numbers("axes", 1)?.ok_or_else(|| Stop::unknown("lacks its axes"))?;
    let rank = data.rank()?.saturating_add(axes.len());
    if rank > MOST_DIMENSIONS {
        return Err(Stop::unknown("has too many dimensions to be followed"));
    }
    let axes = axes.iter().map(|&place| axis(place, rank)).collect::<Outcome<Vec<_>>>()?;
    let mut old = data.shape()?.iter().enumerate();
    let mut rows = None;
    let mut shape = Vec::with_capacity(rank);
    for place in 0..rank {
        if axes.contains(&place) {
            shape.push(Size::ONE);
        } else {
            let (from, size) = old.next().ok_or_else(|| Stop::unknown("names an axis twice"))?;
            rows = rows.or((data.axis() == Some(from)).then_some(place));
            shape.push(size.clone());
        }
    }
    match old.next() {
        Some(_) => Err(Stop::unknown("names an axis twice")),
        None => one(Tensor::with_axis(shape, rows)?),
    }
}

/// `DepthToSpace`, `SpaceToDepth` and others that work within each `[channels, …]` behind axis 0.
pub(super) fn within_first(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let rank = data.rank()?;
    if data.axis().is_some_and(|rows| rows != 0) {
        return Err(Stop::dependent("works along the rows"));
    }
    let mut shape = vec![data.shape()?.first().cloned().ok_or_else(|| Stop::unknown("takes a tensor without axes"))?];
    let block = call.int("blocksize", 0);
    let fixed = |place: usize| data.shape.as_ref()?.get(place)?.known();
    let sizes = || {
        let (channels, height, width) = (fixed(1)?, fixed(2)?, fixed(3)?);
        let area = block.checked_mul(block).filter(|_| block > 0)?;
        Some(match call.node.op_type() {
            "DepthToSpace" => [channels / area, height.checked_mul(block)?, width.checked_mul(block)?],
            _ => [channels.checked_mul(area)?, height / block, width / block],
        })
    };
    match sizes().filter(|_| rank == 4) {
        Some(sizes) => shape.extend(sizes.map(Size::fixed)),
        None => shape.extend((1..rank).map(|_| call.symbols.next())),
    }
    one(Tensor::with_axis(shape, data.axis())?)
}

/// `Expand`: broadcast to a shape.
pub(super) fn expand(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let wanted = sizes_of(call, 1, "shape")?;
    one(expanded(call, data, wanted)?)
}

fn expanded(call: &Call<'_>, data: &Tensor, wanted: &[Number]) -> Outcome<Tensor> {
    let shape = data.shape()?;
    let rank = shape.len().max(wanted.len());
    let rows = data.axis().map(|rows| rows + rank - shape.len());
    let mut merged = Vec::with_capacity(rank);
    let mut new_rows = None;
    for place in 0..rank {
        let own = (place + shape.len()).checked_sub(rank).map(|place| &shape[place]);
        let other = (place + wanted.len()).checked_sub(rank).map(|place| &wanted[place]);
        let unknown = || Stop::unknown("gives a shape that cannot be followed");
        merged.push(match (own, other) {
            (Some(own), None) => own.clone(),
            (own, Some(Number::Whole(other))) if rows == Some(place) => {
                let own = own.ok_or_else(unknown)?;
                if *other != *own && !other.is(1) {
                    return Err(Stop::unknown("expands the axis of the rows"));
                }
                own.clone()
            }
            (own, Some(Number::Whole(other))) if other.counts_rows() => {
                let is_one = own.is_none_or(|own| own.is(1));
                if rows.is_some() || new_rows.is_some() || !other.is_rows() {
                    return Err(Stop::dependent("lays rows out along other rows"));
                }
                if !is_one {
                    return Err(Stop::unknown("gives the rows values by their place"));
                }
                new_rows = Some(place);
                other.clone()
            }
            (own, Some(Number::Whole(other))) if other.is_size() => {
                super::broadcast::free_size(call.symbols, own.into_iter().chain([other]))
            }
            (_, Some(Number::Counted)) => return Err(counted()),
            (_, Some(_)) if rows == Some(place) => return Err(unknown()),
            (_, Some(_)) => call.symbols.next(),
            (None, None) => return Err(unknown()),
        });
    }
    Tensor::with_axis(merged, rows.or(new_rows))
}

/// `Tile`: repeated along each axis.
pub(super) fn tile(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let repeats = sizes_of(call, 1, "repeats")?;
    let shape = data.shape()?;
    if repeats.len() != shape.len() {
        return Err(Stop::unknown("has other repeats than axes"));
    }
    let mut rows = data.axis();
    let mut tiled = Vec::with_capacity(shape.len());
    for (place, (size, repeat)) in shape.iter().zip(repeats).enumerate() {
        let repeat = match repeat {
            Number::Whole(repeat) if repeat.is_size() => Some(repeat),
            Number::Counted => return Err(counted()),
            _ => None,
        };
        if data.axis() == Some(place) {
            if !repeat.is_some_and(|repeat| repeat.is(1)) {
                return Err(Stop::dependent("repeats the rows"));
            }
            tiled.push(size.clone());
            continue;
        }
        if repeat.is_some_and(Size::counts_rows) && rows.replace(place).is_some() {
            return Err(Stop::dependent("lays rows out along other rows"));
        }
        tiled.push(repeat.and_then(|repeat| size.times(repeat)).unwrap_or_else(|| call.symbols.next()));
    }
    one(Tensor::with_axis(tiled, rows)?)
}

/// `ConstantOfShape`: one value everywhere.
pub(super) fn constant_of_shape(call: &Call<'_>) -> Outputs {
    let value = Tensor::same(Some(Vec::new()));
    one(expanded(call, &value, sizes_of(call, 0, "shape")?)?)
}
