//! Reading an OIP v2 JSON inference request.
//!
//! Unknown keys are ignored, as clients send extensions. `data` stays a slice of the body
//! until its datatype and shape are known; strings without escapes stay one to the end.
//!
//! With the binary tensor extension an input has `parameters.binary_data_size` in place of
//! `data`, and its raw bytes stand behind the JSON, in the order of the inputs. They stay
//! slices of the body too.

use std::{borrow::Cow, num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{error::Category, value::RawValue};

use super::{elements, object::Object};
use crate::{
    domain::{DataType, OutputRequest, Priority, RequestId, Shape, Tensor},
    protocol::{
        ROUTING_KEY_PARAMETER,
        refusal::{Refusal, shown},
    },
};

/// What the body of a request says.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) id: RequestId,
    pub(crate) routing_key: Option<String>,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<OutputRequest>,
    /// Triton's `priority`; 0 and absent mean the model's default.
    pub(crate) priority: Option<Priority>,
    /// Triton's `timeout`, which is in microseconds on the wire; 0 and absent mean none.
    pub(crate) timeout: Option<Duration>,
    pub(crate) binary: BinaryOutputs,
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

#[derive(Deserialize)]
struct Body<'a> {
    id: Option<String>,
    #[serde(borrow)]
    parameters: Option<Object<RequestParameters<'a>>>,
    #[serde(borrow)]
    inputs: Vec<Object<Input<'a>>>,
    outputs: Option<Vec<Object<Output>>>,
}

#[derive(Deserialize)]
struct RequestParameters<'a> {
    #[serde(borrow)]
    routing_key: Option<&'a RawValue>,
    binary_data_output: Option<bool>,
    priority: Option<u64>,
    timeout: Option<u64>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Option<&'a RawValue>,
    #[serde(borrow)]
    shape: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    parameters: Option<Object<InputParameters>>,
}

#[derive(Deserialize)]
struct InputParameters {
    binary_data_size: Option<usize>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    parameters: Option<Object<OutputParameters>>,
}

#[derive(Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: Option<usize>,
}

/// Reads the body of an inference request. `json_length` is the length of its JSON when raw
/// tensors may stand behind it.
pub(crate) fn decode(body: &Bytes, json_length: Option<usize>) -> Result<Decoded, Refusal> {
    let (json, blobs) = split(body, json_length)?;
    let text = std::str::from_utf8(&json).map_err(|_| Refusal::bad_request("the request is not UTF-8 text"))?;
    if text.trim_ascii().is_empty() {
        return Err(Refusal::bad_request("the request has no body: send a JSON object with 'inputs'"));
    }
    let Object(parsed) = serde_json::from_str::<Object<Body<'_>>>(text).map_err(|error| malformed(&error))?;
    let mut blobs = Blobs { rest: blobs, is_marked: json_length.is_some() };
    let inputs = parsed.inputs.into_iter().map(|Object(input)| tensor(&input, &json, &mut blobs));
    let inputs = inputs.collect::<Result<_, _>>()?;
    blobs.finish()?;
    let parameters = parsed.parameters.map(|Object(parameters)| parameters);
    let all = parameters.as_ref().and_then(|parameters| parameters.binary_data_output).unwrap_or(false);
    let outputs = parsed.outputs.unwrap_or_default();
    let single = outputs
        .iter()
        .filter_map(|Object(output)| Some((output.name.clone(), output.parameters.as_ref()?.0.binary_data?)));
    let wanted = |Object(output): Object<Output>| OutputRequest {
        classes: output.parameters.and_then(|Object(said)| said.classification).and_then(NonZeroUsize::new),
        name: output.name,
    };
    Ok(Decoded {
        inputs,
        priority: parameters.as_ref().and_then(|said| said.priority).and_then(Priority::from_wire),
        timeout: parameters
            .as_ref()
            .and_then(|said| said.timeout)
            .filter(|&micros| micros > 0)
            .map(Duration::from_micros),
        id: RequestId::given_or_new(parsed.id.as_deref().unwrap_or_default())?,
        routing_key: parameters.and_then(|parameters| parameters.routing_key).map(routing_key).transpose()?,
        binary: BinaryOutputs { all, single: single.collect() },
        outputs: outputs.into_iter().map(wanted).collect(),
    })
}

