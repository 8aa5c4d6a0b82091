//! The arguments of the operator commands.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use crate::{
    admin::{parse_actor, parse_idempotency_key, parse_window},
    cli::{Output, complete, watch::interval},
    domain::{Label, ModelName, Percent, Version},
    monitor::SegmentName,
};

/// The gateway to talk to, and how to print what it says.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Gateway and output")]
pub struct GatewayArgs {
    /// The admin plane of the gateway.
    #[arg(long, env = "TIDEGATE_ADMIN_URL", default_value = "http://127.0.0.1:8003", value_name = "URL")]
    pub admin_url: AdminUrl,

    /// The token to show to the gateway.
    #[arg(long, env = "TIDEGATE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,

    /// How to print the answer.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

/// How a change is to be made.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Change")]
pub struct ChangeArgs {
    /// Show what would be; change nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Refuse unless the release has this generation.
    #[arg(long, value_name = "N")]
    pub if_generation: Option<u64>,

    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// Who, for the history. By default $USER, or else the name of the operating system's user.
    #[arg(long, value_parser = parse_actor, value_name = "NAME")]
    pub actor: Option<String>,

    /// Make the change once: the same command with the same key does nothing again.
    #[arg(long, value_parser = parse_idempotency_key, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

impl ChangeArgs {
    /// Who makes the change: as the command line says, otherwise the first of `users` that is a name which a gateway takes.
    pub(in crate::cli) fn who(&self, users: impl IntoIterator<Item = String>) -> Option<String> {
        self.actor.clone().or_else(|| users.into_iter().find_map(|user| parse_actor(&user).ok()))
    }
}

#[derive(Debug, Clone, Args)]
pub struct ModelsArgs {
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The name of the model.
    #[arg(add = ArgValueCompleter::new(complete::models))]
    pub model: ModelName,

    /// Show every step of every admission, also where all went well.
    #[arg(long)]
    pub verbose: bool,

    /// Show it again and again; refreshed in place on a terminal.
    #[arg(long)]
    pub watch: bool,

    /// How long to wait in between.
    #[arg(long, value_name = "DURATION", default_value = "2s", requires = "watch", value_parser = interval)]
    pub interval: Duration,

    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    pub version: VersionArgs,

    /// Load it though its inputs or outputs break clients of the stable version.
    #[arg(long)]
    pub allow_signature_change: bool,

    /// Load it though its files are not those that were released; both digests go into the history.
    #[arg(long)]
    pub accept_changed: bool,
}

#[derive(Debug, Clone, Args)]
pub struct PromoteArgs {
    #[command(flatten)]
    pub version: VersionArgs,

    /// Refuse where there are warnings: no profile, no golden requests, much slower than stable, never tried, failing.
    #[arg(long)]
    pub strict: bool,
}

/// For load and promote.
#[derive(Debug, Clone, Args)]
pub struct VersionArgs {
    /// The name of the model.
    #[arg(add = ArgValueCompleter::new(complete::models))]
    pub model: ModelName,
    /// The number of the version.
    #[arg(add = ArgValueCompleter::new(complete::versions))]
    pub version: Version,
    /// Unload the rollback target if there is no room otherwise.
    #[arg(long)]
    pub evict_previous: bool,
    #[command(flatten)]
    pub change: ChangeArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Debug, Clone, Args)]
pub struct UnloadArgs {
    /// The name of the model.
    #[arg(add = ArgValueCompleter::new(complete::models))]
    pub model: ModelName,
    /// The number of the version.
    #[arg(add = ArgValueCompleter::new(complete::versions))]
    pub version: Version,
    #[command(flatten)]
    pub change: ChangeArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    pub model: ModelChangeArgs,

    /// The version to go back to. By default the previous one, unless somebody has rolled back from that.
    #[arg(long, value_name = "VERSION", add = ArgValueCompleter::new(complete::versions))]
    pub to: Option<Version>,
}

/// For all that is done to a model and says nothing more, such as the changes of a rollout.
#[derive(Debug, Clone, Args)]
pub struct ModelChangeArgs {
    /// The name of the model.
    #[arg(add = ArgValueCompleter::new(complete::models))]
    pub model: ModelName,
    #[command(flatten)]
    pub change: ChangeArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

/// For canary and shadow: a version and its share, or `--clear`.
#[derive(Debug, Clone, Args)]
pub struct SplitArgs {
    /// The name of the model.
    #[arg(add = ArgValueCompleter::new(complete::models))]
    pub model: ModelName,

    /// The version that gets a share of the requests.
    #[arg(long, value_name = "VERSION", add = ArgValueCompleter::new(complete::versions), required_unless_present = "clear", requires = "percent")]
    pub version: Option<Version>,

    /// Its share, from 0 to 100.
    #[arg(long, value_name = "PERCENT", required_unless_present = "clear", requires = "version", value_parser = percent)]
    pub percent: Option<Percent>,

    /// End it.
    #[arg(long, conflicts_with_all = ["version", "percent"])]
    pub clear: bool,

    #[command(flatten)]
    pub change: ChangeArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

/// What is not given is as the gateway is configured.
#[derive(Debug, Clone, Args)]
pub struct RolloutStartArgs {
    /// The name of the model.
    #[arg(add = ArgValueCompleter::new(complete::models))]
    pub model: ModelName,

