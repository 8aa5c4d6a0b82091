//! Checks of single values that both doors take, each with one message.

use std::time::Duration;

use super::{AdminError, wire::RolloutBody};
use crate::{
    domain::{IdError, Label, ModelName, Percent, Version},
    events::Topic,
    monitor::{Against, DriftQuery, SegmentName},
    registry::RolloutAsk,
    rollout::OnDrift,
};

/// What a rollout is asked to do. The plan as a whole is checked where it is made.
pub(super) fn rollout(body: &RolloutBody) -> Result<RolloutAsk, AdminError> {
    let steps = body.steps.as_ref();
    let steps = steps.map(|steps| steps.iter().map(|step| percent(step.0)).collect::<Result<_, _>>());
    Ok(RolloutAsk {
        version: version(body.version)?,
        steps: steps.transpose()?,
        interval: body.interval.as_deref().map(|text| duration("interval", text)).transpose()?,
        alpha: body.alpha,
        min_requests: body.min_requests,
        max_error_rate: body.max_error_rate,
        max_p99_ratio: body.max_p99_ratio,
        latency_tolerance: body
            .latency_tolerance
            .as_deref()
            .map(|text| duration("latency_tolerance", text))
            .transpose()?,
        output_tolerance: body.output_tolerance,
        on_drift: body.on_drift.as_deref().map(on_drift).transpose()?,
    })
}

fn duration(name: &str, text: &str) -> Result<Duration, AdminError> {
    let accepted = "use a duration such as 2ms, 30s or 10m";
    humantime::parse_duration(text)
        .map_err(|_| AdminError::BadRequest(format!("'{name}' is '{}': {accepted}", shown(text))))
}

fn on_drift(text: &str) -> Result<OnDrift, AdminError> {
    let found = OnDrift::ALL.into_iter().find(|on_drift| on_drift.as_str() == text);
    let refused = || format!("'on_drift' is '{}': use hold, roll_back or ignore", shown(text));
    found.ok_or_else(|| AdminError::BadRequest(refused()))
}

/// How many entries of the audit log an answer has when nothing else is asked for.
const DEFAULT_HISTORY: u64 = 100;
const MAX_HISTORY: u64 = 10_000;
const MAX_REASON_BYTES: usize = 4096;
const MAX_ACTOR_BYTES: usize = 128;
const MAX_KEY_BYTES: usize = 255;

/// A window such as `5m`. The monitor says which windows it can answer for.
///
/// # Errors
/// A message that names the accepted values, when `text` is no duration above zero.
pub fn parse_window(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|window| !window.is_zero())
        .ok_or_else(|| format!("'{}' is not a window: use a duration such as 30s, 5m or 1h", shown(text)))
}

pub(super) fn window(text: &str) -> Result<Duration, AdminError> {
    parse_window(text).map_err(AdminError::BadRequest)
}

pub(super) fn against(text: &str) -> Result<Against, AdminError> {
    let found = Against::ALL.into_iter().find(|against| against.as_str() == text);
    found.ok_or_else(|| AdminError::BadRequest(format!("'against' is '{}': use profile or stable", shown(text))))
}

pub(super) fn segment(text: &str) -> Result<SegmentName, AdminError> {
    text.parse().map_err(AdminError::BadRequest)
}

/// Refuses what excludes each other.
pub(super) fn drift_query(query: DriftQuery) -> Result<DriftQuery, AdminError> {
    if query.against == Against::Stable && query.segment.is_some() {
        return Err(AdminError::BadRequest("segments are compared with the profile, not with 'stable'".to_owned()));
    }
    Ok(query)
}

pub(super) fn model(text: &str) -> Result<ModelName, AdminError> {
    text.parse().map_err(refused)
}

pub(super) fn label(text: &str) -> Result<Label, AdminError> {
    text.parse().map_err(refused)
}

pub(super) fn percent(number: f64) -> Result<Percent, AdminError> {
    Percent::new(number).map_err(refused)
}

pub(super) fn version(number: u64) -> Result<Version, AdminError> {
    Version::new(number).ok_or_else(|| AdminError::BadRequest("'version' is 0: use a whole number from 1".to_owned()))
}

pub(super) fn version_text(text: &str) -> Result<Version, AdminError> {
    text.parse().map_err(refused)
}

pub(super) fn history_limit(limit: Option<u64>) -> Result<usize, AdminError> {
    let limit = limit.unwrap_or(DEFAULT_HISTORY);
    usize::try_from(limit).ok().filter(|_| (1..=MAX_HISTORY).contains(&limit)).ok_or_else(|| {
        AdminError::BadRequest(format!("'limit' is {limit}: use a whole number from 1 to {MAX_HISTORY}"))
    })
}

