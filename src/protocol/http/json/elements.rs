//! The `data` of an input, straight from JSON text into element bytes: one pass, no value tree,
//! no recursion.
//!
//! `data` may be flat, nested like the shape, or in between; nested in full, its lists must have
//! the sizes of the shape.
//!
//! In a tensor of floats `NaN`, `Infinity` and `-Infinity` stand for themselves, and `null` for NaN; in a tensor of texts `null`
//! is the empty one. That is how a JSON client says "missing". Other tensors have no such value.

use bytes::Bytes;

use super::{
    cursor::{Cursor, JsonFault, Quoted},
    lanes::Lanes,
    number::{Number, Short},
};
use crate::{
    domain::{DataType, Shape, Tensor, TensorError},
    protocol::refusal::{ValueFault, shown},
};

/// Why there is no tensor.
#[derive(Debug)]
pub(super) enum ElementFault {
    /// The text is not JSON.
    Json(JsonFault),
    /// It is, but not the elements of the tensor.
    Value(ValueFault),
}

impl From<JsonFault> for ElementFault {
    fn from(fault: JsonFault) -> Self {
        Self::Json(fault)
    }
}

impl From<ValueFault> for ElementFault {
    fn from(fault: ValueFault) -> Self {
        Self::Value(fault)
    }
}

impl From<TensorError> for ElementFault {
    fn from(error: TensorError) -> Self {
        Self::Value(error.into())
    }
}

/// The tensor whose elements come next at `cursor`, which goes over `body`.
pub(super) fn tensor(
    name: &str,
    datatype: DataType,
    shape: Shape,
    cursor: &mut Cursor<'_>,
    body: &Bytes,
) -> Result<Tensor, ElementFault> {
    tensor_by(Lanes::new(), name, datatype, shape, cursor, body)
}

/// As [`tensor`], with many numbers at once by `lanes`.
#[expect(clippy::redundant_closure_for_method_calls, reason = "the bare method is of one lifetime only")]
pub(super) fn tensor_by(
    mut lanes: Lanes,
    name: &str,
    datatype: DataType,
    shape: Shape,
    cursor: &mut Cursor<'_>,
    body: &Bytes,
) -> Result<Tensor, ElementFault> {
    let bytes = match datatype {
        DataType::Bytes => return text(name, shape, cursor, body),
        DataType::Bool => plain(datatype, &shape, cursor, |cursor| boolean(cursor).map(|value| [value])),
        DataType::Uint8 => plain(datatype, &shape, cursor, |cursor| whole::<u8>(cursor).map(u8::to_le_bytes)),
        DataType::Uint16 => plain(datatype, &shape, cursor, |cursor| whole::<u16>(cursor).map(u16::to_le_bytes)),
        DataType::Uint32 => plain(datatype, &shape, cursor, |cursor| whole::<u32>(cursor).map(u32::to_le_bytes)),
        DataType::Uint64 => plain(datatype, &shape, cursor, |cursor| whole::<u64>(cursor).map(u64::to_le_bytes)),
        DataType::Int8 => plain(datatype, &shape, cursor, |cursor| whole::<i8>(cursor).map(i8::to_le_bytes)),
        DataType::Int16 => plain(datatype, &shape, cursor, |cursor| whole::<i16>(cursor).map(i16::to_le_bytes)),
        DataType::Int32 => plain(datatype, &shape, cursor, |cursor| whole::<i32>(cursor).map(i32::to_le_bytes)),
        DataType::Int64 => plain(datatype, &shape, cursor, |cursor| whole::<i64>(cursor).map(i64::to_le_bytes)),
        DataType::Fp32 => {
            let short = |number: Short| number.to_f32().map(f32::to_le_bytes);
            let several = |cursor: &mut Cursor<'_>, elements: &mut Vec<_>| {
                cursor.numbers(elements, |text, at, elements| lanes.singles(text, at, elements), short)
            };
            elements(datatype, &shape, cursor, several, |cursor| {
                float(cursor, |number| number.to_f32(), f32::is_finite, single).map(f32::to_le_bytes)
            })
        }
        DataType::Fp64 => {
            let short = |number: Short| number.to_f64().map(f64::to_le_bytes);
            let several = |cursor: &mut Cursor<'_>, elements: &mut Vec<_>| {
                cursor.numbers(elements, |text, at, elements| lanes.doubles(text, at, elements), short)
            };
            elements(datatype, &shape, cursor, several, |cursor| {
                float(cursor, |number| number.to_f64(), f64::is_finite, |value| value).map(f64::to_le_bytes)
            })
        }
        DataType::Fp16 => plain(datatype, &shape, cursor, |cursor| {
            float(cursor, |number| half::f16::from_f64(number.to_f64()), half::f16::is_finite, half::f16::from_f64)
                .map(half::f16::to_le_bytes)
        }),
        DataType::Bf16 => plain(datatype, &shape, cursor, |cursor| {
            float(cursor, |number| half::bf16::from_f64(number.to_f64()), half::bf16::is_finite, half::bf16::from_f64)
                .map(half::bf16::to_le_bytes)
        }),
    }?;
    Ok(Tensor::plain(name, datatype, shape, bytes.into())?)
}

