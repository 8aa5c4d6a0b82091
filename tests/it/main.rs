//! The real binary, started as a user would, asked over its real protocols.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    clippy::type_complexity,
    reason = "a test fails by panicking, and has no public interface"
)]

mod admission;
mod bad_input;
mod concurrency;
mod data_types;
mod harness;
mod monitoring;
mod onnx;
mod releases;
mod repository;
mod start_and_stop;
mod tidy;
mod tracing;
mod triton;
