//! OIP v2 JSON: `request` reads it, `elements` turns `data` into element bytes, both by way of
//! `cursor` (the grammar) and `number`; `repeated` knows it again; `reply` writes the answer.

mod cursor;
mod elements;
mod number;
mod repeated;
mod reply;
mod request;
#[cfg(test)]
mod round_trip_tests;

pub(super) use reply::{Encoded, encode};
pub(super) use request::{BinaryOutputs, Decoded, decode};
