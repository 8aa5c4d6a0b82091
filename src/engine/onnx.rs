//! A model in an ONNX Runtime session.

use std::{collections::BTreeMap, sync::Arc};

use ort::{
    environment::Environment,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{Outlet, TensorElementType, ValueType},
};
use smallvec::SmallVec;

use super::{
    EngineError, EngineOptions, Model, ModelFile,
    convert::{self, AlignedCopy},
    lacks_memory, load_words,
    native::{
        AfterRun, Argument, RunError, SharedSession,
        memory::Shortage,
        rank::{Place, has_shape},
    },
    reshape::{OwnShape, Reshape},
    words,
};
use crate::domain::{DataType, Dim, Signature, Tensor, TensorSpec};

/// Bytes of outputs that an answer can carry: a protobuf message ends at 2 GiB, with its names.
const LARGEST_ANSWER: usize = (2 << 30) - (1 << 20);

/// Where ONNX Runtime looks for the weights of a model that it gets as bytes.
const WEIGHTS_DIRECTORY: &str = "session.model_external_initializers_file_folder_path";

/// A session and what it takes and gives.
pub struct OnnxModel {
    session: SharedSession,
    signature: Arc<Signature>,
    output_names: Vec<Arc<str>>,
    metadata: BTreeMap<String, String>,
    /// The names of the inputs' dimensions, by input; empty for those without one.
    dimension_names: BTreeMap<String, Vec<String>>,
    max_run_bytes: usize,
    /// Where clients have other shapes than the model.
    reshapes: Option<Box<Reshapes>>,
}

/// Shapes of inputs and outputs by their place in the signature; `None` where clients have the model's own.
struct Reshapes {
    /// As the model has them.
    own: Arc<Signature>,
    inputs: Vec<Option<Reshape>>,
    outputs: Vec<Option<Reshape>>,
}

impl OnnxModel {
    pub(super) fn open(
        environment: &Environment,
        file: &ModelFile<'_>,
        options: EngineOptions,
    ) -> Result<Self, EngineError> {
        let unservable = |error: ort::Error| EngineError::Unservable(load_words::of_load(error.message()));
        let session = commit(environment, file, options).map_err(unservable)?;
        let signature = Arc::new(signature(&session)?);
        let metadata = metadata(&session).map_err(unservable)?;
        let dimension_names = session.inputs().iter().map(dimension_names).collect();
        let names = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
        let (inputs, outputs) = (names(&signature.inputs), names(&signature.outputs));
        let limit = options.max_run_bytes;
        let shared =
            SharedSession::new(&session, limit, inputs.iter().map(String::as_str), outputs.iter().map(String::as_str));
        let output_names = outputs.iter().map(|name| Arc::from(name.as_str())).collect();
        Ok(Self {
            session: shared.map_err(unservable)?,
            signature,
            output_names,
            metadata,
            dimension_names,
            max_run_bytes: limit,
            reshapes: None,
        })
    }

    /// Why a failed run may be the client's fault: two inputs that disagree on a dimension to
    /// which the model gives one name. Looked for only after a failure, since ONNX Runtime itself
    /// does not hold models to their names.
    fn disagreement(&self, inputs: &[Tensor]) -> Option<String> {
        // The names are those of the model's own dimensions.
        if self.reshapes.is_some() {
            return None;
        }
        let mut seen: BTreeMap<&str, (&str, i64)> = BTreeMap::new();
        for input in inputs {
            let names = self.dimension_names.get(input.name())?;
            for (name, &size) in names.iter().zip(input.shape().dimensions()).filter(|(name, _)| !name.is_empty()) {
                let (first, expected) = *seen.entry(name).or_insert((input.name(), size));
                if size != expected {
                    let other = input.name();
                    return Some(format!(
                        "inputs '{first}' and '{other}' disagree on dimension '{name}': {expected} and {size}"
                    ));
                }
            }
        }
        None
    }

    /// Gives clients other shapes of these inputs and outputs than the model has: from now on the signature is theirs.
    pub fn reshape(&mut self, inputs: &[Reshape], outputs: &[Reshape]) {
        if inputs.is_empty() && outputs.is_empty() {
            return;
        }
        let own = Arc::clone(&self.signature);
        let signature = Arc::make_mut(&mut self.signature);
        let place = |specs: &mut [TensorSpec], reshapes: &[Reshape]| -> Vec<Option<Reshape>> {
            let of = |spec: &mut TensorSpec| {
                let reshape = reshapes.iter().find(|reshape| reshape.name == spec.name)?;
                let dim = |&size: &i64| u64::try_from(size).map_or(Dim::Any, Dim::Fixed);
                spec.shape = reshape.client.iter().map(dim).collect();
                Some(reshape.clone())
            };
            specs.iter_mut().map(of).collect()
        };
        let (inputs, outputs) = (place(&mut signature.inputs, inputs), place(&mut signature.outputs, outputs));
        self.reshapes = Some(Box::new(Reshapes { own, inputs, outputs }));
    }

