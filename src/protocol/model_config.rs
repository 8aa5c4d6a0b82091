//! A model's configuration in Triton's form, for both doors (`model_configuration` extension).
//!
//! What is in force, not what a file says: a model without any `config.pbtxt` has one too.

use prost_reflect::{DynamicMessage, SerializeOptions};

use super::PLATFORM;
use crate::{
    domain::{
        BatchLimits, Batching, DataType, Dim, ServingSettings, Signature, TensorSpec, VersionPolicy, WarmupElements,
        WarmupFacts,
    },
    gateway::ModelView,
    proto::{
        DESCRIPTOR_POOL,
        inference::{
            self as wire, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput,
            ModelParameter, ModelQueuePolicy, ModelVersionPolicy, ModelWarmup,
            model_config::SchedulingChoice,
            model_instance_group::Kind,
            model_version_policy::{All, Latest, PolicyChoice, Specific},
            model_warmup::{self, input::InputDataType},
        },
    },
};

/// Triton's name for what reads ONNX files.
const BACKEND: &str = "onnxruntime";

/// The configuration that a model is served with.
pub(super) fn of(view: &ModelView) -> ModelConfig {
    let (facts, settings) = (&view.facts, &view.settings);
    let max_batch_size = facts.max_batch_size.unwrap_or_else(|| batch_size(settings, &view.signature));
    let dims = |spec: &TensorSpec| spec.wire_shape().into_iter().skip(usize::from(max_batch_size > 0)).collect();
    let input = |spec: &TensorSpec| ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: dims(spec),
        optional: spec.optional,
        ..ModelInput::default()
    };
    let output = |spec: &TensorSpec| ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: dims(spec),
        label_filename: facts.labels.files.get(&spec.name).cloned().unwrap_or_default(),
        ..ModelOutput::default()
    };
    let parameter = |(key, value): (&String, &String)| (key.clone(), ModelParameter { string_value: value.clone() });
    ModelConfig {
        name: view.name.to_string(),
        platform: PLATFORM.into(),
        backend: BACKEND.into(),
        version_policy: Some(version_policy(&facts.versions)),
        max_batch_size: i32::try_from(max_batch_size).unwrap_or(i32::MAX),
        input: view.signature.inputs.iter().map(input).collect(),
        output: view.signature.outputs.iter().map(output).collect(),
        instance_group: vec![ModelInstanceGroup {
            name: view.name.to_string(),
            kind: Kind::Cpu.into(),
            count: i32::try_from(settings.instances).unwrap_or(i32::MAX),
            ..ModelInstanceGroup::default()
        }],
        scheduling_choice: match &settings.batching {
            Batching::Off => None,
            Batching::On(limits) => Some(SchedulingChoice::DynamicBatching(ModelDynamicBatching {
                preferred_batch_size: facts.preferred_batch_sizes.clone(),
                // Where none are declared, any number is a priority.
                priority_levels: if facts.priority_levels > 0 { facts.priority_levels } else { u32::MAX.into() },
                ..dynamic_batching(settings, limits)
            })),
        },
        parameters: facts.parameters.iter().map(parameter).collect(),
        default_model_filename: facts.model_file.clone().unwrap_or_default(),
        model_warmup: facts.warmup.iter().map(|warmup| model_warmup(warmup, &view.signature, max_batch_size)).collect(),
        ..ModelConfig::default()
    }
}

/// The same as JSON, as Triton writes it: the names of the `.proto`, numbers as numbers, and
/// scalar fields with their defaults.
pub(super) fn json(view: &ModelView) -> Vec<u8> {
    let descriptor = DESCRIPTOR_POOL.get_message_by_name("inference.ModelConfig").expect("proto/ declares it");
    let mut message = DynamicMessage::new(descriptor);
    message.transcode_from(&of(view)).expect("the message and its descriptor are of one compilation");
    let options =
        SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true).skip_default_fields(false);
    let mut serializer = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut serializer, &options).expect("the keys of its maps are strings");
    serializer.into_inner()
}

/// The rows of a request where no configuration says: what is batched together, if every tensor
/// has rows.
fn batch_size(settings: &ServingSettings, signature: &Signature) -> u32 {
    let mut tensors = signature.inputs.iter().chain(&signature.outputs);
    match &settings.batching {
        Batching::On(limits) if tensors.all(|spec| spec.shape.first() == Some(&Dim::Any)) => {
            u32::try_from(limits.max_rows).unwrap_or(u32::MAX)
        }
        _ => 0,
    }
}

fn version_policy(versions: &VersionPolicy) -> ModelVersionPolicy {
    let choice = match versions {
        VersionPolicy::All => PolicyChoice::All(All {}),
        VersionPolicy::Latest(count) => {
            PolicyChoice::Latest(Latest { num_versions: u32::try_from(*count).unwrap_or(u32::MAX) })
        }
        VersionPolicy::Specific(versions) => PolicyChoice::Specific(Specific {
            versions: versions.iter().map(|version| i64::try_from(*version).unwrap_or(i64::MAX)).collect(),
        }),
    };
    ModelVersionPolicy { policy_choice: Some(choice) }
}

