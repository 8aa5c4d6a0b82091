//! `config.pbtxt`, Triton's configuration of a model, in our own terms.
//!
//! What both systems have is translated; what has no meaning here is named in a warning; what
//! would make the answers wrong when ignored is refused. `docs/MODELS.md` holds the table.

mod note;
mod text;

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::Path,
    time::Duration,
};

use prost_reflect::DynamicMessage;

use self::note::without_meaning;
use super::{ModelConfig, Span, VersionPolicyConfig, WarmupData, WarmupInput, WarmupSample};
use crate::{
    domain::DataType,
    proto::{
        DESCRIPTOR_POOL,
        inference::{
            self as wire, model_config::SchedulingChoice, model_instance_group::Kind,
            model_version_policy::PolicyChoice, model_warmup::input::InputDataType,
        },
    },
};

/// What a `config.pbtxt` says that `model.toml` cannot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TritonModel {
    /// 0: the dims are those of the whole tensor; otherwise they lack the first, the rows.
    pub max_batch_size: u32,
    pub preferred_batch_sizes: Vec<i32>,
    /// 0: not declared.
    pub priority_levels: u64,
    /// The file in a version's directory that is the model, when not `model.onnx`.
    pub model_file: Option<String>,
    pub inputs: Vec<DeclaredTensor>,
    pub outputs: Vec<DeclaredTensor>,
}

/// An input or output as the file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTensor {
    pub name: String,
    /// `None`: not given.
    pub datatype: Option<DataType>,
    /// As the model itself has them (a `reshape` applied), less the rows; -1: any size.
    pub dims: Vec<i64>,
    /// As clients have them, where that is another shape: as many elements, and as many free sizes in the same order.
    pub client_dims: Option<Vec<i64>>,
}

/// Far above any real configuration.
const LARGEST: usize = 4 << 20;

/// Translates the file's text. The error names the line, or what is refused.
pub(super) fn parse(text: &str, model: &str) -> Result<ModelConfig, String> {
    if text.len() > LARGEST {
        return Err("is larger than 4 MiB".into());
    }
    let descriptor = DESCRIPTOR_POOL.get_message_by_name("inference.ModelConfig").expect("proto/ declares it");
    let text = text::with_colons(text);
    let message = DynamicMessage::parse_text_format(descriptor, &text).map_err(|error| in_line(&error, &text))?;
    let message: wire::ModelConfig = message.transcode_to().map_err(|error| error.to_string())?;
    translate(&message, model)
}

/// The error with the line that it is in.
fn in_line(error: &prost_reflect::text_format::ParseError, text: &str) -> String {
    let label = miette::Diagnostic::labels(error).and_then(|mut labels| labels.next());
    let offset = label.map_or(text.len(), |label| label.offset().min(text.len()));
    let line = text.as_bytes()[..offset].split(|byte| *byte == b'\n').count();
    format!("line {line}: {error}")
}

fn translate(message: &wire::ModelConfig, model: &str) -> Result<ModelConfig, String> {
    refuse(message)?;
    let mut config = ModelConfig::default();
    if !message.name.is_empty() && message.name != model {
        config.warnings.push(format!("name is '{}': the model is called as its directory, '{model}'", message.name));
    }
    let max_batch_size = u32::try_from(message.max_batch_size)
        .map_err(|_| format!("max_batch_size is {}: it cannot be negative", message.max_batch_size))?;
    batching(message, max_batch_size, &mut config)?;
    instances(message, &mut config);
    config.parameters =
        message.parameters.iter().map(|(key, value)| (key.clone(), value.string_value.clone())).collect();
    config.labels.files = message
        .output
        .iter()
        .filter(|output| !output.label_filename.is_empty())
        .map(|output| (output.name.clone(), output.label_filename.clone()))
        .collect();
    config.warmup =
        message.model_warmup.iter().map(|sample| warmup(sample, max_batch_size)).collect::<Result<_, _>>()?;
    let preferred_batch_sizes = dynamic_batching(message).map(|it| it.preferred_batch_size.clone()).unwrap_or_default();
    config.version_policy = versions(message)?;
    config.triton = Some(TritonModel {
        max_batch_size,
        preferred_batch_sizes,
        priority_levels: dynamic_batching(message).map_or(0, |dynamic| dynamic.priority_levels),
        model_file: model_file(&message.default_model_filename)?,
        inputs: declared(
            message.input.iter().map(|input| (&input.name, input.data_type, &input.dims, &input.reshape)),
        )?,
        outputs: declared(
            message.output.iter().map(|output| (&output.name, output.data_type, &output.dims, &output.reshape)),
        )?,
    });
    let mut names = without_meaning(message);
    names.sort_unstable();
    if !names.is_empty() {
        config.warnings.push(format!("without meaning here: {}", names.join(", ")));
    }
    Ok(config)
}

