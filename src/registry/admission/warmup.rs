//! The requests that a model's configuration wants run before a version is ready.

use std::{
    fs,
    path::{Component, Path},
    sync::Arc,
};

use bytes::Bytes;
use twox_hash::XxHash3_64;

use crate::{
    config::{ModelConfig, WarmupData, WarmupInput, WarmupSample},
    domain::{DataType, Dim, Shape, Signature, Tensor, TensorSpec},
    engine::Model,
};

/// Where the files of samples are: in the version's directory, otherwise in the model's.
const DIRECTORY: &str = "warmup";

/// Runs the samples. One that does not fit the model is a fault of the configuration, and so of
/// the version; one that fits and on which the model fails is only noted, as Triton does.
pub(super) fn warm_up_samples(model: &dyn Model, config: &ModelConfig, version: &Path) -> Result<(), Vec<String>> {
    let signature = model.signature().clone();
    let outputs: Vec<usize> = (0..signature.outputs.len()).collect();
    let mut faults = Vec::new();
    for sample in &config.warmup {
        let inputs = match inputs(sample, &signature, version) {
            Ok(inputs) => inputs,
            Err(fault) => {
                faults.push(format!("warm-up '{}': {fault}", sample.name));
                continue;
            }
        };
        for _ in 0..sample.count.map_or(1, std::num::NonZeroUsize::get) {
            if let Err(error) = model.run(&inputs, &outputs) {
                tracing::warn!(version = %version.display(), sample = sample.name, %error, "a warm-up request failed");
                break;
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Runs requests that other versions have answered, those that this one takes. Says how many it ran.
pub(super) fn warm_up_recent(model: &dyn Model, recent: &[Arc<[Tensor]>]) -> usize {
    let signature = model.signature();
    let runs = recent.iter().filter(|inputs| {
        // What it refuses or fails on is no fault of the version: clients may send anything.
        signature.check(inputs, &[]).is_ok_and(|outputs| model.run(inputs, &outputs).is_ok())
    });
    runs.count()
}

/// The inputs of one sample.
pub(super) fn inputs(sample: &WarmupSample, signature: &Signature, version: &Path) -> Result<Vec<Tensor>, String> {
    let zeros = WarmupInput { shape: None, data: WarmupData::Zeros };
    if let Some(unknown) = sample.inputs.keys().find(|name| signature.input(name).is_none()) {
        return Err(format!("the model has no input '{unknown}'"));
    }
    let mut inputs = Vec::new();
    for spec in &signature.inputs {
        let input = match sample.inputs.get(&spec.name) {
            Some(input) => input,
            None if spec.optional => continue,
            None => &zeros,
        };
        let rows = sample.rows.map_or(1, std::num::NonZeroUsize::get);
        inputs.push(tensor(spec, input, rows, version).map_err(|fault| format!("input '{}': {fault}", spec.name))?);
    }
    signature.check(&inputs, &[]).map_err(|fault| fault.to_string())?;
    Ok(inputs)
}

/// The largest input that is made up.
const LARGEST: usize = 1 << 30;

fn tensor(spec: &TensorSpec, input: &WarmupInput, rows: usize, version: &Path) -> Result<Tensor, String> {
    let dimensions = input.shape.clone().unwrap_or_else(|| declared(spec, rows));
    let shape = Shape::new(dimensions).map_err(|error| error.to_string())?;
    let raw = match &input.data {
        WarmupData::File(file) => read(file, version)?.into(),
        _ if shape.elements() > LARGEST => return Err(format!("the shape {shape} is too large to be made up")),
        WarmupData::Zeros => made_up(spec.datatype, shape.elements(), |_| 0),
        WarmupData::Random => made_up(spec.datatype, shape.elements(), |index| {
            // The same at every load: a warm-up that fails must fail again.
            XxHash3_64::oneshot(&index.to_le_bytes())
        }),
    };
    Tensor::from_raw(spec.name.as_str(), spec.datatype, shape, raw).map_err(|error| error.to_string())
}

/// The declared shape: `rows` for the first dimension where it is free, 1 for the others.
fn declared(spec: &TensorSpec, rows: usize) -> Vec<i64> {
    let size = |(index, dim): (usize, &Dim)| match dim {
        Dim::Any | Dim::Unranked if index == 0 => i64::try_from(rows).unwrap_or(i64::MAX),
        Dim::Any | Dim::Unranked => 1,
        Dim::Fixed(_) => dim.to_wire(),
    };
    spec.shape.iter().enumerate().map(size).collect()
}

/// Elements in the protocol's raw form: floats from 0 to 1, whole numbers and booleans 0 or 1 (so
/// that they are valid as indices), texts empty or of one letter.
fn made_up(datatype: DataType, elements: usize, noise: impl Fn(u64) -> u64) -> Bytes {
    let mut raw = Vec::new();
    for index in 0..elements as u64 {
        let noise = noise(index);
        let unit = (noise >> 40) as f32 / (1_u64 << 24) as f32;
        let bit = u8::from(noise & 1 == 1);
        match datatype {
            DataType::Fp32 => raw.extend(unit.to_le_bytes()),
            DataType::Fp64 => raw.extend(f64::from(unit).to_le_bytes()),
            DataType::Fp16 => raw.extend(half::f16::from_f32(unit).to_le_bytes()),
            DataType::Bf16 => raw.extend(half::bf16::from_f32(unit).to_le_bytes()),
            DataType::Bytes => {
                raw.extend(u32::from(bit).to_le_bytes());
                raw.extend(std::iter::repeat_n(b'a', bit.into()));
            }
            whole => {
                raw.push(bit);
                raw.resize(raw.len() + whole.size().unwrap_or(1) - 1, 0);
            }
        }
    }
    raw.into()
}

fn read(file: &str, version: &Path) -> Result<Vec<u8>, String> {
    let relative = Path::new(file);
    let is_plain = !file.is_empty() && relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_plain || file.contains('\0') {
        return Err(format!("the file '{}' is outside the directory '{DIRECTORY}'", file.escape_debug()));
    }
    let model = version.parent().unwrap_or(version);
    let directories = [version.join(DIRECTORY), model.join(DIRECTORY)];
    let Some(directory) = directories.iter().find(|directory| directory.join(relative).exists()) else {
        return Err(format!("the file '{file}' is not in the directory '{DIRECTORY}' of the version or of the model"));
    };
    let failed = |error: std::io::Error| format!("the file '{file}': {error}");
    let path = directory.join(relative).canonicalize().map_err(failed)?;
    if !path.starts_with(directory.canonicalize().map_err(failed)?) {
        return Err(format!("the file '{file}' is a link that leads outside the directory '{DIRECTORY}'"));
    }
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, num::NonZeroUsize, sync::Mutex};

    use super::*;
    use crate::engine::EngineError;

    struct Recorder {
        signature: Arc<Signature>,
        runs: Mutex<Vec<Vec<Tensor>>>,
        fails: bool,
    }

    impl Model for Recorder {
        fn signature(&self) -> &Arc<Signature> {
            &self.signature
        }

        fn run(&self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
            self.runs.lock().unwrap().push(inputs.to_vec());
            if self.fails { Err(EngineError::Failed("no".into())) } else { Ok(vec![]) }
        }
    }

    fn recorder(datatype: DataType) -> Recorder {
        let shape = vec![Dim::Any, Dim::Fixed(2)];
        let spec = TensorSpec { name: "x".into(), datatype, shape, optional: false };
        Recorder {
            signature: Arc::new(Signature { inputs: vec![spec], outputs: vec![] }),
            runs: Mutex::default(),
            fails: false,
        }
    }

    fn config(input: Option<(&str, WarmupInput)>) -> ModelConfig {
        let sample = WarmupSample {
            name: "s".into(),
            rows: NonZeroUsize::new(3),
            count: NonZeroUsize::new(2),
            inputs: input.into_iter().map(|(name, input)| (name.to_owned(), input)).collect::<BTreeMap<_, _>>(),
        };
        ModelConfig { warmup: vec![sample], ..ModelConfig::default() }
    }

    fn fault(model: &Recorder, input: (&str, WarmupInput), version: &Path) -> String {
        warm_up_samples(model, &config(Some(input)), version).unwrap_err().join("; ")
    }

    #[test]
    fn every_datatype_can_be_made_up() {
        for datatype in DataType::ALL {
            for data in [WarmupData::Zeros, WarmupData::Random] {
                let model = recorder(datatype);
                let input = WarmupInput { shape: None, data };
                warm_up_samples(&model, &config(Some(("x", input))), Path::new("/")).unwrap();
                let runs = model.runs.lock().unwrap();
                assert_eq!((runs.len(), runs[0][0].shape().dimensions()), (2, &[3, 2][..]), "{datatype}");
            }
        }
    }

    #[test]
    fn file_is_read_from_the_version_then_from_the_model_and_from_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let version = root.path().join("1");
        fs::create_dir_all(version.join("warmup")).unwrap();
        fs::create_dir(root.path().join("warmup")).unwrap();
        fs::write(root.path().join("warmup/raw"), [1, 2]).unwrap();
        fs::write(root.path().join("secret"), [9, 9]).unwrap();
        std::os::unix::fs::symlink(root.path().join("secret"), version.join("warmup/link")).unwrap();
        let file = |name: &str| WarmupInput { shape: Some(vec![1, 2]), data: WarmupData::File(name.into()) };
        let model = recorder(DataType::Int8);
        warm_up_samples(&model, &config(Some(("x", file("raw")))), &version).unwrap();
        assert_eq!(model.runs.lock().unwrap()[0][0].to_raw().as_ref(), [1, 2]);
        fs::write(version.join("warmup/raw"), [3]).unwrap();
        assert!(fault(&model, ("x", file("raw")), &version).contains("needs 2 bytes, got 1"));
        for outside in ["link", "../secret", "/etc/hostname", "", "gone"] {
            assert!(fault(&model, ("x", file(outside)), &version).contains("the file"), "{outside}");
        }
    }

    #[test]
    fn sample_that_does_not_fit_is_a_fault_and_a_failing_run_is_not() {
        let mut model = recorder(DataType::Fp32);
        let zeros = |shape: &[i64]| WarmupInput { shape: Some(shape.into()), data: WarmupData::Zeros };
        assert!(fault(&model, ("x", zeros(&[1, 3])), Path::new("/")).contains("shape [1, 3]"));
        assert!(fault(&model, ("z", zeros(&[1, 2])), Path::new("/")).contains("no input 'z'"));
        model.fails = true;
        warm_up_samples(&model, &config(None), Path::new("/")).unwrap();
        assert_eq!(model.runs.lock().unwrap().len(), 1, "one failure is enough");
    }
}
