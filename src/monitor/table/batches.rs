//! Rows of a table as input tensors, some rows at a time.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    Cell, Elements, TableError,
    source::{Part, Source},
    value::Value,
};
use crate::domain::{Dim, Dimensions, Shape, Tensor, TensorError, TensorSpec};

/// Elements of one input after which a batch has rows enough.
const MOST_ELEMENTS: usize = 1 << 22;

/// An input, and what fills it.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) spec: TensorSpec,
    pub(super) filling: Filling,
}

#[derive(Debug)]
pub(super) enum Filling {
    /// As many columns, of which this is the first among those wanted.
    Columns { first: usize, count: usize },
    /// One column of lists, and the dimensions of a row once the first was read.
    List { column: usize, row: Option<Vec<i64>> },
}

impl Filling {
    fn columns(&self) -> std::ops::Range<usize> {
        match *self {
            Self::Columns { first, count } => first..first + count,
            Self::List { column, .. } => column..column + 1,
        }
    }
}

/// Inputs of one run of a model.
#[derive(Debug)]
pub struct Batch {
    pub inputs: Vec<Tensor>,
    /// Rows of the table. The inputs have more where the model takes a fixed number of rows and no more were left: the first
    /// ones are repeated then, and what the model answers for them must be left out.
    pub rows: usize,
}

impl Batch {
    /// The first `rows` of a tensor of this run, inputs or outputs; all of it where its rows are not those of the batch.
    #[must_use]
    pub fn own_rows(&self, tensor: &Tensor) -> Tensor {
        let filled = self.inputs.first().map_or(self.rows, |input| input.shape().rows());
        if filled == self.rows || tensor.shape().rows() != filled {
            return tensor.clone();
        }
        tensor.rows(0..self.rows).unwrap_or_else(|_| tensor.clone())
    }
}

/// Input tensors, batch by batch. Ends after the first error.
pub struct Batches {
    parts: Arc<[Part]>,
    wanted: Arc<[String]>,
    inputs: Vec<Input>,
    rows: usize,
    /// Whether the model takes nothing but batches of exactly `rows`.
    is_fixed: bool,
    source: Option<Source>,
    /// The part that is read, and the row of it read last, from 1.
    part: usize,
    row: u64,
    ended: bool,
    looks: Vec<Look>,
    repeated: usize,
}

/// What the texts of a wanted column look like.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    has_text: bool,
    /// Some text is no whole number with a point, as `1.0` is.
    has_other: bool,
}

impl Look {
    fn add(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        self.has_text = true;
        let digits = text.strip_suffix(b".0").map(|digits| digits.strip_prefix(b"-").unwrap_or(digits));
        self.has_other |= !digits.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.read().transpose();
        self.ended = !matches!(batch, Some(Ok(_)));
        batch
    }
}

impl Batches {
    pub(super) fn new(
        parts: &Arc<[Part]>,
        wanted: Vec<String>,
        inputs: Vec<Input>,
        (rows, is_fixed): (usize, bool),
    ) -> Result<Self, TableError> {
        let (parts, wanted) = (Arc::clone(parts), Arc::from(wanted));
        // What is wrong with a later file is told before the first is read.
        for part in parts.iter().skip(1) {
            Source::open(part, &wanted)?;
        }
        let source = parts.first().map(|part| Source::open(part, &wanted)).transpose()?;
        let looks = vec![Look::default(); wanted.len()];
        Ok(Self { parts, wanted, inputs, rows, is_fixed, source, part: 0, row: 0, ended: false, looks, repeated: 0 })
    }

