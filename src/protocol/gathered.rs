//! Where the pieces of a body are put together, so that the elements in it lie as a run needs them.
//!
//! ONNX Runtime reads elements in place only where they are aligned for their type. They stand behind text of any length,
//! so three of four floats would have to be copied once more; some bytes of nothing before that text prevent it.

use bytes::{Buf, Bytes};

/// As far as any element must be aligned, and an allocation is.
const ALIGNMENT: usize = 16;

/// The pieces of a body, one behind the other.
#[derive(Debug)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    /// Bytes before the body that mean nothing.
    skipped: usize,
}

impl Gathered {
    /// Room for `room` bytes. The byte at `place` of the body will be aligned.
    pub(super) fn new(room: usize, place: usize) -> Self {
        let skipped = place.wrapping_neg() % ALIGNMENT;
        let mut bytes = Vec::with_capacity(skipped + room);
        bytes.resize(skipped, 0);
        Self { bytes, skipped }
    }

    /// A copy of `body`.
    pub(super) fn copy_of(body: &[u8], place: usize) -> Bytes {
        let mut gathered = Self::new(body.len(), place);
        gathered.append(body);
        gathered.into_bytes()
    }

    pub(super) fn append(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// Bytes of the body so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.skipped
    }

    /// Bytes that the body may have without more memory.
    pub(super) fn room(&self) -> usize {
        self.bytes.capacity() - self.skipped
    }

    /// Makes room for a body of `room` bytes.
    pub(super) fn grow_to(&mut self, room: usize) {
        self.bytes.reserve_exact(room.saturating_sub(self.len()));
    }

    pub(super) fn into_bytes(self) -> Bytes {
        let mut bytes = Bytes::from(self.bytes);
        bytes.advance(self.skipped);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_aligned_wherever_they_begin_and_however_the_body_grows() {
        let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        for place in 0..40 {
            let mut gathered = Gathered::new(100, place);
            for piece in body.chunks(777) {
                let length = gathered.len() + piece.len();
                if length > gathered.room() {
                    gathered.grow_to(length);
                }
                gathered.append(piece);
            }
            for bytes in [gathered.into_bytes(), Gathered::copy_of(&body, place)] {
                assert_eq!(bytes, body);
                assert_eq!(bytes[place..].as_ptr().align_offset(8), 0, "{place}");
            }
        }
        assert!(Gathered::copy_of(b"", 3).is_empty());
    }
}
