//! Golden requests: what a version must answer, kept beside it in `golden/*.json`.
//!
//! `{"request": …, "response": …, "rtol": …, "atol": …}`, both as the inference protocol writes
//! them in JSON. An element of a float passes when `|got - expected| ≤ atol + rtol·|expected|`
//! (NumPy's `allclose`); all others must be equal, `NaN`, `Infinity` and `-Infinity` too, of which `null` is any. What the response leaves out is not compared.

use std::path::Path;

use bytes::Bytes;
use half::{bf16, f16};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{listing::Listing, report::Faults};
use crate::{
    domain::{DataType, Elements, OutputRequest, Tensor},
    engine::Model,
};

/// Reads the inputs and the wanted outputs of an inference request in JSON; says what is wrong.
/// The protocol's own, handed in by the composition root.
pub type RequestDecoder = fn(&Bytes) -> Result<(Vec<Tensor>, Vec<OutputRequest>), String>;

const DIRECTORY: &str = "golden";
/// As exact as FP32 on another processor can be expected to be.
const DEFAULT_RTOL: f64 = 1e-4;
const DEFAULT_ATOL: f64 = 1e-5;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden<'a> {
    #[serde(borrow)]
    request: &'a RawValue,
    response: Response,
    #[serde(default = "default_rtol")]
    rtol: f64,
    #[serde(default = "default_atol")]
    atol: f64,
}

fn default_rtol() -> f64 {
    DEFAULT_RTOL
}

fn default_atol() -> f64 {
    DEFAULT_ATOL
}

/// Ids, names and parameters of a recorded answer say nothing about the model.
#[derive(Deserialize)]
struct Response {
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    data: Value,
}

/// Replays all golden requests; `None` when there are none. Says how many there are.
pub(super) fn replay(listing: &Listing, model: &dyn Model, decode: RequestDecoder) -> Option<Result<usize, Faults>> {
    let names: Vec<&String> = names(listing).collect();
    if names.is_empty() {
        return None;
    }
    let mut faults = Faults::default();
    for name in &names {
        match listing.read(name).map(|bytes| replay_one(&bytes.unwrap_or_default(), model, decode)) {
            Ok(Ok(())) => {}
            Ok(Err(found)) => {
                let found: Vec<String> = found.into_iter().map(|fault| format!("{name}: {fault}")).collect();
                faults.add(found.into());
            }
            Err(unreadable) => faults.add(unreadable),
        }
    }
    Some(if faults.reasons.is_empty() { Ok(names.len()) } else { Err(faults) })
}

fn names(listing: &Listing) -> impl Iterator<Item = &String> {
    let is_golden = |name: &&String| {
        let path = Path::new(name.as_str());
        path.parent() == Some(Path::new(DIRECTORY)) && path.extension().is_some_and(|extension| extension == "json")
    };
    listing.files.keys().filter(is_golden)
}

/// The inputs of at most so many golden requests, of those that can be read: [`replay`] says what is wrong with others.
pub(super) fn requests(listing: &Listing, decode: RequestDecoder, most: usize) -> Vec<Vec<Tensor>> {
    let inputs = |name: &String| {
        let text = listing.read(name).ok()??;
        let golden: Golden<'_> = serde_json::from_slice(&text).ok()?;
        let request = Bytes::copy_from_slice(golden.request.get().as_bytes());
        decode(&request).ok().map(|(inputs, _)| inputs)
    };
    names(listing).take(most).filter_map(inputs).collect()
}