    /// What is worth knowing of the rows read so far, a sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.repeated > 0 {
            notes.push(format!(
                "the model takes {} rows at a time: the last run was filled up with {} repeated rows, whose outputs are left out",
                self.rows, self.repeated
            ));
        }
        let whole = self.looks.iter().zip(&*self.wanted).filter(|(look, _)| look.has_text && !look.has_other);
        let whole: BTreeSet<_> = whole.map(|(_, name)| format!("'{name}'")).collect();
        if !whole.is_empty() {
            let names = whole.into_iter().collect::<Vec<_>>().join(", ");
            notes.push(format!(
                "warning: {names}: a text input has whole numbers with a point, such as '1.0': if clients send '1', they will \
                 all be values that never were. Write the column as whole numbers or as text"
            ));
        }
        notes
    }

    fn read(&mut self) -> Result<Option<Batch>, TableError> {
        let mut all: Vec<_> = self.inputs.iter().map(|input| Elements::new(input.spec.datatype)).collect();
        let (mut rows, mut elements) = (0, 0);
        while rows < self.rows && (self.is_fixed || elements < MOST_ELEMENTS) && self.advance()? {
            rows += 1;
            elements += self.push_row(&mut all)?;
        }
        if rows == 0 {
            return Ok(None);
        }
        let filled = if self.is_fixed { self.rows } else { rows };
        self.repeated += filled - rows;
        let tensors = self.inputs.iter().zip(all).map(|(input, mut elements)| {
            elements.fill_up(rows, filled);
            Ok(elements.into_tensor(&input.spec.name, shape(input, filled)?)?)
        });
        let inputs = tensors.collect::<Result<_, TableError>>()?;
        Ok(Some(Batch { inputs, rows }))
    }

    /// The next row, of this part or the next one.
    fn advance(&mut self) -> Result<bool, TableError> {
        loop {
            let (Some(source), Some(part)) = (&mut self.source, self.parts.get(self.part)) else { return Ok(false) };
            if source.advance(&part.path)? {
                self.row += 1;
                return Ok(true);
            }
            self.part += 1;
            self.row = 0;
            self.source = self.parts.get(self.part).map(|part| Source::open(part, &self.wanted)).transpose()?;
        }
    }

    /// Adds the row read last; how many elements the largest input got.
    fn push_row(&mut self, all: &mut [Elements]) -> Result<usize, TableError> {
        let (Some(source), Some(part)) = (&self.source, self.parts.get(self.part)) else { return Ok(0) };
        let (row, wanted) = (self.row, &self.wanted);
        let fault = |column: usize, fault| cell_fault(&part.path, row, &wanted[column], fault);
        let mut most = 0;
        for (input, elements) in self.inputs.iter_mut().zip(all) {
            let mut pushed = 0;
            for column in input.filling.columns() {
                let cell = source.cell(column);
                if let Filling::List { row: expected, .. } = &mut input.filling {
                    pushed +=
                        push_list(cell, &input.spec.shape, expected, elements).map_err(|why| fault(column, why))?;
                } else {
                    elements.push(cell).map_err(|why| fault(column, why))?;
                    pushed += 1;
                    elements.last_text().into_iter().for_each(|text| self.looks[column].add(text));
                }
            }
            most = most.max(pushed);
        }
        Ok(most)
    }
}

fn cell_fault(path: &Path, row: u64, column: &str, fault: String) -> TableError {
    TableError::Cell { path: path.into(), row, column: column.to_owned(), fault }
}

/// Adds the values of a list, which must have the dimensions of the lists before.
fn push_list(
    cell: Cell<'_>,
    spec: &[Dim],
    expected: &mut Option<Vec<i64>>,
    elements: &mut Elements,
) -> Result<usize, String> {
    let values = match cell {
        Cell::List(values) => values,
        Cell::Missing => return Err("the list is missing, and a row cannot say so".into()),
        _ => return Err("the value is no list, as others in the column are".into()),
    };
    let row = fitted(&dimensions(values)?, spec)?;
    match expected {
        None => *expected = Some(row),
        Some(expected) if *expected == row => {}
        Some(expected) => {
            return Err(format!(
                "its list has the shape {}, those before have {}: pad all to one length, as clients do in a request",
                shown(&row),
                shown(expected)
            ));
        }
    }
    push_values(values, elements)
}

