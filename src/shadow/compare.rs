//! How far one answer is from another. Pure.

use crate::{
    domain::{Elements, Tensor},
    monitor::numbers,
};

/// Elements of one output that are compared, whole rows of them: what a larger one has beyond is left out.
const MAX_ELEMENTS: usize = 65_536;

/// What the comparison of one output found.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Difference {
    /// Rows that have a class, or are one: see [`compare`]. 0 where outputs have none.
    pub(super) rows: u64,
    /// Those whose class is the same.
    pub(super) agreed: u64,
    /// Elements whose numbers were compared.
    pub(super) elements: u64,
    /// The sum of their absolute differences, and the largest.
    pub(super) sum: f64,
    pub(super) max: f64,
    /// Elements of which one is a number and the other is not (NaN), or that are infinite on one side.
    pub(super) incomparable: u64,
    /// The score of each row, of both sides; see [`scores`].
    pub(super) scores: Vec<[f64; 2]>,
}

/// Compares the same output of two versions; `None` when their types or shapes are not of one kind.
///
/// The class of a row is the place of its largest value where the output is of floats in two or more
/// columns (the first of equal ones), and the row itself where it is of whole numbers, booleans or texts.
/// A single column of floats has no class.
pub(super) fn compare(live: &Tensor, shadow: &Tensor) -> Option<Difference> {
    if live.shape() != shadow.shape() {
        return None;
    }
    let rows = live.shape().rows();
    let columns = live.shape().elements().checked_div(rows).filter(|columns| *columns > 0)?;
    let rows = rows.min((MAX_ELEMENTS / columns).max(1));
    match (live.elements(), shadow.elements()) {
        (Elements::Text(live), Elements::Text(shadow)) => Some(texts(live, shadow, rows, columns)),
        (Elements::Plain { datatype: first, bytes: live }, Elements::Plain { datatype: second, bytes: shadow }) => {
            let is_float = first.is_float();
            if is_float != second.is_float() {
                return None;
            }
            let mut sides = [numbers(*first, live), numbers(*second, shadow)];
            for side in &mut sides {
                side.truncate(rows * columns);
            }
            let [live, shadow] = sides;
            Some(plain(&live, &shadow, columns, is_float))
        }
        _ => None,
    }
}

fn texts(live: &[bytes::Bytes], shadow: &[bytes::Bytes], rows: usize, columns: usize) -> Difference {
    let pairs = live.chunks(columns).zip(shadow.chunks(columns)).take(rows);
    let agreed = pairs.filter(|(live, shadow)| live == shadow).count();
    Difference { rows: rows as u64, agreed: agreed as u64, ..Difference::default() }
}

fn plain(live: &[f64], shadow: &[f64], columns: usize, is_float: bool) -> Difference {
    let mut found = Difference::default();
    for (live, shadow) in live.iter().zip(shadow) {
        found.add_element(*live, *shadow);
    }
    let pairs = || live.chunks(columns).zip(shadow.chunks(columns));
    if !is_float {
        found.rows = pairs().count() as u64;
        found.agreed = pairs().filter(|(live, shadow)| live == shadow).count() as u64;
        return found;
    }
    if columns > 1 {
        found.rows = pairs().count() as u64;
        found.agreed = pairs().filter(|(live, shadow)| largest(live) == largest(shadow)).count() as u64;
    }
    found.scores = pairs().map(|(live, shadow)| [score(live), score(shadow)]).collect();
    found
}

impl Difference {
    fn add_element(&mut self, live: f64, shadow: f64) {
        // Equal infinities are equal, and two that are no number have no difference either.
        let is_same = live.total_cmp(&shadow).is_eq() || (live.is_nan() && shadow.is_nan());
        let difference = if is_same { 0.0 } else { (live - shadow).abs() };
        if !difference.is_finite() {
            self.incomparable += 1;
            return;
        }
        self.elements += 1;
        self.sum += difference;
        self.max = self.max.max(difference);
    }
}

