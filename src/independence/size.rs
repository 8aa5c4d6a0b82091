//! Whole numbers as far as they are known: sizes of dimensions, and the elements of the small tensors with which
//! exporters compute shapes.

use smallvec::SmallVec;

/// A number that the model or the other dimensions of a request fix: the same in every run that is joined. Never
/// negative.
pub(super) type Symbol = u32;

/// Longer products become symbols of their own.
const LONGEST: usize = 12;

/// `factor × Nʳᵒʷˢ × the product of symbols`, with N, the number of rows that run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Size {
    factor: i64,
    rows: u32,
    /// Sorted.
    symbols: SmallVec<[Symbol; 4]>,
}

impl Size {
    pub(super) const ONE: Self = Self::fixed(1);
    /// The number of rows.
    pub(super) const ROWS: Self = Self { factor: 1, rows: 1, symbols: SmallVec::new_const() };

    pub(super) const fn fixed(factor: i64) -> Self {
        Self { factor, rows: 0, symbols: SmallVec::new_const() }
    }

    pub(super) fn symbol(symbol: Symbol) -> Self {
        Self { factor: 1, rows: 0, symbols: SmallVec::from_slice(&[symbol]) }
    }

    /// Its value, where it is the same for every model run.
    pub(super) fn known(&self) -> Option<i64> {
        (self.rows == 0 && self.symbols.is_empty() || self.factor == 0).then_some(self.factor)
    }

    pub(super) fn is(&self, value: i64) -> bool {
        self.known() == Some(value)
    }

    /// Whether it depends on how many rows run together.
    pub(super) fn counts_rows(&self) -> bool {
        self.rows > 0 && self.factor != 0
    }

    /// Whether it is N times something that does not depend on N.
    pub(super) fn is_rows(&self) -> bool {
        self.rows == 1 && self.factor > 0
    }

    /// Whether it is certainly below zero or not, whatever the symbols are; `None` for zero or what may be zero.
    pub(super) fn is_negative(&self) -> bool {
        self.factor < 0 && self.symbols.is_empty()
    }

    /// Certainly zero or more.
    pub(super) fn is_size(&self) -> bool {
        self.factor >= 0
    }

    /// Its factor, where it is that times N or nothing more: where no symbol can make a quotient whole.
    pub(super) fn known_factor(&self) -> Option<i64> {
        self.symbols.is_empty().then_some(self.factor)
    }

    /// Its symbol, where it has one.
    pub(super) fn only_symbol(&self) -> Option<Symbol> {
        match self.symbols[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// With this number for a symbol.
    pub(super) fn with(&self, symbol: Symbol, value: i64) -> Option<Self> {
        let mut factor = self.factor;
        let mut symbols = self.symbols.clone();
        while let Some(place) = symbols.iter().position(|known| *known == symbol) {
            symbols.remove(place);
            factor = factor.checked_mul(value)?;
        }
        Some(Self { factor, rows: self.rows, symbols })
    }

    pub(super) fn newest_symbol(&self) -> Option<Symbol> {
        self.symbols.last().copied()
    }

    /// `None` where it cannot be written.
    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        let mut symbols = self.symbols.clone();
        symbols.extend(other.symbols.iter().copied());
        symbols.sort_unstable();
        let rows = self.rows.checked_add(other.rows).filter(|&rows| rows < 8)?;
        let factor = self.factor.checked_mul(other.factor)?;
        (symbols.len() <= LONGEST).then_some(Self { factor, rows, symbols })
    }

    /// The quotient where it is exact whatever N and the symbols are (none of them being zero).
    pub(super) fn over(&self, other: &Self) -> Option<Self> {
        let mut symbols = self.symbols.clone();
        for symbol in &other.symbols {
            symbols.remove(symbols.iter().position(|known| known == symbol)?);
        }
        let rows = self.rows.checked_sub(other.rows)?;
        (other.factor != 0 && self.factor.checked_rem(other.factor)? == 0).then(|| Self {
            factor: self.factor / other.factor,
            rows,
            symbols,
        })
    }

    /// The sum where it can be written: of numbers, or of multiples of the same.
    pub(super) fn plus(&self, other: &Self) -> Option<Self> {
        if self.is(0) {
            return Some(other.clone());
        }
        if other.is(0) {
            return Some(self.clone());
        }
        (self.rows == other.rows && self.symbols == other.symbols)
            .then(|| Some(Self { factor: self.factor.checked_add(other.factor)?, ..self.clone() }))?
    }

    pub(super) fn negated(&self) -> Option<Self> {
        Some(Self { factor: self.factor.checked_neg()?, ..self.clone() })
    }

    /// The product of `sizes`.
    pub(super) fn product<'a>(sizes: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        sizes.into_iter().try_fold(Self::ONE, |product, size| product.times(size))
    }
}

/// An element of a small tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Number {
    Whole(Size),
    Real(f64),
    /// Some number that is the same whatever runs together.
    Some,
    /// Some number that depends on how many rows run together.
    Counted,
}

impl Number {
    pub(super) fn fixed(value: i64) -> Self {
        Self::Whole(Size::fixed(value))
    }

    pub(super) fn known(&self) -> Option<i64> {
        match self {
            Self::Whole(size) => size.known(),
            _ => None,
        }
    }

    pub(super) fn counts_rows(&self) -> bool {
        match self {
            Self::Whole(size) => size.counts_rows(),
            Self::Counted => true,
            Self::Real(_) | Self::Some => false,
        }
    }

    /// What is left of it when it cannot be followed.
    pub(super) fn some(counts_rows: bool) -> Self {
        if counts_rows { Self::Counted } else { Self::Some }
    }

    pub(super) fn size(&self) -> Option<&Size> {
        match self {
            Self::Whole(size) => Some(size),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_quotients() {
        let (n, s) = (Size::ROWS, Size::symbol(3));
        let six_n_s = n.times(&s).unwrap().times(&Size::fixed(6)).unwrap();
        assert_eq!(six_n_s.over(&Size::fixed(3)).unwrap().over(&s).unwrap(), n.times(&Size::fixed(2)).unwrap());
        assert_eq!(six_n_s.over(&Size::fixed(4)), None);
        assert_eq!(six_n_s.over(&Size::symbol(4)), None);
        assert_eq!(six_n_s.over(&Size::fixed(0)), None);
        assert_eq!(Size::fixed(i64::MAX).times(&Size::fixed(2)), None);
        assert_eq!(Size::fixed(i64::MIN).over(&Size::fixed(-1)), None);
        assert!(six_n_s.is_rows() && !s.is_rows() && !n.times(&n).unwrap().is_rows());
        assert_eq!(n.plus(&n), n.times(&Size::fixed(2)));
        assert_eq!(n.plus(&Size::ONE), None);
    }
}
