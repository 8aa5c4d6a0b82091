//! Products of matrices: `MatMul`, `Gemm`, `Einsum` and those made of them. Rows must not be added up, which is what
//! happens along the axis that the two factors share, nor meet each other.

use super::{
    broadcast::{broadcast, free_size, meeting_axis, rows_size},
    layout::{exchanged, transposed},
    rule::{Call, Outcome, Outputs, Stop, Symbols, one},
    size::Size,
    value::Tensor,
};

/// `MatMul` and its like: the tensors at these places of the inputs; all others are scales and zero points, which are
/// the same for all. Those in `columns` may be one for each column of b.
fn product_at(call: &Call<'_>, a: usize, b: usize, columns: &[usize], bias: Option<usize>) -> Outputs {
    let settings = (0..call.inputs.len()).filter(|&place| place != a && place != b && Some(place) != bias);
    call.demand_same(settings.clone(), "scale")?;
    let (left, right) = (call.tensor(a)?, call.tensor(b)?);
    // One scale for each row or column of a factor: not where the rows are.
    for place in settings {
        let Some(setting) = call.optional(place)? else { continue };
        let along_columns = columns.contains(&place) && right.is_same() && setting.rank()? == 1;
        if !setting.is_single() && !along_columns {
            return Err(Stop::unknown("has a scale for each row of a factor"));
        }
    }
    let mut product = product(call.symbols, left, right)?;
    if let Some(bias) = bias.map(|place| call.optional(place)).transpose()?.flatten() {
        product = broadcast(call.symbols, &[&product, bias])?;
    }
    one(product)
}

/// `MatMul(a, b)`.
pub(super) fn matmul(call: &Call<'_>) -> Outputs {
    one(product(call.symbols, call.tensor(0)?, call.tensor(1)?)?)
}

/// `MatMulInteger(a, b, a_zero_point, b_zero_point)`.
pub(super) fn matmul_integer(call: &Call<'_>) -> Outputs {
    product_at(call, 0, 1, &[3], None)
}

/// `MatMulIntegerToFloat(a, b, a_scale, b_scale, a_zero_point, b_zero_point, bias)`.
pub(super) fn matmul_integer_to_float(call: &Call<'_>) -> Outputs {
    product_at(call, 0, 1, &[3, 5], Some(6))
}

/// `QLinearMatMul(a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point)`.
pub(super) fn qlinear_matmul(call: &Call<'_>) -> Outputs {
    product_at(call, 0, 3, &[4, 5], None)
}

/// `QGemm(a, a_scale, a_zero_point, b, b_scale, b_zero_point, c, y_scale, y_zero_point)`.
pub(super) fn qgemm(call: &Call<'_>) -> Outputs {
    call.demand_same([1, 2].into_iter().chain(3..9), "weights")?;
    if ![1, 2].into_iter().all(|place| call.tensor(place).is_ok_and(Tensor::is_single)) {
        return Err(Stop::unknown("has a scale for each row of a factor"));
    }
    let turned = |place: usize, name: &str| turned(call.tensor(place)?, call.int(name, 0) != 0);
    let product = product(call.symbols, &turned(0, "transA")?, &turned(3, "transB")?)?;
    one(match call.optional(6)? {
        Some(c) => broadcast(call.symbols, &[&product, c])?,
        None => product,
    })
}

fn turned(tensor: &Tensor, is_turned: bool) -> Outcome<Tensor> {
    if is_turned { exchanged(tensor) } else { Ok(tensor.clone()) }
}

/// `Gemm(a, b, c)`.
pub(super) fn gemm(call: &Call<'_>) -> Outputs {
    let a = turned(call.tensor(0)?, call.int("transA", 0) != 0)?;
    let b = turned(call.tensor(1)?, call.int("transB", 0) != 0)?;
    let product = product(call.symbols, &a, &b)?;
    one(match call.optional(2)? {
        Some(c) => {
            let sum = broadcast(call.symbols, &[&product, c])?;
            if product.axis().is_some() && sum.rank()? != product.rank()? {
                return Err(Stop::unknown("adds a tensor of more dimensions"));
            }
            sum
        }
        None => product,
    })
}

