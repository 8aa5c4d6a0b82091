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

/// The nine inner deciles of `sorted`, ascending, equal ones merged.
///
/// The fractions are those of `numpy.linspace(0, 1, 11)`, that is `i · 0.1`.
#[must_use]
pub(super) fn inner_deciles(sorted: &[f64]) -> Vec<f64> {
    let mut edges: Vec<f64> = (1..10).filter_map(|decile| quantile(sorted, f64::from(decile) * 0.1)).collect();
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
    fn inner_deciles_of_repeated_values_are_merged() {
        assert_eq!(inner_deciles(&[5.0; 20]), [5.0]);
        let mut sorted = vec![0.0; 50];
        sorted.extend((1..=50).map(f64::from));
        assert_eq!(inner_deciles(&sorted)[0], 0.0);
        assert!(inner_deciles(&sorted).windows(2).all(|pair| pair[0] < pair[1]));
    }
}
