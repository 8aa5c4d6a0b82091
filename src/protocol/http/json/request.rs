//! Reading an OIP v2 JSON inference request.
//!
//! Unknown keys are ignored, as clients send extensions. The text is gone over once, and
//! numbers go from it straight into tensor memory; strings without escapes stay slices of the
//! body to the end.
//!
//! With the binary tensor extension an input has `parameters.binary_data_size` in place of
//! `data`, and its raw bytes stand behind the JSON, in the order of the inputs. They stay
//! slices of the body too.

use std::{borrow::Cow, num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    cursor::{Cursor, JsonFault},
    elements::{self, ElementFault},
    repeated,
};
use crate::{
    domain::{DataType, Dimensions, OutputRequest, Priority, RequestId, Shape, Tensor},
    protocol::{
        NONFINITE_PARAMETER, Nonfinite, ROUTING_KEY_PARAMETER,
        elsewhere::{self, SHARED_MEMORY_PARAMETER},
        is_kept, literal_text,
        refusal::{Refusal, shown},
    },
};

/// What the body of a request says.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) id: RequestId,
    pub(crate) routing_key: Option<String>,
    /// Parameters that are none of the protocol's.
    pub(crate) parameters: Vec<(Arc<str>, String)>,
    pub(crate) inputs: Arc<[Tensor]>,
    pub(crate) outputs: Vec<OutputRequest>,
    /// Triton's `priority`; 0 and absent mean the model's default.
    pub(crate) priority: Option<Priority>,
    /// Triton's `timeout`, which is in microseconds on the wire; 0 and absent mean none.
    pub(crate) timeout: Option<Duration>,
    pub(crate) binary: BinaryOutputs,
    /// How the answer says numbers that are not finite; absent means as configured.
    pub(crate) nonfinite: Option<Nonfinite>,
}

/// Which outputs the client wants as raw bytes behind the JSON of the answer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct BinaryOutputs {
    /// Wanted for every output that does not say otherwise.
    pub(crate) all: bool,
    /// What single outputs say.
    pub(crate) single: Vec<(String, bool)>,
}

impl BinaryOutputs {
    pub(crate) fn wants(&self, output: &str) -> bool {
        self.single.iter().find(|(name, _)| name == output).map_or(self.all, |(_, wanted)| *wanted)
    }
}

/// Reads the body of an inference request. `json_length` is the length of its JSON when raw
/// tensors may stand behind it.
pub(crate) fn decode(body: &Bytes, json_length: Option<usize>) -> Result<Decoded, Refusal> {
    if json_length.is_none() {
        return read(body, None);
    }
    let (json, blobs) = split(body, json_length)?;
    if let Some(decoded) = repeated::known(&json, &blobs) {
        return Ok(decoded);
    }
    let decoded = read(body, json_length)?;
    repeated::note(&json, blobs.len(), &decoded);
    Ok(decoded)
}

/// As [`decode`], from the text in any case.
pub(super) fn read(body: &Bytes, json_length: Option<usize>) -> Result<Decoded, Refusal> {
    let (json, blobs) = split(body, json_length)?;
    let text = std::str::from_utf8(&json).map_err(|_| Refusal::bad_request("the request is not UTF-8 text"))?;
    if text.trim_ascii().is_empty() {
        return Err(Refusal::bad_request("the request has no body: send a JSON object with 'inputs'"));
    }
    let mut reader = Reader { json: &json, blobs: Blobs { rest: blobs, is_marked: json_length.is_some() } };
    match reader.request(&mut Cursor::new(text)) {
        Ok(decoded) => reader.blobs.finish().map(|()| decoded),
        Err(Fault::Json(fault)) => Err(fault.refusal(text)),
        Err(Fault::Refused(refusal)) => Err(refusal),
    }
}

fn split(body: &Bytes, json_length: Option<usize>) -> Result<(Bytes, Bytes), Refusal> {
    match json_length {
        None => Ok((body.clone(), Bytes::new())),
        Some(length) if length > body.len() => Err(Refusal::bad_request(format!(
            "Inference-Header-Content-Length is {length}, but the body has only {} bytes",
            body.len()
        ))),
        Some(length) => Ok((body.slice(..length), body.slice(length..))),
    }
}

/// Why there is no request: the place of a JSON fault is not in words yet.
enum Fault {
    Json(JsonFault),
    Refused(Refusal),
}

