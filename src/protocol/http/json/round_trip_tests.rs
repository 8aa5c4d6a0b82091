//! Tests of the JSON codec as a whole: what is read is written back the same, whatever the
//! datatype, and nothing that a client can send makes it panic.

use std::fmt::Write;

use bytes::Bytes;
use proptest::prelude::*;

use super::{BinaryOutputs, decode, encode};
use crate::{
    domain::{DataType, InferReply, RequestId, Shape, Tensor},
    fault::Fault,
};

/// The tensor `x` of a request with these fields.
fn read(datatype: &str, shape: &str, data: &str) -> Result<Tensor, String> {
    let body = format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#);
    let decoded = decode(&Bytes::from(body), None).map_err(|refusal| refusal.message())?;
    Ok(decoded.inputs[0].clone())
}

/// The `data` of the tensor in a reply.
fn written(tensor: Tensor) -> String {
    let reply = InferReply {
        model: "m".parse().unwrap(),
        version: "1".parse().unwrap(),
        id: RequestId::given_or_new("i").unwrap(),
        outputs: [tensor].into(),
        violation: None,
    };
    let text = String::from_utf8(encode(&reply, &BinaryOutputs::default()).unwrap().body).unwrap();
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
        ("FP32", "[0,null]", "element 1 is null, expected a number for FP32"),
        ("FP32", "[true,0]", "element 0 is true, expected a number for FP32"),
        ("FP32", "[0,\"inf\"]", "element 1 is \"inf\", expected a number for FP32"),
        ("FP32", "[0,{\"a\":1}]", "element 1 is {, expected a number for FP32"),
        ("BOOL", "[true,2]", "element 1 is 2, expected true or false for BOOL"),
        ("BYTES", "[\"a\",1]", "element 1 is 1, expected a string for BYTES"),
        ("BYTES", "[\"a\",null]", "element 1 is null, expected a string for BYTES"),
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
            "[", "]", ",", "1", "-", "-0", "1e400", "0.5", "null", "true", "\"", "\"a\"", "\"\\ud800\"", "\"\\\\\"", "{", "}", ":", " ", "é", "NaN", "[1,2]", "[[]]",
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
