//! The `data` of an input, straight from JSON text into element bytes: no value tree, no
//! recursion.
//!
//! The text is known to be valid JSON (serde has skipped over it once), so that this pass
//! only has to find its values. `data` may be flat, nested like the shape, or in between;
//! nested in full, its lists must have the sizes of the shape.

use bytes::Bytes;

use crate::{
    domain::{DataType, Shape, Tensor, TensorError},
    protocol::refusal::{ValueFault, shown},
};

/// The tensor whose elements `data` holds. `data` must be a part of `body`.
pub(super) fn tensor(
    name: &str,
    datatype: DataType,
    shape: Shape,
    data: &str,
    body: &Bytes,
) -> Result<Tensor, ValueFault> {
    let bytes = match datatype {
        DataType::Bytes => return text(name, shape, data, body),
        DataType::Bool => plain(datatype, &shape, data, |text| boolean(text).map(|value| [value])),
        DataType::Uint8 => plain(datatype, &shape, data, |text| whole::<u8>(text).map(u8::to_le_bytes)),
        DataType::Uint16 => plain(datatype, &shape, data, |text| whole::<u16>(text).map(u16::to_le_bytes)),
        DataType::Uint32 => plain(datatype, &shape, data, |text| whole::<u32>(text).map(u32::to_le_bytes)),
        DataType::Uint64 => plain(datatype, &shape, data, |text| whole::<u64>(text).map(u64::to_le_bytes)),
        DataType::Int8 => plain(datatype, &shape, data, |text| whole::<i8>(text).map(i8::to_le_bytes)),
        DataType::Int16 => plain(datatype, &shape, data, |text| whole::<i16>(text).map(i16::to_le_bytes)),
        DataType::Int32 => plain(datatype, &shape, data, |text| whole::<i32>(text).map(i32::to_le_bytes)),
        DataType::Int64 => plain(datatype, &shape, data, |text| whole::<i64>(text).map(i64::to_le_bytes)),
        DataType::Fp32 => plain(datatype, &shape, data, |text| number(text, f32::is_finite).map(f32::to_le_bytes)),
        DataType::Fp64 => plain(datatype, &shape, data, |text| number(text, f64::is_finite).map(f64::to_le_bytes)),
        DataType::Fp16 => plain(datatype, &shape, data, |text| {
            narrow(text, half::f16::from_f64, half::f16::is_finite).map(half::f16::to_le_bytes)
        }),
        DataType::Bf16 => plain(datatype, &shape, data, |text| {
            narrow(text, half::bf16::from_f64, half::bf16::is_finite).map(half::bf16::to_le_bytes)
        }),
    }?;
    Ok(Tensor::plain(name, datatype, shape, bytes.into())?)
}

/// Why the text of one value is not an element.
enum Misfit {
    Range,
    Kind(&'static str),
}

/// The bytes of fixed-size elements; `read` turns the JSON text of one value into its bytes.
fn plain<const SIZE: usize>(
    datatype: DataType,
    shape: &Shape,
    data: &str,
    read: impl Fn(&str) -> Result<[u8; SIZE], Misfit>,
) -> Result<Vec<u8>, ValueFault> {
    // A value and its comma take two bytes of text at least: a shape alone reserves nothing.
    let mut bytes = Vec::with_capacity(SIZE * shape.elements().min(data.len() / 2 + 1));
    let count = walk(data, shape, |index, text| {
        let element = read(text).map_err(|misfit| match misfit {
            Misfit::Range => ValueFault::OutOfRange { index, got: short(text), datatype },
            Misfit::Kind(expected) => ValueFault::WrongKind { index, got: short(text), expected, datatype },
        })?;
        bytes.extend_from_slice(&element);
        Ok(())
    })?;
    check_count(shape, count)?;
    Ok(bytes)
}

fn text(name: &str, shape: Shape, data: &str, body: &Bytes) -> Result<Tensor, ValueFault> {
    let mut elements = Vec::with_capacity(shape.elements().min(data.len() / 3 + 1));
    walk(data, &shape, |index, text| {
        let wrong = |expected| ValueFault::WrongKind { index, got: short(text), expected, datatype: DataType::Bytes };
        let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).ok_or_else(|| wrong("a string"))?;
        elements.push(if inner.contains('\\') {
            let unescaped: String = serde_json::from_str(text).map_err(|_| wrong("a string of whole characters"))?;
            Bytes::from(unescaped)
        } else {
            body.slice_ref(inner.as_bytes())
        });
        Ok(())
    })?;
    Ok(Tensor::text(name, shape, elements)?)
}

fn check_count(shape: &Shape, got: usize) -> Result<(), TensorError> {
    let expected = shape.elements();
    if got == expected { Ok(()) } else { Err(TensorError::ElementCount { shape: shape.clone(), expected, got }) }
}

fn boolean(text: &str) -> Result<u8, Misfit> {
    match text {
        "true" | "1" => Ok(1),
        "false" | "0" => Ok(0),
        _ => Err(Misfit::Kind("true or false")),
    }
}

