//! `ModelInferRequest` to a request, a reply to `ModelInferResponse`.
//!
//! Raw contents stay slices of the received message, and plain outputs go out as the bytes
//! that the model wrote.

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{contents, terms::CallTerms};
use crate::{
    domain::{
        DataType, Elements, InferReply, InferRequest, OutputRequest, Priority, Protocol, RequestId, Shape, Tensor,
        Urgency,
    },
    proto::inference::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
        infer_parameter::ParameterChoice,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
        model_infer_response::InferOutputTensor,
    },
    protocol::{
        ROUTING_KEY_PARAMETER, VIOLATION_PARAMETER,
        elsewhere::{self, SHARED_MEMORY_PARAMETER},
        is_kept, naming, number_text,
        refusal::{Refusal, ValueFault, shown},
    },
};

type Parameters = HashMap<String, InferParameter>;

/// The request in our own terms. The routing key of the metadata wins over the parameter, the
/// earliest deadline over the others. `model_name` of the message is not looked at.
pub(super) fn request(model: &str, message: ModelInferRequest, terms: CallTerms) -> Result<InferRequest, Refusal> {
    let parameter_key = message.parameters.get(ROUTING_KEY_PARAMETER).map(routing_key).transpose()?;
    Ok(InferRequest {
        model: naming::model(model)?,
        target: naming::target(&message.model_version)?,
        id: RequestId::given_or_new(&message.id)?,
        urgency: urgency(&message.parameters, &terms)?,
        routing_key: terms.routing_key.or(parameter_key),
        parameters: others(&message.parameters),
        inputs: inputs(message.inputs, message.raw_input_contents)?.into(),
        outputs: message.outputs.into_iter().map(output).collect::<Result<_, _>>()?,
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
        parameters: reply.violation.as_deref().map(violation).into_iter().collect(),
    }
}

fn violation(text: &str) -> (String, InferParameter) {
    let parameter_choice = Some(ParameterChoice::StringParam(text.to_owned()));
    (VIOLATION_PARAMETER.to_owned(), InferParameter { parameter_choice })
}

/// Parameters that are none of the protocol's.
fn others(parameters: &Parameters) -> Vec<(Arc<str>, String)> {
    let mut others = Vec::new();
    for (name, parameter) in parameters {
        let value = match &parameter.parameter_choice {
            _ if [ROUTING_KEY_PARAMETER, "priority", "timeout"].contains(&name.as_str()) => continue,
            Some(ParameterChoice::StringParam(text)) => text.clone(),
            Some(ParameterChoice::Int64Param(number)) => number.to_string(),
            Some(ParameterChoice::Uint64Param(number)) => number.to_string(),
            Some(ParameterChoice::BoolParam(yes)) => yes.to_string(),
            Some(ParameterChoice::DoubleParam(number)) => match number_text(*number) {
                Some(text) => text,
                None => continue,
            },
            None => continue,
        };
        if is_kept(name, &value, others.len()) {
            others.push((name.as_str().into(), value));
        }
    }
    others
}

fn routing_key(parameter: &InferParameter) -> Result<String, Refusal> {
    match &parameter.parameter_choice {
        Some(ParameterChoice::StringParam(key)) => Ok(key.clone()),
        _ => Err(Refusal::bad_request(format!("the parameter '{ROUTING_KEY_PARAMETER}' must be a string_param"))),
    }
}

fn urgency(parameters: &Parameters, terms: &CallTerms) -> Result<Urgency, Refusal> {
    let priority = whole_number(parameters, "priority")?.and_then(Priority::from_wire);
    // Microseconds; 0 stands for the model's default.
    let timeout = whole_number(parameters, "timeout")?.filter(|&micros| micros > 0).map(Duration::from_micros);
    Ok(Urgency { priority, deadline: terms.deadline(timeout) })
}

fn output(wanted: InferRequestedOutputTensor) -> Result<OutputRequest, Refusal> {
    let InferRequestedOutputTensor { name, parameters } = wanted;
    if parameters.contains_key(SHARED_MEMORY_PARAMETER) {
        return Err(elsewhere::shared_memory());
    }
    let classes = whole_number(&parameters, "classification")
        .map_err(|refusal| Refusal::bad_request(format!("output '{}': {refusal}", shown(&name))))?;
    // More classes than the output has are all of them.
    let classes = classes.map(|classes| usize::try_from(classes).unwrap_or(usize::MAX));
    Ok(OutputRequest { name, classes: classes.and_then(NonZeroUsize::new) })
}

/// A parameter that counts something, in any of the forms that clients send it in.
fn whole_number(parameters: &Parameters, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let number = match &parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(*number).ok(),
        Some(ParameterChoice::Uint64Param(number)) => Some(*number),
        Some(ParameterChoice::StringParam(text)) => text.parse().ok(),
        _ => None,
    };
    number.map(Some).ok_or_else(|| {
        Refusal::bad_request(format!(
            "the parameter '{name}' must be a whole number from 0, as int64_param, uint64_param or string_param"
        ))
    })
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
    if input.parameters.contains_key(SHARED_MEMORY_PARAMETER) {
        return Err(elsewhere::shared_memory());
    }
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
