//! The precision that a reference has, where it is less than that of the tensor.
//!
//! A reference that was stored with 32 bits a number has 0.1 as 0.10000000149011612. Live values with 64 bits have it as
//! 0.1, which is on the other side of an edge, or out of range. So such live values are rounded to the precision of the
//! reference before they are compared.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The precision of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// All values of the reference are numbers of 32 bits (IEEE 754 binary32).
    Fp32,
}

impl Precision {
    /// The precision of finite numbers with 64 bits, where it shows that they were stored with fewer: all of them are
    /// numbers of 32 bits, and one is not what its shortest decimal form means with 64 bits. (3, 0.5 and the like are the
    /// same number in both, so rounding would change nothing.)
    pub(super) fn of(numbers: &[f64]) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "whether that changes the number is asked")]
        let is_single = |number: &f64| f64::from(*number as f32).to_bits() == number.to_bits();
        #[expect(clippy::cast_possible_truncation, reason = "the number is one of 32 bits")]
        let is_unlike = |number: &f64| {
            (*number as f32).to_string().parse::<f64>().is_ok_and(|read| read.to_bits() != number.to_bits())
        };
        (numbers.iter().all(is_single) && numbers.iter().any(is_unlike)).then_some(Self::Fp32)
    }

    /// The nearest number of this precision; the number itself where that is too large to have one.
    pub(super) fn round(self, number: f64) -> f64 {
        match self {
            Self::Fp32 => to_single(number),
        }
    }
}

fn to_single(number: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, reason = "the nearest number of 32 bits is what is wanted")]
    let single = f64::from(number as f32);
    if single.is_finite() { single } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_were_stored_with_32_bits_are_told_by_their_values() {
        let single = |numbers: &[f32]| numbers.iter().copied().map(f64::from).collect::<Vec<_>>();
        assert_eq!(Precision::of(&single(&[0.1, 3.0, 1e-30])), Some(Precision::Fp32));
        for same_in_both in
            [&[1.0, 2.5, -0.0, 16_777_216.0][..], &[0.1, 0.7], &[1e300, 0.5], &[0.1_f64, 0.1_f32.into()], &[]]
        {
            assert_eq!(Precision::of(same_in_both), None, "{same_in_both:?}");
        }
    }

    #[test]
    fn what_has_no_number_of_32_bits_stays() {
        let round = |number| Precision::Fp32.round(number);
        let bits = |numbers: [f64; 3]| numbers.map(f64::to_bits);
        assert_eq!(bits([round(0.1), round(1e300), round(-1e39)]), bits([f64::from(0.1_f32), 1e300, -1e39]));
        assert!(round(f64::NAN).is_nan() && round(f64::INFINITY).is_infinite());
    }
}
