//! Rows run alone and among others, and what that shows of a model.

use super::{
    Kind, Probes, Source, batch,
    rows::{self, Column},
};
use crate::{
    domain::{Dimensions, Tensor},
    schedule::agreement::{self, Rigour},
};

/// Neighbours of very different kinds, the most telling first.
const NEIGHBOURS: [Kind; 5] = [Kind::Huge, Kind::Nan, Kind::NegativeHuge, Kind::Tiny, Kind::Zeros];
/// Rows that are compared, and fewer of a model whose runs are long.
const ROWS: usize = 6;
const FEW_ROWS: usize = 3;
/// Of a proven model, discrete outputs of one in this many rows may differ: classes that are as likely as each other.
const TIES: usize = 4;

/// Rows that run together, and the answers that they get alone.
struct Ordinary {
    rows: Vec<Vec<Tensor>>,
    alone: Vec<Vec<Tensor>>,
}

/// Looks whether the answer to a row is the same alone and among others. Gives the widths of the outputs: see
/// [`super::Trial::widths`].
///
/// # Errors
/// What shows that the outputs of a row depend on other rows.
pub(super) fn independent(
    probes: &Probes<'_>,
    rigour: Rigour,
    is_slow: bool,
) -> Result<Vec<Option<Dimensions>>, String> {
    let limit = if is_slow { FEW_ROWS } else { ROWS };
    let mut widths = None;
    for rows in sources(probes, limit) {
        let ordinary = alone(probes, rows)?;
        let seen = widths_of(probes, &ordinary);
        let widths = widths.get_or_insert_with(|| seen.clone());
        for (known, seen) in widths.iter_mut().zip(seen) {
            *known = known.take().filter(|known| Some(known) == seen.as_ref());
        }
        among_themselves(probes, &ordinary, rigour)?;
        for kind in NEIGHBOURS.into_iter().take(if is_slow { 2 } else { NEIGHBOURS.len() }) {
            beside(probes, &ordinary, kind, rigour)?;
        }
    }
    widths.ok_or_else(|| super::NOTHING_TO_RUN.into())
}

/// The output that differs between two runs on the same rows, so many of them.
pub(super) fn differs_between_runs(probes: &Probes<'_>, rows: usize) -> Option<String> {
    let inputs = probes.inputs(rows, 0).filter(|inputs| probes.run(inputs).is_ok()).or_else(|| probes.inputs(1, 0))?;
    let (first, second) = (probes.run(&inputs).ok()?, probes.run(&inputs).ok()?);
    let mut pairs = first.iter().zip(&second);
    let differing = pairs.find(|(first, second)| !agreement::is_same(first, second, Rigour::Unproven))?;
    Some(differing.0.name().to_owned())
}

/// Runs rows of other magnitude, for what may happen. What they answer is of no matter.
pub(super) fn run_extremes(probes: &Probes<'_>, like: &[Tensor]) {
    let columns = rows::columns(like);
    for kind in NEIGHBOURS {
        for neighbour in neighbours(&columns, like, kind, 0) {
            if probes.run(&neighbour).is_ok() {
                break;
            }
        }
    }
}

/// The rows to compare: made-up ones, and real ones.
fn sources(probes: &Probes<'_>, limit: usize) -> Vec<Vec<Vec<Tensor>>> {
    let real = |rows: &[Vec<Tensor>]| (!rows.is_empty()).then(|| rows.iter().take(limit).cloned().collect());
    match &probes.source {
        Source::None => Vec::new(),
        Source::Real(known) => real(&known.rows).into_iter().collect(),
        Source::MadeUp(size, known) => {
            let plain = |first| rows::inputs(probes.signature, *size, 1, first);
            let mut made_up: Vec<Vec<Tensor>> = (0..limit.saturating_sub(2)).filter_map(plain).collect();
            let columns = made_up.first().map(|row| rows::columns(row)).unwrap_or_default();
            for kind in [Kind::Tiny, Kind::Zeros] {
                made_up.extend(row(&columns, kind, 0));
            }
            std::iter::once(made_up).chain(real(&known.rows)).collect()
        }
    }
}

fn row(columns: &[Column], kind: Kind, first: usize) -> Option<Vec<Tensor>> {
    columns.iter().map(|column| column.made_up(1, first, kind)).collect()
}

/// # Errors
/// When the model runs on none of them.
fn alone(probes: &Probes<'_>, rows: Vec<Vec<Tensor>>) -> Result<Ordinary, String> {
    let mut ordinary = Ordinary { rows: Vec::new(), alone: Vec::new() };
    let mut last = None;
    for row in rows {
        match probes.run(&row) {
            Ok(answer) => {
                ordinary.rows.push(row);
                ordinary.alone.push(answer);
            }
            // An index of 0, an empty text: it may refuse what it likes.
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) if ordinary.rows.is_empty() => Err(format!("it does not run on one row: {error}")),
        _ => Ok(ordinary),
    }
}