    /// The version to roll out.
    #[arg(long, value_name = "VERSION", add = ArgValueCompleter::new(complete::versions))]
    pub version: Version,

    /// Its shares, ascending to 100.
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', value_parser = percent)]
    pub steps: Option<Vec<Percent>>,

    /// How long each step lasts at least, such as 10m.
    #[arg(long, value_name = "DURATION", value_parser = parse_window)]
    pub interval: Option<Duration>,

    /// The probability, at most, that a version which does not differ is rolled back.
    #[arg(long, value_name = "PROBABILITY")]
    pub alpha: Option<f64>,

    /// Requests that must be compared on each arm before a step is left.
    #[arg(long, value_name = "N")]
    pub min_requests: Option<u64>,

    /// The share of its requests that may fail, from 0 to 1.
    #[arg(long, value_name = "RATE")]
    pub max_error_rate: Option<f64>,

    /// Its 99th percentile of latency over stable's, at most.
    #[arg(long, value_name = "RATIO")]
    pub max_p99_ratio: Option<f64>,

    /// A latency that is longer by less is never held against it, such as 2ms.
    #[arg(long, value_name = "DURATION", value_parser = parse_window)]
    pub latency_tolerance: Option<Duration>,

    /// How far predicted classes or scores may differ (total variation distance, 0 to 1).
    #[arg(long, value_name = "DISTANCE")]
    pub output_tolerance: Option<f64>,

    /// While its answers have drifted from its reference profile.
    #[arg(long, value_name = "ACTION", value_parser = ["hold", "roll_back", "ignore"])]
    pub on_drift: Option<String>,

    #[command(flatten)]
    pub change: ChangeArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Debug, Clone, Args)]
pub struct LabelArgs {
    /// The name of the model.
    #[arg(add = ArgValueCompleter::new(complete::models))]
    pub model: ModelName,
    /// The name of the label.
    pub label: Label,

    /// The version that the label stands for.
    #[arg(long, value_name = "VERSION", add = ArgValueCompleter::new(complete::versions), required_unless_present = "clear")]
    pub version: Option<Version>,

    /// Remove the label.
    #[arg(long, conflicts_with = "version")]
    pub clear: bool,

    #[command(flatten)]
    pub change: ChangeArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// The name of the model.
    #[arg(add = ArgValueCompleter::new(complete::models))]
    pub model: ModelName,

    /// How many entries, the newest first.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub limit: u64,

    /// Check that no entry of the audit log was changed or removed.
    #[arg(long)]
    pub verify: bool,

    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Debug, Clone, Args)]
pub struct DriftArgs {
    /// The name of the model.
    #[arg(add = ArgValueCompleter::new(complete::models))]
    pub model: ModelName,

    /// The version to look at [default: the stable one; against stable, the canary].
    #[arg(long, value_name = "VERSION", add = ArgValueCompleter::new(complete::versions))]
    pub version: Option<Version>,

    /// How far to look back, such as 5m [default: of the configured windows the one that says most].
    #[arg(long, value_name = "DURATION", value_parser = parse_window)]
    pub window: Option<Duration>,

    /// Compare with the version's profile, or with the live rows of the stable version [default: profile].
    #[arg(long, value_name = "REFERENCE", value_parser = ["profile", "stable"])]
    pub against: Option<String>,

    /// Only rows of this segment, such as country=DE.
    #[arg(long, value_name = "KEY=VALUE")]
    pub segment: Option<SegmentName>,

    /// Write the report as a page of its own too.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,

    /// Show how often the monitor errs on rows drawn from the profile, and how small a shift it finds at this traffic.
    #[arg(long, conflicts_with_all = ["against", "segment", "report"])]
    pub self_test: bool,

    #[command(flatten)]
    pub gateway: GatewayArgs,
}

/// Where the admin plane is: `http://HOST:PORT`, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminUrl(String);

impl AdminUrl {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "use http://HOST:PORT".to_owned();
        let url: http::Uri = text.parse().map_err(|_| wrong())?;
        match url.scheme_str() {
            Some("http") if url.host().is_some_and(|host| !host.is_empty()) && url.query().is_none() => {
                Ok(Self(text.trim_end_matches('/').to_owned()))
            }
            Some("https") => Err("tidegate speaks plain http here: use http://HOST:PORT".to_owned()),
            _ => Err(wrong()),
        }
    }
}

fn percent(text: &str) -> Result<Percent, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().map_err(|_| "use a number from 0 to 100".to_owned())?;
    Percent::new(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_url_is_plain_http_without_a_slash_at_the_end() {
        let url: AdminUrl = "http://gateway:8003/".parse().unwrap();
        assert_eq!(url.as_str(), "http://gateway:8003");
        for bad in ["", "gateway:8003", "127.0.0.1", "ftp://gateway", "http://", "http://gateway/?a=1"] {
            assert!(bad.parse::<AdminUrl>().is_err(), "{bad:?}");
        }
        assert!("https://gateway".parse::<AdminUrl>().unwrap_err().contains("plain http"));
    }
}
