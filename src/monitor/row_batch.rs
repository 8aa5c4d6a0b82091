//! Rows of several small requests, put together as if they were one.
//!
//! Most requests are small. To count a row alone costs several times what it costs among others, and to keep its
//! tensors until they are counted costs the request warm memory: so small ones are copied, one behind the other.

use std::{ptr, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{Answered, Observation, Watch};
use crate::domain::{DataType, Elements, Shape, Tensor, Version};

/// Tensors of a request up to so many bytes are copied; larger ones are shared.
const SMALL: usize = 4096;
/// Room that is kept for the next rows.
const KEPT: usize = 1 << 20;

/// Who counts rows, and what they are told apart by.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) watch: Arc<Watch>,
    pub(super) stable: Option<Arc<Watch>>,
    pub(super) version: Version,
    pub(super) parameters: Vec<(Arc<str>, String)>,
}

impl Origin {
    pub(super) fn of(observation: Observation<'_>) -> Self {
        Self {
            watch: Arc::clone(observation.watch),
            stable: observation.stable.cloned(),
            version: observation.version,
            parameters: observation.parameters.to_vec(),
        }
    }

    fn is_of(&self, observation: Observation<'_>) -> bool {
        let is_stable = match (&self.stable, observation.stable) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(&self.watch, observation.watch)
            && is_stable
            && self.version == observation.version
            && self.parameters.len() == observation.parameters.len()
            && self.parameters.iter().zip(observation.parameters).all(|(own, other)| own == other)
    }
}

/// Rows of requests to one version whose tensors are alike.
#[derive(Debug)]
pub(super) struct RowBatch {
    origin: Origin,
    /// The inputs, then the outputs.
    tensors: Vec<Stack>,
    inputs: usize,
    rows: usize,
    requests: u64,
}

/// One tensor of all rows.
#[derive(Debug)]
struct Stack {
    name: Arc<str>,
    /// The dimensions behind the first.
    row: Vec<i64>,
    elements: Stacked,
}

#[derive(Debug)]
enum Stacked {
    Plain {
        datatype: DataType,
        bytes: BytesMut,
    },
    /// All texts, and where each ends.
    Text {
        bytes: BytesMut,
        ends: Vec<usize>,
    },
}

/// The rows and bytes of a request that can be put together with others: a small one, all of whose tensors have as many
/// rows as the first, and something in them.
pub(super) fn is_small(observation: Observation<'_>) -> Option<(usize, usize)> {
    let rows = observation.inputs.first()?.shape().rows();
    let mut bytes = 0;
    for tensor in observation.inputs.iter().chain(&**observation.outputs) {
        bytes += tensor.byte_size();
        if tensor.shape().rows() != rows || tensor.shape().elements() == 0 || bytes > SMALL {
            return None;
        }
    }
    Some((rows, bytes))
}

/// The dimensions behind the first; a scalar is a row of one column.
fn row_of(shape: &Shape) -> &[i64] {
    shape.dimensions().get(1..).unwrap_or_default()
}

/// Whether rows have the same dimensions. Nobody is called to compare memory: an empty slice has none, and where a comparison
/// loads the bytes of a whole register before it masks them, the processor takes 0.1 µs to find that it need not.
fn is_same_row(one: &[i64], other: &[i64]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one == other)
}

/// Whether names are the same. Nearly always they are one and the same piece of memory, that of the signature or of an earlier
/// request.
fn is_same_name(one: &str, other: &str) -> bool {
    ptr::eq(one, other) || one == other
}

impl RowBatch {
    /// Of rows like those of this request, without any yet.
    pub(super) fn like(observation: Observation<'_>) -> Self {
        let tensors = observation.inputs.iter().chain(&**observation.outputs);
        Self {
            origin: Origin::of(observation),
            tensors: tensors.map(Stack::like).collect(),
            inputs: observation.inputs.len(),
            rows: 0,
            requests: 0,
        }
    }

    /// Whether the rows of this request are like these.
    pub(super) fn is_like(&self, observation: Observation<'_>) -> bool {
        let tensors = observation.inputs.iter().chain(&**observation.outputs);
        self.inputs == observation.inputs.len()
            && self.tensors.len() == observation.inputs.len() + observation.outputs.len()
            && self.origin.is_of(observation)
            && self.tensors.iter().zip(tensors).all(|(stack, tensor)| stack.is_like(tensor))
    }

