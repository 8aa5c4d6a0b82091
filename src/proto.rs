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

/// The part of the ONNX format that the gateway reads.
pub mod onnx {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

/// Descriptors of all files in `proto/`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
