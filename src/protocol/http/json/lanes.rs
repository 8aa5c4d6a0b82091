//! The numbers of a list, four at once, with the instructions of AVX2.
//!
//! One number after the other, each waits for where the one before it ends. Here all ends of a stretch of text are found
//! first, by its commas. Then the 16 bytes that end with a number are taken, what stands before the number is made zero, the
//! point is taken out, and the digits are put together in pairs, fours and eights (as in "Faster integer parsing" by
//! Johnny Lee and W. Muła), of two numbers in each register. Nothing branches on a number's sign, length or place of the point.
//!
//! Taken are numbers of at most 15 bytes behind their sign, without exponent, behind a comma and no blank, or one blank each.
//! Whatever else stands in the text ends the reading: it goes on with the numbers one by one, which also finds the faults.

use std::arch::x86_64::{
    __m256d, __m256i, _CMP_LT_OQ, _mm256_add_epi32, _mm256_add_epi64, _mm256_and_si256, _mm256_andnot_pd,
    _mm256_castpd_si256, _mm256_castsi128_si256, _mm256_castsi256_pd, _mm256_cmp_pd, _mm256_cmpeq_epi8,
    _mm256_cmpgt_epi32, _mm256_cvtpd_ps, _mm256_div_pd, _mm256_inserti128_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_max_epu8, _mm256_movemask_epi8, _mm256_mul_epu32, _mm256_mul_pd, _mm256_or_si256,
    _mm256_packus_epi32, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_pd,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi64, _mm256_sub_pd, _mm256_subs_epu8,
    _mm256_testz_si256, _mm256_xor_si256,
};

use bytemuck::must_cast;
use fearless_simd::{Avx2, Level};

use super::number::{INVERSE_POWERS, POWERS};

/// Text whose numbers are found at once: their ends fit into bytes.
const STRETCH: usize = 256;
/// Before it as much as is looked at of a number that ends with its first byte, and as much behind it.
const AROUND: usize = 16;
const WINDOW: usize = AROUND + STRETCH + AROUND;

/// A try that ends within a list after fewer numbers than these did not pay.
const FEW: usize = 16;

/// Reads numbers by fours, and rests after tries that did not pay: twice as long each time, as a list is mostly of one kind.
#[derive(Debug, Clone)]
pub(super) struct Lanes {
    avx2: Option<Avx2>,
    /// How many tries are still left out.
    rests: u32,
    /// How many the next time.
    next_rest: u32,
}

impl Lanes {
    /// As the processor can.
    pub(super) fn new() -> Self {
        Self { avx2: Level::new().as_avx2(), rests: 0, next_rest: 1 }
    }

    /// Reads nothing.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { avx2: None, ..Self::new() }
    }

    /// Appends the singles of the list whose next number is at `start`, as many as there are of the usual form. The place
    /// of the comma or bracket behind the last; `start` when it is none.
    pub(super) fn singles(&mut self, bytes: &[u8], start: usize, to: &mut Vec<[u8; 4]>) -> usize {
        self.read(start, bytes, to, singles)
    }

    /// As [`Self::singles`], of doubles.
    pub(super) fn doubles(&mut self, bytes: &[u8], start: usize, to: &mut Vec<[u8; 8]>) -> usize {
        self.read(start, bytes, to, doubles)
    }

    #[inline]
    fn read<T>(
        &mut self,
        start: usize,
        bytes: &[u8],
        to: &mut Vec<T>,
        kernel: fn(Avx2, &[u8], usize, &mut Vec<T>) -> usize,
    ) -> usize {
        let Some(avx2) = self.avx2 else { return start };
        if self.rests > 0 {
            self.rests -= 1;
            return start;
        }
        let before = to.len();
        let end = kernel(avx2, bytes, start, to);
        if to.len() - before >= FEW || bytes.get(end) == Some(&b']') {
            self.next_rest = 1;
        } else {
            self.rests = self.next_rest;
            self.next_rest = (self.next_rest * 2).min(64);
        }
        end
    }
}

fearless_simd::kernel!(
    fn singles(avx2: Avx2, bytes: &[u8], start: usize, to: &mut Vec<[u8; 4]>) -> usize {
        list(bytes, start, to)
    }
);

