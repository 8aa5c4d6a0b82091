//! OIP v2 JSON: `request` reads it, `elements` turns `data` into element bytes, `object`
//! keeps lists from passing for objects, `reply` writes the answer.

mod elements;
mod object;
mod reply;
mod request;
#[cfg(test)]
mod round_trip_tests;

pub(super) use reply::{Encoded, encode};
pub(super) use request::{BinaryOutputs, decode};
