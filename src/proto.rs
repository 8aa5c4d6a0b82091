//! Code generated from `proto/`: the wire messages, and nothing else.
#![allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, reason = "generated code")]

/// Open Inference Protocol v2.
pub mod inference {
    tonic::include_proto!("inference");
}

/// The admin plane.
pub mod admin {
    tonic::include_proto!("tidegate.admin.v1");
}

pub mod tensor;

/// The part of the ONNX format that the gateway reads.
pub mod onnx {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
    pub use super::tensor::TensorProto;
}

/// Descriptors of all files in `proto/`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The same, ready to be asked: for protobuf's text form and its JSON form.
pub static DESCRIPTOR_POOL: std::sync::LazyLock<prost_reflect::DescriptorPool> = std::sync::LazyLock::new(|| {
    prost_reflect::DescriptorPool::decode(DESCRIPTORS).expect("the compiler of proto/ wrote the descriptors")
});
