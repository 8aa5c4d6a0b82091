//! Numbers that are derived of a row: of a free text, and of a wide row (an embedding, an image).

use super::{
    columns::{columns_of, each_number},
    profile::Source,
};
use crate::domain::{Elements, Tensor};

/// Elements of a wide row that are looked at: of more, this many, evenly spread.
const MAX_ELEMENTS: usize = 4096;

/// What a text has of `source`; NaN for an empty one. Bytes that are no UTF-8 count as one other character each run.
pub(super) fn of_text(source: Source, text: &[u8]) -> f64 {
    let (mut characters, mut of_class) = (0_u64, 0_u64);
    let is_of_class = |character: char| match source {
        Source::Letters => character.is_alphabetic(),
        Source::Digits => character.is_ascii_digit(),
        Source::Spaces => character.is_whitespace(),
        _ => false,
    };
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            characters += 1;
            of_class += u64::from(is_of_class(character));
        }
        characters += u64::from(!chunk.invalid().is_empty());
    }
    match source {
        _ if characters == 0 => f64::NAN,
        Source::Length => characters as f64,
        _ => of_class as f64 / characters as f64,
    }
}

/// Hands `source` of each wide row of `tensor` to `each`, with the number of the row. A tensor of text has none.
pub(super) fn each_of_wide(source: Source, tensor: &Tensor, mut each: impl FnMut(usize, f64)) {
    let (Elements::Plain { datatype, bytes }, columns) = (tensor.elements(), columns_of(tensor.shape())) else {
        return;
    };
    let row_bytes = columns * datatype.size().unwrap_or(0);
    if row_bytes == 0 {
        return;
    }
    let step = columns.div_ceil(MAX_ELEMENTS);
    for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
        let (mut looked_at, mut sum) = (0_u32, 0.0);
        let mut signs = Signs::new(source);
        each_number(*datatype, bytes, step, 0, |number| {
            looked_at += 1;
            sum += match source {
                Source::Norm => number * number,
                Source::Projection(_) => number * signs.next(),
                _ => number,
            };
        });
        let size = f64::from(looked_at);
        each(
            row,
            match source {
                Source::Norm => (sum / size).sqrt(),
                Source::Projection(_) => sum / size.sqrt(),
                _ => sum / size,
            },
        );
    }
}

/// Signs as if thrown with a coin, always the same for one projection (`SplitMix64`, Steele and others, 2014).
struct Signs {
    state: u64,
    bits: u64,
    left: u32,
}

impl Signs {
    fn new(source: Source) -> Self {
        let number = if let Source::Projection(number) = source { number } else { 0 };
        Self { state: u64::from(number).wrapping_mul(0xd1b5_4a32_d192_ed03), bits: 0, left: 0 }
    }

    fn next(&mut self) -> f64 {
        if self.left == 0 {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (self.bits, self.left) = (mixed ^ (mixed >> 31), u64::BITS);
        }
        let sign = if self.bits & 1 == 0 { 1.0 } else { -1.0 };
        self.bits >>= 1;
        self.left -= 1;
        sign
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DataType, Shape};

    fn wide(rows: &[&[f32]]) -> Tensor {
        let bytes: Vec<u8> = rows.iter().flat_map(|row| row.iter()).flat_map(|value| value.to_le_bytes()).collect();
        let sizes = vec![i64::try_from(rows.len()).unwrap(), i64::try_from(rows[0].len()).unwrap()];
        Tensor::plain("x", DataType::Fp32, Shape::new(sizes).unwrap(), bytes.into()).unwrap()
    }

    fn of_rows(source: Source, tensor: &Tensor) -> Vec<f64> {
        let mut found = Vec::new();
        each_of_wide(source, tensor, |row, number| {
            assert_eq!(row, found.len());
            found.push(number);
        });
        found
    }

    #[test]
    fn text_has_a_length_and_shares_of_characters() {
        let text = "abc 12 é".as_bytes();
        let is = |text: &[u8], source, expected: f64| (of_text(source, text) - expected).abs() < 1e-12;
        assert!(is(text, Source::Length, 8.0) && is(text, Source::Letters, 0.5));
        assert!(is(text, Source::Digits, 0.25) && is(text, Source::Spaces, 0.25));
        assert!(of_text(Source::Length, b"").is_nan());
        assert!(is(b"a\xffb", Source::Length, 3.0));
    }

    #[test]
    fn norm_and_mean_of_a_row_do_not_depend_on_its_size() {
        let tensor = wide(&[&[3.0; 100], &[-1.0; 100]]);
        assert_eq!(of_rows(Source::Mean, &tensor), [3.0, -1.0]);
        assert_eq!(of_rows(Source::Norm, &tensor), [3.0, 1.0]);
    }

    #[test]
    fn projections_are_fixed_differ_and_keep_the_norm_about() {
        let row: Vec<f32> = (0..100_000_u32).map(|i| (i % 17) as f32 - 8.0).collect();
        let tensor = wide(&[&row, &row]);
        let of = |number| of_rows(Source::Projection(number), &tensor);
        assert_eq!((of(0)[0], of(1)[0]), (of(0)[1], of(1)[1]));
        assert!((of(0)[0] - of(1)[0]).abs() > 1e-6);
        // Its variance over random signs is the square of the norm.
        let norm = of_rows(Source::Norm, &tensor)[0];
        let square = (0..200).map(|number| of(number)[0].powi(2)).sum::<f64>() / 200.0;
        assert!((square / (norm * norm) - 1.0).abs() < 0.35, "{square} for {norm}");
    }
}
