//! Rows for the trial of a model: made up, of very different magnitude, and real ones.

use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};

use crate::domain::{DataType, Dim, Dimensions, Shape, Signature, Tensor, TensorSpec};

/// The largest inputs made up for one run, in bytes.
const INPUT_LIMIT: usize = 64 << 20;
/// Sizes tried for dimensions that may have any, other than the rows.
const FREE_SIZES: [i64; 3] = [1, 8, 32];
/// Real rows that are taken out of one request, and in all.
const ROWS_OF_ONE: usize = 2;
const REAL_ROWS: usize = 8;

/// A request that a model should be able to answer.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Where it comes from, for operators, such as `golden requests`.
    pub origin: &'static str,
    pub inputs: Arc<[Tensor]>,
}

/// What the elements of a made-up row are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// From -1 to 1; whole numbers from 0 to 2, since they may be categories or places; texts of a digit.
    Plain,
    /// 0; empty texts.
    Zeros,
    /// A millionth of a plain one; texts of a letter.
    Tiny,
    /// About a million; whole numbers of about a hundred, which no model takes for a size; long texts of many words.
    Huge,
    /// The same below zero; texts with signs.
    NegativeHuge,
    /// NaN; texts beyond ASCII.
    Nan,
}

impl Kind {
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Plain => "plain rows",
            Self::Zeros => "a row of zeros",
            Self::Tiny => "a row of 1e-6",
            Self::Huge => "a row of 1e6",
            Self::NegativeHuge => "a row of -1e6",
            Self::Nan => "a row of NaN",
        }
    }

    fn real(self, step: u8) -> f32 {
        let plain = f32::from(step) / 8.0 - 1.0;
        match self {
            Self::Plain => plain,
            Self::Zeros => 0.0,
            Self::Tiny => plain * 1e-6,
            Self::Huge => (plain.abs() + 0.5) * 1e6,
            Self::NegativeHuge => (plain.abs() + 0.5) * -1e6,
            Self::Nan => f32::NAN,
        }
    }

    /// As [`Kind::real`], within what 16 bits can say.
    fn half(self, step: u8) -> f32 {
        self.real(step).clamp(-6e4, 6e4)
    }

    fn whole(self, plain: u8, is_signed: bool) -> i8 {
        let plain = i8::try_from(plain).unwrap_or(0);
        match self {
            Self::Plain | Self::Nan => plain,
            Self::Tiny => 1,
            Self::Huge => 100 + plain,
            Self::NegativeHuge if is_signed => -1,
            Self::Zeros | Self::NegativeHuge => 0,
        }
    }

    fn text(self, plain: u8) -> Bytes {
        match self {
            Self::Plain => Bytes::from(plain.to_string()),
            Self::Zeros => Bytes::new(),
            Self::Tiny => Bytes::from_static(b"d"),
            Self::Huge => Bytes::from("a bb ccc, dddd 12345 ".repeat(12)),
            Self::NegativeHuge => Bytes::from_static(b"-1.5; x|y_z"),
            Self::Nan => Bytes::from_static("NaN \u{e9} \u{65e5}\u{672c}".as_bytes()),
        }
    }
}

/// What one input is like, but for its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    name: Arc<str>,
    datatype: DataType,
    /// The dimensions after the first; `None` for one that has no rows.
    rest: Option<Dimensions>,
}

impl Column {
    fn of(tensor: &Tensor) -> Self {
        let rest = tensor.shape().dimensions().get(1..).map(Dimensions::from_slice);
        Self { name: tensor.shared_name(), datatype: tensor.datatype(), rest }
    }

    /// `rows` rows, of which the first is the row number `first`: rows of different numbers differ, where the kind allows.
    pub(super) fn made_up(&self, rows: usize, first: usize, kind: Kind) -> Option<Tensor> {
        let mut dimensions = Dimensions::new();
        dimensions.push(i64::try_from(rows).ok()?);
        dimensions.extend_from_slice(self.rest.as_ref()?);
        made_up(&self.name, self.datatype, Shape::new(dimensions).ok()?, rows, first, kind)
    }

    pub(super) fn is_float(&self) -> bool {
        self.datatype.is_float()
    }
}

/// The columns of inputs that have rows.
pub(super) fn columns(inputs: &[Tensor]) -> Vec<Column> {
    inputs.iter().map(Column::of).collect()
}

/// Made-up inputs of `rows` rows, of which the first is the row number `first`. `None` when they would be too large.
pub(super) fn inputs(signature: &Signature, free_size: i64, rows: usize, first: usize) -> Option<Vec<Tensor>> {
    let required = signature.inputs.iter().filter(|spec| !spec.optional);
    required.map(|spec| of_spec(spec, free_size, rows, first)).collect()
}

/// The sizes of free dimensions, other than the rows, that are worth trying.
pub(super) fn free_sizes(signature: &Signature) -> &'static [i64] {
    if has_free_columns(signature) { &FREE_SIZES } else { &FREE_SIZES[..1] }
}

/// True when an input that a request must give has a dimension of any size beside its rows.
pub(super) fn has_free_columns(signature: &Signature) -> bool {
    let mut required = signature.inputs.iter().filter(|spec| !spec.optional);
    required
        .any(|spec| spec.shape.contains(&Dim::Unranked) || spec.shape.iter().skip(1).any(|dim| matches!(dim, Dim::Any)))
}

