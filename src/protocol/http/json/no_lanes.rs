//! In place of `lanes` where there is no AVX2: numbers are read one by one.

/// Reads nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes;

impl Lanes {
    pub(super) fn new() -> Self {
        Self
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self
    }

    /// The place `start`, behind no number.
    #[expect(clippy::unused_self, reason = "as the other")]
    pub(super) fn singles(&mut self, _: &[u8], start: usize, _: &mut Vec<[u8; 4]>) -> usize {
        start
    }

    /// The place `start`, behind no number.
    #[expect(clippy::unused_self, reason = "as the other")]
    pub(super) fn doubles(&mut self, _: &[u8], start: usize, _: &mut Vec<[u8; 8]>) -> usize {
        start
    }
}