/// The reason of a change; an empty one is none.
pub(super) fn reason(text: Option<String>) -> Result<Option<String>, AdminError> {
    let text = text.filter(|text| !text.is_empty());
    if text.as_ref().is_some_and(|text| text.len() > MAX_REASON_BYTES) {
        return Err(AdminError::BadRequest(format!("'reason' is longer than {MAX_REASON_BYTES} bytes")));
    }
    Ok(text)
}

/// Who asks, by their own word.
pub(super) fn actor(text: &str) -> Result<String, AdminError> {
    parse_actor(text).map_err(AdminError::BadRequest)
}

/// Who asks, as the command line has it; refused with what is accepted.
pub fn parse_actor(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_ACTOR_BYTES || text.chars().any(char::is_control) {
        let accepted = format!("use 1 to {MAX_ACTOR_BYTES} bytes without control characters");
        return Err(format!("the actor '{}' is refused: {accepted}", shown(text)));
    }
    Ok(text.to_owned())
}

/// An idempotency key. The header's draft standard has it in quotes; most clients leave them out.
pub(super) fn idempotency_key(text: &str) -> Result<String, AdminError> {
    parse_idempotency_key(text).map_err(AdminError::BadRequest)
}

/// An idempotency key, as the command line has it; refused with what is accepted.
pub fn parse_idempotency_key(text: &str) -> Result<String, String> {
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let accepted = format!("use 1 to {MAX_KEY_BYTES} visible ASCII characters, such as a UUID");
        return Err(format!("the Idempotency-Key '{}' is refused: {accepted}", shown(text)));
    }
    Ok(key.to_owned())
}

pub(super) fn topic(text: &str) -> Result<Topic, AdminError> {
    Topic::parse(text).ok_or_else(|| {
        let accepted = Topic::ALL.map(Topic::as_str).join(", ");
        AdminError::BadRequest(format!("'topic' is '{}': use one of {accepted}", shown(text)))
    })
}

/// A refused text as it may be shown: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: IdError) -> AdminError {
    AdminError::BadRequest(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_key_is_taken_with_and_without_quotes() {
        assert_eq!(idempotency_key("\"8e03978e\"").unwrap(), "8e03978e");
        assert_eq!(idempotency_key("8e03978e").unwrap(), "8e03978e");
        for bad in ["", "\"\"", "a b", "a\nb", "ü", &"k".repeat(256)] {
            assert!(idempotency_key(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn window_refuses_what_is_no_duration_above_zero() {
        for bad in ["", "5", "0s", "-5m", "five minutes", "5 parsecs"] {
            assert!(parse_window(bad).unwrap_err().contains("30s, 5m or 1h"), "{bad:?}");
        }
        assert_eq!(parse_window("1m30s"), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn history_limit_has_a_default_and_bounds() {
        assert_eq!(history_limit(None).unwrap(), 100);
        assert_eq!(history_limit(Some(10_000)).unwrap(), 10_000);
        for bad in [0, 10_001, u64::MAX] {
            assert!(history_limit(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn rollout_refuses_values_by_their_name() {
        let body = RolloutBody { version: 4, ..RolloutBody::default() };
        assert_eq!(rollout(&body).unwrap(), RolloutAsk::of(Version::new(4).unwrap()));
        let bad = [
            (RolloutBody { interval: Some("soon".into()), ..body.clone() }, "'interval' is 'soon'"),
            (RolloutBody { latency_tolerance: Some("2".into()), ..body.clone() }, "'latency_tolerance' is '2'"),
            (RolloutBody { on_drift: Some("panic".into()), ..body.clone() }, "hold, roll_back or ignore"),
            (RolloutBody { steps: Some(vec![crate::admin::wire::Share(101.0)]), ..body }, "0 to 100"),
        ];
        for (body, words) in bad {
            let error = rollout(&body).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn reason_empty_is_none_and_long_is_refused() {
        assert_eq!(reason(Some(String::new())).unwrap(), None);
        assert!(reason(Some("x".repeat(4097))).is_err());
    }

    #[test]
    fn actor_refuses_control_characters() {
        for bad in ["", "a\nb", "\u{1b}[31m", &"x".repeat(129)] {
            assert!(actor(bad).is_err(), "{bad:?}");
        }
        for good in ["ada@example.org", "Jürgen Groß", "李"] {
            assert_eq!(actor(good).unwrap(), good);
        }
    }
}
