//! A model's bytes, checked to refer to nothing outside, and opened. Done twice: in a worker, where
//! it may go wrong in any way, and then here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prost::Message;

use super::{external::external_files, listing::Listing, locale, sequence, zipmap};
use crate::{
    engine::{EngineError, EngineOptions, ModelFile, OnnxModel, Runtime},
    proto::onnx::{GraphProto, ModelProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto},
};

/// The bytes of a model that may be opened.
pub(super) struct Source {
    /// With its maps and sequences as tensors, and locales that are always there.
    bytes: Vec<u8>,
    /// The model's directory in the listing: empty, or with a `/` at its end.
    folder: String,
    /// The names that the model has for the files of its weights: their names in the listing.
    weights: BTreeMap<String, String>,
    /// What an operator should know of how it was changed.
    pub(super) notes: Vec<String>,
    /// The files of its weights, by their names in the listing.
    pub(super) external: BTreeSet<String>,
    /// Bytes of the model and of the files that it refers to.
    pub(super) size: u64,
}

/// Why it may not be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It refers to files that it must not.
    Outside(Vec<String>),
    /// It is no model.
    Refused(String),
}

/// Checks that the model of this name refers to files of its version only.
pub(super) fn contained(bytes: Vec<u8>, name: &str, listing: &Listing) -> Result<Source, Fault> {
    let folder = name.rfind('/').map(|end| name[..=end].to_owned()).unwrap_or_default();
    let weights = external_files(&bytes, &folder, listing)?;
    let external: BTreeSet<String> = weights.values().cloned().collect();
    let sizes = external.iter().filter_map(|name| listing.files.get(name)).map(|print| print.size);
    let size = bytes.len() as u64 + sizes.sum::<u64>();
    // One of the two is enough.
    let bytes = zipmap::flatten(&bytes).unwrap_or(bytes);
    let bytes = sequence::flatten(&bytes).unwrap_or(bytes);
    let (bytes, rewritten) = locale::rewrite(&bytes).unwrap_or((bytes, 0));
    let notes = (rewritten > 0).then(|| {
        format!(
            "{rewritten} of its StringNormalizer nodes ask for the locale en_US.UTF-8: C.UTF-8 is taken, which changes the case of \
             letters alike and is on every machine"
        )
    });
    Ok(Source { bytes, folder, weights, notes: notes.into_iter().collect(), external, size })
}

impl Source {
    /// The graph, for looking at it.
    pub(super) fn graph(&self) -> Option<ModelProto> {
        ModelProto::decode(&self.bytes[..]).ok()
    }

    /// A model is loaded from the bytes that were checked, so that nobody can swap the file in between. The
    /// files of its weights are opened by their names, and looked at again afterwards.
    pub(super) fn open(
        &self,
        runtime: &Runtime,
        options: EngineOptions,
        listing: &Listing,
    ) -> Result<OnnxModel, EngineError> {
        let folder = listing.root.join(&self.folder);
        let weights = (!self.external.is_empty()).then_some(folder.as_path());
        // ONNX Runtime follows no link out of the directory, and need not: these are read here, as they were checked.
        let has_links = self.external.iter().any(|name| listing.links.contains_key(name));
        let mut in_memory = Vec::new();
        for (location, name) in self.weights.iter().filter(|_| has_links) {
            let bytes = listing.read(name).map_err(|faults| EngineError::Unservable(faults.reasons.join("; ")))?;
            in_memory.push((location.clone(), Arc::from(bytes.unwrap_or_default())));
        }
        let file = ModelFile { bytes: &self.bytes, weights, in_memory: &in_memory };
        runtime.open(&file, options).map_err(|error| self.with_opsets(runtime, error))
    }

    /// ONNX Runtime tells the first thing only that is too new for it. Where that was the IR version, the opsets are asked
    /// after too, with a model that has nothing else.
    fn with_opsets(&self, runtime: &Runtime, error: EngineError) -> EngineError {
        let probe = error.ir_version_to_take().and_then(|ir_version| self.probe(ir_version));
        let Some(bytes) = probe else { return error };
        let file = ModelFile { bytes: &bytes, weights: None, in_memory: &[] };
        match runtime.open(&file, EngineOptions::default()) {
            Ok(_) => error,
            Err(more) => EngineError::Unservable(format!("{error}; and {more}")),
        }
    }

    /// `y = x` with the opsets of this model.
    fn probe(&self, ir_version: i64) -> Option<Vec<u8>> {
        let value = |name: &str| {
            let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(TensorShapeProto::default()) };
            let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
            ValueInfoProto { name: Some(name.into()), r#type: Some(kind) }
        };
        let (input, output, op_type) = (vec!["x".into()], vec!["y".into()], Some("Identity".into()));
        let graph = GraphProto {
            name: Some("probe".into()),
            node: vec![NodeProto { input, output, op_type, ..NodeProto::default() }],
            input: vec![value("x")],
            output: vec![value("y")],
            ..GraphProto::default()
        };
        let opset_import = self.graph()?.opset_import;
        let probe =
            ModelProto { ir_version: Some(ir_version), graph: Some(graph), opset_import, ..ModelProto::default() };
        Some(probe.encode_to_vec())
    }
}