fn replay_one(text: &[u8], model: &dyn Model, decode: RequestDecoder) -> Result<(), Vec<String>> {
    let one = |fault: String| vec![fault];
    let json = literals::quoted(text);
    let golden: Golden<'_> = serde_json::from_slice(&json).map_err(|error| one(error.to_string()))?;
    let request = Bytes::copy_from_slice(literals::original(text, &json, golden.request.get()));
    let (inputs, outputs) = decode(&request).map_err(|fault| one(format!("request: {fault}")))?;
    if let Some(output) = outputs.iter().find(|output| output.classes.is_some()) {
        return Err(one(format!("request: output '{}' asks for classes: tensors are compared here", output.name)));
    }
    let wanted = model.signature().check(&inputs, &outputs).map_err(|fault| one(format!("request: {fault}")))?;
    let answer = model.run(&inputs, &wanted).map_err(|error| one(error.to_string()))?;
    let faults: Vec<String> =
        golden.response.outputs.iter().filter_map(|output| golden.fault(output, &answer)).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

impl Golden<'_> {
    fn fault(&self, wanted: &Output, answer: &[Tensor]) -> Option<String> {
        let name = &wanted.name;
        let Some(tensor) = answer.iter().find(|tensor| tensor.name() == name) else {
            return Some(format!("output '{name}' is expected and not in the answer"));
        };
        if tensor.datatype().name() != wanted.datatype {
            return Some(format!("output '{name}': expected {}, got {}", wanted.datatype, tensor.datatype()));
        }
        let shape = tensor.shape().dimensions();
        if shape != wanted.shape {
            return Some(format!("output '{name}': expected shape {:?}, got {shape:?}", wanted.shape));
        }
        let mut expected = Vec::new();
        flatten(&wanted.data, &mut expected);
        if expected.len() != tensor.shape().elements() {
            let (has, needs) = (expected.len(), tensor.shape().elements());
            return Some(format!("output '{name}': the golden response has {has} elements, its shape needs {needs}"));
        }
        self.mismatch(tensor, &expected)
    }

    /// The first element that differs, and how many more do.
    fn mismatch(&self, tensor: &Tensor, expected: &[&Value]) -> Option<String> {
        let mut differing =
            (0..expected.len()).filter(|&place| !self.is_close(tensor, &element(tensor, place), expected[place]));
        let first = differing.next()?;
        let more = differing.count();
        let got = element(tensor, first);
        let index = index(first, tensor.shape().dimensions());
        let shown = |value: &Value| match value {
            Value::String(text) if tensor.datatype().is_float() => literals::unquoted(text).to_owned(),
            value => value.to_string(),
        };
        let (name, wanted) = (tensor.name(), shown(expected[first]));
        let mut words = format!("output '{name}' at {index:?}: expected {wanted}, got {}", shown(&got));
        if let (Value::Number(got), Value::Number(expected)) = (&got, expected[first])
            && let (Some(got), Some(expected), true) = (got.as_f64(), expected.as_f64(), tensor.datatype().is_float())
        {
            let difference = (got - expected).abs();
            words += &format!(" (off by {difference:.3e}, rtol {:e}, atol {:e})", self.rtol, self.atol);
        }
        if more > 0 {
            words += &format!("; {more} more elements of it differ");
        }
        Some(words)
    }

    fn is_close(&self, tensor: &Tensor, got: &Value, expected: &Value) -> bool {
        let is_float = tensor.datatype().is_float();
        match (got, expected) {
            (Value::Number(got), Value::Number(expected)) if got.is_f64() || expected.is_f64() => {
                let (Some(got), Some(expected)) = (got.as_f64(), expected.as_f64()) else { return false };
                (got - expected).abs() <= self.atol + self.rtol * expected.abs()
            }
            // Null stands for any of them, as answers have it; a literal for itself.
            (Value::String(got), Value::Null) if is_float => literals::is_one(got),
            (got, expected) => got == expected,
        }
    }
}

/// The elements of nested lists, in their order.
fn flatten<'a>(data: &'a Value, elements: &mut Vec<&'a Value>) {
    match data {
        Value::Array(list) => list.iter().for_each(|inner| flatten(inner, elements)),
        element => elements.push(element),
    }
}

/// An element as JSON has it: what is not a finite number is its literal, quoted.
fn element(tensor: &Tensor, place: usize) -> Value {
    macro_rules! at {
        ($type:ty, $bytes:expr, $convert:expr) => {{
            const SIZE: usize = size_of::<$type>();
            let mut raw = [0; SIZE];
            raw.copy_from_slice(&$bytes[place * SIZE..(place + 1) * SIZE]);
            $convert(<$type>::from_le_bytes(raw))
        }};
    }
    let nonfinite = |value| Value::String(literals::of(value).into());
    let float = |value: f64| serde_json::Number::from_f64(value).map_or_else(|| nonfinite(value), Value::Number);
    match tensor.elements() {
        Elements::Text(elements) => Value::String(String::from_utf8_lossy(&elements[place]).into_owned()),
        Elements::Plain { datatype, bytes } => match datatype {
            DataType::Bool => Value::Bool(bytes[place] != 0),
            DataType::Uint8 => at!(u8, bytes, Value::from),
            DataType::Uint16 => at!(u16, bytes, Value::from),
            DataType::Uint32 => at!(u32, bytes, Value::from),
            DataType::Uint64 => at!(u64, bytes, Value::from),
            DataType::Int8 => at!(i8, bytes, Value::from),
            DataType::Int16 => at!(i16, bytes, Value::from),
            DataType::Int32 => at!(i32, bytes, Value::from),
            DataType::Int64 => at!(i64, bytes, Value::from),
            DataType::Fp16 => at!(f16, bytes, |value: f16| float(value.to_f64())),
            DataType::Bf16 => at!(bf16, bytes, |value: bf16| float(value.to_f64())),
            DataType::Fp32 => at!(f32, bytes, |value: f32| float(shortest(value))),
            DataType::Fp64 => at!(f64, bytes, float),
            DataType::Bytes => Value::Null,
        },
    }
}

/// The number that prints as the FP32 does, and so as it stands in a golden response.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// The place of an element, by dimension.
fn index(mut place: usize, dimensions: &[i64]) -> Vec<usize> {
    let mut index = Vec::new();
    for &dimension in dimensions.iter().rev() {
        let size = usize::try_from(dimension).unwrap_or(1).max(1);
        index.push(place % size);
        place /= size;
    }
    index.reverse();
    index
}

mod literals;
#[cfg(test)]
mod tests;
