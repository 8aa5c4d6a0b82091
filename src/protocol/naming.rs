//! The model, version and label that a request names.

use crate::domain::{ModelName, Target};

use super::refusal::Refusal;

/// The model's name in `text`.
pub(super) fn model(text: &str) -> Result<ModelName, Refusal> {
    if text.is_empty() {
        return Err(Refusal::bad_request("the request names no model"));
    }
    Ok(text.parse()?)
}

/// A version as gRPC has it, one text for all: empty for the release's choice, digits for a
/// version, anything else a label.
pub(super) fn target(text: &str) -> Result<Target, Refusal> {
    if text.is_empty() {
        Ok(Target::Release)
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(Target::Version(text.parse()?))
    } else {
        Ok(Target::Label(text.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{ErrorCode, Fault};

    #[test]
    fn target_tells_versions_from_labels() {
        assert_eq!(target("").unwrap(), Target::Release);
        assert_eq!(target("3").unwrap(), Target::Version("3".parse().unwrap()));
        assert_eq!(target("champion").unwrap(), Target::Label("champion".parse().unwrap()));
        for bad in ["0", "03", "a b", "../1", "-1/"] {
            assert_eq!(target(bad).unwrap_err().code(), ErrorCode::BadRequest, "{bad:?}");
        }
    }

    #[test]
    fn model_name_missing_or_impossible_is_refused() {
        assert_eq!(model("").unwrap_err().code(), ErrorCode::BadRequest);
        assert_eq!(model("../etc").unwrap_err().code(), ErrorCode::NotFound);
        assert_eq!(model("fraud").unwrap().as_str(), "fraud");
    }
}