fn among_themselves(probes: &Probes<'_>, ordinary: &Ordinary, rigour: Rigour) -> Result<(), String> {
    let parts: Vec<&[Tensor]> = ordinary.rows.iter().map(Vec::as_slice).collect();
    // One row beside itself where there is no other: it may still not have a row of its own in the outputs.
    let parts = if parts.len() == 1 { vec![parts[0]; 2] } else { parts };
    let inputs = batch::join(&parts).map_err(|error| error.to_string())?;
    let count = parts.len();
    let outputs = probes.run(&inputs).map_err(|error| format!("it does not run on {count} rows: {error}"))?;
    let outputs = split(&outputs, count)?;
    compare(ordinary, &outputs, rigour, None)
}

/// Runs the ordinary rows between two of another kind. What the model refuses tells nothing: in service too, what cannot run
/// together runs alone.
fn beside(probes: &Probes<'_>, ordinary: &Ordinary, kind: Kind, rigour: Rigour) -> Result<(), String> {
    let Some(like) = ordinary.rows.first() else { return Ok(()) };
    let columns = rows::columns(like);
    let (before, after) = (neighbours(&columns, like, kind, 0), neighbours(&columns, like, kind, 1));
    for (before, after) in before.iter().zip(&after) {
        let between = ordinary.rows.iter().map(Vec::as_slice);
        let parts: Vec<&[Tensor]> = std::iter::once(&before[..]).chain(between).chain([&after[..]]).collect();
        let Ok(inputs) = batch::join(&parts) else { continue };
        let Ok(outputs) = probes.run(&inputs) else { continue };
        let outputs = split(&outputs, parts.len())?;
        return compare(ordinary, &outputs[1..outputs.len() - 1], rigour, Some(kind));
    }
    Ok(())
}

/// A row of this kind, and one where only the floats are: an encoder may refuse a category.
fn neighbours(columns: &[Column], like: &[Tensor], kind: Kind, first: usize) -> Vec<Vec<Tensor>> {
    let floats_only = || {
        let one = |(column, like): (&Column, &Tensor)| {
            if column.is_float() { column.made_up(1, first, kind) } else { Some(like.clone()) }
        };
        columns.iter().zip(like).map(one).collect()
    };
    let has_both = columns.iter().any(Column::is_float) && !columns.iter().all(Column::is_float);
    row(columns, kind, first).into_iter().chain(has_both.then(floats_only).flatten()).collect()
}

fn split(outputs: &[Tensor], rows: usize) -> Result<Vec<std::sync::Arc<[Tensor]>>, String> {
    batch::split(outputs, std::iter::repeat_n(1, rows))
        .map_err(|_| "its outputs have not one row for each row of the inputs".to_owned())
}

fn compare(
    ordinary: &Ordinary,
    together: &[std::sync::Arc<[Tensor]>],
    rigour: Rigour,
    beside: Option<Kind>,
) -> Result<(), String> {
    let outputs = ordinary.alone.first().map_or(0, Vec::len);
    for output in 0..outputs {
        let pairs = ordinary.alone.iter().zip(together).map(|(alone, together)| (&alone[output], &together[output]));
        let differing: Vec<_> =
            pairs.filter(|(alone, together)| !agreement::is_same(alone, together, rigour)).collect();
        let Some((alone, _)) = differing.first() else { continue };
        let is_tie =
            |(alone, together): &(&Tensor, &Tensor)| agreement::is_discrete(alone) && alone.shape() == together.shape();
        let are_ties = rigour == Rigour::Proven && differing.iter().all(is_tie);
        if !are_ties || differing.len() * TIES > ordinary.alone.len() {
            let beside = beside.map(|kind| format!(", such as {}", kind.in_words())).unwrap_or_default();
            return Err(format!("output '{}' of a row depends on other rows{beside}", alone.name()));
        }
    }
    Ok(())
}

/// What all rows alone have in common; nothing where clients choose widths of inputs, which outputs may follow.
fn widths_of(probes: &Probes<'_>, ordinary: &Ordinary) -> Vec<Option<Dimensions>> {
    let Some(first) = ordinary.alone.first().filter(|_| !rows::has_free_columns(probes.signature)) else {
        return vec![None; probes.outputs.len()];
    };
    let rest = |output: &Tensor| output.shape().dimensions().get(1..).map(Dimensions::from_slice);
    let common = |at: usize| {
        let width = rest(&first[at])?;
        ordinary.alone.iter().all(|answer| rest(&answer[at]).as_ref() == Some(&width)).then_some(width)
    };
    (0..first.len()).map(common).collect()
}
