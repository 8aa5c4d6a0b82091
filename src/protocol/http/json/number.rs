//! JSON numbers: where one ends and what it is, found in one pass over its digits.
//!
//! Floats are rounded correctly, always. Most need no more than one multiplication or
//! division of doubles that is known to be exact enough; the rest go to the standard library.

use std::hint::select_unpredictable;

/// A number of valid JSON grammar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    /// ASCII, as all of the grammar is.
    text: &'a [u8],
    is_negative: bool,
    /// No fraction and no exponent is written.
    pub(super) is_whole: bool,
    /// The digits as a number, when there are at most 19 behind leading zeros.
    digits: Option<u64>,
    /// The power of ten that the digits are to be multiplied with.
    exponent: i32,
}

/// What most floats look like: one digit, a point, up to 15 digits and no exponent, not at the
/// very end of the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Short {
    is_negative: bool,
    digits: u64,
    /// How many of the digits stand behind the point.
    places: usize,
    /// How many bytes of text it takes.
    pub(super) length: usize,
}

/// The bytes that [`Short::read`] looks at: a sign, a digit, a point, two words of digits, and
/// what comes behind them.
const SHORT: usize = 20;

impl Short {
    /// The number at `start`, when it is such a one. Nothing branches on the sign or on how many digits there
    /// are, which no branch predictor knows.
    #[expect(clippy::inline_always, reason = "a number that goes through memory takes half as long again")]
    #[inline(always)]
    pub(super) fn read(bytes: &[u8], start: usize) -> Option<Self> {
        let window: &[u8; SHORT] = bytes.get(start..start + SHORT)?.first_chunk()?;
        let word = |at: usize| word_of_digits(window, at);
        // The next number waits for where this one ends, so that is not made to wait for the sign: the third byte is
        // a digit, or the point behind a sign and one digit. Whatever it is, the number does not end there.
        let (near, far) = (no_digits(word(2)) & !0xff, no_digits(word(10)));
        let end = select_unpredictable(near == 0, 10 + byte_of(far), 2 + byte_of(near));
        let is_negative = window[0] == b'-';
        let either = |unsigned: u64, signed: u64| select_unpredictable(is_negative, signed, unsigned);
        let head = |at: usize| u64::from(u16::from_le_bytes([window[at], window[at + 1]]));
        let [whole, point, ..] = either(head(0), head(1)).to_le_bytes();
        let (first, second) = (either(word(2), word(3)), either(word(10), word(11)));
        let whole = whole ^ b'0';
        let has_digit = leading_digits(first) > 0;
        if whole > 9 || point != b'.' || !has_digit || end == SHORT - 2 || window[end] | 0x20 == b'e' {
            return None;
        }
        let places = end - 2 - usize::from(is_negative);
        let in_first = places.min(8);
        let in_second = places - in_first;
        // The digits move to the end of their word, with zeros before them; in the second word in
        // two steps, since it may be by 64 bits.
        let upper = eight_digits(first << (64 - 8 * in_first));
        let lower = eight_digits((second << 8) << (56 - 8 * in_second));
        let digits = (u64::from(whole) * SCALES[in_first] + upper) * SCALES[in_second] + lower;
        Some(Self { is_negative, digits, places, length: end })
    }

    /// The single nearest to this, unless that takes more than one multiplication.
    #[expect(clippy::inline_always, reason = "see `read`")]
    #[inline(always)]
    pub(super) fn to_f32(self) -> Option<f32> {
        let size = single_nearest(self.size() * INVERSE_POWERS[self.places])?;
        Some(f32::from_bits(size.to_bits() | u32::from(self.is_negative) << 31))
    }

    /// The double nearest to this, unless that takes more than one division.
    #[expect(clippy::inline_always, reason = "see `read`")]
    #[inline(always)]
    pub(super) fn to_f64(self) -> Option<f64> {
        let is_exact = self.digits <= 1 << f64::MANTISSA_DIGITS;
        let size = self.size() / POWERS[self.places];
        is_exact.then(|| f64::from_bits(size.to_bits() | u64::from(self.is_negative) << 63))
    }

    /// The digits as a double.
    #[inline]
    fn size(self) -> f64 {
        // At most 16 digits. A processor has no instruction for unsigned numbers.
        self.digits.cast_signed() as f64
    }
}

#[inline]
fn word_of_digits(window: &[u8; SHORT], at: usize) -> u64 {
    let word = window.get(at..at + 8).and_then(|word| word.first_chunk());
    u64::from_le_bytes(*word.unwrap_or(&[0; 8])) ^ ZEROS
}