fn push_values(values: &[Value], elements: &mut Elements) -> Result<usize, String> {
    let mut pushed = 0;
    for (at, value) in values.iter().enumerate() {
        match value {
            Value::List(inner) => pushed += push_values(inner, elements)?,
            value => {
                elements.push(value.cell()).map_err(|why| format!("value {} of the list: {why}", at + 1))?;
                pushed += 1;
            }
        }
    }
    Ok(pushed)
}

fn shown(dimensions: &[i64]) -> String {
    format!("[{}]", dimensions.iter().map(i64::to_string).collect::<Vec<_>>().join(", "))
}

/// The dimensions of lists in lists.
fn dimensions(values: &[Value]) -> Result<Vec<i64>, String> {
    let mut inner: Option<Vec<i64>> = None;
    for value in values {
        let here = if let Value::List(values) = value { dimensions(values)? } else { Vec::new() };
        if inner.get_or_insert_with(|| here.clone()) != &here {
            return Err("the lists in its list are not alike: they have different lengths, or some are no lists".into());
        }
    }
    Ok([vec![i64::try_from(values.len()).unwrap_or(i64::MAX)], inner.unwrap_or_default()].concat())
}

/// The dimensions of a row of an input that a list of these dimensions fills: nested as the input is, or flat.
fn fitted(list: &[i64], spec: &[Dim]) -> Result<Vec<i64>, String> {
    if spec == [Dim::Unranked] {
        return Ok(list.to_vec());
    }
    let spec = spec.get(1..).unwrap_or_default();
    let words = || {
        spec.iter().map(|dim| match dim {
            Dim::Fixed(size) => size.to_string(),
            Dim::Any | Dim::Unranked => "any".to_owned(),
        })
    };
    let refused = || {
        let wanted = words().collect::<Vec<_>>().join(", ");
        format!("its list has the shape {}, a row of the input has [{wanted}]", shown(list))
    };
    let size = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    let is_fitting = |(is, wanted): (&i64, &Dim)| match wanted {
        Dim::Fixed(wanted) => *is == size(*wanted),
        Dim::Any | Dim::Unranked => true,
    };
    if list.len() == spec.len() {
        return if list.iter().zip(spec).all(is_fitting) { Ok(list.to_vec()) } else { Err(refused()) };
    }
    let [length] = *list else { return Err(refused()) };
    let open = spec.iter().filter(|dim| !matches!(dim, Dim::Fixed(_))).count();
    let fixed = spec.iter().fold(1_i64, |product, dim| match dim {
        Dim::Fixed(wanted) => product.saturating_mul(size(*wanted)),
        Dim::Any | Dim::Unranked => product,
    });
    let rest = match open {
        0 if length == fixed => 1,
        1 if fixed > 0 && length % fixed == 0 => length / fixed,
        0 | 1 => return Err(refused()),
        _ => return Err(refused() + ": nest the list as the input is"),
    };
    let dimension = |dim: &Dim| if let Dim::Fixed(wanted) = dim { size(*wanted) } else { rest };
    Ok(spec.iter().map(dimension).collect())
}

/// The shape of `rows` rows of an input.
fn shape(input: &Input, rows: usize) -> Result<Shape, TensorError> {
    let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    let count = match &input.filling {
        Filling::List { row, .. } => {
            return Shape::new([&[size(rows)], &row.clone().unwrap_or_default()[..]].concat());
        }
        Filling::Columns { count, .. } => *count,
    };
    // The declared shape with the number of columns for an open dimension after the first.
    let sizes = input.spec.shape.iter().enumerate().map(|(at, dim)| match dim {
        _ if at == 0 => size(rows),
        Dim::Any | Dim::Unranked => size(count),
        Dim::Fixed(_) => dim.to_wire(),
    });
    Shape::new(sizes.collect::<Dimensions>())
}