    /// The shapes that the model itself has, where clients have others.
    #[must_use]
    pub fn own_signature(&self) -> Option<&Arc<Signature>> {
        self.reshapes.as_ref().map(|reshapes| &reshapes.own)
    }

    /// Takes these shapes for those of the outputs, in the order of the signature: they were seen, and files declare what is
    /// not so.
    pub fn see_outputs(&mut self, shapes: Vec<Vec<Dim>>) {
        let signature = Arc::make_mut(&mut self.signature);
        for (output, shape) in signature.outputs.iter_mut().zip(shapes) {
            output.shape = shape;
        }
    }

    /// The model's own key-value metadata (`metadata_props`).
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

impl Model for OnnxModel {
    fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    fn run(&self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        self.run_session(inputs, outputs, AfterRun::Keep).map_err(|error| match error {
            EngineError::Failed(reason) => {
                self.disagreement(inputs).map_or(EngineError::Failed(reason), EngineError::Refused)
            }
            EngineError::Refused(reason) => EngineError::Refused(match self.disagreement(inputs) {
                Some(found) => found,
                None => self.signature.unequal_rows(inputs).map_or(reason.clone(), |rows| format!("{rows}: {reason}")),
            }),
            other => other,
        })
    }

    fn run_and_trim(&self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        self.run_session(inputs, outputs, AfterRun::Trim)
    }
}

impl OnnxModel {
    fn run_error(&self, error: RunError) -> EngineError {
        match error {
            RunError::Shortage(Shortage::Run) => EngineError::TooMuchMemory { limit: self.max_run_bytes },
            RunError::Shortage(Shortage::All) => EngineError::MemoryInUse,
            RunError::Runtime(error) => runtime_error(&error),
        }
    }

