//! What is kept of a monitor over a restart: its counts, in a file of their own.
//!
//! The file is a line of text that says what it is, and the counts as deflated numbers, each as its difference from
//! the one `cells` before it (a sub-window differs little from the last) in as many groups of seven bits as it needs.

use std::{
    fmt,
    io::{Read, Write},
    str::FromStr,
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};

use super::{SegmentName, leb128};
use crate::domain::Version;

/// The first line of the file, with the number of the format.
const HEAD: &[u8] = b"tidegate monitor counts 1\n";
/// More than this in a list is no counts of ours.
const MAX_NUMBERS: u64 = 1 << 24;
/// Nor are more inflated bytes than these in all; each is a number at most.
const MAX_BYTES: u64 = 1 << 27;

/// Counters and what windows noted of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SavedCounts {
    pub(super) totals: Vec<u64>,
    pub(super) rings: Vec<SavedRing>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SavedRing {
    pub(super) length_millis: u64,
    /// The latest sub-window that is noted.
    pub(super) latest: u64,
    pub(super) starts: Vec<u64>,
}

/// What counts in a file are of, as their name says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All rows of the version.
    All,
    /// Its rows of one segment: the only name with `=` in it.
    Segment(SegmentName),
    /// The rows of this version as canary.
    Canary(Version),
    /// All rows of the version before the first one of this canary; only the totals.
    BeforeCanary(Version),
}

const CANARY: &str = "canary ";
const BEFORE_CANARY: &str = "before canary ";

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::Segment(name) => name.fmt(f),
            Self::Canary(version) => write!(f, "{CANARY}{version}"),
            Self::BeforeCanary(version) => write!(f, "{BEFORE_CANARY}{version}"),
        }
    }
}

/// The name is none that this program writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownPart;

impl FromStr for Part {
    type Err = UnknownPart;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let version = |text: &str| text.parse().map_err(|_| UnknownPart);
        if name.is_empty() {
            Ok(Self::All)
        } else if let Ok(segment) = name.parse() {
            Ok(Self::Segment(segment))
        } else if let Some(text) = name.strip_prefix(CANARY) {
            version(text).map(Self::Canary)
        } else {
            version(name.strip_prefix(BEFORE_CANARY).ok_or(UnknownPart)?).map(Self::BeforeCanary)
        }
    }
}

/// Why a file of counts is not read.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    #[error("the file is none of monitor counts, or of a later format")]
    Head,
    #[error("the counts are damaged: {0}")]
    Damaged(#[from] std::io::Error),
    #[error("the counts are damaged: they announce {0} numbers")]
    TooMany(u64),
}

/// The content of a file: counts of the profile with this digest, and of everything else by name.
pub(super) fn encode(digest: u64, counts: &[(String, SavedCounts)]) -> std::io::Result<Vec<u8>> {
    let mut writer = DeflateEncoder::new(HEAD.to_vec(), Compression::fast());
    let mut numbers = Numbers(&mut writer);
    numbers.put(digest)?;
    numbers.put(counts.len() as u64)?;
    for (name, SavedCounts { totals, rings }) in counts {
        numbers.put(name.len() as u64)?;
        numbers.0.write_all(name.as_bytes())?;
        numbers.put_all(totals, totals.len())?;
        numbers.put(rings.len() as u64)?;
        for SavedRing { length_millis, latest, starts } in rings {
            numbers.put(*length_millis)?;
            numbers.put(*latest)?;
            numbers.put_all(starts, totals.len())?;
        }
    }
    writer.finish()
}

/// The counts in a file; `None` when they are of another profile than that with this digest.
///
/// # Errors
/// When the bytes are no such file. Never panics, and takes no more than 1 GiB of memory, whatever a file inflates to.
pub(super) fn decode(digest: u64, bytes: &[u8]) -> Result<Option<Vec<(String, SavedCounts)>>, SavedError> {
    let deflated = bytes.strip_prefix(HEAD).ok_or(SavedError::Head)?;
    let mut reader = DeflateDecoder::new(deflated).take(MAX_BYTES);
    let mut numbers = Numbers(&mut reader);
    if numbers.take()? != digest {
        return Ok(None);
    }
    let mut counts = Vec::new();
    for _ in 0..numbers.take()? {
        let length = numbers.take()?;
        if length > MAX_NUMBERS {
            return Err(SavedError::TooMany(length));
        }
        let mut name = String::new();
        (&mut *numbers.0).take(length).read_to_string(&mut name)?;
        let totals = numbers.take_all(None)?;
        let mut rings = Vec::new();
        for _ in 0..numbers.take()? {
            let (length_millis, latest) = (numbers.take()?, numbers.take()?);
            rings.push(SavedRing { length_millis, latest, starts: numbers.take_all(Some(totals.len()))? });
        }
        counts.push((name, SavedCounts { totals, rings }));
    }
    Ok(Some(counts))
}

