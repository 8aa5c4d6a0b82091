//! The outcome of a proof, in words for operators.

use std::fmt;

/// Whether rows that run together can touch each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No row of any output depends on another row of the inputs: proven.
    Independent(Proof),
    /// Rows touch each other, or there are none to tell apart: requests must run alone.
    Dependent(Reason),
    /// The proof cannot tell: an operator is not known, or a shape cannot be followed.
    Unknown(Reason),
}

/// Where the rows are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// Every input of the model that a request gives, in the order of the model.
    pub inputs: Vec<BatchAxis>,
    /// Every output, in the order of the model.
    pub outputs: Vec<BatchAxis>,
    /// What does not speak against the proof but should be looked at: sentences.
    pub warnings: Vec<String>,
}

/// The axis along which the rows of a tensor lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAxis {
    pub name: String,
    pub axis: usize,
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The operator's type, such as `DynamicQuantizeLinear`, with its domain where that is not ONNX's own; empty where
    /// the reason is none of a node.
    pub operator: String,
    /// The node's name; where it has none, that of its first output. Empty where the reason is none of a node.
    pub node: String,
    /// Continues "OPERATOR at node 'NODE' …"; a whole sentence without operator.
    pub why: String,
}

impl Reason {
    /// A reason that is none of a node.
    #[must_use]
    pub fn of_model(why: impl Into<String>) -> Self {
        Self { operator: String::new(), node: String::new(), why: why.into() }
    }
}

impl Verdict {
    /// One word: `independent`, `dependent`, `unknown`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Independent(_) => "independent",
            Self::Dependent(_) => "dependent",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why there is no proof; `None` where there is one.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Independent(_) => None,
            Self::Dependent(reason) | Self::Unknown(reason) => Some(reason),
        }
    }
}

/// `DynamicQuantizeLinear at node 'q' takes one scale over all rows`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.operator.is_empty() {
            return f.write_str(&self.why);
        }
        write!(f, "{} at node '{}' {}", self.operator, self.node.escape_debug(), self.why)
    }
}

/// `independent`, `dependent: …`, `unknown: …`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.reason().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_sentences() {
        let reason = Reason {
            operator: "DynamicQuantizeLinear".into(),
            node: "q".into(),
            why: "takes one scale over all rows".into(),
        };
        let expected = "dependent: DynamicQuantizeLinear at node 'q' takes one scale over all rows";
        assert_eq!(Verdict::Dependent(reason).to_string(), expected);
        let unknown = Verdict::Unknown(Reason::of_model("the model has no inputs"));
        assert_eq!(unknown.to_string(), "unknown: the model has no inputs");
        assert_eq!(Verdict::Independent(Proof::default()).to_string(), "independent");
    }
}
