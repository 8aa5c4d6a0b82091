//! Files that an ONNX model refers to must lie in its version directory.
//!
//! ONNX keeps large weights in files named by the model itself. A hostile model names
//! `../../etc/passwd`, an absolute path, or a link that leads there (CVE-2022-25882,
//! CVE-2024-27318, CVE-2026-27489, CVE-2026-34446, CVE-2026-34447). So every name is checked
//! before ONNX Runtime sees the model.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Component, Path},
};

use prost::Message;

use super::{kind, listing::Listing, load::Fault};
use crate::proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

/// The external files of a model, by the names that it has for them: their names in `listing`. Each is a plain file of the
/// version, below `folder`, the model's own in it: empty, or with a `/` at its end.
/// That files with several names have none elsewhere, the listing tells.
///
/// # Errors
/// All that is wrong: the model is not ONNX, or files that are missing or outside.
pub(super) fn external_files(model: &[u8], folder: &str, listing: &Listing) -> Result<BTreeMap<String, String>, Fault> {
    let parsed =
        ModelProto::decode(model).map_err(|error| Fault::Refused(kind::in_words(model, &error.to_string())))?;
    if parsed.graph.is_none() {
        return Err(Fault::Refused(kind::in_words(model, "it has no graph")));
    }
    let mut locations = BTreeSet::new();
    walk_model(&parsed, &mut locations);
    let mut files = BTreeMap::new();
    let mut faults = Vec::new();
    for location in &locations {
        match contained(location, folder, listing) {
            Ok(name) => drop(files.insert(location.clone(), name)),
            Err(fault) => faults.push(format!("external data '{}' {fault}", location.escape_debug())),
        }
    }
    if faults.is_empty() { Ok(files) } else { Err(Fault::Outside(faults)) }
}

fn contained(location: &str, folder: &str, listing: &Listing) -> Result<String, String> {
    let relative = Path::new(location);
    let is_plain = !location.is_empty()
        && relative.components().all(|part| matches!(part, Component::Normal(_)))
        && !location.contains('\0');
    if !is_plain {
        return Err("points outside the version directory".into());
    }
    // Without doubled slashes.
    let name = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
    let name = format!("{folder}{name}");
    // A link that may lead out: the file that it leads to was listed, and is what is read.
    if listing.links.contains_key(&name) {
        return Ok(name);
    }
    let path = listing.root.join(&name);
    let metadata = fs::symlink_metadata(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("is missing: the model's weights are in that file; copy it to {name}"),
        _ => format!("cannot be read: {error}"),
    })?;
    if !metadata.is_file() {
        return Err("is not a plain file (links are not followed)".into());
    }
    // What was listed was reached without following any link.
    if listing.files.contains_key(&name) { Ok(name) } else { Err("points outside the version directory".into()) }
}

fn walk_model(model: &ModelProto, locations: &mut BTreeSet<String>) {
    let training = model.training_info.iter().flat_map(|info| info.initialization.iter().chain(&info.algorithm));
    for graph in model.graph.iter().chain(training) {
        walk_graph(graph, locations);
    }
    for node in model.functions.iter().flat_map(|function| &function.node) {
        walk_node(node, locations);
    }
}

/// Depth is bounded: prost refuses messages nested deeper than 100.
fn walk_graph(graph: &GraphProto, locations: &mut BTreeSet<String>) {
    graph.initializer.iter().for_each(|tensor| visit(tensor, locations));
    graph.sparse_initializer.iter().for_each(|sparse| visit_sparse(sparse, locations));
    graph.node.iter().for_each(|node| walk_node(node, locations));
}

fn walk_node(node: &NodeProto, locations: &mut BTreeSet<String>) {
    node.attribute.iter().for_each(|attribute| walk_attribute(attribute, locations));
}

fn walk_attribute(attribute: &AttributeProto, locations: &mut BTreeSet<String>) {
    attribute.t.iter().chain(&attribute.tensors).for_each(|tensor| visit(tensor, locations));
    let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
    sparse.for_each(|sparse| visit_sparse(sparse, locations));
    attribute.g.iter().chain(&attribute.graphs).for_each(|graph| walk_graph(graph, locations));
}

fn visit_sparse(sparse: &SparseTensorProto, locations: &mut BTreeSet<String>) {
    sparse.values.iter().chain(&sparse.indices).for_each(|tensor| visit(tensor, locations));
}

fn visit(tensor: &TensorProto, locations: &mut BTreeSet<String>) {
    // Whatever data_location says: a name that is there may be used.
    let named = tensor.external_data.iter().filter(|entry| entry.key.as_deref() == Some("location"));
    locations.extend(named.map(|entry| entry.value.clone().unwrap_or_default()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::onnx::StringStringEntryProto;

    fn model(location: &str) -> Vec<u8> {
        let entry = StringStringEntryProto { key: Some("location".into()), value: Some(location.into()) };
        let tensor = TensorProto { external_data: vec![entry], data_location: Some(1), ..TensorProto::default() };
        // Hidden in the subgraph of a node: the walk must go there.
        let inner = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        let attribute = AttributeProto { g: Some(inner), ..AttributeProto::default() };
        let node = NodeProto { attribute: vec![attribute], ..NodeProto::default() };
        let graph = GraphProto { node: vec![node], ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
    }

    fn is_contained(location: &str, directory: &Path) -> bool {
        external_files(&model(location), "", &Listing::of(directory).unwrap()).is_ok()
    }

    #[test]
    fn file_beside_the_model_is_found() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        fs::write(directory.path().join("weights.bin"), b"x").unwrap();
        fs::write(directory.path().join("data/more.bin"), b"x").unwrap();
        for (location, is_there) in [("weights.bin", true), ("data//more.bin", true), ("other.bin", false)] {
            assert_eq!(is_contained(location, directory.path()), is_there, "{location}");
        }
    }

    #[test]
    fn weights_lie_beside_the_model_in_a_directory_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("model.onnx")).unwrap();
        fs::write(directory.path().join("model.onnx/w.bin"), b"x").unwrap();
        fs::write(directory.path().join("other.bin"), b"x").unwrap();
        let listing = Listing::of(directory.path()).unwrap();
        let files = external_files(&model("w.bin"), "model.onnx/", &listing).unwrap();
        assert_eq!(files["w.bin"], "model.onnx/w.bin");
        for location in ["other.bin", "../other.bin"] {
            assert!(external_files(&model(location), "model.onnx/", &listing).is_err(), "{location}");
        }
    }

    #[test]
    fn everything_that_leads_outside_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("1");
        fs::create_dir(&directory).unwrap();
        let secret = root.path().join("secret");
        fs::write(&secret, b"x").unwrap();
        std::os::unix::fs::symlink(&secret, directory.join("link")).unwrap();
        std::os::unix::fs::symlink(root.path(), directory.join("folder")).unwrap();
        let absolute = secret.to_str().unwrap();
        for location in ["../secret", absolute, "link", "folder/secret", "", ".", "a/../../secret", "a\0b"] {
            assert!(!is_contained(location, &directory), "{location:?}");
        }
    }

    #[test]
    fn what_is_not_onnx_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let listing = Listing::of(directory.path()).unwrap();
        for bytes in [&b"not onnx"[..], b"", &[0xff; 64]] {
            assert!(matches!(external_files(bytes, "", &listing), Err(Fault::Refused(_))));
        }
    }
}
