//! Quantiles as `NumPy` computes them, to the bit.

/// The quantile `q` (0 to 1) of `sorted`, by linear interpolation: `numpy.quantile(…, method="linear")`.
///
/// The virtual index is `q·(n−1)` (Hyndman and Fan, 1996, type 7); between two neighbours the
/// value is `a + (b−a)·t`, and `b − (b−a)·(1−t)` from `t = ½` on, as in `NumPy`'s `_lerp`.
/// `None` when there is no value.
#[must_use]
pub(super) fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the last index")]
    let below = (position.floor() as usize).min(last);
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    let t = position - below as f64;
    let distance = high - low;
    // Not `mul_add`: NumPy rounds after the product.
    Some(if t >= 0.5 { high - distance * (1.0 - t) } else { low + distance * t })
}

/// The edges between the bins of a numeric feature: the deciles of `sorted`, ascending, equal ones
/// merged, those at the ends of the range left out; `numpy.unique(numpy.quantile(…))[1:-1]`.
///
/// The fractions are those of `numpy.linspace(0, 1, 11)`, that is `i · 0.1`. Where one value makes up
/// nine tenths or more there is no such edge, and any change would go unseen: then the bins are
/// the values below that value, the value itself, and those above.
#[must_use]
pub fn inner_edges(sorted: &[f64]) -> Vec<f64> {
    let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return Vec::new() };
    let deciles = (1..10).filter_map(|decile| quantile(sorted, f64::from(decile) * 0.1));
    let mut edges: Vec<f64> = deciles.filter(|edge| min < *edge && *edge < max).collect();
    edges.dedup();
    if edges.is_empty() {
        let usual = sorted[sorted.len() / 2];
        edges = vec![usual, usual.next_up()];
    }
    edges
}

/// The edges between the fine bins: those between the coarse ones, 63 quantiles, and 63 that cut the range evenly.
///
/// The quantiles resolve where values are dense, the even ones where they are rare: with either alone the
/// Wasserstein distance of a real drift is off by several percent.
#[must_use]
pub(super) fn fine_edges(sorted: &[f64], coarse: &[f64]) -> Vec<f64> {
    const PARTS: u32 = 64;
    let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return Vec::new() };
    let quantiles = (1..PARTS).filter_map(|part| quantile(sorted, f64::from(part) / f64::from(PARTS)));
    let even = (1..PARTS).map(|part| {
        let share = f64::from(part) / f64::from(PARTS);
        min * (1.0 - share) + max * share
    });
    let inner = quantiles.chain(even).filter(|edge| min < *edge && *edge < max);
    let mut edges: Vec<f64> = inner.chain(coarse.iter().copied()).collect();
    edges.sort_unstable_by(f64::total_cmp);
    edges.dedup();
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_interpolates_between_neighbours() {
        let sorted = [1.0, 2.0, 4.0];
        assert_eq!(quantile(&sorted, 0.0), Some(1.0));
        assert_eq!(quantile(&sorted, 0.25), Some(1.5));
        assert_eq!(quantile(&sorted, 0.75), Some(3.0));
        assert_eq!(quantile(&sorted, 1.0), Some(4.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn quantile_rounds_as_numpy_does() {
        // numpy.quantile([0.1, 0.3], [0.3, 0.7]): the second by the branch for t ≥ ½.
        assert_eq!(quantile(&[0.1, 0.3], 0.3), Some(0.1 + (0.3 - 0.1) * 0.3));
        assert_eq!(quantile(&[0.1, 0.3], 0.7), Some(0.3 - (0.3 - 0.1) * (1.0 - 0.7)));
    }

    #[test]
    fn inner_edges_of_repeated_values_are_merged() {
        let mut sorted = vec![0.0; 50];
        sorted.extend((1..=50).map(f64::from));
        let edges = inner_edges(&sorted);
        assert!(edges.len() == 5 && edges[0] > 0.0, "{edges:?}");
        assert!(edges.windows(2).all(|pair| pair[0] < pair[1]), "{edges:?}");
    }

    #[test]
    fn inner_edges_single_out_a_value_that_dominates() {
        let up = |value: f64| value.next_up();
        assert_eq!(inner_edges(&[5.0; 20]), [5.0, up(5.0)]);
        let mut sorted = vec![0.0; 95];
        sorted.extend([1.0; 5]);
        assert_eq!(inner_edges(&sorted), [0.0, up(0.0)]);
        let flags = [vec![0.0; 45], vec![1.0; 55]].concat();
        assert_eq!(inner_edges(&flags), [1.0, up(1.0)]);
        assert_eq!(inner_edges(&[]), [0.0; 0]);
    }
}
