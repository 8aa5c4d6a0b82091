//! Collected rows as bytes, to be kept over a restart.
//!
//! Of a column's numbers all first bytes come first, then all second ones, and so on: what was a narrower number is zeros
//! at one end, and exponents are alike, so that it deflates well.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, ErrorKind, Read, Write},
};

use super::{Collected, MAX_COLUMNS, MAX_WHOLE_CATEGORIES, Parts, ProfileBuilder, Source, Values};
use crate::monitor::leb128::{put, take};

/// More bytes than these in one list are none of ours.
const MAX_BYTES: u64 = 1 << 30;
/// More values of one column, counted together, are none of ours either.
const MAX_VALUES: u64 = 1 << 24;

impl ProfileBuilder {
    /// Writes what was collected; the names of columns are not part of it.
    ///
    /// # Errors
    /// Those of the writer.
    pub(in crate::monitor) fn encode(&self, writer: &mut impl Write) -> io::Result<()> {
        put(writer, self.rows)?;
        for tensors in [&self.inputs, &self.outputs] {
            put(writer, tensors.len() as u64)?;
            tensors.iter().try_for_each(|collected| collected.encode(writer))?;
        }
        Ok(())
    }

    /// What [`ProfileBuilder::encode`] wrote.
    ///
    /// # Errors
    /// Those of the reader, and when it is nothing of the kind. Never panics, and keeps no more than was read.
    pub(in crate::monitor) fn decode(reader: &mut impl Read) -> io::Result<Self> {
        let rows = take(reader)?;
        let mut tensors = || (0..take(reader)?).map(|_| Collected::decode(reader)).collect::<io::Result<Vec<_>>>();
        Ok(Self { rows, inputs: tensors()?, outputs: tensors()?, ..Self::default() })
    }
}

impl Collected {
    fn encode(&self, writer: &mut impl Write) -> io::Result<()> {
        put_bytes(writer, self.tensor.as_bytes())?;
        let values = match &self.parts {
            Ok(Parts::Columns(values)) => {
                put(writer, if self.is_double { 3 } else { 0 })?;
                put(writer, values.len() as u64)?;
                values
            }
            Ok(Parts::Wide { columns, derived }) => {
                put(writer, 1)?;
                put(writer, *columns as u64)?;
                derived
            }
            Err(reason) => {
                put(writer, 2)?;
                return put_bytes(writer, reason.as_bytes());
            }
        };
        values.iter().try_for_each(|values| values.encode(writer))
    }

    fn decode(reader: &mut impl Read) -> io::Result<Self> {
        let (tensor, kind) = (text(reader)?, take(reader)?);
        let parts = match kind {
            0 | 3 => {
                let columns = take(reader)?;
                if columns > MAX_COLUMNS as u64 {
                    return Err(damaged("too many columns"));
                }
                Ok(Parts::Columns((0..columns).map(|_| Values::decode(reader)).collect::<io::Result<_>>()?))
            }
            1 => {
                let columns = usize::try_from(take(reader)?).map_err(io::Error::other)?;
                let derived = Source::OF_WIDE.iter().map(|_| Values::decode(reader)).collect::<io::Result<_>>()?;
                Ok(Parts::Wide { columns, derived })
            }
            2 => Err(text(reader)?),
            _ => return Err(damaged("a tensor of an unknown kind")),
        };
        Ok(Self { tensor, is_double: kind == 3, parts })
    }
}