/// The place of the largest value; `None` where none is a number.
fn largest(row: &[f64]) -> Option<usize> {
    let numbers = row.iter().enumerate().filter(|(_, value)| !value.is_nan());
    numbers
        .fold(None, |best: Option<(usize, f64)>, (place, value)| match best {
            Some((_, most)) if most >= *value => best,
            _ => Some((place, *value)),
        })
        .map(|(place, _)| place)
}

/// The score of a row: its value, of two columns the second (the positive class of a binary
/// classifier), of more the largest.
fn score(row: &[f64]) -> f64 {
    match row {
        [one] => *one,
        [_, positive] => *positive,
        more => more.iter().copied().fold(f64::NAN, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::{DataType, Shape};

    fn floats(dimensions: &[i64], values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::plain("y", DataType::Fp32, Shape::new(dimensions.to_vec()).unwrap(), bytes.into()).unwrap()
    }

    fn words(values: &[&'static str]) -> Tensor {
        let shape = Shape::new(vec![i64::try_from(values.len()).unwrap()]).unwrap();
        Tensor::text("y", shape, values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect()).unwrap()
    }

    #[test]
    fn probabilities_are_compared_by_number_and_by_class() {
        let live = floats(&[3, 2], &[0.25, 0.75, 0.5, 0.5, 1.0, 0.0]);
        let shadow = floats(&[3, 2], &[0.5, 0.5, 0.5, 0.5, 0.0, 1.0]);
        let found = compare(&live, &shadow).unwrap();
        assert_eq!((found.rows, found.agreed), (3, 1));
        assert_eq!((found.elements, found.sum, found.max), (6, 2.5, 1.0));
        assert_eq!(found.scores, [[0.75, 0.5], [0.5, 0.5], [0.0, 1.0]]);
    }

    #[test]
    fn labels_agree_or_do_not() {
        let found = compare(&words(&["a", "b", "c"]), &words(&["a", "x", "c"])).unwrap();
        assert_eq!((found.rows, found.agreed, found.elements), (3, 2, 0));
        let whole = |values: [u8; 3]| {
            Tensor::plain("y", DataType::Uint8, Shape::new(vec![3]).unwrap(), values.to_vec().into()).unwrap()
        };
        let found = compare(&whole([1, 2, 3]), &whole([1, 2, 9])).unwrap();
        assert_eq!((found.rows, found.agreed, found.max, found.scores.len()), (3, 2, 6.0, 0));
    }

    #[test]
    fn single_column_of_floats_has_a_score_and_no_class() {
        let found = compare(&floats(&[2, 1], &[1.0, 2.0]), &floats(&[2, 1], &[1.5, 2.0])).unwrap();
        assert_eq!((found.rows, found.elements, found.sum), (0, 2, 0.5));
        assert_eq!(found.scores, [[1.0, 1.5], [2.0, 2.0]]);
    }

    #[test]
    fn what_is_no_number_is_counted_apart() {
        let (nan, infinite) = (f32::NAN, f32::INFINITY);
        let live = floats(&[5], &[nan, nan, infinite, infinite, 1.0]);
        let shadow = floats(&[5], &[nan, 0.0, infinite, 0.0, 1.0]);
        let found = compare(&live, &shadow).unwrap();
        assert_eq!((found.elements, found.incomparable, found.max), (3, 2, 0.0));
        assert_eq!((largest(&[f64::NAN, 1.0, 2.0]), largest(&[f64::NAN])), (Some(2), None));
    }

    #[test]
    fn other_shapes_and_kinds_cannot_be_compared() {
        let one = floats(&[2, 1], &[1.0, 2.0]);
        assert_eq!(compare(&one, &floats(&[1, 2], &[1.0, 2.0])), None);
        assert_eq!(compare(&floats(&[2], &[1.0, 2.0]), &words(&["a", "b"])), None);
        assert_eq!(compare(&floats(&[0, 2], &[]), &floats(&[0, 2], &[])), None);
    }

    #[test]
    fn work_on_one_output_is_bounded() {
        let values = vec![0.5; 70_000];
        let tensor = floats(&[7000, 10], &values);
        let found = compare(&tensor, &tensor).unwrap();
        assert_eq!((found.rows, found.elements), (6553, 65_530));
    }
}