impl From<JsonFault> for Fault {
    fn from(fault: JsonFault) -> Self {
        Self::Json(fault)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What of a body is needed behind its text.
struct Reader<'a> {
    json: &'a Bytes,
    blobs: Blobs,
}

impl Reader<'_> {
    fn request(&mut self, cursor: &mut Cursor<'_>) -> Result<Decoded, Fault> {
        let mut id = None;
        let mut parameters = None;
        let mut inputs = None;
        let mut outputs = None;
        let end = cursor.object(|cursor, key| -> Result<(), Fault> {
            match key {
                "id" => once(&mut id, "id", cursor, Cursor::string),
                "parameters" => once(&mut parameters, "parameters", cursor, request_parameters),
                "inputs" if inputs.is_some() => Err(duplicate("inputs", cursor)),
                // Unlike the others it must not be null.
                "inputs" => {
                    let mut tensors = Vec::with_capacity(1);
                    cursor.list(|cursor| self.input(cursor).map(|tensor| tensors.push(tensor)))?;
                    inputs = Some(tensors);
                    Ok(())
                }
                "outputs" => once(&mut outputs, "outputs", cursor, Outputs::read),
                _ => Ok(cursor.skip()?),
            }
        })?;
        cursor.end()?;
        let parameters: Parameters = parameters.unwrap_or_default();
        let outputs = outputs.unwrap_or_default();
        Ok(Decoded {
            inputs: inputs.ok_or_else(|| missing("inputs", end))?.into(),
            id: RequestId::given_or_new(id.as_deref().unwrap_or_default()).map_err(Refusal::from)?,
            routing_key: parameters.routing_key,
            parameters: parameters.others,
            priority: parameters.priority.and_then(Priority::from_wire),
            timeout: parameters.timeout.filter(|&micros| micros > 0).map(Duration::from_micros),
            binary: BinaryOutputs { all: parameters.binary_data_output, single: outputs.binary },
            nonfinite: parameters.nonfinite,
            outputs: outputs.wanted,
        })
    }

    /// One input. When its name, datatype and shape come before its data, as with all clients
    /// we know, the data is read on the way; otherwise it is skipped over first.
    fn input(&mut self, cursor: &mut Cursor<'_>) -> Result<Tensor, Fault> {
        let mut name: Option<Cow<'_, str>> = None;
        let mut head = Head::default();
        let mut size = None;
        let mut data = None;
        let end = cursor.object(|cursor, key| -> Result<(), Fault> {
            match key {
                "name" if name.is_some() => Err(duplicate("name", cursor)),
                "name" => {
                    name = Some(cursor.string()?);
                    Ok(())
                }
                "datatype" => once(&mut head.datatype, "datatype", cursor, raw),
                "shape" => once(&mut head.shape, "shape", cursor, raw),
                "parameters" if cursor.null()? => Ok(()),
                "parameters" => {
                    let members = cursor.object(|cursor, key| -> Result<(), Fault> {
                        match key {
                            "binary_data_size" => once(&mut size, "binary_data_size", cursor, raw),
                            SHARED_MEMORY_PARAMETER => Err(elsewhere::shared_memory().into()),
                            _ => Ok(cursor.skip()?),
                        }
                    });
                    members.map(drop)
                }
                "data" => once(&mut data, "data", cursor, |cursor| match &name {
                    Some(name) if head.is_complete() => self.data(name, &head, cursor).map(Data::Read),
                    _ => raw(cursor).map(Data::Skipped),
                }),
                _ => Ok(cursor.skip()?),
            }
        })?;
        let name = name.ok_or_else(|| missing("name", end))?;
        match (size, data) {
            (None, Some(Data::Read(tensor))) => Ok(tensor),
            (None, Some(Data::Skipped(mut data))) => self.data(&name, &head, &mut data),
            (Some(size), None) => {
                let (datatype, shape) = head.read(&name)?;
                let size: usize = value_of(&size, Cursor::whole)
                    .ok_or_else(|| misfit(&name, "binary_data_size", &size, "a number of bytes"))?;
                let raw = self.blobs.take(&name, size)?;
                Ok(Tensor::from_raw(&*name, datatype, shape, raw).map_err(|error| Refusal::input(&name, error))?)
            }
            (Some(_), Some(_)) => Err(Refusal::input(&name, "'data' and 'binary_data_size' exclude each other").into()),
            (None, None) => {
                head.read(&name)?;
                Err(Refusal::input(&name, "'data' is missing").into())
            }
        }
    }