impl Values {
    fn encode(&self, writer: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Numbers(numbers) => {
                put(writer, 0)?;
                put_numbers(writer, numbers)
            }
            Self::Wholes(numbers, None) => {
                put(writer, 1)?;
                put_numbers(writer, numbers)
            }
            Self::Wholes(numbers, Some(counts)) => {
                put(writer, 2)?;
                put_numbers(writer, numbers)?;
                put(writer, counts.len() as u64)?;
                counts.iter().try_for_each(|(whole, count)| {
                    writer.write_all(&whole.to_le_bytes())?;
                    put(writer, *count)
                })
            }
            Self::Flags(flags) => {
                put(writer, 3)?;
                flags.iter().try_for_each(|count| put(writer, *count))
            }
            Self::Texts(counts) => {
                put(writer, 4)?;
                put(writer, counts.len() as u64)?;
                counts.iter().try_for_each(|(text, count)| {
                    put_bytes(writer, text)?;
                    put(writer, *count)
                })
            }
            Self::Ignored => put(writer, 5),
        }
    }

    fn decode(reader: &mut impl Read) -> io::Result<Self> {
        Ok(match take(reader)? {
            0 => Self::Numbers(numbers(reader)?),
            1 => Self::Wholes(numbers(reader)?, None),
            2 => {
                let (numbers, mut counts, mut left) = (numbers(reader)?, BTreeMap::new(), MAX_VALUES);
                for _ in 0..take(reader)? {
                    let mut whole = [0; size_of::<i128>()];
                    reader.read_exact(&mut whole)?;
                    counts.insert(i128::from_le_bytes(whole), count(reader, &mut left)?);
                }
                Self::Wholes(numbers, (counts.len() <= MAX_WHOLE_CATEGORIES).then_some(counts))
            }
            3 => {
                let mut left = MAX_VALUES;
                Self::Flags([count(reader, &mut left)?, count(reader, &mut left)?])
            }
            4 => {
                let (mut counts, mut left) = (HashMap::new(), MAX_VALUES);
                for _ in 0..take(reader)? {
                    let text = bytes(reader)?;
                    counts.insert(text.into(), count(reader, &mut left)?);
                }
                Self::Texts(counts)
            }
            5 => Self::Ignored,
            _ => return Err(damaged("values of an unknown kind")),
        })
    }
}

/// How often a value was there, of those that may be `left`: a profile is made with memory for each of them.
fn count(reader: &mut impl Read, left: &mut u64) -> io::Result<u64> {
    let count = take(reader)?;
    *left = left.checked_sub(count).ok_or_else(|| damaged("more values than there can be"))?;
    Ok(count)
}

fn put_numbers(writer: &mut impl Write, numbers: &[f64]) -> io::Result<()> {
    put(writer, numbers.len() as u64)?;
    (0..size_of::<f64>()).try_for_each(|place| {
        let plane: Vec<u8> = numbers.iter().map(|number| number.to_le_bytes()[place]).collect();
        writer.write_all(&plane)
    })
}

fn numbers(reader: &mut impl Read) -> io::Result<Vec<f64>> {
    let count = take(reader)?;
    let planes = exactly(reader, count.saturating_mul(size_of::<f64>() as u64))?;
    let count = planes.len() / size_of::<f64>();
    let number = |at: usize| f64::from_le_bytes(std::array::from_fn(|place| planes[place * count + at]));
    Ok((0..count).map(number).collect())
}

fn put_bytes(writer: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    put(writer, bytes.len() as u64)?;
    writer.write_all(bytes)
}

fn bytes(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = take(reader)?;
    exactly(reader, length)
}

fn text(reader: &mut impl Read) -> io::Result<String> {
    String::from_utf8(bytes(reader)?).map_err(|_| damaged("a name that is no text"))
}

/// So many bytes. Takes no more memory than there are.
fn exactly(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    if length > MAX_BYTES {
        return Err(damaged("a list that is too long"));
    }
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _ = ProfileBuilder::decode(&mut bytes.as_slice());
        }
    }

    #[test]
    fn counts_that_no_learning_has_are_refused() {
        let decode = |kind: u64, counts: [u64; 2]| {
            let mut bytes = Vec::new();
            put(&mut bytes, kind).unwrap();
            if kind == 4 {
                put(&mut bytes, 2).unwrap();
            }
            for (value, count) in ["a", "b"].into_iter().zip(counts) {
                if kind == 4 {
                    put_bytes(&mut bytes, value.as_bytes()).unwrap();
                }
                put(&mut bytes, count).unwrap();
            }
            Values::decode(&mut bytes.as_slice())
        };
        for kind in [3, 4] {
            assert!(decode(kind, [MAX_VALUES - 1, 1]).is_ok());
            for counts in [[MAX_VALUES, 1], [1, u64::MAX], [u64::MAX, u64::MAX]] {
                let Err(error) = decode(kind, counts) else { panic!("{counts:?} were taken") };
                assert_eq!(error.to_string(), "more values than there can be");
            }
        }
    }
}