fn dynamic_batching(settings: &ServingSettings, limits: &BatchLimits) -> ModelDynamicBatching {
    let micros = |span: std::time::Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    ModelDynamicBatching {
        max_queue_delay_microseconds: micros(limits.max_delay),
        default_priority_level: settings.default_priority.0.get().into(),
        default_queue_policy: Some(ModelQueuePolicy {
            default_timeout_microseconds: settings.default_timeout.map_or(0, micros),
            allow_timeout_override: true,
            max_queue_size: u32::try_from(settings.max_queue).unwrap_or(u32::MAX),
            ..ModelQueuePolicy::default()
        }),
        ..ModelDynamicBatching::default()
    }
}

/// A warm-up request, with shapes less the rows where the model is batched.
fn model_warmup(warmup: &WarmupFacts, signature: &Signature, max_batch_size: u32) -> ModelWarmup {
    let input = |(name, shape, elements): &(String, Vec<i64>, WarmupElements)| {
        let spec = signature.inputs.iter().find(|spec| spec.name == *name);
        let dims = if shape.is_empty() { spec.map(TensorSpec::wire_shape).unwrap_or_default() } else { shape.clone() };
        let source = match elements {
            WarmupElements::Zeros => InputDataType::ZeroData(true),
            WarmupElements::Random => InputDataType::RandomData(true),
            WarmupElements::File(name) => InputDataType::InputDataFile(name.clone()),
        };
        let input = model_warmup::Input {
            data_type: spec.map(|spec| data_type(spec.datatype)).unwrap_or_default().into(),
            dims: dims.into_iter().skip(usize::from(max_batch_size > 0)).collect(),
            input_data_type: Some(source),
        };
        (name.clone(), input)
    };
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    ModelWarmup {
        name: warmup.name.clone(),
        batch_size: if max_batch_size > 0 { number(warmup.rows) } else { 0 },
        inputs: warmup.inputs.iter().map(input).collect(),
        count: number(warmup.count),
    }
}

fn data_type(datatype: DataType) -> wire::DataType {
    match datatype {
        DataType::Bool => wire::DataType::TypeBool,
        DataType::Uint8 => wire::DataType::TypeUint8,
        DataType::Uint16 => wire::DataType::TypeUint16,
        DataType::Uint32 => wire::DataType::TypeUint32,
        DataType::Uint64 => wire::DataType::TypeUint64,
        DataType::Int8 => wire::DataType::TypeInt8,
        DataType::Int16 => wire::DataType::TypeInt16,
        DataType::Int32 => wire::DataType::TypeInt32,
        DataType::Int64 => wire::DataType::TypeInt64,
        DataType::Fp16 => wire::DataType::TypeFp16,
        DataType::Fp32 => wire::DataType::TypeFp32,
        DataType::Fp64 => wire::DataType::TypeFp64,
        DataType::Bf16 => wire::DataType::TypeBf16,
        DataType::Bytes => wire::DataType::TypeString,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        domain::{ModelFacts, Target},
        protocol::{data_plane::DataPlane, stand_in::StandIn},
    };

    fn view() -> ModelView {
        StandIn::default().model(&"echo".parse().unwrap(), &Target::Release).ok().unwrap()
    }

    fn read(view: &ModelView) -> Value {
        serde_json::from_slice(&json(view)).unwrap()
    }

    #[test]
    fn rows_are_no_dim_of_a_model_that_is_batched() {
        let config = read(&view());
        assert_eq!(config["max_batch_size"], 64);
        assert_eq!(config["input"][0]["dims"], json!([3]));
        assert_eq!(config["input"][0]["data_type"], "TYPE_FP32");
        assert_eq!(config["dynamic_batching"]["max_queue_delay_microseconds"], 0);
        assert_eq!(config["instance_group"][0]["kind"], "KIND_CPU");
        assert_eq!((&config["platform"], &config["backend"]), (&json!("onnxruntime_onnx"), &json!("onnxruntime")));
        assert_eq!(config["version_policy"], json!({"all": {}}));
        assert!(config.get("sequence_batching").is_none(), "{config}");
    }

    #[test]
    fn whole_shape_is_shown_of_a_model_that_is_not_batched() {
        let mut view = view();
        let signature = Arc::make_mut(&mut view.signature);
        signature.outputs[0].shape = vec![];
        let config = read(&view);
        assert_eq!((&config["max_batch_size"], &config["input"][0]["dims"]), (&json!(0), &json!([-1, 3])));
        assert_eq!(config["output"][0]["dims"], json!([]));
    }

    #[test]
    fn what_the_configuration_declares_wins() {
        let mut view = view();
        let facts = ModelFacts {
            max_batch_size: Some(8),
            versions: VersionPolicy::Specific(vec![1, 3]),
            parameters: [("key".to_owned(), "value".to_owned())].into(),
            model_file: Some("net.onnx".to_owned()),
            ..ModelFacts::default()
        };
        view.facts = Arc::new(facts);
        Arc::make_mut(&mut view.settings).batching = Batching::Off;
        let config = read(&view);
        assert_eq!((&config["max_batch_size"], &config["default_model_filename"]), (&json!(8), &json!("net.onnx")));
        assert_eq!(config["version_policy"], json!({"specific": {"versions": [1, 3]}}));
        assert_eq!(config["parameters"], json!({"key": {"string_value": "value"}}));
        assert!(config.get("dynamic_batching").is_none(), "{config}");
    }
}