    fn data(&self, name: &str, head: &Head<'_>, cursor: &mut Cursor<'_>) -> Result<Tensor, Fault> {
        let (datatype, shape) = head.read(name)?;
        elements::tensor(name, datatype, shape, cursor, self.json).map_err(|fault| match fault {
            ElementFault::Json(fault) => fault.into(),
            ElementFault::Value(fault) => Refusal::input(name, fault).into(),
        })
    }
}

/// The data of an input.
enum Data<'a> {
    Read(Tensor),
    /// Where it stands.
    Skipped(Cursor<'a>),
}

/// What must be known of an input before its data can be read; each where it stands.
#[derive(Default)]
struct Head<'a> {
    datatype: Option<Cursor<'a>>,
    shape: Option<Cursor<'a>>,
}

impl Head<'_> {
    fn is_complete(&self) -> bool {
        self.datatype.is_some() && self.shape.is_some()
    }

    fn read(&self, input: &str) -> Result<(DataType, Shape), Refusal> {
        let missing = |field| move || Refusal::input(input, format_args!("'{field}' is missing"));
        let datatype = self.datatype.as_ref().ok_or_else(missing("datatype"))?;
        let text = value_of(datatype, |cursor| cursor.string().ok())
            .ok_or_else(|| misfit(input, "datatype", datatype, "a string such as \"FP32\""))?;
        let datatype = text.parse().map_err(|error| Refusal::input(input, error))?;
        let shape = self.shape.as_ref().ok_or_else(missing("shape"))?;
        let dimensions =
            value_of(shape, dimensions).ok_or_else(|| misfit(input, "shape", shape, "a list of whole numbers"))?;
        Ok((datatype, Shape::new(dimensions).map_err(|error| Refusal::input(input, error))?))
    }
}

fn dimensions(cursor: &mut Cursor<'_>) -> Option<Dimensions> {
    let mut dimensions = Dimensions::new();
    let item = |cursor: &mut Cursor<'_>| -> Result<(), Option<JsonFault>> {
        dimensions.push(cursor.whole().ok_or(None)?);
        Ok(())
    };
    cursor.list(item).ok()?;
    Some(dimensions)
}

/// What the parameters of a request say.
#[derive(Default)]
struct Parameters {
    routing_key: Option<String>,
    binary_data_output: bool,
    priority: Option<u64>,
    timeout: Option<u64>,
    nonfinite: Option<Nonfinite>,
    others: Vec<(Arc<str>, String)>,
}

impl Parameters {
    /// Reads a parameter that is none of the protocol's.
    fn keep(&mut self, key: &str, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let value = match cursor.peek() {
            Some(b'"') => cursor.string()?,
            Some(b'[' | b'{' | b'n') => return Ok(cursor.skip()?),
            _ => {
                let start = cursor.at();
                cursor.skip()?;
                match cursor.since(start) {
                    flag @ ("true" | "false") => Cow::Borrowed(flag),
                    number => match literal_text(number) {
                        Some(text) => Cow::Owned(text),
                        None => return Ok(()),
                    },
                }
            }
        };
        if is_kept(key, &value, self.others.len()) {
            self.others.push((key.into(), value.into_owned()));
        }
        Ok(())
    }
}

fn request_parameters(cursor: &mut Cursor<'_>) -> Result<Parameters, Fault> {
    let mut read = Parameters::default();
    cursor.object(|cursor, key| -> Result<(), Fault> {
        match key {
            ROUTING_KEY_PARAMETER => {
                let text = parameter(cursor, |cursor| cursor.string().ok(), key, "a string")?;
                read.routing_key = text.map(Cow::into_owned);
            }
            "binary_data_output" => {
                read.binary_data_output = parameter(cursor, Cursor::boolean, key, "true or false")?.unwrap_or(false);
            }
            "priority" => read.priority = parameter(cursor, Cursor::whole, key, "a whole number, 0 or more")?,
            "timeout" => {
                let words = "a whole number of microseconds, 0 or more";
                read.timeout = parameter(cursor, Cursor::whole, key, words)?;
            }
            NONFINITE_PARAMETER => {
                let read_word = |cursor: &mut Cursor<'_>| cursor.string().ok()?.parse().ok();
                read.nonfinite = parameter(cursor, read_word, key, "\"null\" or \"literal\"")?;
            }
            _ => read.keep(key, cursor)?,
        }
        Ok(())
    })?;
    Ok(read)
}

/// The outputs that a request asks for.
#[derive(Default)]
struct Outputs {
    wanted: Vec<OutputRequest>,
    binary: Vec<(String, bool)>,
}