/// The number that begins at `start`; `None` when what stands there is not one of JSON's.
#[inline]
pub(super) fn read(bytes: &[u8], start: usize) -> Option<Number<'_>> {
    let is_negative = bytes.get(start) == Some(&b'-');
    let mut at = start + usize::from(is_negative);
    let mut digits = Digits::default();
    let whole = at;
    if bytes.get(at) == Some(&b'0') {
        digits.append(0, 1);
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
    let text = &bytes[start..at];
    Some(Number { text, is_negative, is_whole, digits: digits.value(text), exponent })
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
    /// Leading zeros included.
    count: usize,
}

impl Digits {
    /// Takes the digits from `at` on; where they end. Eight bytes at a time, of which the digits
    /// are taken at once, however many they are: how long a number is, no branch predictor knows.
    #[inline]
    fn read(&mut self, bytes: &[u8], mut at: usize) -> usize {
        while let Some(eight) = bytes.get(at..at + 8).and_then(|eight| eight.first_chunk()) {
            let word = u64::from_le_bytes(*eight) ^ ZEROS;
            let length = leading_digits(word);
            if length < 8 {
                if length > 0 {
                    // The digits move to the end, with zeros before them.
                    self.append(eight_digits(word << (8 * (8 - length))), length);
                }
                return at + length;
            }
            self.append(eight_digits(word), 8);
            at += 8;
        }
        while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
            self.append(digit.into(), 1);
            at += 1;
        }
        at
    }

    /// Overflows only when there are too many digits to be used.
    #[inline]
    fn append(&mut self, digits: u64, count: usize) {
        self.value = self.value.wrapping_mul(SCALES[count]).wrapping_add(digits);
        self.count += count;
    }

    /// The digits of `text` as a number, when there are at most 19 behind leading zeros.
    #[inline]
    fn value(&self, text: &[u8]) -> Option<u64> {
        (self.count <= MOST_DIGITS || self.count - leading_zeros(text) <= MOST_DIGITS).then_some(self.value)
    }
}

/// So many digits always fit into 64 bits.
const MOST_DIGITS: usize = 19;

/// How many digits of a number are zeros before any other digit.
#[cold]
fn leading_zeros(text: &[u8]) -> usize {
    let zeros = text.iter().take_while(|byte| matches!(byte, b'-' | b'.' | b'0'));
    zeros.filter(|&&byte| byte == b'0').count()
}

/// The powers of ten by which up to eight digits more multiply those before them.
const SCALES: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// Eight times the digit 0: a text of digits XOR this are their values.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// How many of the first bytes of `word` (the lowest ones) are values of digits, 0 to 9.
#[inline]
fn leading_digits(word: u64) -> usize {
    byte_of(no_digits(word))
}

/// The highest bit of each byte of `word` that is no value of a digit, up to the first such one (the lowest); what the bits
/// above say may be wrong.
#[inline]
fn no_digits(word: u64) -> u64 {
    // A larger value gets its highest bit by the addition, or has it. What the addition carries
    // over goes to bytes behind the first such one, which decides.
    (word.wrapping_add(0x7676_7676_7676_7676) | word) & 0x8080_8080_8080_8080
}

/// The byte that the lowest bit is in; 8 when there is none.
#[inline]
fn byte_of(bits: u64) -> usize {
    bits.trailing_zeros() as usize / 8
}

/// The number that eight values of digits make, the first of them lowest: three multiplications
/// for all of them.
#[inline]
fn eight_digits(word: u64) -> u64 {
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    low.wrapping_add(high) >> 32
}

/// The powers of ten that a double holds exactly.
pub(super) const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Their inverses, rounded.
pub(super) const INVERSE_POWERS: [f64; 23] = [
    1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 1e-15, 1e-16, 1e-17,
    1e-18, 1e-19, 1e-20, 1e-21, 1e-22,
];

