//! Compiles `proto/` with protox, a protobuf compiler in Rust: no `protoc` is needed.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["open_inference.proto", "tidegate_admin.proto", "onnx.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // What gRPC reflection answers with.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Tensor bytes stay slices of the received message.
        .bytes(".inference")
        // Weights are not copied when a model is read.
        .extern_path(".onnx.TensorProto", "crate::proto::tensor::TensorProto")
        .compile_fds(descriptors)?;
    Ok(())
}