fearless_simd::kernel!(
    fn doubles(avx2: Avx2, bytes: &[u8], start: usize, to: &mut Vec<[u8; 8]>) -> usize {
        list(bytes, start, to)
    }
);

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn list<const SIZE: usize>(bytes: &[u8], start: usize, to: &mut Vec<[u8; SIZE]>) -> usize {
    let Some(head) = bytes.get(start..).and_then(|rest| rest.first_chunk::<32>()) else { return start };
    let commas = _mm256_movemask_epi8(_mm256_cmpeq_epi8(must_cast(*head), all(b','))).cast_unsigned();
    let behind = start + commas.trailing_zeros() as usize + 1;
    if bytes.get(behind) == Some(&b' ') {
        stretches::<SIZE, 1>(bytes, start, to)
    } else {
        stretches::<SIZE, 0>(bytes, start, to)
    }
}

/// The numbers of a list that have `GAP` blanks behind each comma.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn stretches<const SIZE: usize, const GAP: usize>(bytes: &[u8], start: usize, to: &mut Vec<[u8; SIZE]>) -> usize {
    let mut ends = Ends { places: [0; Ends::ROOM], count: 0, is_last: false };
    let mut padded;
    // Where the next number begins, and where the last one ended.
    let (mut at, mut end) = (start, start);
    loop {
        let Some(from) = at.checked_sub(AROUND) else { return end };
        let Some(rest) = bytes.get(from..) else { return end };
        let window = if let Some(window) = rest.first_chunk::<WINDOW>() {
            window
        } else {
            padded = [0; WINDOW];
            padded[..rest.len()].copy_from_slice(rest);
            &padded
        };
        ends.find::<GAP>(window);
        let mut done = 0;
        while done + 4 <= ends.count
            && let Some(four) = ends.four(done)
            && let Some(elements) = four_floats::<SIZE, GAP>(window, four)
        {
            to.extend_from_slice(&elements);
            done += 4;
        }
        let left = ends.count - done;
        if done == 0 {
            return end;
        }
        end = at + ends.end(done);
        if left >= 4 {
            return end;
        }
        if ends.is_last {
            // The last four, of which some have been read already.
            if left > 0
                && let Some(four) = ends.four(ends.count - 4)
                && let Some(elements) = four_floats::<SIZE, GAP>(window, four)
            {
                to.extend_from_slice(&elements[4 - left..]);
                end = at + ends.end(ends.count);
            }
            return end;
        }
        at = end + 1 + GAP;
    }
}

/// Where the numbers of a stretch end.
struct Ends {
    /// Where a comma before the first number would stand, and the first byte behind each number.
    places: [u8; Self::ROOM],
    count: usize,
    /// The list ends with the last of them, or goes on in another way.
    is_last: bool,
}

impl Ends {
    /// As many as there may be, and a block more, of which all is written to at once.
    const ROOM: usize = 1 + STRETCH + 64;

    /// Before the first number of a stretch, and behind it, in bytes from where the stretch begins.
    #[inline]
    fn four(&self, first: usize) -> Option<&[u8; 5]> {
        self.places.get(first..)?.first_chunk()
    }

    /// How far behind a comma the next number begins.
    const fn behind<const GAP: usize>() -> u8 {
        if GAP == 0 { 1 } else { 2 }
    }

    /// Behind so many numbers.
    #[inline]
    fn end(&self, count: usize) -> usize {
        self.places[count].into()
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    #[inline]
    fn find<const GAP: usize>(&mut self, window: &[u8; WINDOW]) {
        // As far before the first number as a comma.
        self.places[0] = 0_u8.wrapping_sub(Self::behind::<GAP>());
        self.count = 0;
        self.is_last = false;
        for base in (0..STRETCH).step_by(64) {
            let part = |at: usize| -> __m256i {
                let part = window[AROUND + base + at..].first_chunk::<32>();
                must_cast(*part.unwrap_or(&[0; 32]))
            };
            let (low, high) = (part(0), part(32));
            let mut found = mask(_mm256_cmpeq_epi8(low, all(b',')), _mm256_cmpeq_epi8(high, all(b',')));
            // Letters and brackets are above the digits.
            let above = _mm256_subs_epu8(_mm256_max_epu8(low, high), all(b'9'));
            let mut bracket = 0;
            if _mm256_testz_si256(above, above) == 0 {
                self.is_last = true;
                let digits = |part| _mm256_cmpeq_epi8(_mm256_max_epu8(part, all(b'9')), all(b'9'));
                let other = !mask(digits(low), digits(high));
                let first = other & other.wrapping_neg();
                found &= first.wrapping_sub(1);
                if window[AROUND + base + (other.trailing_zeros() as usize & 63)] == b']' {
                    bracket = first;
                }
            }
            if GAP == 1 {
                let blanks = mask(_mm256_cmpeq_epi8(part(1), all(b' ')), _mm256_cmpeq_epi8(part(33), all(b' ')));
                let others = found & !blanks;
                if others != 0 {
                    self.is_last = true;
                    // Up to the first of them.
                    found &= others ^ others.wrapping_sub(1);
                    bracket = 0;
                }
            }
            self.note(base, found | bracket);
            if self.is_last {
                return;
            }
        }
    }

    /// Notes the places of the bits of `found`, for most texts without a branch on how many there are.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    #[inline]
    fn note(&mut self, base: usize, mut found: u64) {
        let count = found.count_ones() as usize;
        let mut take = |places: &mut [u8]| {
            for place in places {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "a place in the stretch, or one that is not counted"
                )]
                let at = (base as u32 + found.trailing_zeros()) as u8;
                *place = at;
                found &= found.wrapping_sub(1);
            }
        };
        if let Some(places) = self.places[1 + self.count..].first_chunk_mut::<64>() {
            take(&mut places[..8]);
            if count > 8 {
                take(&mut places[8..16]);
                take(&mut places[16..count.max(16)]);
            }
        }
        self.count += count;
    }
}

