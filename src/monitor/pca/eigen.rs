//! Eigenvalues and eigenvectors of a symmetric matrix, by the cyclic method of Jacobi (1846).
//!
//! Slower than the usual methods for large matrices, but short, and accurate to the last digits.

/// Each sweep about squares the distance from diagonal; ten are plenty.
const MOST_SWEEPS: usize = 50;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    pub(super) value: f64,
    /// Of length 1; its largest weight is positive.
    pub(super) vector: Vec<f64>,
}

/// The eigenvalues with their vectors, the largest first, of a matrix of `size` rows, row by row.
pub(super) fn decompose(mut matrix: Vec<f64>, size: usize) -> Vec<Pair> {
    let mut vectors = vec![0.0; size * size];
    (0..size).for_each(|at| vectors[at * size + at] = 1.0);
    let norm = matrix.iter().map(|entry| entry * entry).sum::<f64>().sqrt();
    for _ in 0..MOST_SWEEPS {
        let mut is_diagonal = true;
        for row in 0..size {
            for column in row + 1..size {
                if matrix[row * size + column].abs() > f64::EPSILON * norm / size as f64 {
                    is_diagonal = false;
                    rotate(&mut matrix, &mut vectors, size, row, column);
                }
            }
        }
        if is_diagonal {
            break;
        }
    }
    let mut pairs: Vec<_> = vectors
        .chunks(size.max(1))
        .enumerate()
        .map(|(at, vector)| Pair { value: matrix[at * size + at], vector: with_positive_largest(vector) })
        .collect();
    pairs.sort_by(|a, b| b.value.total_cmp(&a.value));
    pairs
}

/// Turns the plane of two axes so that the entry `first`, `second` becomes 0 (Rutishauser, 1966).
/// The rows of `vectors` are the axes.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], size: usize, first: usize, second: usize) {
    let entry = matrix[first * size + second];
    let ratio = (matrix[second * size + second] - matrix[first * size + first]) / (2.0 * entry);
    let tangent = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let opposite = tangent * cosine;
    let turn = |values: &mut [f64], first: usize, second: usize| {
        let (a, b) = (values[first], values[second]);
        values[first] = cosine * a - opposite * b;
        values[second] = opposite * a + cosine * b;
    };
    for at in 0..size {
        turn(matrix, at * size + first, at * size + second);
    }
    for at in 0..size {
        turn(matrix, first * size + at, second * size + at);
        turn(vectors, first * size + at, second * size + at);
    }
    matrix[first * size + second] = 0.0;
    matrix[second * size + first] = 0.0;
}

/// An eigenvector has no sign of its own; this one makes it the same on every machine.
fn with_positive_largest(vector: &[f64]) -> Vec<f64> {
    let largest = vector.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(1.0);
    vector.iter().map(|weight| weight * largest.signum()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn eigenvalues_of_known_matrices_are_found() {
        let pairs = decompose(vec![2.0, 1.0, 1.0, 2.0], 2);
        assert!((pairs[0].value - 3.0).abs() < 1e-14 && (pairs[1].value - 1.0).abs() < 1e-14, "{pairs:?}");
        assert!(pairs[0].vector.iter().all(|weight| (weight - 0.5_f64.sqrt()).abs() < 1e-14), "{pairs:?}");
        let values = |matrix, size| decompose(matrix, size).into_iter().map(|pair| pair.value).collect::<Vec<_>>();
        assert_eq!(values(vec![1.0, 0.0, 0.0, 5.0], 2), [5.0, 1.0]);
        assert_eq!(values(vec![0.0; 9], 3), [0.0; 3]);
        assert!(values(vec![], 0).is_empty());
        // All ones: one direction has everything.
        let ones = values(vec![1.0; 400], 20);
        assert!((ones[0] - 20.0).abs() < 1e-12 && ones[1..].iter().all(|value| value.abs() < 1e-12), "{ones:?}");
    }

    proptest! {
        #[test]
        fn symmetric_matrix_is_its_decomposition(
            size in 1_usize..24,
            entries in prop::collection::vec(-1e3..1e3_f64, 24 * 24),
            scale in prop::sample::select(vec![1e-9, 1.0, 1e9]),
        ) {
            let entry = |i: usize, j: usize| scale * entries[i.max(j) * 24 + i.min(j)];
            let matrix: Vec<_> = (0..size * size).map(|at| entry(at / size, at % size)).collect();
            let pairs = decompose(matrix.clone(), size);
            prop_assert!(pairs.windows(2).all(|pair| pair[0].value >= pair[1].value));
            let norm = dot(&matrix, &matrix).sqrt();
            for i in 0..size {
                for j in 0..size {
                    let built: f64 = pairs.iter().map(|pair| pair.value * pair.vector[i] * pair.vector[j]).sum();
                    prop_assert!((built - entry(i, j)).abs() <= 1e-12 * norm, "{built} for {}", entry(i, j));
                    let product = dot(&pairs[i].vector, &pairs[j].vector);
                    prop_assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12, "{product}");
                }
            }
        }
    }
}
