//! JSON numbers: where one ends and what it is, found in one pass over its digits.
//!
//! Floats are rounded correctly, always. Most need no more than one multiplication or
//! division of doubles that is known to be exact enough; the rest go to the standard library.

/// A number of valid JSON grammar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    pub(super) text: &'a str,
    is_negative: bool,
    /// No fraction and no exponent is written.
    pub(super) is_whole: bool,
    /// The digits as a number, when there are at most 19 behind leading zeros.
    digits: Option<u64>,
    /// The power of ten that the digits are to be multiplied with.
    exponent: i32,
}

/// The number that begins at `start`; `None` when what stands there is not one of JSON's.
#[inline]
pub(super) fn read(text: &str, start: usize) -> Option<Number<'_>> {
    let bytes = text.as_bytes();
    let is_negative = bytes.get(start) == Some(&b'-');
    let mut at = start + usize::from(is_negative);
    let mut digits = Digits::default();
    let whole = at;
    if bytes.get(at) == Some(&b'0') {
        at += 1;
    } else {
        at = digits.read(bytes, at);
        if at == whole {
            return None;
        }
    }
    let mut exponent = 0;
    let mut is_whole = true;
    if bytes.get(at) == Some(&b'.') {
        let fraction = at + 1;
        at = digits.read(bytes, fraction);
        if at == fraction {
            return None;
        }
        exponent = -i32::try_from(at - fraction).unwrap_or(i32::MAX);
        is_whole = false;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let written;
        (written, at) = read_exponent(bytes, at + 1)?;
        exponent = exponent.saturating_add(written);
        is_whole = false;
    }
    let digits = digits.value();
    Some(Number { text: &text[start..at], is_negative, is_whole, digits, exponent })
}

fn read_exponent(bytes: &[u8], mut at: usize) -> Option<(i32, usize)> {
    let is_negative = bytes.get(at) == Some(&b'-');
    at += usize::from(matches!(bytes.get(at), Some(b'-' | b'+')));
    let first = at;
    let mut value: i32 = 0;
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
        value = value.saturating_mul(10).saturating_add(digit.into());
        at += 1;
    }
    (at > first).then_some((if is_negative { -value } else { value }, at))
}

/// Decimal digits, gathered.
#[derive(Default)]
struct Digits {
    value: u64,
    /// Digits since the first that is not zero.
    count: usize,
}

impl Digits {
    /// Takes the digits from `at` on; where they end.
    #[inline]
    fn read(&mut self, bytes: &[u8], mut at: usize) -> usize {
        while let Some(eight) = bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).and_then(eight_digits) {
            // Overflows only when there are too many digits to be used.
            self.value = self.value.wrapping_mul(100_000_000).wrapping_add(eight);
            self.count += if self.count == 0 { decimal_length(eight) } else { 8 };
            at += 8;
        }
        while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
            self.value = self.value.wrapping_mul(10).wrapping_add(digit.into());
            self.count += usize::from(self.count > 0 || digit > 0);
            at += 1;
        }
        at
    }

    fn value(&self) -> Option<u64> {
        (self.count <= 19).then_some(self.value)
    }
}

fn decimal_length(value: u64) -> usize {
    value.checked_ilog10().map_or(0, |log| log as usize + 1)
}

/// The value of eight decimal digits, three multiplications for all of them.
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(text);
    let is_digits = (word.wrapping_add(0x4646_4646_4646_4646) | word.wrapping_sub(0x3030_3030_3030_3030))
        & 0x8080_8080_8080_8080
        == 0;
    if !is_digits {
        return None;
    }
    let word = word - 0x3030_3030_3030_3030;
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some(low.wrapping_add(high) >> 32)
}

