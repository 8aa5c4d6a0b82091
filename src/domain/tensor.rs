//! Tensors as they travel through the gateway: a shape and the element bytes, never copied on the way.

use std::{fmt, ops::Range, str::FromStr, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

/// The element types of the Open Inference Protocol, and BF16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bf16,
    Bytes,
}

impl DataType {
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bf16,
        Self::Bytes,
    ];

    /// The name on the wire, such as `FP32`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bf16 => "BF16",
            Self::Bytes => "BYTES",
        }
    }

    /// Bytes per element; `None` for `BYTES`, whose elements differ in length.
    #[must_use]
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// True for FP16, BF16, FP32 and FP64.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::Fp16 | Self::Bf16 | Self::Fp32 | Self::Fp64)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `text` most likely means: the name that NumPy, `PyTorch`, ONNX, `TensorFlow` or Triton's configuration has for a type.
fn likely(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let word = ["torch.", "np.", "numpy.", "tensor(", "type_", "dt_"]
        .iter()
        .fold(&*lower, |word, known| word.strip_prefix(known).unwrap_or(word));
    let word = word.trim_end_matches(')');
    let named = DataType::ALL.into_iter().find(|datatype| datatype.name().eq_ignore_ascii_case(word));
    let meant = named.or(match word {
        "boolean" | "bool_" => Some(DataType::Bool),
        "byte" | "uchar" => Some(DataType::Uint8),
        "short" => Some(DataType::Int16),
        "int" | "integer" => Some(DataType::Int32),
        "long" => Some(DataType::Int64),
        "half" | "float16" => Some(DataType::Fp16),
        "float" | "float32" | "single" => Some(DataType::Fp32),
        "double" | "float64" => Some(DataType::Fp64),
        "bfloat16" => Some(DataType::Bf16),
        "string" | "str" | "text" | "object" | "object_" | "utf8" => Some(DataType::Bytes),
        _ => None,
    });
    meant.map_or_else(String::new, |meant| format!("did you mean {meant}? If not, "))
}

impl FromStr for DataType {
    type Err = TensorError;

    fn from_str(text: &str) -> Result<Self, TensorError> {
        Self::ALL
            .into_iter()
            .find(|datatype| datatype.name() == text)
            .ok_or_else(|| TensorError::DataType(text.chars().take(32).collect()))
    }
}

/// Why a tensor cannot exist as described. The messages are fit for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error(
        "datatype '{0}' is unknown: {hint}use one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BF16, BYTES",
        hint = likely(.0)
    )]
    DataType(String),
    #[error("the shape has a negative dimension ({0})")]
    NegativeDimension(i64),
    #[error("the shape has more elements than this machine can address")]
    TooManyElements,
    #[error("the shape {shape} of {datatype} needs {expected} bytes, got {got}")]
    ByteCount { shape: Shape, datatype: DataType, expected: usize, got: usize },
    #[error("the shape {shape} needs {expected} elements, got {got}")]
    ElementCount { shape: Shape, expected: usize, got: usize },
    #[error("the shape {shape} has no rows {start} to {end}")]
    NoSuchRows { shape: Shape, start: usize, end: usize },
    #[error("BYTES data ends in the middle of element {element}")]
    TruncatedBytes { element: usize },
}

/// Sizes of dimensions; those of nearly all tensors need no memory of their own.
pub type Dimensions = SmallVec<[i64; 4]>;

/// The dimensions of an actual tensor: none negative, and their product fits in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    dimensions: Dimensions,
    elements: usize,
}

impl Shape {
    /// # Errors
    /// When a dimension is negative, or the product of all overflows.
    pub fn new(dimensions: impl Into<Dimensions>) -> Result<Self, TensorError> {
        let dimensions = dimensions.into();
        let mut elements: usize = 1;
        let mut empty = false;
        for &dimension in &dimensions {
            let size = usize::try_from(dimension).map_err(|_| TensorError::NegativeDimension(dimension))?;
            // A zero anywhere makes the tensor empty, but must not hide an overflow beside it.
            empty |= size == 0;
            elements = elements.checked_mul(size.max(1)).ok_or(TensorError::TooManyElements)?;
        }
        // Eight bytes is the largest element: the byte count must not overflow either.
        elements.checked_mul(8).filter(|bytes| isize::try_from(*bytes).is_ok()).ok_or(TensorError::TooManyElements)?;
        Ok(Self { dimensions, elements: if empty { 0 } else { elements } })
    }

