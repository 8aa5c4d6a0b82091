//! The real binary, started as a user would, asked over its real protocols.
#![allow(unreachable_pub, reason = "a test binary has no public interface")]

mod bad_input;
mod data_types;
mod harness;
mod monitoring;
mod onnx;
mod releases;
mod repository;
mod start_and_stop;
mod tidy;
mod tracing;
