//! The admin plane: what operators see and change, over REST and gRPC.
//!
//! A door ([`RestDoor`], [`grpc`]) turns its wire into an [`AdminRequest`] or a call of the
//! [`AdminService`], and the answer into its wire. Nothing is decided here: the registry is.

mod events;
pub mod grpc;
mod openapi;
mod plane;
mod request;
mod rest;
mod service;
mod value;
pub mod wire;

pub use events::EventFilter;
pub use plane::serve_admin;
pub use request::AdminRequest;
pub use rest::RestDoor;
pub use service::{AdminError, AdminService, RolloutChange};
pub use value::{parse_actor, parse_idempotency_key, parse_window};