    fn run_session(&self, inputs: &[Tensor], outputs: &[usize], after: AfterRun) -> Result<Vec<Tensor>, EngineError> {
        let copies: SmallVec<[Option<AlignedCopy>; 8]> = inputs.iter().map(convert::aligned_copy).collect();
        let shapes = self.shapes_of_model(inputs)?;
        let mut arguments: SmallVec<[Argument<'_>; 8]> = SmallVec::with_capacity(inputs.len());
        for (position, (input, copy)) in inputs.iter().zip(&copies).enumerate() {
            let index = self
                .signature
                .input_place(position, input.name())
                .ok_or_else(|| EngineError::Refused(format!("the model has no input '{}'", input.name())))?;
            let shape = shapes.get(position).and_then(Option::as_deref).unwrap_or(input.shape().dimensions());
            arguments.push(convert::argument(index, input, shape, copy.as_ref())?);
        }
        let produced = self.session.run(&arguments, outputs, after).map_err(|error| self.run_error(error))?;
        if produced.len() != outputs.len() {
            return Err(EngineError::Failed("ONNX Runtime left an output out".into()));
        }
        let tensor = |(value, &index): (_, &usize)| {
            let tensor = convert::to_tensor(&self.output_names[index], self.signature.outputs[index].datatype, value)?;
            match self.reshapes.as_ref().and_then(|reshapes| reshapes.outputs[index].as_ref()) {
                None => Ok(tensor),
                Some(reshape) => reshape.for_client(tensor),
            }
        };
        let outputs: Vec<Tensor> = produced.into_iter().zip(outputs).map(tensor).collect::<Result<_, _>>()?;
        fit_an_answer(&outputs, LARGEST_ANSWER)?;
        Ok(outputs)
    }
}

impl OnnxModel {
    /// The shapes that the model has for these inputs, where those are not theirs; empty where it has no other.
    fn shapes_of_model(&self, inputs: &[Tensor]) -> Result<SmallVec<[Option<OwnShape>; 8]>, EngineError> {
        let Some(reshapes) = &self.reshapes else { return Ok(SmallVec::new()) };
        let shape = |(position, input): (usize, &Tensor)| {
            let place = self.signature.input_place(position, input.name());
            let reshape = place.and_then(|place| reshapes.inputs.get(place)?.as_ref());
            reshape.map(|reshape| reshape.for_model(input)).transpose()
        };
        inputs.iter().enumerate().map(shape).collect()
    }
}

/// Sessions share the process's thread pool unless a model asks for one of its own.
///
/// Their memory comes from `native::memory`, which keeps that of a session's runs for the next ones.
fn commit(environment: &Environment, file: &ModelFile<'_>, options: EngineOptions) -> ort::Result<Session> {
    let mut builder: SessionBuilder = Session::builder(environment)?
        .with_env_allocators()?
        .with_optimization_level(GraphOptimizationLevel::Level3)?;
    if let Some(pool) = options.own_pool {
        builder = builder
            .with_independent_thread_pool()?
            .with_intra_threads(pool.threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(pool.spinning)?
            .with_inter_op_spinning(pool.spinning)?;
    }
    if let Some(directory) = file.weights {
        builder = builder.with_config_entry(WEIGHTS_DIRECTORY, directory.to_string_lossy())?;
    }
    for (name, bytes) in file.in_memory {
        builder = builder.with_external_initializer_file_in_memory(name, Arc::clone(bytes))?;
    }
    builder.commit_from_memory(file.bytes)
}

fn fit_an_answer(outputs: &[Tensor], limit: usize) -> Result<(), EngineError> {
    let bytes = outputs.iter().fold(0, |sum: usize, output| sum.saturating_add(output.byte_size()));
    if bytes > limit { Err(EngineError::TooMuchOutput) } else { Ok(()) }
}

fn signature(session: &Session) -> Result<Signature, EngineError> {
    let read = |place, role: &str, name: &str, value: &ValueType| {
        let spec = spec(role, name, value)?;
        // Of a scalar and of an undeclared shape, the same is said.
        let is_unranked = spec.shape.is_empty()
            && !has_shape(session, place)
                .map_err(|error| EngineError::Unservable(load_words::of_load(error.message())))?;
        Ok(if is_unranked { TensorSpec { shape: vec![Dim::Unranked], ..spec } } else { spec })
    };
    let mut inputs = Vec::new();
    for (index, input) in session.inputs().iter().enumerate() {
        inputs.push(read(Place::Input(index), "input", input.name(), input.dtype())?);
    }
    for (index, input) in session.overridable_initializers().iter().enumerate() {
        let place = Place::OverridableInitializer(index);
        inputs.push(TensorSpec { optional: true, ..read(place, "input", input.name(), input.dtype())? });
    }
    let outputs = session.outputs().iter().enumerate();
    let outputs = outputs.map(|(index, output)| read(Place::Output(index), "output", output.name(), output.dtype()));
    Ok(Signature { inputs, outputs: outputs.collect::<Result<_, _>>()? })
}

fn dimension_names(input: &Outlet) -> (String, Vec<String>) {
    let names = match input.dtype() {
        ValueType::Tensor { dimension_symbols, .. } => dimension_symbols.iter().cloned().collect(),
        _ => Vec::new(),
    };
    (input.name().to_owned(), names)
}

fn spec(role: &str, name: &str, value: &ValueType) -> Result<TensorSpec, EngineError> {
    let ValueType::Tensor { ty, shape, .. } = value else {
        let kind = match value {
            ValueType::Sequence(_) => "a sequence",
            ValueType::Map { .. } => "a map",
            _ => "an optional value",
        };
        return Err(EngineError::Unservable(format!("{role} '{name}' is {kind}, not a tensor: it cannot be served")));
    };
    let datatype = datatype(*ty).ok_or_else(|| {
        EngineError::Unservable(format!("{role} '{name}' has element type {ty}, which the protocol cannot carry"))
    })?;
    let shape = shape.iter().map(|&size| u64::try_from(size).map_or(Dim::Any, Dim::Fixed)).collect();
    Ok(TensorSpec { name: name.into(), datatype, shape, optional: false })
}

fn datatype(element: TensorElementType) -> Option<DataType> {
    Some(match element {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}

fn metadata(session: &Session) -> ort::Result<BTreeMap<String, String>> {
    let metadata = session.metadata()?;
    let keys = metadata.custom_keys()?;
    Ok(keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect())
}

/// An operator that cannot work on the values or shapes that it got is the request's doing: on
/// the CPU a run is a function of its inputs. Running out of memory is not.
fn runtime_error(error: &ort::Error) -> EngineError {
    let message = describe(error);
    match (error.code(), words::of_operator(&message)) {
        (_, Some(words)) if !lacks_memory(&message) => EngineError::Refused(words),
        (ort::ErrorCode::InvalidArgument, None) => {
            EngineError::Refused(words::plain(&message).unwrap_or_else(|| "it cannot work on them".into()))
        }
        _ => EngineError::Failed(load_words::plain(&message)),
    }
}

fn describe(error: &ort::Error) -> String {
    error.message().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_that_no_answer_can_carry_are_refused() {
        let shape = crate::domain::Shape::new(vec![3]).unwrap();
        let output = Tensor::plain("y", DataType::Uint8, shape, vec![0; 3].into()).unwrap();
        fit_an_answer(&[output.clone(), output.clone()], 6).unwrap();
        let error = fit_an_answer(&[output.clone(), output], 5).unwrap_err();
        assert_eq!(crate::fault::Fault::code(&error), crate::fault::ErrorCode::TooLarge);
    }
}
