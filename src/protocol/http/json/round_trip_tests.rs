//! Tests of the JSON codec as a whole: what is read is written back the same, whatever the
//! datatype, and nothing that a client can send makes it panic.

use std::fmt::Write;

use bytes::Bytes;
use proptest::prelude::*;

use super::{BinaryOutputs, decode, encode};
use crate::{
    domain::{DataType, InferReply, RequestId, Shape, Tensor},
    fault::Fault,
    protocol::Nonfinite,
};

/// The tensor `x` of a request with these fields.
fn read(datatype: &str, shape: &str, data: &str) -> Result<Tensor, String> {
    let body = format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#);
    let decoded = decode(&Bytes::from(body), None).map_err(|refusal| refusal.message())?;
    Ok(decoded.inputs[0].clone())
}

/// The `data` of the tensor in a reply.
fn written(tensor: Tensor) -> String {
    written_with(tensor, Nonfinite::Null)
}

fn written_with(tensor: Tensor, nonfinite: Nonfinite) -> String {
    let reply = InferReply {
        model: "m".parse().unwrap(),
        version: "1".parse().unwrap(),
        id: RequestId::given_or_new("i").unwrap(),
        outputs: [tensor].into(),
        violation: None,
    };
    let text = String::from_utf8(encode(&reply, &BinaryOutputs::default(), nonfinite).unwrap().body).unwrap();
    let (_, data) = text.split_once(r#""data":"#).unwrap();
    data.strip_suffix("}]}").unwrap().to_owned()
}

#[test]
fn values_of_every_datatype_round_trip() {
    for (datatype, shape, data, bytes) in [
        ("BOOL", "[3]", "[true,false,true]", &[1, 0, 1][..]),
        ("UINT8", "[2]", "[0,255]", &[0, 255]),
        ("UINT16", "[1]", "[65535]", &[255, 255]),
        ("UINT32", "[1]", "[4294967295]", &[255; 4]),
        ("UINT64", "[1]", "[18446744073709551615]", &[255; 8]),
        ("INT8", "[2]", "[-128,127]", &[128, 127]),
        ("INT16", "[1]", "[-32768]", &[0, 128]),
        ("INT32", "[1]", "[-2147483648]", &[0, 0, 0, 128]),
        ("INT64", "[1]", "[-9223372036854775808]", &[0, 0, 0, 0, 0, 0, 0, 128]),
        ("FP16", "[1]", "[-1.5]", &[0, 0xbe]),
        ("BF16", "[1]", "[1.5]", &[0xc0, 0x3f]),
        ("FP32", "[1]", "[0.1]", &[0xcd, 0xcc, 0xcc, 0x3d]),
        ("FP64", "[1]", "[0.1]", &[0x9a, 0x99, 0x99, 0x99, 0x99, 0x99, 0xb9, 0x3f]),
    ] {
        let tensor = read(datatype, shape, data).unwrap();
        assert_eq!(tensor.datatype().name(), datatype);
        assert_eq!(tensor.to_raw(), bytes, "{datatype}");
        assert_eq!(written(tensor), data, "{datatype}");
    }
    let text = read("BYTES", "[4]", r#"["", "a", "ä\"\u0041\\", " [,] "]"#).unwrap();
    assert_eq!(written(text), r#"["","a","ä\"A\\"," [,] "]"#);
}

#[test]
fn data_may_be_flat_nested_or_in_between() {
    let flat = read("INT8", "[2,1,2]", "[1,2,3,4]").unwrap();
    for data in ["[[[1,2]],[[3,4]]]", "[[1,2],[3,4]]", " [ [ [ 1 , 2 ] ] ,\n[[3,\t4]]]\r", "[[[[1,2,3,4]]]]"] {
        assert_eq!(read("INT8", "[2,1,2]", data).unwrap(), flat, "{data}");
    }
    for data in ["[7]", "7"] {
        assert_eq!(read("INT8", "[]", data).unwrap().to_raw(), &[7][..], "a scalar: {data}");
    }
    for data in ["[]", "[[],[]]"] {
        assert_eq!(read("FP32", "[2,0]", data).unwrap().shape().elements(), 0, "an empty tensor: {data}");
    }
    assert_eq!(read("BYTES", "[0]", "[]").unwrap().shape().elements(), 0);
}

#[test]
fn integers_and_floats_are_accepted_where_they_are_exact_enough() {
    assert_eq!(written(read("FP32", "[5]", "[1,-0,1e3,16777217,1e-60]").unwrap()), "[1.0,-0.0,1000.0,16777216.0,0.0]");
    assert_eq!(written(read("FP64", "[2]", "[1,9007199254740993]").unwrap()), "[1.0,9007199254740992.0]");
    assert_eq!(written(read("UINT8", "[2]", "[-0,7]").unwrap()), "[0,7]");
    assert_eq!(written(read("BOOL", "[2]", "[1,0]").unwrap()), "[true,false]");
    // Read as FP32 at once: by way of FP64 this would be rounded twice, and wrong.
    let halfway = read("FP32", "[1]", "[1.00000017881393432617187499]").unwrap();
    assert_eq!(halfway.to_raw(), 1.000_000_1_f32.to_le_bytes()[..]);
}

#[test]
fn value_that_does_not_fit_is_refused_by_tensor_element_and_range() {
    for (datatype, data, message) in [
        ("UINT8", "[0,300]", "element 1 is 300, outside the range of UINT8 (0 to 255)"),
        ("UINT8", "[0,-1]", "element 1 is -1, outside the range of UINT8 (0 to 255)"),
        ("INT8", "[128,0]", "element 0 is 128, outside the range of INT8 (-128 to 127)"),
        ("INT32", "[1.0,2]", "element 0 is 1.0, expected a whole number for INT32"),
        ("INT64", "[1e3,2]", "element 0 is 1e3, expected a whole number for INT64"),
        ("INT64", "[\"1\",2]", "element 0 is \"1\", expected a whole number for INT64"),
        ("FP32", "[0,1e39]", "element 1 is 1e39, outside the range of FP32 (-3.4028235e38 to 3.4028235e38)"),
        (
            "FP64",
            "[-1e309,0]",
            "element 0 is -1e309, outside the range of FP64 (-1.7976931348623157e308 to 1.7976931348623157e308)",
        ),
        ("FP16", "[0,65520]", "element 1 is 65520, outside the range of FP16 (-65504 to 65504)"),
        ("BF16", "[1e39,0]", "element 0 is 1e39, outside the range of BF16 (-3.3895314e38 to 3.3895314e38)"),
        ("FP32", "[true,0]", "element 0 is true, expected a number for FP32"),
        ("FP32", "[0,{\"a\":1}]", "element 1 is {, expected a number for FP32"),
        ("BOOL", "[true,2]", "element 1 is 2, expected true or false for BOOL"),
        ("BYTES", "[\"a\",1]", "element 1 is 1, expected a string for BYTES"),
        ("INT8", "[1,2,3]", "the shape [2] needs 2 elements, got 3"),
        ("INT8", "[1]", "the shape [2] needs 2 elements, got 1"),
        ("BYTES", "[\"a\"]", "the shape [2] needs 2 elements, got 1"),
        ("INT8", "1", "data must be a list"),
        ("INT8", "{\"a\":1}", "data must be a list"),
        ("INT8", "[1,[2]]", "data mixes lists and values at element 1"),
        ("INT8", "[[1],2]", "data mixes lists and values at element 1"),
        ("INT8", "[[[1]]]", "data is nested deeper than its shape, which has 1 dimensions"),
    ] {
        assert_eq!(read(datatype, "[2]", data).unwrap_err(), format!("input 'x': {message}"), "{datatype} {data}");
    }
}

#[test]
fn missing_and_infinite_numbers_are_read_in_tensors_of_floats() {
    let data = "[NaN,null,Infinity,-Infinity, NaN , null ,-0.5]";
    let values = [f64::NAN, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::NAN, -0.5];
    let nested = "[[NaN],[null],[Infinity],[-Infinity],[NaN],[null],[-0.5]]";
    for (shape, data) in [("[7]", data), ("[7,1]", data), ("[7,1]", nested)] {
        let raw = |datatype| read(datatype, shape, data).unwrap().to_raw();
        assert_eq!(raw("FP64"), values.map(f64::to_le_bytes).as_flattened());
        assert_eq!(raw("FP32"), values.map(|value| half::f16::from_f64(value).to_f32().to_le_bytes()).as_flattened());
        assert_eq!(raw("FP16"), values.map(|value| half::f16::from_f64(value).to_le_bytes()).as_flattened());
        assert_eq!(raw("BF16"), values.map(|value| half::bf16::from_f64(value).to_le_bytes()).as_flattened());
    }
    assert_eq!(read("FP32", "[]", "NaN").unwrap().to_raw(), f32::NAN.to_le_bytes()[..]);
    // Also where the data stand before what says how to read them.
    let body = r#"{"inputs":[{"data":[NaN,-Infinity,null],"name":"x","shape":[3],"datatype":"FP32"}],"z":[NaN]}"#;
    let decoded = decode(&Bytes::from_static(body.as_bytes()), None).unwrap();
    let expected = [f32::NAN, f32::NEG_INFINITY, f32::NAN].map(f32::to_le_bytes);
    assert_eq!(decoded.inputs[0].to_raw(), expected.as_flattened());
}

#[test]
fn missing_text_is_the_empty_one() {
    assert_eq!(written(read("BYTES", "[3]", r#"["a",null, null]"#).unwrap()), r#"["a","",""]"#);
    assert_eq!(written(read("BYTES", "[2,1]", r#"[[null],["b"]]"#).unwrap()), r#"["","b"]"#);
}

#[test]
fn missing_value_where_the_type_has_none_is_refused_with_the_way_out() {
    for (datatype, data, words) in [
        ("INT64", "[1,null]", "element 1 is null, expected a whole number for INT64; INT64 has no value for a missing"),
        ("INT8", "[NaN,1]", "element 0 is NaN, expected a whole number for INT8; INT8 has no value for a missing"),
        ("UINT16", "[-Infinity,1]", "element 0 is -Infinity, expected a whole number for UINT16; UINT16 has no value"),
        ("BOOL", "[true,null]", "element 1 is null, expected true or false for BOOL; BOOL has no value for a missing"),
        ("BYTES", "[NaN,\"a\"]", "element 0 is NaN, expected a string for BYTES; a missing text is null or \"\""),
        ("FP32", "[0,\"NaN\"]", "element 1 is \"NaN\", expected a number for FP32; write null or NaN for a missing"),
        ("FP64", "[0,\"-inf\"]", "element 1 is \"-inf\", expected a number for FP64; write null or NaN for a missing"),
    ] {
        let message = read(datatype, "[2]", data).unwrap_err();
        assert!(message.starts_with(&format!("input 'x': {words}")), "{datatype} {data}: {message}");
    }
    for token in ["nan", "NAN", "-NaN", "+Infinity", "inf", "-inf", "Inf", "None", "undefined", "nil", "NA", "-nan"] {
        for data in [format!("[0,{token}]"), format!("[{token},0]")] {
            let message = read("FP32", "[2]", &data).unwrap_err();
            let words = "expected value: a number that is missing is null or NaN here, others that are not finite are \
                         Infinity and -Infinity, all without quotes, at line 1 column ";
            assert!(message.contains(words), "{data}: {message}");
        }
    }
    for data in ["[0,NaNx]", "[0,Infinity5]", "[0,-Infinityy]", "[0,nullnull]"] {
        assert!(read("FP32", "[2]", data).unwrap_err().contains("expected `,` or `]`"), "{data}");
    }
}

#[test]
fn answer_with_literals_is_read_as_it_was() {
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.5].map(f32::to_le_bytes).concat();
    let tensor = Tensor::plain("x", DataType::Fp32, Shape::new(vec![4]).unwrap(), values.into()).unwrap();
    let data = written_with(tensor.clone(), Nonfinite::Literal);
    assert_eq!(data, "[NaN,Infinity,-Infinity,1.5]");
    assert_eq!(read("FP32", "[4]", &data).unwrap(), tensor);
    assert_eq!(written(tensor), "[null,null,null,1.5]");
}

#[test]
fn data_nested_against_its_shape_is_refused() {
    let message = "input 'x': data has a list of 2 where dimension 1 of the shape is 3";
    assert_eq!(read("INT8", "[2,3]", "[[1,2],[3,4],[5,6]]").unwrap_err(), message);
}

#[test]
fn shape_that_claims_much_reserves_nothing() {
    let message = read("FP64", "[1000000,1000000]", "[1]").unwrap_err();
    assert_eq!(message, "input 'x': the shape [1000000, 1000000] needs 1000000000000 elements, got 1");
}

#[test]
fn string_without_escapes_is_a_slice_of_the_body() {
    let body = Bytes::from(r#"{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":["abc"]}]}"#);
    let decoded = decode(&body, None).unwrap();
    let crate::domain::Elements::Text(elements) = decoded.inputs[0].elements() else { panic!("a BYTES tensor") };
    assert!(body.as_ptr_range().contains(&elements[0].as_ptr()));
}

fn any_datatype() -> impl Strategy<Value = DataType> {
    prop::sample::select(DataType::ALL.to_vec())
}

/// Bytes of finite elements, as JSON cannot write others.
fn finite(datatype: DataType, mut bytes: Vec<u8>) -> Vec<u8> {
    let size = datatype.size().unwrap();
    bytes.truncate(bytes.len() / size * size);
    for element in bytes.chunks_exact_mut(size) {
        match datatype {
            DataType::Bool => element[0] &= 1,
            // The exponent is all ones in what is not finite: one zero bit in it is enough.
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => element[size - 1] &= 0xbf,
            _ => {}
        }
    }
    bytes
}

proptest! {
    #[test]
    fn tensor_of_any_fixed_size_type_round_trips(datatype in any_datatype(), bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assume!(datatype != DataType::Bytes);
        let bytes = finite(datatype, bytes);
        let count = bytes.len() / datatype.size().unwrap();
        let shape = Shape::new(vec![1, i64::try_from(count).unwrap()]).unwrap();
        let tensor = Tensor::plain("x", datatype, shape, bytes.into()).unwrap();
        let again = read(datatype.name(), &format!("[1,{count}]"), &written(tensor.clone())).unwrap();
        prop_assert_eq!(again, tensor);
    }

    /// Held against a reader that splits at commas and leaves the numbers to the standard library.
    #[test]
    fn floats_of_all_kinds_are_read_as_a_simple_reader_does(
        kinds in prop::collection::vec((0..12_u8, any::<f32>()), 1..400),
        comma in prop::sample::select(vec![",", ", ", " , "]),
        width in 1..4_usize,
    ) {
        let texts: Vec<String> = kinds
            .iter()
            .map(|(kind, value)| match kind {
                0 => "NaN".into(),
                1 => "null".into(),
                2 => "Infinity".into(),
                3 => "-Infinity".into(),
                4 => format!("{:?}", f64::from(*value)).replace("NaN", "null").replace("inf", "Infinity"),
                5 => "7".into(),
                _ => format!("{:.3}", value % 1e4).replace("NaN", "0.125"),
            })
            .collect();
        let simple = |text: &str| match text {
            "null" => f64::NAN,
            text => text.parse::<f64>().unwrap(),
        };
        let flat = format!("[{}]", texts.join(comma));
        let rows: Vec<String> = texts.chunks(width).map(|row| format!("[{}]", row.join(comma))).collect();
        let doubles: Vec<u8> = texts.iter().flat_map(|text| simple(text).to_le_bytes()).collect();
        let singles: Vec<u8> = texts
            .iter()
            .flat_map(|text| if text == "null" { f32::NAN } else { text.parse::<f32>().unwrap() }.to_le_bytes())
            .collect();
        let count = texts.len();
        let mut ways = vec![(format!("[{count}]"), flat)];
        if count.is_multiple_of(width) {
            ways.push((format!("[{},{width}]", count / width), format!("[{}]", rows.join(comma))));
        }
        for (shape, data) in ways {
            prop_assert_eq!(read("FP64", &shape, &data).unwrap().to_raw(), &doubles[..]);
            prop_assert_eq!(read("FP32", &shape, &data).unwrap().to_raw(), &singles[..]);
        }
    }

    #[test]
    fn tensor_of_strings_round_trips(strings in prop::collection::vec(any::<String>(), 0..20)) {
        let elements = strings.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
        let shape = Shape::new(vec![i64::try_from(strings.len()).unwrap()]).unwrap();
        let tensor = Tensor::text("x", shape, elements).unwrap();
        let again = read("BYTES", &format!("[{}]", strings.len()), &written(tensor.clone())).unwrap();
        prop_assert_eq!(again, tensor);
    }

    #[test]
    fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&Bytes::from(bytes), None);
    }

    #[test]
    fn any_data_decodes_without_panic(
        datatype in any_datatype(),
        shape in prop::collection::vec(-1_i64..4, 0..4),
        tokens in prop::collection::vec(prop::sample::select(vec![
            "[", "]", ",", "1", "-", "-0", "1e400", "0.5", "null", "true", "\"", "\"a\"", "\"\\ud800\"", "\"\\\\\"", "{", "}", ":", " ", "é", "NaN", "Infinity", "-Infinity", "[1,2]", "[[]]",
        ]), 0..20),
    ) {
        let mut data = String::new();
        for token in tokens {
            write!(data, "{token}").unwrap();
        }
        let _ = read(datatype.name(), &format!("{shape:?}"), &data);
        let _ = read(datatype.name(), &format!("{shape:?}"), &format!("[{data}]"));
    }
}
