//! Whether clients of one version can talk to another as they are.
//!
//! A request that the old version takes must be taken by the new one, and what it reads of the
//! answer must be there with the same type and rank. So a new version may have more optional
//! inputs and more outputs, take more shapes and give fewer.

use std::sync::Arc;

use crate::domain::{Dim, Signature, TensorSpec, Version};

/// What a candidate's signature is held against.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// Whose signature it is: of the stable version, or of what serves now under the same number.
    pub version: Version,
    pub signature: Arc<Signature>,
}

/// Whether a break of the signature is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureChange {
    Refused,
    Allowed,
    /// It was meant when this model file was loaded before, by its digest.
    AllowedFor(String),
}

impl SignatureChange {
    /// As it follows from what was allowed before.
    pub(in crate::registry) fn of(allowed: Option<String>) -> Self {
        allowed.map_or(Self::Refused, Self::AllowedFor)
    }

    /// Why the model file of this digest may break clients; `None`: it must not.
    pub(super) fn allows(&self, digest: &str) -> Option<&'static str> {
        match self {
            Self::Allowed => Some("a change is allowed"),
            Self::AllowedFor(allowed) if allowed == digest => Some("a change was allowed when it was loaded before"),
            Self::AllowedFor(_) | Self::Refused => None,
        }
    }
}

/// Everything in which `new` breaks clients of `old`.
pub(super) fn breaks(old: &Signature, new: &Signature) -> Vec<String> {
    let mut faults = Vec::new();
    for input in &old.inputs {
        match new.input(&input.name) {
            None => faults.push(format!("input '{}' is gone", input.name)),
            Some(own) => faults.extend(input_break(input, own)),
        }
    }
    let added = new.inputs.iter().filter(|input| !input.optional && old.input(&input.name).is_none());
    faults.extend(added.map(|input| format!("input '{}' is new and not optional", input.name)));
    for output in &old.outputs {
        match new.output(&output.name) {
            None => faults.push(format!("output '{}' is gone", output.name)),
            Some(own) => faults.extend(output_break(output, own)),
        }
    }
    faults
}

fn input_break(old: &TensorSpec, new: &TensorSpec) -> Option<String> {
    if old.optional && !new.optional {
        return Some(format!("input '{}' is not optional any more", old.name));
    }
    // The new one must take every shape that the old one takes.
    difference("input", old, new, contains(&new.shape, &old.shape))
}

fn output_break(old: &TensorSpec, new: &TensorSpec) -> Option<String> {
    // The new one must give only shapes that the old one gives.
    difference("output", old, new, contains(&old.shape, &new.shape))
}

fn difference(role: &str, old: &TensorSpec, new: &TensorSpec, shape_fits: bool) -> Option<String> {
    if old.datatype != new.datatype {
        return Some(format!("{role} '{}' has datatype {}, not {}", old.name, new.datatype, old.datatype));
    }
    let (was, is) = (in_words(old), in_words(new));
    (!shape_fits).then(|| format!("{role} '{}' has shape {is}, not {was}", old.name))
}

/// Whether every shape of `inner` is one of `outer`.
fn contains(outer: &[Dim], inner: &[Dim]) -> bool {
    if outer == [Dim::Unranked] {
        return true;
    }
    outer.len() == inner.len()
        && outer.iter().zip(inner).all(|(outer, inner)| match (outer, inner) {
            (Dim::Any, Dim::Fixed(_) | Dim::Any) => true,
            (outer, inner) => outer == inner,
        })
}

fn in_words(spec: &TensorSpec) -> String {
    if spec.shape == [Dim::Unranked] { "of any rank".into() } else { format!("{:?}", spec.wire_shape()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DataType;

    fn spec(name: &str, datatype: DataType, shape: &[Dim]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: shape.into(), optional: false }
    }

    fn signature() -> Signature {
        let row = [Dim::Any, Dim::Fixed(3)];
        Signature {
            inputs: vec![
                spec("x", DataType::Fp32, &row),
                TensorSpec { optional: true, ..spec("bias", DataType::Fp32, &[]) },
            ],
            outputs: vec![spec("y", DataType::Fp32, &row)],
        }
    }

    fn after(change: impl FnOnce(&mut Signature)) -> String {
        let mut changed = signature();
        change(&mut changed);
        breaks(&signature(), &changed).join("; ")
    }

    #[test]
    fn what_clients_do_not_notice_is_no_break() {
        assert_eq!(after(|_| {}), "");
        assert_eq!(after(|new| new.inputs[0].shape = vec![Dim::Any, Dim::Any]), "", "takes more");
        assert_eq!(after(|new| new.inputs[0].shape = vec![Dim::Unranked]), "", "takes everything");
        assert_eq!(after(|new| new.outputs[0].shape = vec![Dim::Fixed(1), Dim::Fixed(3)]), "", "gives less");
        assert_eq!(after(|new| new.outputs.push(spec("z", DataType::Int8, &[]))), "", "a new output");
        let optional = TensorSpec { optional: true, ..spec("scale", DataType::Fp32, &[]) };
        assert_eq!(after(|new| new.inputs.push(optional)), "", "a new optional input");
        assert_eq!(after(|new| new.inputs.reverse()), "", "the order of inputs is not part of it");
    }

    #[test]
    fn each_break_is_named() {
        let cases: [(String, &str); 9] = [
            (after(|new| new.inputs[0].name = "z".into()), "input 'x' is gone; input 'z' is new and not optional"),
            (after(|new| new.inputs[0].datatype = DataType::Fp64), "input 'x' has datatype FP64, not FP32"),
            (after(|new| new.inputs[0].shape[0] = Dim::Fixed(1)), "input 'x' has shape [1, 3], not [-1, 3]"),
            (after(|new| new.inputs[0].shape.truncate(1)), "input 'x' has shape [-1], not [-1, 3]"),
            (after(|new| new.inputs[1].optional = false), "input 'bias' is not optional any more"),
            (after(|new| new.outputs.clear()), "output 'y' is gone"),
            (after(|new| new.outputs[0].datatype = DataType::Int64), "output 'y' has datatype INT64, not FP32"),
            (after(|new| new.outputs[0].shape[1] = Dim::Fixed(4)), "output 'y' has shape [-1, 4], not [-1, 3]"),
            (after(|new| new.outputs[0].shape = vec![Dim::Unranked]), "output 'y' has shape of any rank, not [-1, 3]"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }
}