/// What would make the answers wrong if it were ignored.
fn refuse(message: &wire::ModelConfig) -> Result<(), String> {
    let platform = message.platform.as_str();
    if !matches!(platform, "" | "onnxruntime_onnx") {
        return Err(format!("platform is '{platform}': only onnxruntime_onnx is served"));
    }
    let backend = message.backend.as_str();
    if !matches!(backend, "" | "onnxruntime") {
        return Err(format!("backend is '{backend}': only onnxruntime is served"));
    }
    match &message.scheduling_choice {
        Some(SchedulingChoice::SequenceBatching(_)) => {
            Err("sequence_batching is not supported: each request is served on its own".into())
        }
        Some(SchedulingChoice::EnsembleScheduling(_)) => Err("ensemble_scheduling is not supported".into()),
        _ => Ok(()),
    }
}

fn dynamic_batching(message: &wire::ModelConfig) -> Option<&wire::ModelDynamicBatching> {
    match &message.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => Some(batching),
        _ => None,
    }
}

fn batching(message: &wire::ModelConfig, max_batch_size: u32, config: &mut ModelConfig) -> Result<(), String> {
    let dynamic = dynamic_batching(message);
    // Without the block Triton merges no requests, whatever a single one may hold.
    config.batching.enabled = Some(max_batch_size > 0 && dynamic.is_some());
    config.batching.max_size = (max_batch_size > 0).then_some(max_batch_size as usize);
    let Some(dynamic) = dynamic else { return Ok(()) };
    if max_batch_size == 0 {
        config.warnings.push("dynamic_batching does nothing while max_batch_size is 0".into());
    }
    config.batching.max_delay = Some(Span(Duration::from_micros(dynamic.max_queue_delay_microseconds)));
    let level = dynamic.default_priority_level;
    config.scheduler.default_priority = u32::try_from(level)
        .map(NonZeroU32::new)
        .map_err(|_| format!("dynamic_batching.default_priority_level is {level}: too large"))?;
    if let Some(policy) = &dynamic.default_queue_policy {
        config.scheduler.max_queue = Some(policy.max_queue_size as usize).filter(|size| *size > 0);
        let timeout = Duration::from_micros(policy.default_timeout_microseconds);
        config.scheduler.default_timeout = Some(Span(timeout)).filter(|_| !timeout.is_zero());
    }
    Ok(())
}

fn instances(message: &wire::ModelConfig, config: &mut ModelConfig) {
    let groups = &message.instance_group;
    let counts = groups.iter().map(|group| usize::try_from(group.count).unwrap_or(0).max(1));
    config.scheduler.instances = (!groups.is_empty()).then(|| counts.sum());
    if groups.iter().any(|group| group.kind() == Kind::Gpu || !group.gpus.is_empty()) {
        config.warnings.push("instance_group asks for GPUs: the model runs on the CPU".into());
    }
}

fn versions(message: &wire::ModelConfig) -> Result<Option<VersionPolicyConfig>, String> {
    Ok(Some(match message.version_policy.as_ref().and_then(|policy| policy.policy_choice.as_ref()) {
        // Triton would load the highest only; here the others wait for their promotion.
        None => return Ok(None),
        Some(PolicyChoice::All(_)) => VersionPolicyConfig::All,
        Some(PolicyChoice::Latest(latest)) => {
            let count = NonZeroUsize::new(latest.num_versions as usize);
            VersionPolicyConfig::Latest(count.unwrap_or(NonZeroUsize::MIN))
        }
        Some(PolicyChoice::Specific(specific)) => {
            let version = |version: &i64| {
                u64::try_from(*version)
                    .ok()
                    .and_then(NonZeroU64::new)
                    .ok_or_else(|| format!("version_policy names version {version}: versions are whole numbers from 1"))
            };
            VersionPolicyConfig::Specific(specific.versions.iter().map(version).collect::<Result<_, _>>()?)
        }
    }))
}

