//! Operators on sequences: recurrent ones, `[time, batch, …]`, and attention, `[batch, time, …]`.

use super::{
    broadcast::plain,
    rule::{Call, Outcome, Outputs, Stop},
    size::Size,
    value::{Tensor, Value},
};

/// Stops where a tensor that is there does not have the rows of `first` along `axis`.
fn follows(call: &Call<'_>, first: &Size, place: usize, axis: usize) -> Outcome<()> {
    let Some(tensor) = call.optional(place)? else { return Ok(()) };
    if tensor.axis() == Some(axis) && tensor.shape()?[axis] == *first {
        return Ok(());
    }
    Err(Stop::unknown("takes a tensor whose rows are not those of its first input"))
}

/// `RNN`, `GRU`, `LSTM(x, w, r, b, sequence_lens, initial_h, initial_c, p)`.
pub(super) fn recurrent(call: &Call<'_>) -> Outputs {
    let x = call.tensor(0)?;
    let shape = x.shape()?;
    let is_batch_first = call.int("layout", 0) == 1;
    let batch = usize::from(!is_batch_first);
    let Some(rows) = x.axis() else { return Err(Stop::unknown("has no rows in its first input")) };
    if rows != batch || shape.len() != 3 {
        return Err(Stop::dependent("runs along the rows as along time"));
    }
    call.demand_same([1, 2, 3, 7], "weights")?;
    follows(call, &shape[rows], 4, 0)?;
    follows(call, &shape[rows], 5, batch)?;
    follows(call, &shape[rows], 6, batch)?;
    let directions = if call.text("direction") == Some("bidirectional") { 2 } else { 1 };
    let hidden = call.int("hidden_size", -1);
    let hidden = if hidden >= 0 { Size::fixed(hidden) } else { call.symbols.next() };
    let (directions, time, rows) = (Size::fixed(directions), shape[1 - batch].clone(), shape[batch].clone());
    let (all, all_axis, last, last_axis) = if is_batch_first {
        (vec![rows.clone(), time, directions.clone(), hidden.clone()], 0, vec![rows, directions, hidden], 0)
    } else {
        (vec![time, directions.clone(), rows.clone(), hidden.clone()], 2, vec![directions, rows, hidden], 1)
    };
    let last = Tensor::rows(last, last_axis)?;
    Ok(vec![Ok(Tensor::rows(all, all_axis)?.into()), Ok(last.clone().into()), Ok(last.into())])
}

/// A tensor with the rows of `first` along axis 0 and `free` other axes of any size.
fn batch(call: &Call<'_>, first: &Size, free: usize) -> Outcome<Value> {
    let shape = std::iter::once(first.clone()).chain((0..free).map(|_| call.symbols.next()));
    Ok(Tensor::rows(shape.collect(), 0)?.into())
}

fn first_rows<'a>(call: &'a Call<'_>, place: usize) -> Outcome<&'a Size> {
    let tensor = call.tensor(place)?;
    if tensor.axis() != Some(0) {
        return Err(Stop::unknown("takes a tensor whose rows are not along its first axis"));
    }
    tensor.shape()?.first().ok_or_else(|| Stop::unknown("takes a tensor without axes"))
}

/// A mask that is broadcast to `[batch, heads, queries, keys]`.
fn mask_follows(call: &Call<'_>, first: &Size, place: usize) -> Outcome<()> {
    let Some(mask) = call.optional(place)? else { return Ok(()) };
    let unknown = || Stop::unknown("takes a mask whose rows cannot be followed");
    let shape = mask.shape()?;
    match mask.axis() {
        Some(0) if shape.len() == 4 && shape[0] == *first => Ok(()),
        None if mask.is_same() && (shape.len() < 4 || shape.len() == 4 && shape[0].is(1)) => Ok(()),
        _ => Err(unknown()),
    }
}

/// `Attention(q, k, v, attn_mask, past_key, past_value, nonpad_kv_seqlen)` of ONNX.
pub(super) fn attention(call: &Call<'_>) -> Outputs {
    let first = first_rows(call, 0)?;
    for (place, axis) in [(1, 0), (2, 0), (4, 0), (5, 0), (6, 0)] {
        follows(call, first, place, axis)?;
    }
    mask_follows(call, first, 3)?;
    let q = call.tensor(0)?.shape()?;
    let output = match (q.len(), call.tensor(2)?.shape()?.last()) {
        (4, Some(last)) => Tensor::rows(vec![q[0].clone(), q[1].clone(), q[2].clone(), last.clone()], 0)?.into(),
        (3, _) => {
            let width =
                if call.tensor(2)?.shape()? == call.tensor(1)?.shape()? { q[2].clone() } else { call.symbols.next() };
            Tensor::rows(vec![q[0].clone(), q[1].clone(), width], 0)?.into()
        }
        _ => return Err(Stop::unknown("takes queries of another shape")),
    };
    Ok(vec![Ok(output), batch(call, first, 3), batch(call, first, 3), batch(call, first, 3)])
}