impl Number<'_> {
    /// How many bytes of text it takes.
    #[inline]
    pub(super) fn length(self) -> usize {
        self.text.len()
    }

    /// By the standard library; `None` when it does not fit.
    #[cold]
    fn parsed<T: std::str::FromStr>(self) -> Option<T> {
        std::str::from_utf8(self.text).ok()?.parse().ok()
    }

    /// The double nearest to this; infinite when it is too large for one.
    #[inline]
    pub(super) fn to_f64(self) -> f64 {
        self.exact().unwrap_or_else(|| self.parsed().unwrap_or(f64::NAN))
    }

    /// The single nearest to this; infinite when it is too large for one.
    #[inline]
    pub(super) fn to_f32(self) -> f32 {
        // Below the normal singles, the middles of two singles are elsewhere.
        let is_normal = |double: &f64| (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&double.abs());
        if let Some(single) = self.estimate().filter(is_normal).and_then(single_nearest) {
            return single;
        }
        if self.digits == Some(0) {
            return if self.is_negative { -0.0 } else { 0.0 };
        }
        self.parsed().unwrap_or(f32::NAN)
    }

    /// Digits and power of ten when both are exact in doubles, so that the one operation rounds
    /// once (Clinger 1990).
    #[inline]
    fn exact(self) -> Option<f64> {
        let digits = self.digits.filter(|&digits| digits <= 1 << f64::MANTISSA_DIGITS)? as f64;
        let power = POWERS.get(self.exponent.unsigned_abs() as usize)?;
        Some(signed(if self.exponent < 0 { digits / power } else { digits * power }, self.is_negative))
    }

    /// The digits, the power of ten (or its inverse, as a division takes several times as long as
    /// a multiplication) and their product are each rounded once: three roundings of half a unit,
    /// of which a product may be worth twice as much.
    #[inline]
    fn estimate(self) -> Option<f64> {
        let powers = if self.exponent < 0 { &INVERSE_POWERS } else { &POWERS };
        let power = powers.get(self.exponent.unsigned_abs() as usize)?;
        Some(signed(self.digits? as f64 * power, self.is_negative))
    }

    /// The whole number that this is written as; `None` when it does not fit, or is not whole.
    #[inline]
    pub(super) fn to_integer<T: TryFrom<i64> + TryFrom<u64>>(self) -> Option<T> {
        if !self.is_whole {
            return None;
        }
        // More than 19 digits fit into 64 bits at times.
        let digits = self.digits.or_else(|| self.parsed())?;
        if self.is_negative { T::try_from(0_i64.checked_sub_unsigned(digits)?).ok() } else { T::try_from(digits).ok() }
    }
}

impl Number<'_> {
    /// The whole number that this is, however it is written: `2.0`, `1e3`. `None` beyond 2⁵³, where floats are no longer exact.
    #[cold]
    pub(super) fn whole_float(self) -> Option<i64> {
        let float = self.to_f64();
        let is_exact = float.fract() == 0.0 && float.abs() <= (1_u64 << f64::MANTISSA_DIGITS) as f64;
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
        is_exact.then_some(float as i64)
    }
}

#[inline]
fn signed(size: f64, is_negative: bool) -> f64 {
    if is_negative { -size } else { size }
}

/// The single nearest to a number that is at most four units of the last place away from `double`,
/// which is zero or in the range of normal singles. `None` when the middle of two singles is so near.
#[inline]
fn single_nearest(double: f64) -> Option<f32> {
    /// The bits of a double that a single has no room for.
    const SPARE: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;
    let spare = double.to_bits() & ((1 << SPARE) - 1);
    #[expect(clippy::cast_possible_truncation, reason = "this is the rounding")]
    (spare.abs_diff(1 << (SPARE - 1)) > 4).then_some(double as f32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number<'_> {
        let number = read(text.as_bytes(), 0).unwrap();
        assert_eq!(number.text, text.as_bytes());
        number
    }

    /// Both floats, read in each of the ways, held against the standard library's.
    fn check(text: &str) {
        let followed = format!("{text},                    ");
        if let Some(short) = Short::read(followed.as_bytes(), 0) {
            assert_eq!(short.length, text.len(), "{text}");
            let single = short.to_f32().map(f32::to_bits);
            assert!(single.is_none_or(|bits| bits == text.parse::<f32>().unwrap().to_bits()), "{text}");
            let double = short.to_f64().map(f64::to_bits);
            assert!(double.is_none_or(|bits| bits == text.parse::<f64>().unwrap().to_bits()), "{text}");
        }
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
    fn short_number_is_one_digit_and_up_to_fifteen_places() {
        let read =
            |text: &str| Short::read(format!("{text}                      ").as_bytes(), 0).and_then(Short::to_f64);
        for text in ["0.5", "-0.25", "8.123456789012345", "-1.00000001", "0.0", "0.12345678", "0.123456789"] {
            assert_eq!(read(text), Some(text.parse().unwrap()), "{text}");
        }
        for other in ["1", "12.5", "1.5e3", "0.5E1", "0.1234567890123456", "1.", ".5", "-", "--1.5", "a.5", "1.a"] {
            assert_eq!(read(other), None, "{other}");
        }
        assert!(Short::read(b"0.5", 0).is_none(), "too near to the end");
    }

    #[test]
    fn number_ends_where_its_grammar_does() {
        for (text, end) in [("1,2", 1), ("-1.5e+3]", 7), ("0123", 1), ("1.5.5", 3), ("12345678,", 8), ("1e5e", 3)] {
            assert_eq!(read(text.as_bytes(), 0).unwrap().length(), end, "{text}");
        }
        for bad in ["", "-", "-a", ".5", "1.", "1.e5", "1e", "1e+", "+1", "a"] {
            assert!(read(bad.as_bytes(), 0).is_none(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_short_decimal_is_rounded_right(text in r"-?[0-9]\.[0-9]{1,17}") {
            check(&text);
        }

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
