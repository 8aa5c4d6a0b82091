//! Tests of the conversion between gRPC messages and tensors.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::proto::inference::model_infer_request::InferRequestedOutputTensor;
use crate::{domain::Target, fault::Fault};

fn input(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: shape.into(),
        contents,
        ..InferInputTensor::default()
    }
}

fn typed(datatype: &str, shape: &[i64], contents: InferTensorContents) -> Result<Bytes, String> {
    let tensors = inputs(vec![input(datatype, shape, Some(contents))], vec![]).map_err(|refusal| refusal.message())?;
    Ok(tensors[0].to_raw())
}

fn raw(datatype: &str, shape: &[i64], bytes: &[u8]) -> Result<Tensor, String> {
    let raw = vec![Bytes::copy_from_slice(bytes)];
    inputs(vec![input(datatype, shape, None)], raw).map(|mut all| all.remove(0)).map_err(|refusal| refusal.message())
}

macro_rules! contents {
    ($field:ident: $($value:expr),*) => {
        InferTensorContents { $field: vec![$($value),*], ..InferTensorContents::default() }
    };
}

#[test]
fn typed_contents_of_every_datatype_become_bytes() {
    for (datatype, contents, bytes) in [
        ("BOOL", contents!(bool_contents: true, false), &[1, 0][..]),
        ("INT8", contents!(int_contents: -128, 127), &[128, 127]),
        ("INT16", contents!(int_contents: -2, 3), &[254, 255, 3, 0]),
        ("INT32", contents!(int_contents: -2, 3), &[254, 255, 255, 255, 3, 0, 0, 0]),
        ("INT64", contents!(int64_contents: -1, 0), &[255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("UINT8", contents!(uint_contents: 0, 255), &[0, 255]),
        ("UINT16", contents!(uint_contents: 1, 65535), &[1, 0, 255, 255]),
        ("UINT32", contents!(uint_contents: 1, u32::MAX), &[1, 0, 0, 0, 255, 255, 255, 255]),
        ("UINT64", contents!(uint64_contents: 1, 2), &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]),
        ("FP32", contents!(fp32_contents: 1.0, f32::INFINITY), &[0, 0, 128, 63, 0, 0, 128, 127]),
        ("FP64", contents!(fp64_contents: 1.0, 0.0), &[0, 0, 0, 0, 0, 0, 240, 63, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("BYTES", contents!(bytes_contents: Bytes::from("a"), Bytes::new()), &[1, 0, 0, 0, b'a', 0, 0, 0, 0]),
    ] {
        assert_eq!(typed(datatype, &[2], contents).unwrap(), bytes, "{datatype}");
    }
}

#[test]
fn typed_contents_that_do_not_fit_are_refused_by_tensor() {
    for (datatype, contents, message) in [
        ("INT8", contents!(int_contents: 1, 128), "element 1 is 128, outside the range of INT8 (-128 to 127)"),
        ("UINT16", contents!(uint_contents: 65536, 1), "element 0 is 65536, outside the range of UINT16 (0 to 65535)"),
        ("FP32", contents!(fp32_contents: 1.0), "the shape [2] needs 2 elements, got 1"),
        ("BYTES", contents!(bytes_contents: Bytes::new()), "the shape [2] needs 2 elements, got 1"),
        ("FP32", contents!(fp64_contents: 1.0, 2.0), "FP32 belongs in fp32_contents, but fp64_contents is filled"),
        ("BOOL", contents!(int_contents: 1, 0), "BOOL belongs in bool_contents, but int_contents is filled"),
        ("FP16", contents!(fp32_contents: 1.0, 2.0), "FP16 cannot be sent in typed contents: send raw_input_contents"),
        ("BF16", InferTensorContents::default(), "BF16 cannot be sent in typed contents: send raw_input_contents"),
        ("INT64", InferTensorContents::default(), "no data: fill int64_contents, or send raw_input_contents"),
    ] {
        assert_eq!(typed(datatype, &[2], contents).unwrap_err(), format!("input 'x': {message}"));
    }
    assert!(typed("FLOAT", &[1], InferTensorContents::default()).unwrap_err().contains("datatype 'FLOAT' is unknown"));
    let negative = typed("FP32", &[-1], contents!(fp32_contents: 1.0)).unwrap_err();
    assert_eq!(negative, "input 'x': the shape has a negative dimension (-1)");
}

#[test]
fn tensor_of_no_elements_needs_no_data() {
    for datatype in DataType::ALL {
        let tensors = inputs(vec![input(datatype.name(), &[0, 4], None)], vec![]).unwrap();
        assert_eq!((tensors[0].datatype(), tensors[0].to_raw().len()), (datatype, 0));
        assert_eq!(raw(datatype.name(), &[0, 4], &[]).unwrap().shape().elements(), 0);
    }
}

#[test]
fn raw_contents_must_match_their_inputs() {
    let x = || input("FP32", &[1], None);
    let refused = |inputs_given, raw| inputs(inputs_given, raw).unwrap_err().message();
    assert_eq!(
        refused(vec![x(), x()], vec![Bytes::from_static(&[0; 4])]),
        "raw_input_contents has 1 entries for 2 inputs: give one for each input, in their order"
    );
    let both = input("FP32", &[1], Some(contents!(fp32_contents: 1.0)));
    assert_eq!(
        refused(vec![both], vec![Bytes::from_static(&[0; 4])]),
        "input 'x': 'contents' must be absent where raw_input_contents is used"
    );
    assert_eq!(raw("FP32", &[2], &[0; 7]).unwrap_err(), "input 'x': the shape [2] of FP32 needs 8 bytes, got 7");
    assert_eq!(
        raw("BYTES", &[1], &[9, 0, 0, 0, 1]).unwrap_err(),
        "input 'x': BYTES data ends in the middle of element 0"
    );
    assert_eq!(
        raw("BOOL", &[2], &[1, 7]).unwrap_err(),
        "input 'x': element 1 is 7, outside the range of BOOL (0 to 1)"
    );
}

#[test]
fn raw_contents_are_not_copied_on_the_way_through() {
    let sent = Bytes::from(vec![1; 64]);
    let tensors = inputs(vec![input("FP32", &[16], None)], vec![sent.clone()]).unwrap();
    let reply = InferReply {
        model: "m".parse().unwrap(),
        version: "7".parse().unwrap(),
        id: RequestId::given_or_new("id").unwrap(),
        outputs: tensors.into(),
        violation: None,
    };
    let response = response(&reply);
    assert_eq!(response.raw_output_contents[0].as_ptr(), sent.as_ptr());
    assert_eq!((response.model_version.as_str(), response.id.as_str()), ("7", "id"));
    assert_eq!(response.outputs[0].shape, [16]);
}

#[test]
fn envelope_is_read_and_the_metadata_key_wins() {
    let key = parameter(ParameterChoice::StringParam("b".into()));
    let message = ModelInferRequest {
        model_version: "champion".into(),
        parameters: [(ROUTING_KEY_PARAMETER.to_owned(), key)].into(),
        outputs: vec![InferRequestedOutputTensor { name: "y".into(), ..InferRequestedOutputTensor::default() }],
        ..ModelInferRequest::default()
    };
    let asked = request("m", message.clone(), CallTerms::default()).unwrap();
    assert_eq!(asked.target, Target::Label("champion".parse().unwrap()));
    assert_eq!((asked.routing_key.as_deref(), asked.outputs.as_slice()), (Some("b"), &[OutputRequest::plain("y")][..]));
    assert_eq!(asked.id.as_str().len(), 36);
    let terms = CallTerms::with_routing_key("a");
    assert_eq!(request("m", message, terms).unwrap().routing_key.as_deref(), Some("a"));

    let key = parameter(ParameterChoice::Int64Param(1));
    let message = ModelInferRequest {
        parameters: [(ROUTING_KEY_PARAMETER.to_owned(), key)].into(),
        ..ModelInferRequest::default()
    };
    let refused = request("m", message, CallTerms::default()).unwrap_err();
    assert_eq!(refused.message(), "the parameter 'routing_key' must be a string_param");
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

fn with_parameter(name: &str, choice: ParameterChoice) -> Result<InferRequest, String> {
    let parameters = [(name.to_owned(), parameter(choice))].into();
    let message = ModelInferRequest { parameters, ..ModelInferRequest::default() };
    request("m", message, CallTerms::default()).map_err(|refusal| refusal.message())
}

#[test]
fn urgency_is_read_from_every_form_of_a_number() {
    use ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam, Uint64Param};

    for (choice, priority) in
        [(Int64Param(3), Some(3)), (Uint64Param(3), Some(3)), (StringParam("3".into()), Some(3)), (Int64Param(0), None)]
    {
        let asked = with_parameter("priority", choice).unwrap().urgency;
        assert_eq!((asked.priority, asked.deadline), (priority.and_then(Priority::from_wire), None));
    }
    for choice in [Int64Param(60_000_000), Uint64Param(60_000_000), StringParam("60000000".into())] {
        let deadline = with_parameter("timeout", choice).unwrap().urgency.deadline.unwrap();
        let left = deadline - std::time::Instant::now();
        assert!(left > Duration::from_secs(59) && left <= Duration::from_secs(60), "{left:?}");
    }
    assert_eq!(with_parameter("timeout", Int64Param(0)).unwrap().urgency, Urgency::default());
    assert!(with_parameter("timeout", Uint64Param(u64::MAX)).is_ok());

    for name in ["priority", "timeout"] {
        for choice in [Int64Param(-1), StringParam("soon".into()), BoolParam(true), DoubleParam(1.0)] {
            assert_eq!(
                with_parameter(name, choice).unwrap_err(),
                format!(
                    "the parameter '{name}' must be a whole number from 0, as int64_param, uint64_param or string_param"
                )
            );
        }
    }
}

#[test]
fn classification_is_asked_for_by_output() {
    let wanted = |choice| {
        let parameters = [("classification".to_owned(), parameter(choice))].into();
        output(InferRequestedOutputTensor { name: "y".into(), parameters }).map_err(|refusal| refusal.message())
    };
    let three = OutputRequest { name: "y".into(), classes: NonZeroUsize::new(3) };
    assert_eq!(wanted(ParameterChoice::Int64Param(3)).unwrap(), three);
    assert_eq!(wanted(ParameterChoice::Int64Param(0)).unwrap(), OutputRequest::plain("y"));
    let refused = wanted(ParameterChoice::BoolParam(true)).unwrap_err();
    assert!(refused.starts_with("output 'y': the parameter 'classification' must be a whole number"), "{refused}");
}

#[test]
fn shared_memory_is_refused_with_what_to_use_instead() {
    let region = || [("shared_memory_region".to_owned(), parameter(ParameterChoice::StringParam("r".into())))].into();
    let refused = inputs(vec![InferInputTensor { parameters: region(), ..input("FP32", &[1], None) }], vec![]);
    assert_eq!(refused.unwrap_err(), elsewhere::shared_memory());
    let refused = output(InferRequestedOutputTensor { name: "y".into(), parameters: region() });
    assert_eq!(refused.unwrap_err(), elsewhere::shared_memory());
}

proptest! {
    #[test]
    fn raw_tensor_of_any_type_round_trips(
        datatype in prop::sample::select(DataType::ALL.to_vec()),
        bytes in prop::collection::vec(0_u8..2, 0..128),
    ) {
        let count = datatype.size().map_or(0, |size| bytes.len() / size);
        let used = &bytes[..count * datatype.size().unwrap_or(0)];
        let tensor = raw(datatype.name(), &[i64::try_from(count).unwrap()], used).unwrap();
        prop_assert_eq!(&tensor.to_raw()[..], used);
    }

    #[test]
    fn any_message_converts_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = ModelInferRequest::decode(&bytes[..]) {
            let _ = request("m", message, CallTerms::default());
        }
    }

    #[test]
    fn any_contents_convert_without_panic(
        datatype in prop::sample::select(DataType::ALL.to_vec()),
        shape in prop::collection::vec(-1_i64..4, 0..4),
        ints in prop::collection::vec(any::<i32>(), 0..5),
        uints in prop::collection::vec(any::<u32>(), 0..2),
        raw_bytes in prop::option::of(prop::collection::vec(any::<u8>(), 0..16)),
    ) {
        let contents = InferTensorContents { int_contents: ints, uint_contents: uints, ..InferTensorContents::default() };
        let raw = raw_bytes.into_iter().map(Bytes::from).collect();
        let _ = inputs(vec![input(datatype.name(), &shape, Some(contents))], raw);
    }
}
