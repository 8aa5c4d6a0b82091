//! The readers of both doors as functions of bytes: see [`crate::fuzzing`].

pub(crate) use super::{grpc::fuzzing as grpc, http::fuzzing as http};