/// Why a value is not an element. When it is of the wrong kind, the cursor still stands before it.
enum Misfit {
    Json(JsonFault),
    Range,
    Kind(&'static str),
}

impl From<JsonFault> for Misfit {
    fn from(fault: JsonFault) -> Self {
        Self::Json(fault)
    }
}

/// The bytes of fixed-size elements; `read` moves over one value and gives its bytes.
fn plain<const SIZE: usize>(
    datatype: DataType,
    shape: &Shape,
    cursor: &mut Cursor<'_>,
    read: impl Fn(&mut Cursor<'_>) -> Result<[u8; SIZE], Misfit>,
) -> Result<Vec<u8>, ElementFault> {
    elements(datatype, shape, cursor, |_, _| true, read)
}

/// Before `read` is asked, `several` may move over any number of values that follow each other, and tells whether one
/// more does.
fn elements<const SIZE: usize>(
    datatype: DataType,
    shape: &Shape,
    cursor: &mut Cursor<'_>,
    mut several: impl FnMut(&mut Cursor<'_>, &mut Vec<[u8; SIZE]>) -> bool,
    read: impl Fn(&mut Cursor<'_>) -> Result<[u8; SIZE], Misfit>,
) -> Result<Vec<u8>, ElementFault> {
    // A value and its comma take two bytes of text at least: a shape alone reserves nothing.
    let mut elements: Vec<[u8; SIZE]> = Vec::with_capacity(shape.elements().min(cursor.left() / 2 + 1));
    let count = walk(cursor, shape, |index, cursor| {
        let before = elements.len();
        // The numbers of a list follow each other without a look at the lists around them.
        while several(cursor, &mut elements) {
            let start = cursor.at();
            match read(cursor) {
                Ok(element) => elements.push(element),
                Err(misfit) => {
                    let index = index + elements.len() - before;
                    return Err(fault_of(misfit, index, datatype, cursor.clone().back_to(start)));
                }
            }
            if !cursor.next_scalar() {
                break;
            }
        }
        Ok(elements.len() - before)
    })?;
    check_count(shape, count)?;
    Ok(elements.into_flattened())
}

fn text(name: &str, shape: Shape, cursor: &mut Cursor<'_>, body: &Bytes) -> Result<Tensor, ElementFault> {
    let mut elements = Vec::with_capacity(shape.elements().min(cursor.left() / 3 + 1));
    walk(cursor, &shape, |index, cursor| {
        let start = cursor.clone();
        let wrong = |expected| fault_of(Misfit::Kind(expected), index, DataType::Bytes, start.clone());
        if cursor.null()? {
            elements.push(Bytes::new());
            return Ok(1);
        }
        if cursor.byte() != Some(b'"') {
            return Err(wrong("a string"));
        }
        let quoted = cursor.quoted()?;
        elements.push(element(&quoted, body).ok_or_else(|| wrong("a string of whole characters"))?);
        Ok(1)
    })?;
    Ok(Tensor::text(name, shape, elements)?)
}

/// The bytes that a string stands for: without escapes a slice of the body.
fn element(quoted: &Quoted<'_>, body: &Bytes) -> Option<Bytes> {
    if quoted.has_escapes {
        serde_json::from_str::<String>(quoted.text).ok().map(Bytes::from)
    } else {
        Some(body.slice_ref(quoted.inner().as_bytes()))
    }
}

#[cold]
fn fault_of(misfit: Misfit, index: usize, datatype: DataType, mut value: Cursor<'_>) -> ElementFault {
    let start = value.at();
    let got = |value: &Cursor<'_>| short(value.since(start));
    match misfit {
        Misfit::Json(fault) => fault.into(),
        Misfit::Range => match value.skip() {
            Ok(()) => ValueFault::OutOfRange { index, got: got(&value), datatype }.into(),
            Err(fault) => fault.into(),
        },
        Misfit::Kind(expected) => {
            let is_object = value.byte() == Some(b'{');
            if let Err(fault) = value.skip() {
                return fault.into();
            }
            let got = if is_object { "{".into() } else { got(&value) };
            ValueFault::WrongKind { index, got, expected, datatype }.into()
        }
    }
}

fn check_count(shape: &Shape, got: usize) -> Result<(), TensorError> {
    let expected = shape.elements();
    if got == expected { Ok(()) } else { Err(TensorError::ElementCount { shape: shape.clone(), expected, got }) }
}

fn boolean(cursor: &mut Cursor<'_>) -> Result<u8, Misfit> {
    let start = cursor.at();
    cursor.skip()?;
    match cursor.since(start) {
        "true" | "1" => Ok(1),
        "false" | "0" => Ok(0),
        _ => Err(Misfit::Kind("true or false")),
    }
}

#[inline]
fn whole<T: TryFrom<i64> + TryFrom<u64>>(cursor: &mut Cursor<'_>) -> Result<T, Misfit> {
    match cursor.number()? {
        Some(number) if number.is_whole => number.to_integer().ok_or(Misfit::Range),
        _ => Err(Misfit::Kind("a whole number")),
    }
}

/// A float: a number that `read` makes one of and that `fits`, or a word for one that is not finite, which `other` makes one of.
#[inline]
fn float<T: Copy>(
    cursor: &mut Cursor<'_>,
    read: impl Fn(Number<'_>) -> T,
    fits: impl Fn(T) -> bool,
    other: impl Fn(f64) -> T,
) -> Result<T, Misfit> {
    match cursor.number()?.map(read) {
        Some(value) if fits(value) => Ok(value),
        Some(_) => Err(Misfit::Range),
        None => cursor.nonfinite().map(other).ok_or(Misfit::Kind("a number")),
    }
}

/// A single that is not finite.
#[expect(clippy::cast_possible_truncation, reason = "NaN and the infinities have no digits to lose")]
fn single(nonfinite: f64) -> f32 {
    nonfinite as f32
}

fn short(text: &str) -> String {
    shown(text.get(..32).unwrap_or(text))
}

/// Goes over a value and the lists around it. `values` is called with the index of a value, and
/// must move over it, and may move over more that follow it in its list; how many it was. Their
/// number in all.
fn walk<'a>(
    cursor: &mut Cursor<'a>,
    shape: &Shape,
    mut values: impl FnMut(usize, &mut Cursor<'a>) -> Result<usize, ElementFault>,
) -> Result<usize, ElementFault> {
    let mut nesting = Nesting::new(shape);
    loop {
        // Before each value: the lists that begin here.
        let mut is_empty = false;
        while !is_empty && cursor.peek() == Some(b'[') {
            nesting.open()?;
            cursor.bump();
            is_empty = cursor.peek() == Some(b']');
        }
        if !is_empty {
            let index = nesting.value()?;
            nesting.count_values(values(index, cursor)?);
        }
        // Behind it: the lists that end here.
        loop {
            if nesting.open.is_empty() {
                return Ok(nesting.end()?);
            }
            match cursor.peek() {
                Some(b',') => break,
                Some(b']') => nesting.close(),
                _ => return Err(cursor.syntax("expected `,` or `]`").into()),
            }
            cursor.bump();
        }
        cursor.bump();
    }
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
        self.count_items(1);
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

    /// A value may stand here; its index.
    fn value(&mut self) -> Result<usize, ValueFault> {
        let depth = self.open.len();
        if depth == 0 && !self.dimensions.is_empty() {
            return Err(ValueFault::NotAList);
        }
        if *self.depth.get_or_insert(depth) != depth {
            return Err(ValueFault::Uneven { index: self.values });
        }
        Ok(self.values)
    }

    fn count_values(&mut self, count: usize) {
        self.values += count;
        self.count_items(count);
    }

    fn count_items(&mut self, count: usize) {
        if let Some(items) = self.open.last_mut() {
            *items += count;
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
