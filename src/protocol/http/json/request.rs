//! Reading an OIP v2 JSON inference request.
//!
//! Unknown keys are ignored, as clients send extensions. `data` stays a slice of the body
//! until its datatype and shape are known; strings without escapes stay one to the end.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{error::Category, value::RawValue};

use super::{elements, object::Object};
use crate::{
    domain::{DataType, RequestId, Shape, Tensor},
    protocol::{
        ROUTING_KEY_PARAMETER,
        refusal::{Refusal, shown},
    },
};

/// What a client is told that sends tensors behind the JSON.
pub(crate) const NO_BINARY_DATA: &str = "binary tensor data is not supported yet: send 'data' as JSON, or use gRPC";

/// What the body of a request says.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) id: RequestId,
    pub(crate) routing_key: Option<String>,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<String>,
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
    binary_data_size: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
}

/// Reads the body of an inference request.
pub(crate) fn decode(body: &Bytes) -> Result<Decoded, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::bad_request("the request is not UTF-8 text"))?;
    if text.trim_ascii().is_empty() {
        return Err(Refusal::bad_request("the request has no body: send a JSON object with 'inputs'"));
    }
    let Object(parsed) = serde_json::from_str::<Object<Body<'_>>>(text).map_err(|error| malformed(&error))?;
    let inputs = parsed.inputs.into_iter().map(|Object(input)| tensor(&input, body));
    Ok(Decoded {
        inputs: inputs.collect::<Result<_, _>>()?,
        id: RequestId::given_or_new(parsed.id.as_deref().unwrap_or_default())?,
        routing_key: parsed.parameters.and_then(|parameters| parameters.0.routing_key).map(routing_key).transpose()?,
        outputs: parsed.outputs.unwrap_or_default().into_iter().map(|Object(output)| output.name).collect(),
    })
}

fn tensor(input: &Input<'_>, body: &Bytes) -> Result<Tensor, Refusal> {
    let name: &str = &input.name;
    if input.parameters.as_ref().is_some_and(|parameters| parameters.0.binary_data_size.is_some()) {
        return Err(Refusal::input(name, NO_BINARY_DATA));
    }
    let datatype: Cow<'_, str> = field(name, "datatype", input.datatype, "a string such as \"FP32\"")?;
    let datatype: DataType = datatype.parse().map_err(|error| Refusal::input(name, error))?;
    let shape: Vec<i64> = field(name, "shape", input.shape, "a list of whole numbers")?;
    let shape = Shape::new(shape).map_err(|error| Refusal::input(name, error))?;
    let data = input.data.ok_or_else(|| Refusal::input(name, "'data' is missing"))?;
    elements::tensor(name, datatype, shape, data.get(), body).map_err(|fault| Refusal::input(name, fault))
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
        let refusal = decode(&Bytes::copy_from_slice(body.as_bytes())).unwrap_err();
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
        let decoded = decode(&Bytes::from(body)).unwrap();
        assert_eq!(decoded.id.as_str(), "a\"1");
        assert_eq!(decoded.routing_key.as_deref(), Some("kä"));
        assert_eq!(decoded.outputs, ["y", "z"]);
        assert_eq!(decoded.inputs.len(), 1);
        assert_eq!(decoded.inputs[0].to_raw(), &[1, 254][..]);
    }

    #[test]
    fn request_without_an_id_gets_one() {
        let decoded = decode(&Bytes::from(r#"{"id":null,"inputs":[],"outputs":null,"parameters":null}"#)).unwrap();
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
        assert_eq!(decode(&Bytes::from_static(b"\xff{}")).unwrap_err().message(), "the request is not UTF-8 text");
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

    #[test]
    fn binary_data_is_refused_as_not_supported_yet() {
        let fields = r#""datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}"#;
        assert!(input(fields).contains("binary tensor data is not supported yet"));
    }

    #[test]
    fn nesting_without_end_is_refused_and_harmless() {
        let brackets = "[".repeat(50_000);
        refused(&brackets);
        let closed = format!("{brackets}{}", "]".repeat(50_000));
        assert!(input(&format!(r#""datatype":"FP32","shape":[1],"data":{closed}"#)).contains("nested deeper"));
        input(&format!(r#""datatype":"FP32","shape":{closed},"data":[1]"#));
        // An unknown key is skipped, however deep.
        decode(&Bytes::from(format!(r#"{{"inputs":[],"z":{closed}}}"#))).unwrap();
    }
}