    #[must_use]
    pub fn dimensions(&self) -> &[i64] {
        &self.dimensions
    }

    /// The number of elements: 1 for a scalar, 0 when a dimension is 0.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// The rows of the tensor: its first dimension, 1 for a scalar.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.dimensions.first().map_or(1, |&first| usize::try_from(first).unwrap_or(0))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dimensions)
    }
}

/// The elements of a tensor, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elements {
    /// Fixed-size elements, little-endian, one after the other. A BOOL is one byte, 0 or 1.
    Plain { datatype: DataType, bytes: Bytes },
    /// The elements of a `BYTES` tensor, each any sequence of bytes.
    Text(Vec<Bytes>),
}

/// A named tensor whose elements agree with its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    name: Arc<str>,
    shape: Shape,
    elements: Elements,
}

impl Tensor {
    /// A tensor of fixed-size elements: `bytes` holds them row-major and little-endian.
    ///
    /// # Errors
    /// When the byte count is not that of the shape. `datatype` must not be `BYTES`.
    pub fn plain(
        name: impl Into<Arc<str>>,
        datatype: DataType,
        shape: Shape,
        bytes: Bytes,
    ) -> Result<Self, TensorError> {
        let size = datatype.size().ok_or_else(|| TensorError::DataType(datatype.to_string()))?;
        let expected = shape.elements() * size;
        if bytes.len() != expected {
            return Err(TensorError::ByteCount { shape, datatype, expected, got: bytes.len() });
        }
        Ok(Self { name: name.into(), shape, elements: Elements::Plain { datatype, bytes } })
    }

    /// A `BYTES` tensor.
    ///
    /// # Errors
    /// When the number of elements is not that of the shape.
    pub fn text(name: impl Into<Arc<str>>, shape: Shape, elements: Vec<Bytes>) -> Result<Self, TensorError> {
        let expected = shape.elements();
        if elements.len() != expected {
            return Err(TensorError::ElementCount { shape, expected, got: elements.len() });
        }
        Ok(Self { name: name.into(), shape, elements: Elements::Text(elements) })
    }

    /// A tensor from the protocol's raw form: little-endian elements, or for `BYTES` each
    /// element preceded by its length as a little-endian `u32`. Shares `raw`, copies nothing.
    ///
    /// # Errors
    /// When `raw` does not hold exactly the elements of the shape.
    pub fn from_raw(
        name: impl Into<Arc<str>>,
        datatype: DataType,
        shape: Shape,
        raw: Bytes,
    ) -> Result<Self, TensorError> {
        if datatype != DataType::Bytes {
            return Self::plain(name, datatype, shape, raw);
        }
        let mut elements = Vec::with_capacity(shape.elements().min(raw.len() / 4));
        let mut rest = raw;
        while !rest.is_empty() {
            let truncated = TensorError::TruncatedBytes { element: elements.len() };
            let Some(prefix) = rest.first_chunk::<4>() else { return Err(truncated) };
            let length = u32::from_le_bytes(*prefix) as usize;
            if rest.len() - 4 < length {
                return Err(truncated);
            }
            elements.push(rest.slice(4..4 + length));
            rest = rest.slice(4 + length..);
        }
        Self::text(name, shape, elements)
    }

    /// The protocol's raw form of the elements (see [`Tensor::from_raw`]). Shares the bytes of
    /// fixed-size elements.
    ///
    /// # Panics
    /// Never: an element is part of a message, and messages are smaller than 4 GiB.
    #[must_use]
    pub fn to_raw(&self) -> Bytes {
        match &self.elements {
            Elements::Plain { bytes, .. } => bytes.clone(),
            Elements::Text(_) => {
                let mut raw = Vec::with_capacity(self.raw_size());
                self.write_raw(&mut raw);
                raw.into()
            }
        }
    }

    /// The bytes of [`Tensor::to_raw`].
    #[must_use]
    pub fn raw_size(&self) -> usize {
        match &self.elements {
            Elements::Plain { bytes, .. } => bytes.len(),
            Elements::Text(elements) => elements.iter().map(|element| element.len() + 4).sum(),
        }
    }

    /// Appends what [`Tensor::to_raw`] gives.
    ///
    /// # Panics
    /// Never: as there.
    pub fn write_raw(&self, to: &mut Vec<u8>) {
        match &self.elements {
            Elements::Plain { bytes, .. } => to.extend_from_slice(bytes),
            Elements::Text(elements) => {
                for element in elements {
                    let length = u32::try_from(element.len())
                        .expect("an element is smaller than a message, which is under 4 GiB");
                    to.extend_from_slice(&length.to_le_bytes());
                    to.extend_from_slice(element);
                }
            }
        }
    }

