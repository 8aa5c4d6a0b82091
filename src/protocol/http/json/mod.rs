//! OIP v2 JSON: `request` reads it, `elements` turns `data` into element bytes, both by way of
//! `cursor` (the grammar, with `words`) and `number`, and on x86 `lanes` (many numbers at once); `repeated` knows it again; `reply` writes the answer.

mod cursor;
mod elements;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_lanes.rs"]
mod lanes;
mod number;
mod repeated;
mod reply;
mod request;
#[cfg(test)]
mod round_trip_tests;
mod words;

pub(super) use reply::{Encoded, encode};
pub(super) use request::{BinaryOutputs, Decoded, decode};
