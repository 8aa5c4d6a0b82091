//! tidegate: a model-serving gateway for ONNX models, with releases and drift monitoring built in.

pub mod admin;
pub mod cli;
pub mod domain;
pub mod fault;
pub mod gateway;
pub mod monitor;
pub mod proto;
pub mod protocol;
pub mod registry;
pub mod release;
