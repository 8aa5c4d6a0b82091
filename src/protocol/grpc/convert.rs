//! `ModelInferRequest` to a request, a reply to `ModelInferResponse`.
//!
//! Raw contents stay slices of the received message, and plain outputs go out as the bytes
//! that the model wrote.

use bytes::Bytes;

use super::contents;
use crate::{
    domain::{
        DataType, Elements, InferReply, InferRequest, OutputRequest, Protocol, RequestId, Shape, Tensor, Urgency,
    },
    proto::inference::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, infer_parameter::ParameterChoice,
        model_infer_request::InferInputTensor, model_infer_response::InferOutputTensor,
    },
    protocol::{
        ROUTING_KEY_PARAMETER, naming,
        refusal::{Refusal, ValueFault},
    },
};

/// The request in our own terms. `header_key`, the routing key of the metadata, wins over
/// the parameter. `model_name` of the message is not looked at.
pub(super) fn request(
    model: &str,
    message: ModelInferRequest,
    header_key: Option<String>,
) -> Result<InferRequest, Refusal> {
    let parameter_key = message.parameters.get(ROUTING_KEY_PARAMETER).map(routing_key).transpose()?;
    Ok(InferRequest {
        model: naming::model(model)?,
        target: naming::target(&message.model_version)?,
        id: RequestId::given_or_new(&message.id)?,
        routing_key: header_key.or(parameter_key),
        inputs: inputs(message.inputs, message.raw_input_contents)?.into(),
        outputs: message.outputs.into_iter().map(|wanted| OutputRequest::plain(wanted.name)).collect(),
        urgency: Urgency::default(),
        protocol: Protocol::Grpc,
    })
}

/// The answer, always with raw contents.
pub(super) fn response(reply: &InferReply) -> ModelInferResponse {
    let output = |tensor: &Tensor| InferOutputTensor {
        name: tensor.name().into(),
        datatype: tensor.datatype().to_string(),
        shape: tensor.shape().dimensions().into(),
        ..InferOutputTensor::default()
    };
    ModelInferResponse {
        model_name: reply.model.to_string(),
        model_version: reply.version.to_string(),
        id: reply.id.to_string(),
        outputs: reply.outputs.iter().map(output).collect(),
        raw_output_contents: reply.outputs.iter().map(Tensor::to_raw).collect(),
        ..ModelInferResponse::default()
    }
}

fn routing_key(parameter: &InferParameter) -> Result<String, Refusal> {
    match &parameter.parameter_choice {
        Some(ParameterChoice::StringParam(key)) => Ok(key.clone()),
        _ => Err(Refusal::bad_request(format!("the parameter '{ROUTING_KEY_PARAMETER}' must be a string_param"))),
    }
}

fn inputs(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Vec<Tensor>, Refusal> {
    if raw.is_empty() {
        return inputs.into_iter().map(typed_input).collect();
    }
    if raw.len() != inputs.len() {
        let (raw, inputs) = (raw.len(), inputs.len());
        return Err(Refusal::bad_request(format!(
            "raw_input_contents has {raw} entries for {inputs} inputs: give one for each input, in their order"
        )));
    }
    inputs.into_iter().zip(raw).map(|(input, raw)| raw_input(input, raw)).collect()
}

fn typed_input(input: InferInputTensor) -> Result<Tensor, Refusal> {
    let (datatype, shape) = declared(&input)?;
    let InferInputTensor { name, contents, .. } = input;
    contents::tensor(&name, datatype, shape, contents.unwrap_or_default()).map_err(|fault| Refusal::input(&name, fault))
}

fn raw_input(input: InferInputTensor, raw: Bytes) -> Result<Tensor, Refusal> {
    let (datatype, shape) = declared(&input)?;
    let InferInputTensor { name, contents, .. } = input;
    if contents.is_some_and(|contents| contents != InferTensorContents::default()) {
        return Err(Refusal::input(&name, "'contents' must be absent where raw_input_contents is used"));
    }
    let tensor = Tensor::from_raw(name.as_str(), datatype, shape, raw).map_err(|fault| Refusal::input(&name, fault))?;
    check_booleans(&tensor).map_err(|fault| Refusal::input(&name, fault))?;
    Ok(tensor)
}

fn declared(input: &InferInputTensor) -> Result<(DataType, Shape), Refusal> {
    let datatype = input.datatype.parse().map_err(|fault| Refusal::input(&input.name, fault))?;
    let shape = Shape::new(input.shape.clone()).map_err(|fault| Refusal::input(&input.name, fault))?;
    Ok((datatype, shape))
}

/// A BOOL of any byte but 0 and 1 would be undefined behaviour in the runtime.
fn check_booleans(tensor: &Tensor) -> Result<(), ValueFault> {
    let Elements::Plain { datatype: DataType::Bool, bytes } = tensor.elements() else { return Ok(()) };
    match bytes.iter().position(|&byte| byte > 1) {
        Some(index) => {
            let got = bytes[index].to_string();
            Err(ValueFault::OutOfRange { index, got, datatype: DataType::Bool })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