fn model_file(name: &str) -> Result<Option<String>, String> {
    let is_plain = Path::new(name).file_name().is_some_and(|file| file == name);
    let is_onnx = Path::new(name).extension().is_some_and(|extension| extension == "onnx");
    match name {
        "" | "model.onnx" => Ok(None),
        name if is_plain && is_onnx => Ok(Some(name.into())),
        name => Err(format!("default_model_filename is '{name}': it must be a file's name that ends in .onnx")),
    }
}

type Declaration<'a> = (&'a String, i32, &'a Vec<i64>, &'a Option<wire::ModelTensorReshape>);

fn declared<'a>(tensors: impl Iterator<Item = Declaration<'a>>) -> Result<Vec<DeclaredTensor>, String> {
    let mut declared = Vec::new();
    for (name, datatype, dims, reshape) in tensors {
        let own = reshape.as_ref().map_or(dims, |reshape| &reshape.shape).clone();
        if !holds_equally_many(dims, &own) {
            return Err(format!(
                "reshape of '{name}': dims {dims:?} and shape {own:?} must hold equally many elements, and equally many -1"
            ));
        }
        let client_dims = (own != *dims).then(|| dims.clone());
        declared.push(DeclaredTensor { name: name.clone(), datatype: data_type(datatype)?, dims: own, client_dims });
    }
    Ok(declared)
}

fn holds_equally_many(left: &[i64], right: &[i64]) -> bool {
    let free = |dims: &[i64]| dims.iter().filter(|size| **size == -1).count();
    let fixed = |dims: &[i64]| {
        let mut sizes = dims.iter().filter(|size| **size != -1);
        sizes.try_fold(1_i64, |product, size| product.checked_mul(*size).filter(|product| *product >= 0))
    };
    free(left) == free(right) && fixed(left).is_some() && fixed(left) == fixed(right)
}

fn data_type(number: i32) -> Result<Option<DataType>, String> {
    use wire::DataType as Wire;
    Ok(Some(match Wire::try_from(number).map_err(|_| format!("data type {number} is unknown"))? {
        Wire::TypeInvalid => return Ok(None),
        Wire::TypeBool => DataType::Bool,
        Wire::TypeUint8 => DataType::Uint8,
        Wire::TypeUint16 => DataType::Uint16,
        Wire::TypeUint32 => DataType::Uint32,
        Wire::TypeUint64 => DataType::Uint64,
        Wire::TypeInt8 => DataType::Int8,
        Wire::TypeInt16 => DataType::Int16,
        Wire::TypeInt32 => DataType::Int32,
        Wire::TypeInt64 => DataType::Int64,
        Wire::TypeFp16 => DataType::Fp16,
        Wire::TypeFp32 => DataType::Fp32,
        Wire::TypeFp64 => DataType::Fp64,
        Wire::TypeString => DataType::Bytes,
        Wire::TypeBf16 => DataType::Bf16,
    }))
}

fn warmup(sample: &wire::ModelWarmup, max_batch_size: u32) -> Result<WarmupSample, String> {
    let rows = i64::from(sample.batch_size.max(1));
    let input = |(name, input): (&String, &wire::model_warmup::Input)| {
        let data = match &input.input_data_type {
            Some(InputDataType::ZeroData(true)) => WarmupData::Zeros,
            Some(InputDataType::RandomData(true)) => WarmupData::Random,
            Some(InputDataType::InputDataFile(file)) => WarmupData::File(file.clone()),
            _ => return Err(format!("model_warmup '{}': input '{name}' has no data", sample.name)),
        };
        let batch = (max_batch_size > 0).then_some(rows);
        let shape = Some(batch.into_iter().chain(input.dims.iter().copied()).collect());
        Ok((name.clone(), WarmupInput { shape, data }))
    };
    Ok(WarmupSample {
        name: sample.name.clone(),
        rows: NonZeroUsize::new(sample.batch_size as usize),
        count: NonZeroUsize::new(sample.count as usize),
        inputs: sample.inputs.iter().map(input).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests;