/// `FusedMatMul(a, b)`: with the last axes exchanged, or the axes behind the first moved.
pub(super) fn fused_matmul(call: &Call<'_>) -> Outputs {
    let factor = |place: usize, moved: &str, is_turned: &str| {
        let mut tensor = call.tensor(place)?.clone();
        let rank = i64::try_from(tensor.rank()?).unwrap_or(i64::MAX);
        if call.int(moved, 0) != 0 && rank > 2 {
            // [a, b, …, c, d] is taken for [b, …, c, a, d].
            let order: Vec<i64> = (1..rank - 1).chain([0, rank - 1]).collect();
            tensor = transposed(&tensor, Some(&order))?;
        }
        turned(&tensor, call.int(is_turned, 0) != 0)
    };
    one(product(call.symbols, &factor(0, "transBatchA", "transA")?, &factor(1, "transBatchB", "transB")?)?)
}

/// `MatMulNBits(a, …)`, `DynamicQuantizeMatMul` without it: `[…, k]` by weights that are the same for all, to `[…, n]`.
pub(super) fn matmul_bits(call: &Call<'_>) -> Outputs {
    call.demand_same(1..call.inputs.len(), "weights")?;
    let a = call.tensor(0)?;
    let columns = Tensor::same(Some(vec![call.symbols.next(), Size::fixed(call.int("N", 0))]));
    one(product(call.symbols, a, &columns)?)
}

/// The product of stacks of matrices, `[…, m, k] × […, k, n]`; a vector is a matrix of one row or column.
pub(super) fn product(symbols: &Symbols, a: &Tensor, b: &Tensor) -> Outcome<Tensor> {
    if a.is_same() && b.is_same() && (a.shape.is_none() || b.shape.is_none()) {
        return Ok(Tensor::same(None));
    }
    let (left, right) = (a.shape()?, b.shape()?);
    let (rank_a, rank_b) = (left.len(), right.len());
    if rank_a == 0 || rank_b == 0 {
        return Err(Stop::unknown("multiplies by a scalar"));
    }
    let adds_rows = a.axis() == Some(rank_a - 1) || b.axis().is_some_and(|rows| rows == rank_b.saturating_sub(2));
    if adds_rows {
        return Err(Stop::dependent("adds up over the rows"));
    }
    // Axes counted from the back: 1 is columns, 2 is rows of matrices, from 3 on the stack.
    let from_back = |tensor: &Tensor, rank: usize| tensor.axis().map(|rows| rank - rows);
    let (back_a, back_b) = (from_back(a, rank_a), from_back(b, rank_b));
    let meeting = meeting_axis([back_a, back_b])?;
    let stack = rank_a.max(rank_b).max(2) - 2;
    let mut shape = Vec::with_capacity(stack + 2);
    for place in 0..stack {
        let back = stack - place + 2;
        let at = |sizes: &'_ [Size]| sizes.len().checked_sub(back).map(|place| sizes[place].clone());
        let sizes: Vec<Size> = [at(left), at(right)].into_iter().flatten().collect();
        shape.push(if meeting == Some(back) { rows_size(&sizes)? } else { free_size(symbols, &sizes) });
    }
    let mut rows = meeting.map(|back| stack + 2 - back);
    if rank_a > 1 {
        shape.push(left[rank_a - 2].clone());
    }
    if rank_b > 1 {
        shape.push(right[rank_b - 1].clone());
    }
    // The columns of b stand before what a vector a leaves out.
    if rank_a == 1 && meeting == Some(1) {
        rows = Some(shape.len() - 1);
    }
    Tensor::with_axis(shape, rows)
}

