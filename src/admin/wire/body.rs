//! The bodies that changes are asked with. Unknown fields are refused: a misspelt `percent`
//! must not become a release.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::Value;

use super::Share;

/// For a promotion or a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionBody {
    #[serde(deserialize_with = "version")]
    pub version: u64,
    #[serde(default, deserialize_with = "reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// For a canary or a shadow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitBody {
    #[serde(deserialize_with = "version")]
    pub version: u64,
    #[serde(deserialize_with = "percent")]
    pub percent: Share,
    #[serde(default, deserialize_with = "reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// For a rollback: to the previous version, or to the one that is named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    #[serde(default, deserialize_with = "optional_version", skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    #[serde(default, deserialize_with = "reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// For all that names its object in the path: load, unload, and every DELETE.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonBody {
    #[serde(default, deserialize_with = "reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Triton's filter of its repository index.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepositoryIndexBody {
    #[serde(default)]
    pub ready: bool,
}

/// Triton's load and unload of a model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepositoryModelBody {
    #[serde(default)]
    pub parameters: serde_json::Map<String, Value>,
}

/// Triton's change of log settings: what is absent stays. Where lines go is not for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogChangeBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_info: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_warning: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_error: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_verbose_level: Option<u32>,
}

// serde's own messages do not name the field that has the wrong type; these do.

pub(super) fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    value.as_u64().filter(|number| *number > 0).ok_or_else(|| wrong("version", &value, "a whole number from 1"))
}

fn optional_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => {
            let number = value.as_u64().filter(|number| *number > 0);
            number.map(Some).ok_or_else(|| wrong("to", &value, "the number of a version, from 1"))
        }
    }
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let percent = value.as_f64().filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(Share).ok_or_else(|| wrong("percent", &value, "a number from 0 to 100"))
}

pub(super) fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        other => Err(wrong("reason", &other, "a text")),
    }
}

fn wrong<E: Error>(field: &str, value: &Value, accepted: &str) -> E {
    let shown: String = value.to_string().chars().take(64).collect();
    E::custom(format_args!("'{field}' is {shown}: use {accepted}"))
}