fn whole<T: std::str::FromStr>(text: &str) -> Result<T, Misfit> {
    text.parse().or_else(|_| match text {
        "-0" => "0".parse().map_err(|_| Misfit::Range),
        _ if !is_number(text) || text.contains(['.', 'e', 'E']) => Err(Misfit::Kind("a whole number")),
        _ => Err(Misfit::Range),
    })
}

fn number<T: std::str::FromStr + Copy>(text: &str, fits: impl Fn(T) -> bool) -> Result<T, Misfit> {
    // The standard parser knows more words for numbers than JSON does, such as `inf`.
    if !is_number(text) {
        return Err(Misfit::Kind("a number"));
    }
    let value = text.parse().map_err(|_| Misfit::Kind("a number"))?;
    if fits(value) { Ok(value) } else { Err(Misfit::Range) }
}

fn narrow<T: Copy>(text: &str, from: impl Fn(f64) -> T, fits: impl Fn(T) -> bool) -> Result<T, Misfit> {
    let value = from(number(text, f64::is_finite)?);
    if fits(value) { Ok(value) } else { Err(Misfit::Range) }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn short(text: &str) -> String {
    shown(text.get(..32).unwrap_or(text))
}

/// Calls `value` with the index and JSON text of every value in `data`; the number of values.
fn walk<'a>(
    data: &'a str,
    shape: &Shape,
    mut value: impl FnMut(usize, &'a str) -> Result<(), ValueFault>,
) -> Result<usize, ValueFault> {
    let mut nesting = Nesting::new(shape);
    for token in (Tokens { data, at: 0 }) {
        match token {
            Token::Open => nesting.open()?,
            Token::Close => nesting.close(),
            Token::Value(text) => {
                let index = nesting.value()?;
                value(index, text)?;
            }
        }
    }
    nesting.end()
}

/// The lists around the current value, held against the shape.
struct Nesting<'a> {
    dimensions: &'a [i64],
    /// For each open list, outermost first, how many items it has had.
    open: Vec<usize>,
    values: usize,
    /// How many lists are around every value.
    depth: Option<usize>,
    /// The first list whose size is not that of its dimension.
    ragged: Option<ValueFault>,
}

impl<'a> Nesting<'a> {
    fn new(shape: &'a Shape) -> Self {
        Self { dimensions: shape.dimensions(), open: Vec::new(), values: 0, depth: None, ragged: None }
    }

    fn open(&mut self) -> Result<(), ValueFault> {
        let rank = self.dimensions.len();
        // One more than the rank is what a scalar needs, and what some clients wrap around.
        if self.open.len() > rank {
            return Err(ValueFault::TooDeep { rank });
        }
        if self.depth.is_some_and(|depth| self.open.len() >= depth) {
            return Err(ValueFault::Uneven { index: self.values });
        }
        self.count_item();
        self.open.push(0);
        Ok(())
    }

    fn close(&mut self) {
        let Some(got) = self.open.pop() else { return };
        let dimension = self.open.len();
        let expected = self.dimensions.get(dimension).copied().unwrap_or_default();
        if self.ragged.is_none() && usize::try_from(expected) != Ok(got) {
            self.ragged = Some(ValueFault::Ragged { dimension, expected, got });
        }
    }

    /// Takes note of a value; its index.
    fn value(&mut self) -> Result<usize, ValueFault> {
        let depth = self.open.len();
        if depth == 0 && !self.dimensions.is_empty() {
            return Err(ValueFault::NotAList);
        }
        if *self.depth.get_or_insert(depth) != depth {
            return Err(ValueFault::Uneven { index: self.values });
        }
        self.count_item();
        self.values += 1;
        Ok(self.values - 1)
    }

    fn count_item(&mut self) {
        if let Some(items) = self.open.last_mut() {
            *items += 1;
        }
    }

    fn end(self) -> Result<usize, ValueFault> {
        let rank = self.dimensions.len();
        match self.ragged {
            Some(fault) if rank > 1 && self.depth == Some(rank) => Err(fault),
            _ => Ok(self.values),
        }
    }
}

enum Token<'a> {
    Open,
    Close,
    /// The JSON text of anything that is not a list.
    Value(&'a str),
}

/// The tokens of valid JSON text. Of an object only the pieces come out, each of which no
/// element can be.
struct Tokens<'a> {
    data: &'a str,
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = &self.data.as_bytes()[self.at..];
        let blank = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b','))?;
        let start = self.at + blank;
        let rest = &rest[blank..];
        let length = match rest[0] {
            b'"' => string_length(rest),
            b'[' | b']' | b'{' | b'}' | b':' => 1,
            _ => rest.iter().position(|byte| b" \t\r\n,]}:".contains(byte)).unwrap_or(rest.len()),
        };
        self.at = start + length;
        Some(match rest[0] {
            b'[' => Token::Open,
            b']' => Token::Close,
            _ => Token::Value(&self.data[start..self.at]),
        })
    }
}

/// The length of the JSON string that `text` begins with, both quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}