struct Numbers<T>(T);

impl<W: Write> Numbers<W> {
    fn put(&mut self, number: u64) -> std::io::Result<()> {
        leb128::put(&mut self.0, number)
    }

    fn put_all(&mut self, numbers: &[u64], cells: usize) -> std::io::Result<()> {
        self.put(numbers.len() as u64)?;
        for (at, number) in numbers.iter().enumerate() {
            let before = at.checked_sub(cells.max(1)).map_or(0, |before| numbers[before]);
            // Zigzag, so that a small step down is small too.
            let step = number.wrapping_sub(before).cast_signed();
            self.put(((step << 1) ^ (step >> 63)).cast_unsigned())?;
        }
        Ok(())
    }
}

impl<R: Read> Numbers<R> {
    fn take(&mut self) -> std::io::Result<u64> {
        leb128::take(&mut self.0)
    }

    /// `cells`: how many numbers lie between a number and the one it differs from; `None`: all of them.
    fn take_all(&mut self, cells: Option<usize>) -> Result<Vec<u64>, SavedError> {
        let length = self.take()?;
        if length > MAX_NUMBERS {
            return Err(SavedError::TooMany(length));
        }
        let mut numbers: Vec<u64> = Vec::new();
        for at in 0..usize::try_from(length).unwrap_or(usize::MAX) {
            let zigzag = self.take()?;
            let step = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
            let before = cells.and_then(|cells| at.checked_sub(cells.max(1))).map_or(0, |before| numbers[before]);
            numbers.push(before.wrapping_add(step));
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts() -> impl Strategy<Value = SavedCounts> {
        let ring = (any::<u64>(), any::<u64>(), prop::collection::vec(any::<u64>(), 0..40));
        let ring = ring.prop_map(|(length_millis, latest, starts)| SavedRing { length_millis, latest, starts });
        (prop::collection::vec(any::<u64>(), 0..10), prop::collection::vec(ring, 0..4))
            .prop_map(|(totals, rings)| SavedCounts { totals, rings })
    }

    #[test]
    fn seed_of_the_fuzzer_with_a_canary_has_every_part() {
        let seed = include_bytes!("../../fuzz/corpus/monitor_counts/canary");
        let names: Vec<_> = decode(0, seed).unwrap().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["", "canary 2", "before canary 2"]);
    }

    #[test]
    fn part_is_read_from_its_name_and_another_name_is_none() {
        let segment = |key: &str, value: &str| Part::Segment(SegmentName { key: key.into(), value: value.into() });
        let version = Version::new(12).unwrap();
        let segments = [segment("country", "DE"), segment("canary 12", ""), segment("", "before canary 12=")];
        for part in segments.into_iter().chain([Part::All, Part::Canary(version), Part::BeforeCanary(version)]) {
            assert_eq!(part.to_string().parse(), Ok(part));
        }
        for name in ["canary", "canary 0", "canary x", "before canary ", "later"] {
            assert_eq!(name.parse::<Part>(), Err(UnknownPart), "{name}");
        }
    }

    proptest! {
        #[test]
        fn counts_survive_their_file(digest: u64, saved in prop::collection::vec(("[a-zé=]{0,9}", counts()), 0..4)) {
            let bytes = encode(digest, &saved).unwrap();
            prop_assert_eq!(decode(digest, &bytes).unwrap(), Some(saved));
            prop_assert_eq!(decode(digest ^ 1, &bytes).unwrap(), None);
        }

        #[test]
        fn cut_file_is_an_error_or_lacks_nothing(saved in counts(), cut: prop::sample::Index) {
            let saved = [(String::new(), saved)];
            let bytes = encode(7, &saved).unwrap();
            let end = cut.index(bytes.len());
            // The last bytes say nothing but that this is the end.
            if let Ok(read) = decode(7, &bytes[..end]) {
                prop_assert_eq!(read, Some(saved.to_vec()));
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>, headed: bool) {
            let bytes = if headed { [HEAD, &bytes].concat() } else { bytes };
            let _ = decode(0, &bytes);
        }
    }
}