impl Outputs {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        let mut outputs = Self::default();
        cursor.list(|cursor| outputs.read_one(cursor))?;
        Ok(outputs)
    }

    fn read_one(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let mut name: Option<Cow<'_, str>> = None;
        let mut binary = None;
        let mut classes: Option<usize> = None;
        let end = cursor.object(|cursor, key| -> Result<(), Fault> {
            match key {
                "name" if name.is_some() => return Err(duplicate("name", cursor)),
                "name" => name = Some(cursor.string()?),
                "parameters" if !cursor.null()? => {
                    cursor.object(|cursor, key| -> Result<(), Fault> {
                        match key {
                            "binary_data" => binary = parameter(cursor, Cursor::boolean, key, "true or false")?,
                            "classification" => {
                                classes = parameter(cursor, Cursor::whole, key, "a whole number, 0 or more")?;
                            }
                            SHARED_MEMORY_PARAMETER => return Err(elsewhere::shared_memory().into()),
                            _ => cursor.skip()?,
                        }
                        Ok(())
                    })?;
                }
                "parameters" => {}
                _ => cursor.skip()?,
            }
            Ok(())
        })?;
        let name = name.ok_or_else(|| missing("name", end))?.into_owned();
        if let Some(binary) = binary {
            self.binary.push((name.clone(), binary));
        }
        self.wanted.push(OutputRequest { name, classes: classes.and_then(NonZeroUsize::new) });
        Ok(())
    }
}

/// A field that may be there once; null is as if it were not.
fn once<'a, T, E: Into<Fault>>(
    slot: &mut Option<T>,
    key: &'static str,
    cursor: &mut Cursor<'a>,
    read: impl FnOnce(&mut Cursor<'a>) -> Result<T, E>,
) -> Result<(), Fault> {
    if slot.is_some() {
        return Err(duplicate(key, cursor));
    }
    if !cursor.null()? {
        *slot = Some(read(cursor).map_err(Into::into)?);
    }
    Ok(())
}

/// Goes over a value, to be read later.
fn raw<'a>(cursor: &mut Cursor<'a>) -> Result<Cursor<'a>, Fault> {
    cursor.peek();
    let start = cursor.at();
    cursor.skip()?;
    Ok(Cursor::new(cursor.since(start)))
}

/// The value of a parameter; null is as if it were not there.
fn parameter<'a, T>(
    cursor: &mut Cursor<'a>,
    read: impl FnOnce(&mut Cursor<'a>) -> Option<T>,
    key: &str,
    expected: &str,
) -> Result<Option<T>, Fault> {
    if cursor.null()? {
        return Ok(None);
    }
    let value = raw(cursor)?;
    let read = value_of(&value, read).ok_or_else(|| {
        let words = format!("the parameter '{key}' is {}, expected {expected}", shown(value.rest()));
        Refusal::bad_request(words)
    })?;
    Ok(Some(read))
}

/// What `read` makes of the whole of a value that is known to be JSON.
fn value_of<'a, T>(value: &Cursor<'a>, read: impl FnOnce(&mut Cursor<'a>) -> Option<T>) -> Option<T> {
    read(&mut value.clone())
}

fn misfit(input: &str, field: &str, value: &Cursor<'_>, expected: &str) -> Refusal {
    Refusal::input(input, format_args!("'{field}' is {}, expected {expected}", shown(value.rest())))
}

#[cold]
fn missing(key: &str, end: usize) -> Fault {
    JsonFault::Form { words: format!("missing field `{key}`"), at: end }.into()
}

#[cold]
fn duplicate(key: &str, cursor: &Cursor<'_>) -> Fault {
    JsonFault::Form { words: format!("duplicate field `{key}`"), at: cursor.at() }.into()
}

/// The raw tensors behind the JSON, taken in the order of the inputs.
struct Blobs {
    rest: Bytes,
    /// The header says where the JSON ends.
    is_marked: bool,
}

impl Blobs {
    fn take(&mut self, input: &str, size: usize) -> Result<Bytes, Refusal> {
        if !self.is_marked {
            let words = "'binary_data_size' needs the header Inference-Header-Content-Length";
            return Err(Refusal::input(input, words));
        }
        if size > self.rest.len() {
            let words =
                format!("'binary_data_size' is {size}, but only {} bytes are left in the body", self.rest.len());
            return Err(Refusal::input(input, words));
        }
        Ok(self.rest.split_to(size))
    }

    fn finish(self) -> Result<(), Refusal> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Refusal::bad_request(format!("{} bytes behind the JSON belong to no input", self.rest.len())))
    }
}

#[cfg(test)]
mod tests;