    /// The rows in `range` of the first dimension, sharing the elements of this tensor.
    ///
    /// # Errors
    /// When the tensor is a scalar or has fewer rows.
    pub fn rows(&self, range: Range<usize>) -> Result<Self, TensorError> {
        let rows = self.shape.dimensions.first().map_or(0, |_| self.shape.rows());
        if range.end > rows || range.start > range.end {
            return Err(TensorError::NoSuchRows { shape: self.shape.clone(), start: range.start, end: range.end });
        }
        let width = self.shape.elements.checked_div(rows).unwrap_or(0);
        let mut dimensions = self.shape.dimensions.clone();
        dimensions[0] = i64::try_from(range.len()).map_err(|_| TensorError::TooManyElements)?;
        let shape = Shape::new(dimensions)?;
        let (start, end) = (range.start * width, range.end * width);
        match &self.elements {
            Elements::Plain { datatype, bytes } => {
                let size = datatype.size().unwrap_or(1);
                Self::plain(Arc::clone(&self.name), *datatype, shape, bytes.slice(start * size..end * size))
            }
            Elements::Text(elements) => Self::text(Arc::clone(&self.name), shape, elements[start..end].to_vec()),
        }
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// When that has not as many elements.
    pub fn reshaped(self, shape: Shape) -> Result<Self, TensorError> {
        if shape.elements() != self.shape.elements() {
            return Err(TensorError::ElementCount { expected: shape.elements(), got: self.shape.elements(), shape });
        }
        Ok(Self { shape, ..self })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name, to be shared.
    #[must_use]
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The bytes of all elements.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        match &self.elements {
            Elements::Plain { bytes, .. } => bytes.len(),
            Elements::Text(elements) => elements.iter().map(Bytes::len).sum(),
        }
    }

    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    #[must_use]
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    #[must_use]
    pub fn datatype(&self) -> DataType {
        match &self.elements {
            Elements::Plain { datatype, .. } => *datatype,
            Elements::Text(_) => DataType::Bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dimensions: &[i64]) -> Shape {
        Shape::new(dimensions.to_vec()).unwrap()
    }

    #[test]
    fn shape_counts_scalars_and_empty_tensors() {
        assert_eq!(shape(&[]).elements(), 1);
        assert_eq!(shape(&[2, 0, 3]).elements(), 0);
        assert_eq!(shape(&[2, 3]).elements(), 6);
    }

    #[test]
    fn shape_refuses_overflow_even_behind_a_zero() {
        assert_eq!(Shape::new(vec![-1]), Err(TensorError::NegativeDimension(-1)));
        for huge in [vec![i64::MAX, 2], vec![0, i64::MAX, i64::MAX], vec![i64::MAX]] {
            assert_eq!(Shape::new(huge), Err(TensorError::TooManyElements));
        }
    }

    #[test]
    fn plain_tensor_must_fill_its_shape() {
        let wrong = Tensor::plain("x", DataType::Fp32, shape(&[2]), Bytes::from_static(&[0; 7]));
        assert_eq!(wrong.unwrap_err().to_string(), "the shape [2] of FP32 needs 8 bytes, got 7");
    }

    #[test]
    fn bytes_tensor_round_trips_through_raw() {
        let elements = vec![Bytes::from_static(b""), Bytes::from_static(b"a\0b"), Bytes::from_static("ä".as_bytes())];
        let tensor = Tensor::text("x", shape(&[3]), elements).unwrap();
        assert_eq!(Tensor::from_raw("x", DataType::Bytes, shape(&[3]), tensor.to_raw()).unwrap(), tensor);
    }

    #[test]
    fn bytes_tensor_refuses_a_length_beyond_the_end() {
        for raw in [&[1, 0, 0][..], &[2, 0, 0, 0, b'a'], &[255, 255, 255, 255]] {
            let error = Tensor::from_raw("x", DataType::Bytes, shape(&[1]), Bytes::copy_from_slice(raw)).unwrap_err();
            assert_eq!(error, TensorError::TruncatedBytes { element: 0 });
        }
    }

    #[test]
    fn datatype_names_round_trip() {
        for datatype in DataType::ALL {
            assert_eq!(datatype.name().parse::<DataType>().unwrap(), datatype);
        }
        assert!("float".parse::<DataType>().is_err());
    }
}
