//! How JSON answers say the numbers that JSON has no word for.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands in a JSON answer for NaN and the infinities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Nonfinite {
    /// `null` for all of them: valid JSON, which every client reads.
    #[default]
    Null,
    /// `NaN`, `Infinity`, `-Infinity`: no JSON, but Python, Triton and many others read it, and it tells them apart.
    Literal,
}

impl FromStr for Nonfinite {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "null" => Ok(Self::Null),
            "literal" => Ok(Self::Literal),
            _ => Err(()),
        }
    }
}