    /// Adds the rows of a request that is like these.
    pub(super) fn add(&mut self, observation: Observation<'_>, rows: usize) {
        let tensors = observation.inputs.iter().chain(&**observation.outputs);
        self.tensors.iter_mut().zip(tensors).for_each(|(stack, tensor)| stack.add(tensor));
        self.rows += rows;
        self.requests += 1;
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The requests that the rows came with.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Hands all rows to `take`, and forgets them.
    pub(super) fn drain<T>(&mut self, take: impl FnOnce(&Origin, Answered<'_>) -> T) -> T {
        let rows = i64::try_from(self.rows).unwrap_or(i64::MAX);
        let bytes: Vec<Bytes> = self.tensors.iter_mut().map(Stack::freeze).collect();
        let tensors: Vec<_> = self.tensors.iter().zip(&bytes).map(|(stack, bytes)| stack.tensor(rows, bytes)).collect();
        let (inputs, outputs) = tensors.split_at(self.inputs);
        let taken = take(&self.origin, Answered { inputs, outputs, parameters: &self.origin.parameters, chosen: None });
        drop(tensors);
        self.tensors.iter_mut().zip(bytes).for_each(|(stack, bytes)| stack.clear(bytes));
        (self.rows, self.requests) = (0, 0);
        taken
    }
}

impl Stack {
    fn like(tensor: &Tensor) -> Self {
        let elements = match tensor.elements() {
            Elements::Plain { datatype, .. } => Stacked::Plain { datatype: *datatype, bytes: BytesMut::new() },
            Elements::Text(_) => Stacked::Text { bytes: BytesMut::new(), ends: Vec::new() },
        };
        Self { name: tensor.shared_name(), row: row_of(tensor.shape()).to_vec(), elements }
    }

    fn is_like(&self, tensor: &Tensor) -> bool {
        let is_of_kind = match (&self.elements, tensor.elements()) {
            (Stacked::Plain { datatype, .. }, Elements::Plain { datatype: other, .. }) => datatype == other,
            (Stacked::Text { .. }, Elements::Text(_)) => true,
            _ => false,
        };
        is_of_kind && is_same_row(&self.row, row_of(tensor.shape())) && is_same_name(&self.name, tensor.name())
    }

    fn add(&mut self, tensor: &Tensor) {
        match (&mut self.elements, tensor.elements()) {
            (Stacked::Plain { bytes, .. }, Elements::Plain { bytes: more, .. }) => bytes.extend_from_slice(more),
            (Stacked::Text { bytes, ends }, Elements::Text(elements)) => {
                for element in elements {
                    bytes.extend_from_slice(element);
                    ends.push(bytes.len());
                }
            }
            _ => {}
        }
    }

    /// What was added, no longer to be added to.
    fn freeze(&mut self) -> Bytes {
        let (Stacked::Plain { bytes, .. } | Stacked::Text { bytes, .. }) = &mut self.elements;
        std::mem::take(bytes).freeze()
    }

    fn tensor(&self, rows: i64, all: &Bytes) -> Tensor {
        let name = Arc::clone(&self.name);
        let shape = Shape::new([&[rows], &*self.row].concat());
        let tensor = shape.and_then(|shape| match &self.elements {
            Stacked::Plain { datatype, .. } => Tensor::plain(name, *datatype, shape, all.clone()),
            Stacked::Text { ends, .. } => {
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let elements = starts.zip(ends).map(|(start, end)| all.slice(start..*end));
                Tensor::text(name, shape, elements.collect())
            }
        });
        tensor.expect("tensors of one row shape, none of them empty, make a tensor of all their rows")
    }

    /// Takes the memory of the rows back, for the next.
    fn clear(&mut self, all: Bytes) {
        let mut room = all.try_into_mut().unwrap_or_default();
        room.clear();
        if room.capacity() > KEPT {
            room = BytesMut::new();
        }
        match &mut self.elements {
            Stacked::Plain { bytes, .. } => *bytes = room,
            Stacked::Text { bytes, ends } => {
                *bytes = room;
                ends.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests;