fn split(body: &Bytes, json_length: Option<usize>) -> Result<(Bytes, Bytes), Refusal> {
    match json_length {
        None => Ok((body.clone(), Bytes::new())),
        Some(0) => Err(Refusal::bad_request(
            "raw binary requests are not supported yet: send JSON before the tensors, and its length in the header",
        )),
        Some(length) if length > body.len() => Err(Refusal::bad_request(format!(
            "Inference-Header-Content-Length is {length}, but the body has only {} bytes",
            body.len()
        ))),
        Some(length) => Ok((body.slice(..length), body.slice(length..))),
    }
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

fn tensor(input: &Input<'_>, body: &Bytes, blobs: &mut Blobs) -> Result<Tensor, Refusal> {
    let name: &str = &input.name;
    let datatype: Cow<'_, str> = field(name, "datatype", input.datatype, "a string such as \"FP32\"")?;
    let datatype: DataType = datatype.parse().map_err(|error| Refusal::input(name, error))?;
    let shape: Vec<i64> = field(name, "shape", input.shape, "a list of whole numbers")?;
    let shape = Shape::new(shape).map_err(|error| Refusal::input(name, error))?;
    let size = input.parameters.as_ref().and_then(|parameters| parameters.0.binary_data_size);
    match (size, input.data) {
        (None, Some(data)) => {
            elements::tensor(name, datatype, shape, data.get(), body).map_err(|fault| Refusal::input(name, fault))
        }
        (Some(size), None) => {
            let raw = blobs.take(name, size)?;
            Tensor::from_raw(name, datatype, shape, raw).map_err(|error| Refusal::input(name, error))
        }
        (Some(_), Some(_)) => Err(Refusal::input(name, "'data' and 'binary_data_size' exclude each other")),
        (None, None) => Err(Refusal::input(name, "'data' is missing")),
    }
}

/// A field of an input, so read that an error can name the input.
fn field<'a, T: Deserialize<'a>>(
    input: &str,
    field: &str,
    value: Option<&'a RawValue>,
    expected: &str,
) -> Result<T, Refusal> {
    let value = value.ok_or_else(|| Refusal::input(input, format_args!("'{field}' is missing")))?;
    serde_json::from_str(value.get())
        .map_err(|_| Refusal::input(input, format_args!("'{field}' is {}, expected {expected}", shown(value.get()))))
}

fn routing_key(value: &RawValue) -> Result<String, Refusal> {
    serde_json::from_str(value.get()).map_err(|_| {
        Refusal::bad_request(format!(
            "the parameter '{ROUTING_KEY_PARAMETER}' is {}, expected a string",
            shown(value.get())
        ))
    })
}

fn malformed(error: &serde_json::Error) -> Refusal {
    Refusal::bad_request(match error.classify() {
        Category::Data => format!("the request does not fit the protocol: {error}"),
        _ => format!("the request is not valid JSON: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{ErrorCode, Fault};

    fn refused(body: &str) -> String {
        let refusal = decode(&Bytes::copy_from_slice(body.as_bytes()), None).unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::BadRequest);
        refusal.message()
    }

    fn input(fields: &str) -> String {
        refused(&format!(r#"{{"inputs":[{{"name":"x",{fields}}}]}}"#))
    }

    #[test]
    fn request_with_all_its_parts_is_read() {
        let body = r#" {"id":"a\"1","unknown":[{}],"parameters":{"routing_key":"k\u00e4","binary_data_output":true},
            "inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":[1,-2],"parameters":{"z":1}}],
            "outputs":[{"name":"y","parameters":{"binary_data":true}},{"name":"z"}]} "#;
        let decoded = decode(&Bytes::from(body), None).unwrap();
        assert_eq!(decoded.id.as_str(), "a\"1");
        assert_eq!(decoded.routing_key.as_deref(), Some("kä"));
        assert_eq!(decoded.outputs, [OutputRequest::plain("y"), OutputRequest::plain("z")]);
        assert_eq!(decoded.inputs.len(), 1);
        assert_eq!(decoded.inputs[0].to_raw(), &[1, 254][..]);
    }

    #[test]
    fn request_without_an_id_gets_one() {
        let decoded =
            decode(&Bytes::from(r#"{"id":null,"inputs":[],"outputs":null,"parameters":null}"#), None).unwrap();
        assert_eq!(decoded.id.as_str().len(), 36);
        assert!(decoded.inputs.is_empty() && decoded.outputs.is_empty() && decoded.routing_key.is_none());
    }

    #[test]
    fn request_that_is_no_object_is_refused_in_clear_words() {
        for (body, words) in [
            ("", "the request has no body"),
            (" \n", "the request has no body"),
            ("{", "the request is not valid JSON: EOF"),
            (r#"{"inputs":[]} x"#, "the request is not valid JSON: trailing characters"),
            ("[]", "the request does not fit the protocol: invalid type: sequence, expected a JSON object"),
            ("[null,null,[],null]", "expected a JSON object"),
            ("7", "expected a JSON object"),
            ("{}", "missing field `inputs`"),
            (r#"{"inputs":{}}"#, "expected a sequence"),
            (r#"{"inputs":[["x","FP32",[1],[1]]]}"#, "expected a JSON object"),
            (r#"{"inputs":[],"inputs":[]}"#, "duplicate field `inputs`"),
            (r#"{"inputs":[],"id":7}"#, "invalid type: integer `7`, expected a string"),
            (r#"{"inputs":[{"shape":[1]}]}"#, "missing field `name`"),
            (r#"{"inputs":[],"outputs":[{}]}"#, "missing field `name`"),
            (r#"{"inputs":[],"parameters":[]}"#, "expected a JSON object"),
            (r#"{"inputs":[],"parameters":{"routing_key":5}}"#, "'routing_key' is 5, expected a string"),
            (r#"{"inputs":[{"name":"x","data":[NaN]}]}"#, "the request is not valid JSON: expected value"),
        ] {
            let message = refused(body);
            assert!(message.contains(words), "{body}: {message}");
        }
        assert_eq!(
            decode(&Bytes::from_static(b"\xff{}"), None).unwrap_err().message(),
            "the request is not UTF-8 text"
        );
    }

    #[test]
    fn input_that_is_incomplete_is_refused_by_name() {
        for (fields, message) in [
            (r#""shape":[1],"data":[1]"#, "input 'x': 'datatype' is missing"),
            (r#""datatype":"FP32","data":[1]"#, "input 'x': 'shape' is missing"),
            (r#""datatype":"FP32","shape":[1]"#, "input 'x': 'data' is missing"),
            (r#""datatype":"FP32","shape":[1],"data":null"#, "input 'x': 'data' is missing"),
            (
                r#""datatype":5,"shape":[1],"data":[1]"#,
                "input 'x': 'datatype' is 5, expected a string such as \"FP32\"",
            ),
            (
                r#""datatype":"FP32","shape":[1.5],"data":[1]"#,
                "input 'x': 'shape' is [1.5], expected a list of whole numbers",
            ),
            (r#""datatype":"FP32","shape":[-1],"data":[1]"#, "input 'x': the shape has a negative dimension (-1)"),
            (
                r#""datatype":"FP32","shape":[9223372036854775807,2],"data":[1]"#,
                "input 'x': the shape has more elements than this machine can address",
            ),
        ] {
            assert_eq!(input(fields), message);
        }
        assert!(input(r#""datatype":"float","shape":[1],"data":[1]"#).contains("datatype 'float' is unknown"));
    }

    fn with_blobs(inputs: &str, blobs: &[u8]) -> Result<Decoded, Refusal> {
        let json = format!(
            r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{inputs}],"outputs":[{{"name":"z","parameters":{{"binary_data":false}}}}]}}"#
        );
        let body = [json.as_bytes(), blobs].concat();
        decode(&Bytes::from(body), Some(json.len()))
    }

    #[test]
    fn tensors_behind_the_json_are_taken_in_order() {
        let inputs = r#"{"name":"x","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}},
            {"name":"j","datatype":"INT8","shape":[1],"data":[9]},
            {"name":"t","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}"#;
        let decoded = with_blobs(inputs, b"\x01\x02\x01\0\0\0\xff").unwrap();
        let raw: Vec<_> = decoded.inputs.iter().map(Tensor::to_raw).collect();
        assert_eq!(raw, [&b"\x01\x02"[..], b"\x09", b"\x01\0\0\0\xff"]);
        assert!(decoded.binary.wants("y") && !decoded.binary.wants("z"));
    }

    #[test]
    fn tensors_behind_the_json_that_do_not_add_up_are_refused() {
        let input = |more: &str| format!(r#"{{"name":"x","datatype":"INT8","shape":[2],{more}}}"#);
        for (inputs, blobs, words) in [
            (input(r#""parameters":{"binary_data_size":2}"#), &b"\x01"[..], "only 1 bytes are left"),
            (input(r#""parameters":{"binary_data_size":2}"#), b"\x01\x02\x03", "1 bytes behind the JSON"),
            (input(r#""parameters":{"binary_data_size":3}"#), b"\x01\x02\x03", "needs 2 bytes, got 3"),
            (input(r#""parameters":{"binary_data_size":2},"data":[1,2]"#), b"\x01\x02", "exclude each other"),
            (input(r#""parameters":{"binary_data_size":-1}"#), b"", "binary_data_size"),
        ] {
            let message = with_blobs(&inputs, blobs).unwrap_err().message();
            assert!(message.contains(words) || words == "binary_data_size", "{message}");
        }
        let without_header =
            r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1}}]}"#;
        assert!(refused(without_header).contains("Inference-Header-Content-Length"));
        let body = Bytes::from_static(b"{}");
        assert!(decode(&body, Some(3)).unwrap_err().message().contains("only 2 bytes"));
        assert!(decode(&body, Some(0)).unwrap_err().message().contains("raw binary requests"));
    }

    #[test]
    fn nesting_without_end_is_refused_and_harmless() {
        let brackets = "[".repeat(50_000);
        refused(&brackets);
        let closed = format!("{brackets}{}", "]".repeat(50_000));
        assert!(input(&format!(r#""datatype":"FP32","shape":[1],"data":{closed}"#)).contains("nested deeper"));
        input(&format!(r#""datatype":"FP32","shape":{closed},"data":[1]"#));
        // An unknown key is skipped, however deep.
        decode(&Bytes::from(format!(r#"{{"inputs":[],"z":{closed}}}"#)), None).unwrap();
    }
}
