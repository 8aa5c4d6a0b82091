//! The distribution of numbers: their bins, coarse and fine.

use crate::monitor::{
    profile::{Distribution, FineBins},
    quantile::{fine_edges, inner_edges},
};

/// The distribution of finite numbers in their order; `None` when there is none.
pub(super) fn numeric(numbers: &[f64]) -> Option<Distribution> {
    let (&min, &max) = (numbers.first()?, numbers.last()?);
    let n = numbers.len() as f64;
    // About the middle of the range, so that neither large offsets nor large numbers spoil it.
    let centre = min / 2.0 + max / 2.0;
    let offset = numbers.iter().map(|number| (number - centre) / n).sum::<f64>();
    let variance = numbers.iter().map(|number| (number - centre - offset).powi(2) / n).sum::<f64>();
    let edges = inner_edges(numbers);
    let counts = bins(numbers, &edges).map(|bin| bin.len() as u64).collect();
    let fine = fine(numbers, &edges);
    let std = Some(variance.sqrt()).filter(|std| std.is_finite()).unwrap_or(f64::MAX);
    Some(Distribution::Numeric { min, max, mean: centre + offset, std, edges, counts, fine: Some(fine) })
}

fn fine(sorted: &[f64], coarse: &[f64]) -> FineBins {
    let edges = fine_edges(sorted, coarse);
    let counts = bins(sorted, &edges).map(|bin| bin.len() as u64).collect();
    let ends = [sorted.first(), sorted.last()].map(|end| end.copied().unwrap_or_default());
    let knot = |at: Option<usize>| at.and_then(|at| edges.get(at)).copied();
    let means = bins(sorted, &edges)
        .enumerate()
        .map(|(at, bin)| {
            let (low, high) = (knot(at.checked_sub(1)).unwrap_or(ends[0]), knot(Some(at)).unwrap_or(ends[1]));
            let middle = low / 2.0 + high / 2.0;
            let offset = bin.iter().map(|number| (number - middle) / bin.len() as f64).sum::<f64>();
            middle + offset
        })
        .collect();
    FineBins { edges, counts, means }
}

/// The numbers of each bin, in order.
fn bins<'a>(sorted: &'a [f64], edges: &'a [f64]) -> impl Iterator<Item = &'a [f64]> {
    let ends = edges.iter().map(|edge| sorted.partition_point(|number| number < edge)).chain([sorted.len()]);
    ends.scan(0, |start, end| {
        let bin = &sorted[*start..end];
        *start = end;
        Some(bin)
    })
}
