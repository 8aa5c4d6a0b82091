//! Requests as clients write them, and as they must not.

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
    let decoded = decode(&Bytes::from(r#"{"id":null,"inputs":[],"outputs":null,"parameters":null}"#), None).unwrap();
    assert_eq!(decoded.id.as_str().len(), 36);
    assert!(decoded.inputs.is_empty() && decoded.outputs.is_empty() && decoded.routing_key.is_none());
}

#[test]
fn whole_number_may_be_written_as_a_float() {
    let body = r#"{"parameters":{"priority":2.0,"timeout":1e3,"nonfinite":"literal","k":NaN},
        "inputs":[{"name":"x","shape":[2.0,1e0],"datatype":"INT8","data":[1,-2]}],
        "outputs":[{"name":"y","parameters":{"classification":3.0}}]}"#;
    let decoded = decode(&Bytes::from(body), None).unwrap();
    assert_eq!(decoded.inputs[0].shape().dimensions(), [2, 1]);
    assert_eq!(decoded.priority, Priority::from_wire(2));
    assert_eq!(decoded.timeout, Some(Duration::from_millis(1)));
    assert_eq!(decoded.outputs[0].classes.map(NonZeroUsize::get), Some(3));
    assert_eq!((decoded.nonfinite, decoded.parameters.len()), (Some(Nonfinite::Literal), 0));
    for (parameter, value) in [("priority", "2.5"), ("timeout", "-1.0"), ("priority", "1e300"), ("timeout", "NaN")] {
        let body = format!(r#"{{"inputs":[],"parameters":{{"{parameter}":{value}}}}}"#);
        assert!(refused(&body).contains(&format!("'{parameter}' is {value}, expected a whole number")), "{body}");
    }
}

#[test]
fn shared_memory_is_refused_in_the_words_of_grpc() {
    let region = r#"{"shared_memory_region":"r","shared_memory_byte_size":8}"#;
    let input = format!(r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"FP32","parameters":{region}}}]}}"#);
    let output = format!(r#"{{"inputs":[],"outputs":[{{"name":"y","parameters":{region}}}]}}"#);
    for body in [input, output] {
        assert_eq!(decode(&Bytes::from(body), None).unwrap_err(), elsewhere::shared_memory());
    }
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
        (r#"{"inputs":[{"name":"x","data":[nan]}]}"#, "the request is not valid JSON: expected value: a number that"),
        (
            r#"{"inputs":[{"name":"x","data":[x]}]}"#,
            "the request is not valid JSON: expected value at line 1 column 32",
        ),
        (
            r#"{"inputs":[],"parameters":{"nonfinite":"NaN"}}"#,
            "'nonfinite' is \"NaN\", expected \"null\" or \"literal\"",
        ),
        (r#"{"inputs":[],"id":NaN}"#, "invalid type: floating point `NaN`, expected a string"),
    ] {
        let message = refused(body);
        assert!(message.contains(words), "{body}: {message}");
    }
    assert_eq!(decode(&Bytes::from_static(b"\xff{}"), None).unwrap_err().message(), "the request is not UTF-8 text");
}

#[test]
fn input_that_is_incomplete_is_refused_by_name() {
    for (fields, message) in [
        (r#""shape":[1],"data":[1]"#, "input 'x': 'datatype' is missing"),
        (r#""datatype":"FP32","data":[1]"#, "input 'x': 'shape' is missing"),
        (r#""datatype":"FP32","shape":[1]"#, "input 'x': 'data' is missing"),
        (r#""datatype":"FP32","shape":[1],"data":null"#, "input 'x': 'data' is missing"),
        (r#""datatype":5,"shape":[1],"data":[1]"#, "input 'x': 'datatype' is 5, expected a string such as \"FP32\""),
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
