//! tidegate: a model-serving gateway for ONNX models, with releases and drift monitoring built in.
//!
//! The rooms, in the order in which a request meets them, then those that run the models' lives,
//! then the shelves that all stand on. `docs/ARCHITECTURE.md` is the guided tour.

// The way of a request.
pub mod engine;
pub mod gateway;
pub mod monitor;
pub mod observe;
pub mod protocol;
pub mod route;
pub mod schedule;
pub mod shadow;

// The lives of models and versions, and those who run them.
pub mod admin;
pub mod app;
pub mod cli;
pub mod registry;
pub mod release;
pub mod rollout;
pub mod store;

// The shelves: they import nothing above them.
pub mod config;
pub mod domain;
pub mod events;
pub mod fault;
pub mod independence;
pub mod lifecycle;
pub mod proto;
pub mod telemetry;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