/// `RotaryEmbedding(x, cos, sin, positions)` of ONNX; `(x, positions, cos, sin)` of ONNX Runtime.
pub(super) fn rotary(call: &Call<'_>) -> Outputs {
    let is_runtime = call.node.domain() == "com.microsoft";
    let first = first_rows(call, 0)?;
    let (positions, caches) = if is_runtime { (1, [2, 3]) } else { (3, [1, 2]) };
    let from_positions = call.optional(positions)?;
    let is_offset = is_runtime && from_positions.is_some_and(|tensor| tensor.is_same() && tensor.is_single());
    if from_positions.is_some() {
        call.demand_same(caches, "tables")?;
        if !is_offset {
            follows(call, first, positions, 0)?;
        }
    } else {
        // Without positions the tables have a row for each row.
        follows(call, first, caches[0], 0)?;
        follows(call, first, caches[1], 0)?;
    }
    Ok(vec![Ok(plain(call.tensor(0)?).into())])
}

/// `MultiHeadAttention(query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value)`.
pub(super) fn multi_head(call: &Call<'_>) -> Outputs {
    let first = first_rows(call, 0)?;
    for place in [1, 2, 4, 6, 7] {
        follows(call, first, place, 0)?;
    }
    call.demand_same([3], "bias")?;
    mask_follows(call, first, 5)?;
    if call.inputs.len() > 8 {
        return Err(Stop::unknown("has inputs that its rule does not know"));
    }
    let q = call.tensor(0)?.shape()?;
    let width = if q.len() == 3
        && call.optional(2)?.is_some_and(|v| v.shape.as_ref().is_some_and(|v| v.len() == 3 && v[2] == q[2]))
    {
        q[2].clone()
    } else {
        call.symbols.next()
    };
    let time = q.get(1).cloned().ok_or_else(|| Stop::unknown("takes queries of another shape"))?;
    let output = Tensor::rows(vec![q[0].clone(), time, width], 0)?;
    Ok(vec![Ok(output.into()), batch(call, first, 3), batch(call, first, 3), batch(call, first, 3)])
}

/// `Attention(input, weights, bias, mask_index, past, attention_bias)` of ONNX Runtime.
pub(super) fn packed_attention(call: &Call<'_>) -> Outputs {
    packed(call, 3, 4, 5, &[1, 2])
}

/// `QAttention(input, weights, bias, input_scale, weight_scale, mask_index, input_zero_point, weight_zero_point, past)`.
pub(super) fn quantised_attention(call: &Call<'_>) -> Outputs {
    if !call.tensor(3)?.is_single() {
        return Err(Stop::unknown("has a scale for each place"));
    }
    packed(call, 5, 8, 9, &[1, 2, 3, 4, 6, 7])
}

fn packed(call: &Call<'_>, mask: usize, past: usize, bias: usize, same: &[usize]) -> Outputs {
    let first = first_rows(call, 0)?;
    call.demand_same(same.iter().copied(), "weights")?;
    // A mask of [2 × batch] or [3 × batch + 2] has other things behind one another: those are not rows.
    follows(call, first, mask, 0)?;
    if call.has(past) || call.inputs.len() > bias + 1 {
        return Err(Stop::unknown("keeps a past that its rule does not know"));
    }
    mask_follows(call, first, bias)?;
    let shape = call.tensor(0)?.shape()?;
    if shape.len() != 3 || !first.eq(&Size::ROWS) {
        return Err(Stop::unknown("takes an input of another shape"));
    }
    let output = vec![shape[0].clone(), shape[1].clone(), hidden(call, same)?];
    Ok(vec![Ok(Tensor::rows(output, 0)?.into())])
}

/// A third of the bias, which queries, keys and values share, unless they are said to differ.
fn hidden(call: &Call<'_>, same: &[usize]) -> Outcome<Size> {
    let bias = call.optional(same[1])?.and_then(|bias| bias.shape.as_ref()?.first()?.over(&Size::fixed(3)));
    let is_plain = call.ints("qkv_hidden_sizes").is_none();
    Ok(bias.filter(|_| is_plain).unwrap_or_else(|| call.symbols.next()))
}

/// `EmbedLayerNormalization(input_ids, segment_ids, words, positions, segments, gamma, beta, mask, position_ids)`.
pub(super) fn embed(call: &Call<'_>) -> Outputs {
    embedding(call, 2..7, &[7, 8])
}

/// `QEmbedLayerNormalization(input_ids, segment_ids, …, mask, scales …)`.
pub(super) fn quantised_embed(call: &Call<'_>) -> Outputs {
    call.demand_same(8..call.inputs.len(), "scales")?;
    embedding(call, 2..7, &[7])
}

fn embedding(call: &Call<'_>, tables: std::ops::Range<usize>, others: &[usize]) -> Outputs {
    let first = first_rows(call, 0)?;
    follows(call, first, 1, 0)?;
    for &place in others {
        follows(call, first, place, 0)?;
    }
    let words = call.tensor(tables.start)?;
    call.demand_same(tables, "tables")?;
    let ids = call.tensor(0)?.shape()?;
    if ids.len() != 2 {
        return Err(Stop::unknown("takes ids of another shape"));
    }
    let width = words.shape.as_ref().and_then(|shape| shape.get(1).cloned()).unwrap_or_else(|| call.symbols.next());
    let output: Value = Tensor::rows(vec![ids[0].clone(), ids[1].clone(), width], 0)?.into();
    Ok(vec![Ok(output.clone()), Ok(Tensor::rows(vec![ids[0].clone()], 0)?.into()), Ok(output)])
}
