//! The shapes that a model's outputs have, where they are not as its file declares them.
//!
//! Exporters declare shapes that are not true: a label of `[1]` for one of each row, one column for two targets. ONNX
//! Runtime does not hold a model to them. What runs show wins; what they cannot show stays as declared.

use super::{Probes, rows::has_free_columns};
use crate::domain::{Dim, Signature, TensorSpec};

/// The shapes of one run's outputs.
struct Seen {
    rows: u64,
    shapes: Vec<Vec<u64>>,
}

/// The shape of every output: as declared, or as seen where a run showed another.
pub(super) fn outputs(probes: &Probes<'_>) -> Vec<Vec<Dim>> {
    let signature = probes.signature;
    let declared = || signature.outputs.iter().map(|spec| spec.shape.clone()).collect();
    let mut seen = Vec::new();
    // Two rows tell more than one: `[1]` is the shape of the label of one row too.
    for rows in [2, 1, 3] {
        let Some(shapes) = run(probes, rows) else { continue };
        seen.push(Seen { rows: rows as u64, shapes });
        if seen.len() == 1 && !signature.outputs.iter().enumerate().any(|(at, spec)| is_contradicted(at, spec, &seen)) {
            return declared();
        }
    }
    let is_any_input_free = has_free_columns(signature);
    let is_any_input_unranked = signature.inputs.iter().any(|spec| !spec.optional && spec.shape == [Dim::Unranked]);
    let shape = |(at, spec): (usize, &TensorSpec)| {
        let is_unseen = seen.is_empty() || (spec.shape == [Dim::Unranked] && is_any_input_unranked);
        if is_unseen || !is_contradicted(at, spec, &seen) {
            return spec.shape.clone();
        }
        as_seen(at, spec, &seen, is_any_input_free).unwrap_or_else(|| spec.shape.clone())
    };
    signature.outputs.iter().enumerate().map(shape).collect()
}

fn run(probes: &Probes<'_>, rows: usize) -> Option<Vec<Vec<u64>>> {
    let inputs = probes.inputs(rows, 0)?;
    let outputs = probes.run(&inputs).ok()?;
    let size = |size: &i64| u64::try_from(*size).unwrap_or(0);
    Some(outputs.iter().map(|output| output.shape().dimensions().iter().map(size).collect()).collect())
}

fn is_contradicted(at: usize, spec: &TensorSpec, seen: &[Seen]) -> bool {
    let fits = |shape: &[u64]| {
        let admits = |(declared, size): (&Dim, &u64)| !matches!(declared, Dim::Fixed(fixed) if fixed != size);
        shape.len() == spec.shape.len() && spec.shape.iter().zip(shape).all(admits)
    };
    spec.shape == [Dim::Unranked] || !seen.iter().all(|seen| fits(&seen.shapes[at]))
}

/// `None` when the runs differ in rank.
fn as_seen(at: usize, spec: &TensorSpec, seen: &[Seen], is_any_input_free: bool) -> Option<Vec<Dim>> {
    let rank = seen.first()?.shapes[at].len();
    if seen.iter().any(|seen| seen.shapes[at].len() != rank) {
        return None;
    }
    let has_declared_rank = spec.shape != [Dim::Unranked] && spec.shape.len() == rank;
    let dim = |axis: usize| {
        let mut sizes = seen.iter().map(|seen| seen.shapes[at][axis]);
        let declared = if has_declared_rank { spec.shape[axis] } else { Dim::Unranked };
        match declared {
            Dim::Fixed(size) if sizes.clone().all(|seen| seen == size) => return declared,
            Dim::Any => return declared,
            _ => {}
        }
        let follows_rows = seen.len() > 1 && sizes.clone().zip(seen).all(|(size, seen)| size == seen.rows);
        let first = sizes.next().unwrap_or(0);
        let is_constant = sizes.all(|size| size == first);
        // Of a model without shapes no more is promised than it did.
        if follows_rows || !is_constant || is_any_input_free || spec.shape == [Dim::Unranked] {
            Dim::Any
        } else {
            Dim::Fixed(first)
        }
    };
    Some((0..rank).map(dim).collect())
}

/// What is seen otherwise than declared, for operators.
pub(super) fn differences(declared: &Signature, seen: &[Vec<Dim>]) -> Vec<String> {
    let wire = |shape: &[Dim]| match shape {
        [Dim::Unranked] => "no shape".to_owned(),
        shape => format!("{:?}", shape.iter().map(|dim| dim.to_wire()).collect::<Vec<_>>()),
    };
    let others = declared.outputs.iter().zip(seen).filter(|(spec, seen)| spec.shape != **seen);
    others
        .map(|(spec, seen)| {
            format!("output '{}' is declared with {} and answers {}", spec.name, wire(&spec.shape), wire(seen))
        })
        .collect()
}
