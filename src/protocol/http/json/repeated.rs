//! The JSON of a binary request, read once.
//!
//! A client that sends its tensors as binary data says the same before each of them: names, datatypes, shapes. What a
//! thread has just read, it knows again by its bytes. The same head is noted when it comes for the second time: one
//! with an id of its own in each request is never.

use std::{cell::RefCell, sync::Arc, time::Duration};

use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::request::{BinaryOutputs, Decoded};
use crate::{
    domain::{DataType, OutputRequest, Priority, RequestId, Shape, Tensor},
    protocol::Nonfinite,
};

/// Longer heads are read each time.
const LONGEST: usize = 1 << 10;
/// Heads that a thread knows at once.
const SLOTS: usize = 16;

thread_local! {
    static SLOTS_OF_THREAD: RefCell<[Slot; SLOTS]> = RefCell::default();
}

#[derive(Default)]
struct Slot {
    /// The hash of the head that came last without being known.
    last: u64,
    head: Option<Box<Head>>,
}

struct Head {
    json: Box<[u8]>,
    /// The bytes behind the JSON.
    blobs: usize,
    inputs: Box<[Input]>,
    /// `None` where each request gets its own.
    id: Option<RequestId>,
    routing_key: Option<String>,
    parameters: Vec<(Arc<str>, String)>,
    outputs: Vec<OutputRequest>,
    priority: Option<Priority>,
    timeout: Option<Duration>,
    binary: BinaryOutputs,
    nonfinite: Option<Nonfinite>,
}

struct Input {
    name: Arc<str>,
    datatype: DataType,
    shape: Shape,
    size: usize,
}

/// The request, if this thread knows its JSON. `None` also for what is wrong with the bytes behind it.
pub(super) fn known(json: &[u8], blobs: &Bytes) -> Option<Decoded> {
    if json.len() > LONGEST {
        return None;
    }
    SLOTS_OF_THREAD.with_borrow(|slots| slots[slot(hash(json))].head.as_ref()?.decode(json, blobs))
}

/// Notes what was read, if it has come before.
pub(super) fn note(json: &[u8], blobs: usize, decoded: &Decoded) {
    if json.len() > LONGEST {
        return;
    }
    let hash = hash(json);
    SLOTS_OF_THREAD.with_borrow_mut(|slots| {
        let slot = &mut slots[slot(hash)];
        if std::mem::replace(&mut slot.last, hash) == hash {
            slot.head = Head::of(json, blobs, decoded).map(Box::new);
        }
    });
}

fn hash(json: &[u8]) -> u64 {
    XxHash3_64::oneshot(json)
}

fn slot(hash: u64) -> usize {
    // The remainder is under the number of slots.
    usize::try_from(hash % SLOTS as u64).unwrap_or_default()
}

impl Head {
    /// `None` where data stand in the JSON itself.
    fn of(json: &[u8], blobs: usize, decoded: &Decoded) -> Option<Self> {
        let input = |tensor: &Tensor| Input {
            name: tensor.shared_name(),
            datatype: tensor.datatype(),
            shape: tensor.shape().clone(),
            size: tensor.raw_size(),
        };
        let inputs: Box<[Input]> = decoded.inputs.iter().map(input).collect();
        let is_binary = inputs.iter().map(|input| input.size).sum::<usize>() == blobs;
        is_binary.then(|| Self {
            json: json.into(),
            blobs,
            inputs,
            id: (!decoded.id.is_made()).then(|| decoded.id.clone()),
            routing_key: decoded.routing_key.clone(),
            parameters: decoded.parameters.clone(),
            outputs: decoded.outputs.clone(),
            priority: decoded.priority,
            timeout: decoded.timeout,
            binary: decoded.binary.clone(),
            nonfinite: decoded.nonfinite,
        })
    }

    fn decode(&self, json: &[u8], blobs: &Bytes) -> Option<Decoded> {
        if *self.json != *json || self.blobs != blobs.len() {
            return None;
        }
        let mut at = 0;
        let mut input = |input: &Input| {
            let raw = blobs.slice(at..at + input.size);
            at += input.size;
            Tensor::from_raw(Arc::clone(&input.name), input.datatype, input.shape.clone(), raw).ok()
        };
        let inputs = match &*self.inputs {
            // Without a list in between, as nearly all requests have one input.
            [only] => Arc::from([input(only)?]),
            all => all.iter().map(input).collect::<Option<_>>()?,
        };
        let id = match &self.id {
            Some(id) => id.clone(),
            None => RequestId::given_or_new("").ok()?,
        };
        Some(Decoded {
            id,
            routing_key: self.routing_key.clone(),
            parameters: self.parameters.clone(),
            inputs,
            outputs: self.outputs.clone(),
            priority: self.priority,
            timeout: self.timeout,
            binary: self.binary.clone(),
            nonfinite: self.nonfinite,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::request::{decode, read},
        *,
    };

    fn body(json: &str, blobs: &[u8]) -> Bytes {
        [json.as_bytes(), blobs].concat().into()
    }

    fn is_known(json: &str, blobs: &'static [u8]) -> bool {
        known(json.as_bytes(), &Bytes::from_static(blobs)).is_some()
    }

    const JSON: &str = r#"{"parameters":{"k":"v","sequence_id":7},"inputs":[{"name":"x","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}},{"name":"t","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#;

    #[test]
    fn head_is_known_from_the_second_time_on_and_ids_stay_different() {
        for times in 0..4 {
            assert_eq!(is_known(JSON, b"\x01\x02\x01\0\0\0a"), times >= 2);
            decode(&body(JSON, b"\x03\x04\x01\0\0\0b"), Some(JSON.len())).unwrap();
        }
        let [one, other] = [0, 1].map(|_| known(JSON.as_bytes(), &Bytes::from_static(b"\x01\x02\x01\0\0\0a")).unwrap());
        assert_ne!(one.id, other.id);
    }

    #[test]
    fn bytes_that_do_not_fit_a_known_head_are_refused_as_ever() {
        for _ in 0..3 {
            decode(&body(JSON, b"\x03\x04\x01\0\0\0b"), Some(JSON.len())).unwrap();
        }
        for blobs in [&b"\x01\x02\x01\0\0\0"[..], b"\x01\x02\x01\0\0\0ab", b"\x01\x02\x09\0\0\0a"] {
            let body = body(JSON, blobs);
            let refused = decode(&body, Some(JSON.len())).unwrap_err().to_string();
            assert_eq!(refused, read(&body, Some(JSON.len())).unwrap_err().to_string());
        }
    }

    #[test]
    fn data_within_the_json_are_not_noted() {
        let json = r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}]}"#;
        for _ in 0..4 {
            assert_eq!(decode(&body(json, b""), Some(json.len())).unwrap().inputs[0].to_raw(), &[1][..]);
        }
        assert!(!is_known(json, b""));
    }

    proptest! {
        /// Whatever came before: the answer is that of reading.
        #[test]
        fn known_heads_are_what_reading_them_gives(
            requests in prop::collection::vec((0..40_usize, 0..3_usize, any::<[u8; 2]>()), 1..200)
        ) {
            for (name, width, bytes) in requests {
                let json = format!(
                    r#"{{"id":"{name}","inputs":[{{"name":"x{name}","datatype":"UINT8","shape":[1,{width}],"parameters":{{"binary_data_size":{width}}}}}]}}"#
                );
                let body = body(&json, &bytes[..width]);
                let both = [decode(&body, Some(json.len())), read(&body, Some(json.len()))];
                let [one, other] = both.map(|decoded| format!("{:?}", decoded.unwrap()));
                prop_assert_eq!(one, other);
            }
        }
    }
}