/// The elements of four numbers, between the places of five commas; `None` unless all are of the usual form, and certain.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "from memory bytes are taken one by one, without shifts")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn four_floats<const SIZE: usize, const GAP: usize>(window: &[u8; WINDOW], ends: &[u8; 5]) -> Option<[[u8; SIZE]; 4]> {
    let mut signs = [0; 4];
    let (mut lengths, mut longest) = ([0; 4], 0);
    for number in 0..4 {
        let start = usize::from(ends[number].wrapping_add(Ends::behind::<GAP>()));
        signs[number] = usize::from(window[AROUND + start] == b'-');
        let length = usize::from(ends[number + 1]).wrapping_sub(start + signs[number]);
        lengths[number] = length & LONGEST;
        longest |= length;
    }
    // A number in each half of two registers, so that they come out in order.
    let mut points = [0; 4];
    let mut wrong = _mm256_setzero_si256();
    let mut fours = [_mm256_setzero_si256(); 2];
    for one in 0..2 {
        let other = one + 2;
        let [first, second] = [usize::from(ends[one + 1]), usize::from(ends[other + 1])];
        let text = _mm256_xor_si256(halves(sixteen(window, first), sixteen(window, second)), all(b'0'));
        let kept = halves(sixteen(&KEPT.0, lengths[one]), sixteen(&KEPT.0, lengths[other]));
        let text = _mm256_and_si256(text, kept);
        let point = _mm256_movemask_epi8(_mm256_cmpeq_epi8(text, all(b'.' ^ b'0'))).cast_unsigned();
        // The first, or 16.
        points[one] = (point | 1 << 16).trailing_zeros() as usize;
        points[other] = (point >> 16 | 1 << 16).trailing_zeros() as usize;
        let digits = _mm256_shuffle_epi8(text, halves(&WITHOUT_POINT[points[one]], &WITHOUT_POINT[points[other]]));
        wrong = _mm256_or_si256(wrong, _mm256_subs_epu8(digits, all(9)));
        let pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(i16::from_le_bytes([10, 1])));
        fours[one] = _mm256_madd_epi16(pairs, _mm256_set1_epi32(100 + (1 << 16)));
    }
    let fours = _mm256_packus_epi32(fours[0], fours[1]);
    let eights = _mm256_madd_epi16(fours, _mm256_set1_epi32(10_000 + (1 << 16)));
    let upper = _mm256_mul_epu32(eights, _mm256_set1_epi64x(100_000_000));
    let digits = _mm256_add_epi64(upper, _mm256_srli_epi64::<32>(eights));
    // At most 15 digits, so under 2^52: there a double's last bits are those of its whole number.
    let whole = _mm256_set1_pd(TWO_TO_52);
    let digits = _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(digits, _mm256_castpd_si256(whole))), whole);
    let (mut scales, mut least) = ([0.0; 4], [0.0; 4]);
    for number in 0..4 {
        let by_point = if SIZE == 4 { &SIGNED_INVERSES } else { &SIGNED_POWERS };
        scales[number] = by_point[points[number]][signs[number]];
        least[number] = LEAST[points[number] + lengths[number]];
    }
    let (value, bytes): (__m256d, [u8; 32]);
    if SIZE == 4 {
        value = _mm256_mul_pd(digits, must_cast(scales));
        wrong = _mm256_or_si256(wrong, near_middles_of_singles(value));
        let singles: [u8; 16] = must_cast(_mm256_cvtpd_ps(value));
        bytes = must_cast([singles, [0; 16]]);
    } else {
        value = _mm256_div_pd(digits, must_cast(scales));
        bytes = must_cast(value);
    }
    let size = _mm256_andnot_pd(_mm256_set1_pd(-0.0), value);
    wrong = _mm256_or_si256(wrong, _mm256_castpd_si256(_mm256_cmp_pd::<_CMP_LT_OQ>(size, must_cast(least))));
    if longest > LONGEST || _mm256_testz_si256(wrong, wrong) == 0 {
        return None;
    }
    bytes.as_chunks::<SIZE>().0.first_chunk().copied()
}

