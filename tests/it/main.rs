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

mod admin_api;
mod admission;
mod audit;
mod bad_input;
mod canary;
mod changed_files;
mod concurrency;
mod data_types;
mod doors;
mod harness;
mod layouts;
mod memory;
mod monitor;
mod monitoring;
mod onnx;
mod overload;
mod policies;
mod promotion;
mod readiness;
mod releases;
mod repository;
mod rollback;
mod rollouts;
mod rows;
mod start_and_stop;
mod state_disk;
mod swap;
mod tidy;
mod tracing;
mod traffic;
mod triton;