/// The powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl Number<'_> {
    /// The double nearest to this; infinite when it is too large for one.
    #[inline]
    pub(super) fn to_f64(self) -> f64 {
        // Digits and power are exact, so that the one operation rounds once (Clinger 1990).
        self.estimate(1 << f64::MANTISSA_DIGITS).unwrap_or_else(|| self.text.parse().unwrap_or(f64::NAN))
    }

    /// The single nearest to this; infinite when it is too large for one.
    #[inline]
    pub(super) fn to_f32(self) -> f32 {
        /// The bits of a double that a single has no room for.
        const SPARE: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;
        if self.digits == Some(0) {
            return if self.is_negative { -0.0 } else { 0.0 };
        }
        // Up to three roundings of a double: less than four units in its last place away. That
        // rounds to the right single, unless the middle of two singles is so near. (Below the
        // normal singles the middles are elsewhere.)
        if let Some(double) = self.estimate(u64::MAX)
            && double.abs() >= f64::from(f32::MIN_POSITIVE)
            && double.abs() <= f64::from(f32::MAX)
        {
            let spare = double.to_bits() & ((1 << SPARE) - 1);
            if spare.abs_diff(1 << (SPARE - 1)) > 4 {
                #[expect(clippy::cast_possible_truncation, reason = "this is the rounding")]
                return double as f32;
            }
        }
        self.text.parse().unwrap_or(f32::NAN)
    }

    /// Digits times power, in doubles: one rounding if there are at most 53 bits of digits.
    /// `None` when the digits exceed `largest`, or the power is not exact.
    #[inline]
    fn estimate(self, largest: u64) -> Option<f64> {
        let digits = self.digits.filter(|&digits| digits <= largest)? as f64;
        let power = POWERS.get(self.exponent.unsigned_abs() as usize)?;
        let size = if self.exponent < 0 { digits / power } else { digits * power };
        Some(if self.is_negative { -size } else { size })
    }

    /// The whole number that this is written as; `None` when it does not fit, or is not whole.
    #[inline]
    pub(super) fn to_integer<T: TryFrom<i64> + TryFrom<u64>>(self) -> Option<T> {
        if !self.is_whole {
            return None;
        }
        // More than 19 digits fit into 64 bits at times.
        let digits = self.digits.or_else(|| self.text.parse().ok())?;
        if self.is_negative { T::try_from(0_i64.checked_sub_unsigned(digits)?).ok() } else { T::try_from(digits).ok() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number<'_> {
        let number = read(text, 0).unwrap();
        assert_eq!(number.text, text);
        number
    }

    /// Both floats, held against the standard library's.
    fn check(text: &str) {
        assert_eq!(number(text).to_f64().to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        assert_eq!(number(text).to_f32().to_bits(), text.parse::<f32>().unwrap().to_bits(), "{text}");
    }

    #[test]
    fn float_is_rounded_as_the_standard_library_does() {
        for text in [
            "0",
            "-0",
            "0.0",
            "-0.0",
            "1",
            "0.1",
            "16777217",
            "16777216.000000001",
            "16777217.000000001",
            "9007199254740993",
            "1.00000017881393432617187499",
            "1.00000017881393432617187500",
            "1.00000017881393432617187501",
            "1e-60",
            "1e39",
            "-1e400",
            "1.1754943508222875e-38",
            "1.1754942e-38",
            "1e-45",
            "7e-46",
            "3.4028235e38",
            "3.4028235677973366e38",
            "3.4028235677973365e38",
            "1e22",
            "1e23",
            "1e-22",
            "123456789012345678901234567890",
            "0.00000000000000000000000000000000000001",
            "0.30000001192092896",
            "1e99999999999",
            "1e-99999999999",
            "0e99999999999",
            "12345678",
            "123456789",
            "1234567890123456789",
            "18446744073709551615",
            "18446744073709551616",
            "0.1234567812345678123",
        ] {
            check(text);
        }
    }

    #[test]
    fn whole_number_is_exact_or_none() {
        assert_eq!(number("18446744073709551615").to_integer::<u64>(), Some(u64::MAX));
        assert_eq!(number("18446744073709551616").to_integer::<u64>(), None);
        assert_eq!(number("-9223372036854775808").to_integer::<i64>(), Some(i64::MIN));
        assert_eq!(number("-9223372036854775809").to_integer::<i64>(), None);
        assert_eq!(number("9223372036854775808").to_integer::<i64>(), None);
        assert_eq!(number("-0").to_integer::<u8>(), Some(0));
        assert_eq!(number("-1").to_integer::<u8>(), None);
        assert_eq!(number("256").to_integer::<u8>(), None);
        assert_eq!(number("1.0").to_integer::<u8>(), None);
        assert_eq!(number("1e0").to_integer::<u8>(), None);
    }

    #[test]
    fn number_ends_where_its_grammar_does() {
        for (text, end) in [("1,2", 1), ("-1.5e+3]", 7), ("0123", 1), ("1.5.5", 3), ("12345678,", 8), ("1e5e", 3)] {
            assert_eq!(read(text, 0).unwrap().text.len(), end, "{text}");
        }
        for bad in ["", "-", "-a", ".5", "1.", "1.e5", "1e", "1e+", "+1", "a"] {
            assert!(read(bad, 0).is_none(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_decimal_is_rounded_right(text in r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,2})?") {
            check(&text);
        }

        #[test]
        fn any_single_reads_back(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            check(&format!("{value}"));
            check(&format!("{value:e}"));
            check(&format!("{}", f64::from(value)));
        }

        /// Around the middle of two singles, where a second rounding would go wrong.
        #[test]
        fn neighbours_of_a_middle_are_rounded_right(bits in 0x3000_0000_u32..0x4f00_0000, step in -6_i64..=6) {
            let (low, high) = (f32::from_bits(bits), f32::from_bits(bits + 1));
            let middle = f64::midpoint(low.into(), high.into());
            let near = f64::from_bits(middle.to_bits().checked_add_signed(step).unwrap());
            check(&format!("{near}"));
            check(&format!("{near:.25}"));
        }

        #[test]
        fn any_double_reads_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            check(&format!("{value:e}"));
        }

        #[test]
        fn any_integer_reads_back(value in any::<i64>()) {
            prop_assert_eq!(number(&value.to_string()).to_integer::<i64>(), Some(value));
        }
    }
}