fn of_spec(spec: &TensorSpec, free_size: i64, rows: usize, first: usize) -> Option<Tensor> {
    let dimensions = spec.shape.iter().enumerate().map(|(axis, dim)| match dim {
        Dim::Fixed(size) => i64::try_from(*size).ok(),
        Dim::Any if axis == 0 => i64::try_from(rows).ok(),
        Dim::Any | Dim::Unranked => Some(free_size),
    });
    let shape = Shape::new(dimensions.collect::<Option<Dimensions>>()?).ok()?;
    made_up(&spec.name.as_str().into(), spec.datatype, shape, rows, first, Kind::Plain)
}

fn made_up(name: &Arc<str>, datatype: DataType, shape: Shape, rows: usize, first: usize, kind: Kind) -> Option<Tensor> {
    let size = datatype.size().unwrap_or(size_of::<Bytes>());
    if shape.elements().checked_mul(size)? > INPUT_LIMIT {
        return None;
    }
    let width = shape.elements().checked_div(rows).unwrap_or(0).max(1);
    let plain = |index: usize| u8::try_from((index % width * 3 + (index / width + first) * 5) % 3).unwrap_or(0);
    let step = |index: usize| u8::try_from((index % width * 7 + (index / width + first) * 11) % 17).unwrap_or(0);
    let (signed, unsigned) =
        (|index: usize| kind.whole(plain(index), true), |index: usize| kind.whole(plain(index), false).unsigned_abs());
    let count = shape.elements();
    let bytes: Vec<u8> = match datatype {
        DataType::Bytes => {
            let elements = (0..count).map(|index| kind.text(plain(index))).collect();
            return Tensor::text(Arc::clone(name), shape, elements).ok();
        }
        DataType::Bool => (0..count).map(|index| plain(index) & 1).collect(),
        DataType::Uint8 => (0..count).map(unsigned).collect(),
        DataType::Int8 => (0..count).map(|at| signed(at).cast_unsigned()).collect(),
        DataType::Uint16 => (0..count).flat_map(|at| u16::from(unsigned(at)).to_le_bytes()).collect(),
        DataType::Int16 => (0..count).flat_map(|at| i16::from(signed(at)).to_le_bytes()).collect(),
        DataType::Uint32 => (0..count).flat_map(|at| u32::from(unsigned(at)).to_le_bytes()).collect(),
        DataType::Int32 => (0..count).flat_map(|at| i32::from(signed(at)).to_le_bytes()).collect(),
        DataType::Uint64 => (0..count).flat_map(|at| u64::from(unsigned(at)).to_le_bytes()).collect(),
        DataType::Int64 => (0..count).flat_map(|at| i64::from(signed(at)).to_le_bytes()).collect(),
        DataType::Fp16 => (0..count).flat_map(|at| f16::from_f32(kind.half(step(at))).to_le_bytes()).collect(),
        DataType::Bf16 => (0..count).flat_map(|at| bf16::from_f32(kind.real(step(at))).to_le_bytes()).collect(),
        DataType::Fp32 => (0..count).flat_map(|at| kind.real(step(at)).to_le_bytes()).collect(),
        DataType::Fp64 => (0..count).flat_map(|at| f64::from(kind.real(step(at))).to_le_bytes()).collect(),
    };
    Tensor::plain(Arc::clone(name), datatype, shape, bytes.into()).ok()
}

/// Rows of real requests that can run together: of the inputs that must be given, in the order of the signature, and of
/// the shape of the first of them but for the rows.
#[derive(Debug, Default)]
pub(super) struct RealRows {
    pub(super) rows: Vec<Vec<Tensor>>,
    /// Where the first of them comes from.
    pub(super) origin: &'static str,
}

impl RealRows {
    pub(super) fn of(signature: &Signature, samples: &[Sample]) -> Self {
        let mut real = Self::default();
        let mut like = Vec::new();
        for sample in samples {
            let Some(inputs) = required(signature, &sample.inputs) else { continue };
            let rows = inputs.first().map_or(0, |input| input.shape().rows());
            let has_rows = |input: &Tensor| !input.shape().dimensions().is_empty() && input.shape().rows() == rows;
            if !inputs.iter().all(has_rows) {
                continue;
            }
            let columns = columns(&inputs);
            if like.is_empty() {
                (like, real.origin) = (columns, sample.origin);
            } else if like != columns {
                continue;
            }
            let row = |row: usize| inputs.iter().map(|input| input.rows(row..row + 1).ok()).collect::<Option<Vec<_>>>();
            real.rows.extend((0..rows.min(ROWS_OF_ONE)).filter_map(row));
        }
        real.rows.truncate(REAL_ROWS);
        real
    }
}

fn required(signature: &Signature, inputs: &[Tensor]) -> Option<Vec<Tensor>> {
    signature.check(inputs, &[]).ok()?;
    let specs = signature.inputs.iter().filter(|spec| !spec.optional);
    specs.map(|spec| inputs.iter().find(|input| input.name() == spec.name).cloned()).collect()
}