/// All ones in the lower half of each double that is so near to the middle of two singles that the nearest is not certain, by
/// the same rule as for a single number (`single_nearest`). Digits are exact here, a power and the product are rounded.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn near_middles_of_singles(doubles: __m256d) -> __m256i {
    // The 29 bits that a single has no room for go to the top of the lower half, and a distance of at most 4 units from their
    // middle to the lowest 65 of signed numbers. Nothing is below the lowest, which is the limit of the upper halves.
    let spare = _mm256_slli_epi32::<3>(_mm256_castpd_si256(doubles));
    let moved = _mm256_add_epi32(spare, _mm256_set1_epi32(4 << 3));
    let limits = (i64::from(i32::MIN) << 32) | i64::from((i32::MIN + (8 << 3) + 1).cast_unsigned());
    _mm256_cmpgt_epi32(_mm256_set1_epi64x(limits), moved)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn all(byte: u8) -> __m256i {
    _mm256_set1_epi8(byte.cast_signed())
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn halves(low: &[u8; 16], high: &[u8; 16]) -> __m256i {
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(must_cast(*low)), must_cast(*high))
}

/// The 16 bytes from `at` on, which must be there.
#[expect(clippy::inline_always, reason = "a call in the middle of this would move all registers to memory")]
#[inline(always)]
fn sixteen<const SIZE: usize>(bytes: &[u8; SIZE], at: usize) -> &[u8; 16] {
    bytes[at..].first_chunk().unwrap_or(&[0; 16])
}

/// The highest bits of 64 bytes.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn mask(low: __m256i, high: __m256i) -> u64 {
    let bits = |part: __m256i| u64::from(_mm256_movemask_epi8(part).cast_unsigned());
    bits(low) | bits(high) << 32
}

const TWO_TO_52: f64 = 4_503_599_627_370_496.0;

/// The bytes of the longest number that is taken, without its sign. As a mask, it makes any length one of them.
const LONGEST: usize = 15;

/// From a number's length on, the 16 bytes that leave the number of what ends with it.
static KEPT: Aligned<32> = {
    let mut kept = [0xff; 32];
    let mut at = 0;
    while at < 16 {
        kept[at] = 0;
        at += 1;
    }
    Aligned(kept)
};

#[repr(align(64))]
struct Aligned<const SIZE: usize>([u8; SIZE]);

/// By the place of the point: an order of bytes in which those before it are moved over it. A point behind which nothing stands
/// stays, and is found to be no digit.
static WITHOUT_POINT: [[u8; 16]; 32] = {
    let mut orders = [[0; 16]; 32];
    let mut point = 0;
    while point < 32 {
        let mut at = 0_u8;
        while at < 16 {
            orders[point][at as usize] = match at {
                0 if point < 15 => 0x80,
                _ if point < 15 && at as usize <= point => at - 1,
                _ => at,
            };
            at += 1;
        }
        point += 1;
    }
    orders
};

/// By the place of the point: the power of ten that the digits are to be divided by, and that of a negative number.
static SIGNED_POWERS: [[f64; 2]; 32] = by_point(&POWERS);
/// What they are to be multiplied with.
static SIGNED_INVERSES: [[f64; 2]; 32] = by_point(&INVERSE_POWERS);

const fn by_point(powers: &[f64]) -> [[f64; 2]; 32] {
    let mut signed = [[1.0, -1.0]; 32];
    let mut point = 0;
    while point < 15 {
        signed[point] = [powers[15 - point], -powers[15 - point]];
        point += 1;
    }
    signed
}

/// By the place of the point and the number's length: what a number is at least that has so many digits before the point,
/// and no zero before them. There are 16 less; with none, a number cannot be large enough.
///
/// A little less than the powers of ten, as products are rounded; but more than any number that begins with a zero, which
/// has 13 further digits at most.
static LEAST: [f64; 64] = {
    let mut least = [f64::INFINITY; 64];
    least[17] = 0.0;
    let mut digits = 2;
    while digits <= LONGEST {
        least[16 + digits] = POWERS[digits - 1] * (1.0 - 4e-15);
        digits += 1;
    }
    least
};

#[cfg(test)]
mod tests;