/// `Einsum`: axes of the same letter go together; those that the output does not name are added up.
pub(super) fn einsum(call: &Call<'_>) -> Outputs {
    let unknown = || Stop::unknown("has an equation that cannot be followed");
    let equation: String = call.text("equation").ok_or_else(unknown)?.chars().filter(|c| !c.is_whitespace()).collect();
    let (terms, output) = match equation.split_once("->") {
        Some((terms, output)) => (terms, Some(output)),
        None => (equation.as_str(), None),
    };
    let tensors = (0..call.inputs.len()).map(|place| call.tensor(place)).collect::<Outcome<Vec<_>>>()?;
    let terms: Vec<&str> = terms.split(',').collect();
    if terms.len() != tensors.len() || tensors.len() > 16 {
        return Err(unknown());
    }
    let mut labels = Vec::with_capacity(terms.len());
    for (term, tensor) in terms.iter().zip(&tensors) {
        labels.push(letters(term, tensor.rank()?).ok_or_else(unknown)?);
    }
    let wide = labels.iter().flatten().filter_map(Label::place).max().map_or(0, |last| last + 1);
    let output = match output {
        Some(term) => {
            let named = term.chars().filter(|c| *c != '.').count();
            letters(term, if term.contains("...") { named + wide } else { named }).ok_or_else(unknown)?
        }
        None => implicit(&labels, wide),
    };
    let mut rows: Option<Label> = None;
    for (tensor, labels) in tensors.iter().zip(&labels) {
        let Some(axis) = tensor.axis() else { continue };
        let label = labels[axis];
        if *rows.get_or_insert(label) != label {
            return Err(Stop::dependent("brings rows together with other rows"));
        }
        if labels.iter().filter(|other| **other == label).count() > 1 {
            return Err(Stop::dependent("takes the diagonal over the rows"));
        }
    }
    if rows.is_some_and(|rows| !output.contains(&rows)) {
        return Err(Stop::dependent("adds up over the rows"));
    }
    let mut shape = Vec::with_capacity(output.len());
    for label in &output {
        let sizes = tensors.iter().zip(&labels).flat_map(|(tensor, labels)| {
            let sizes = tensor.shape.as_deref().unwrap_or_default().iter().zip(labels);
            sizes.filter(|(_, other)| *other == label).map(|(size, _)| size)
        });
        shape.push(if rows == Some(*label) { rows_size(sizes)? } else { free_size(call.symbols, sizes) });
    }
    one(Tensor::with_axis(shape, rows.and_then(|rows| output.iter().position(|label| *label == rows)))?)
}

/// What an axis is called in an equation: a letter, or one of those that `...` stands for, counted from the back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Letter(char),
    Wide(usize),
}

impl Label {
    fn place(&self) -> Option<usize> {
        match self {
            Self::Wide(place) => Some(*place),
            Self::Letter(_) => None,
        }
    }
}

/// The labels of a tensor's axes.
fn letters(term: &str, rank: usize) -> Option<Vec<Label>> {
    let (front, back) = match term.split_once("...") {
        Some((front, back)) => (front, Some(back)),
        None => (term, None),
    };
    let mut labels: Vec<Label> = front.chars().map(Label::Letter).collect();
    if let Some(back) = back {
        let wide = rank.checked_sub(labels.len() + back.chars().count())?;
        labels.extend((0..wide).rev().map(Label::Wide));
        labels.extend(back.chars().map(Label::Letter));
    }
    let is_plain = labels.iter().all(|label| !matches!(label, Label::Letter(letter) if !letter.is_ascii_alphabetic()));
    (is_plain && labels.len() == rank).then_some(labels)
}

/// Without an output, the letters that stand once, in the order of the alphabet, behind what `...` stands for.
fn implicit(labels: &[Vec<Label>], wide: usize) -> Vec<Label> {
    let all: Vec<Label> = labels.iter().flatten().copied().filter(|label| label.place().is_none()).collect();
    let mut once: Vec<Label> =
        all.iter().copied().filter(|label| all.iter().filter(|other| *other == label).count() == 1).collect();
    once.sort_unstable();
    (0..wide).rev().map(Label::Wide).chain(once).collect()
}

/// `CDist(a, b)`: the distance of each of a to each of b, `[m, n]`.
pub(super) fn distances(call: &Call<'_>) -> Outputs {
    one(product(call.symbols, call.tensor(0)?, &exchanged(call.tensor(1)?)?)?)
}
