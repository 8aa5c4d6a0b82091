//! What reads bytes that others wrote, as functions of bytes: for the fuzzer in `fuzz/`, and for
//! the test that gives each its committed corpus. In no ordinary build.
//!
//! A target may refuse its bytes; it must not panic, and what it accepts must be able to go on its
//! way: a request that is read can be written as an answer, a profile reads back as itself.

use std::{env, fs, path::PathBuf, process, sync::Arc};

use http::Request;
use prost::Message;

use crate::{
    admin::AdminRequest,
    config::fuzzing as config,
    domain::{DataType, Dim, InferReply, ModelName, RequestId, Signature, Tensor, TensorSpec, Version},
    independence::prove,
    monitor::{ColumnNames, Profile, Table, fuzzing as monitor},
    proto::onnx::ModelProto,
    protocol::fuzzing::{grpc, http as door},
    registry::fuzzing as registry,
};

/// Reads bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Target); 16] = [
    ("http_json", door::json),
    ("http_binary", door::binary),
    ("http_raw", door::raw),
    ("http_encoding", door::encoding),
    ("grpc_infer", grpc::infer),
    ("config_pbtxt", config::pbtxt),
    ("model_toml", config::model_toml),
    ("gateway_toml", config::gateway_toml),
    ("labels", config::labels),
    ("onnx", registry::onnx),
    ("independence", independence),
    ("profile_json", profile_json),
    ("monitor_counts", monitor::counts),
    ("monitor_rows", monitor::rows),
    ("table", table),
    ("admin_request", admin_request),
];

/// A reply that answers with `tensors`.
pub(crate) fn reply(tensors: Vec<Tensor>) -> Option<InferReply> {
    let id = RequestId::given_or_new("").ok()?;
    Some(InferReply {
        model: "m".parse::<ModelName>().ok()?,
        version: Version::new(1)?,
        id,
        outputs: tensors.into(),
        violation: None,
    })
}

/// `bytes` as a file of this name, which is gone afterwards. `None` where none can be written.
pub(crate) fn with_file<T>(name: &str, bytes: &[u8], read: impl FnOnce(&PathBuf) -> T) -> Option<T> {
    let directory = env::temp_dir().join(format!("tidegate-fuzzing-{}", process::id()));
    fs::create_dir_all(&directory).ok()?;
    let path = directory.join(name);
    fs::write(&path, bytes).ok()?;
    let outcome = read(&path);
    let _ = fs::remove_dir_all(&directory);
    Some(outcome)
}

/// Whatever a model is, there is an answer to whether its rows are independent.
fn independence(bytes: &[u8]) {
    let Ok(model) = ModelProto::decode(bytes) else { return };
    assert!(!prove(&model).to_string().is_empty());
}

fn profile_json(bytes: &[u8]) {
    let Ok(profile) = Profile::parse(bytes) else { return };
    let text = profile.to_json().expect("a parsed profile has a text");
    let again = Profile::parse(text.as_bytes()).expect("what was written can be read");
    assert_eq!(again, profile);
}

/// The form is found out; the first byte says what shape the inputs have.
fn table(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let shape = if kind % 4 < 2 { vec![Dim::Any] } else { vec![Dim::Any, Dim::Any] };
    with_file("rows", bytes, |path| {
        let Ok(table) = Table::open(path) else { return };
        let types = [DataType::Fp64, DataType::Bytes, DataType::Int64, DataType::Bool];
        let columns = table.columns().iter().zip(types.iter().cycle());
        let spec = |(column, datatype): (&String, &DataType)| TensorSpec {
            name: column.clone(),
            datatype: *datatype,
            shape: shape.clone(),
            optional: false,
        };
        let signature = Signature { inputs: columns.map(spec).collect(), outputs: Vec::new() };
        let Ok(batches) = table.batches(&signature, &ColumnNames::default(), 7) else { return };
        for batch in batches {
            let Ok(batch) = batch else { return };
            assert!(batch.inputs.iter().all(|input| input.shape().rows() == batch.rows && batch.rows <= 7));
        }
    });
}

/// A line with the method and the path, then the body.
fn admin_request(bytes: &[u8]) {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let (line, body) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let Ok(line) = std::str::from_utf8(line) else { return };
    let (method, path) = line.split_once(' ').unwrap_or(("GET", line));
    let Ok(request) = Request::builder().method(method).uri(path).body(()) else { return };
    let outcome = AdminRequest::parse(&request.into_parts().0, body);
    if let Err(error) = outcome {
        assert!(!error.to_string().is_empty());
    }
}

/// A signature with one input.
pub(crate) fn one_input(datatype: DataType, shape: Vec<Dim>) -> Arc<Signature> {
    let spec = TensorSpec { name: "x".into(), datatype, shape, optional: false };
    Arc::new(Signature { inputs: vec![spec], outputs: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The seeds and what the fuzzer once found: a target cannot rot, and a fault cannot return.
    #[test]
    fn every_target_takes_its_corpus_and_every_prefix_of_it() {
        for (name, target) in TARGETS {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let mut files = 0;
            for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
                let bytes = fs::read(entry.unwrap().path()).unwrap();
                target(&bytes);
                for length in (0..bytes.len()).step_by((bytes.len() / 64).max(1)) {
                    target(&bytes[..length]);
                }
                files += 1;
            }
            assert!(files > 0, "{name} has no corpus");
        }
    }
}
