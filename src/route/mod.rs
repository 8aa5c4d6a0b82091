//! Which version answers a request: an immutable table, and a pure choice.
//!
//! Request threads read the table through [`Routes`], a snapshot per request; only the registry
//! holds the [`RoutePublisher`]. Publishing is one pointer store: it cannot fail and it blocks
//! nobody. A request that started before goes on with the table that it read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwap;

use crate::{
    domain::{ModelFacts, ModelName, Percent, RequestId, Role, ServingSettings, Signature, Target, Version},
    fault::{ErrorCode, Fault},
    monitor::Watch,
    observe::{Arm, Compared, Comparison, Outcomes, RecentRequests, VersionMetrics},
    release::{Release, ReservedLabel, Split},
    rollout::Stream,
    schedule::Lane,
};

/// A version that is ready to run.
#[derive(Debug)]
pub struct Servable {
    pub version: Version,
    pub signature: Arc<Signature>,
    pub settings: Arc<ServingSettings>,
    pub facts: Arc<ModelFacts>,
    pub lane: Lane,
    /// What compares its rows with its reference profile, if it has one.
    pub watch: Arc<Watch>,
    pub metrics: VersionMetrics,
    /// Requests of the model that are kept for the warm-up of its next version.
    pub recent: Arc<RecentRequests>,
}

impl Servable {
    /// When a request that arrives now, and says nothing of it, is of no use any more.
    #[must_use]
    pub fn default_deadline(&self) -> Option<Instant> {
        self.settings.default_timeout.and_then(|timeout| Instant::now().checked_add(timeout))
    }
}

/// A model as the request path sees it.
#[derive(Debug)]
pub struct ModelRoute {
    pub release: Release,
    /// The versions that are ready.
    pub versions: BTreeMap<Version, Arc<Servable>>,
    /// The versions that are known but not ready: loading, failed or unloaded.
    pub not_ready: BTreeSet<Version>,
    /// Requests may name a version or a label.
    pub allow_pinning: bool,
    /// Where requests are counted while a rollout goes on.
    pub comparison: Option<Arc<Comparison>>,
    /// Requests for the model that failed before they reached a version.
    pub unrouted: Arc<Outcomes>,
}

/// All models at one moment.
#[derive(Debug, Default)]
pub struct RouteTable {
    pub models: HashMap<ModelName, Arc<ModelRoute>>,
    /// True once every version found at the start has been loaded or refused.
    pub complete: bool,
}

impl RouteTable {
    /// The models whose stable version does not serve, by name, and how many models have a stable version.
    #[must_use]
    pub fn unserved(&self) -> (Vec<&ModelName>, usize) {
        let released = || self.models.iter().filter_map(|(name, route)| Some((name, route, route.release.stable?)));
        let unserved = released().filter(|(_, route, stable)| !route.versions.contains_key(stable));
        let mut unserved: Vec<_> = unserved.map(|(name, ..)| name).collect();
        unserved.sort();
        (unserved, released().count())
    }
}

/// The reading half: cheap to clone, never waits.
#[derive(Debug, Clone)]
pub struct Routes(Arc<ArcSwap<RouteTable>>);

/// The writing half. Not `Clone`: the registry owns the only one.
#[derive(Debug)]
pub struct RoutePublisher(Arc<ArcSwap<RouteTable>>);

/// An empty table, and the two halves of it.
#[must_use]
pub fn routes() -> (Routes, RoutePublisher) {
    let table = Arc::new(ArcSwap::from_pointee(RouteTable::default()));
    (Routes(Arc::clone(&table)), RoutePublisher(table))
}

impl Routes {
    /// The route of a model, to be held for one request.
    pub fn model(&self, name: &str) -> Result<Arc<ModelRoute>, RouteError> {
        let table = self.0.load();
        table.models.get(name).cloned().ok_or_else(|| RouteError::unknown_model(name, &table))
    }

    /// Whether there is a model of this name.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.0.load().models.contains_key(name)
    }

    /// True when all that was found at the start is loaded or refused.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0.load().complete
    }

    /// A snapshot of everything, for views that need it.
    #[must_use]
    pub fn snapshot(&self) -> Arc<RouteTable> {
        self.0.load_full()
    }
}

impl RoutePublisher {
    /// Every request that starts after this call sees `table`.
    pub fn publish(&self, table: RouteTable) {
        self.0.store(Arc::new(table));
    }

    /// The table last published.
    #[must_use]
    pub fn current(&self) -> Arc<RouteTable> {
        self.0.load_full()
    }
}

/// Why a request has no version to go to. The messages are fit for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("unknown model '{name}'{}", similar.as_ref().map_or_else(String::new, |similar| format!(": did you mean '{similar}'?")))]
    UnknownModel { name: String, similar: Option<ModelName> },
    #[error("model '{model}' has no version {version}")]
    UnknownVersion { model: ModelName, version: Version },
    #[error("model '{model}' has no label '{label}'")]
    UnknownLabel { model: ModelName, label: String },
    #[error("the label '{}' stands for {}, and model '{model}' has none at the moment", role.as_str(), role.meaning())]
    NothingLabelled { model: ModelName, role: ReservedLabel },
    #[error("model '{0}' has no version that is ready")]
    NothingReady(ModelName),
    #[error("version {version} of model '{model}' is not ready")]
    NotReady { model: ModelName, version: Version },
    #[error("model '{0}' lets its release choose the version: a request may name no version or label")]
    Pinned(ModelName),
}

impl RouteError {
    /// The name of one model is told, that most like what was asked for, and only where it is much alike: a client that
    /// mistypes is helped, and one that guesses learns little.
    #[cold]
    fn unknown_model(name: &str, table: &RouteTable) -> Self {
        let is_short = name.len() <= 128;
        let near = table.models.keys().filter(|_| is_short).filter_map(|model| {
            let (model_folded, name) = (folded(model.as_str()), folded(name));
            let most = model_folded.len().max(name.len()) / 4;
            // Most names differ in their length alone by more.
            if model_folded.len().abs_diff(name.len()) > most {
                return None;
            }
            let distance = strsim::osa_distance(&model_folded, &name);
            (distance <= most).then_some((distance, model))
        });
        Self::UnknownModel { name: shown(name), similar: near.min().map(|(_, model)| model.clone()) }
    }
}

/// A name as people mistake it: `Car-Loan` is `car_loan`.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace(['-', '.', ' '], "_")
}

impl Fault for RouteError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownModel { .. }
            | Self::UnknownVersion { .. }
            | Self::UnknownLabel { .. }
            | Self::NothingLabelled { .. } => ErrorCode::NotFound,
            Self::NothingReady(_) | Self::NotReady { .. } => ErrorCode::Unavailable,
            Self::Pinned(_) => ErrorCode::PermissionDenied,
        }
    }
}

/// The version that a request goes to, and what it is to that request.
#[derive(Debug)]
pub struct Choice {
    pub servable: Arc<Servable>,
    pub role: Role,
    /// Gets a copy of the request.
    pub shadow: Option<Arc<Servable>>,
}

impl ModelRoute {
    /// Whether a request may ask for `target`.
    pub fn permits(&self, model: &ModelName, target: &Target) -> Result<(), RouteError> {
        if self.allow_pinning || *target == Target::Release { Ok(()) } else { Err(RouteError::Pinned(model.clone())) }
    }

    /// Chooses the version for a request: the one that it names, otherwise the canary for its
    /// share, otherwise stable. `key` is the routing key, or the request id where there is none.
    pub fn choose(&self, model: &ModelName, target: &Target, key: &str) -> Result<Choice, RouteError> {
        let (version, role) = match target {
            Target::Version(version) => (*version, Role::Pinned),
            Target::Label(label) => {
                let unknown = |role| match role {
                    Some(role) => RouteError::NothingLabelled { model: model.clone(), role },
                    None => RouteError::UnknownLabel { model: model.clone(), label: label.to_string() },
                };
                (self.release.labelled(label).map_err(unknown)?, Role::Pinned)
            }
            Target::Release => self.release_choice(model, key)?,
        };
        let servable = self.versions.get(&version).ok_or_else(|| match target {
            Target::Version(_) if !self.knows(version) => RouteError::UnknownVersion { model: model.clone(), version },
            _ => RouteError::NotReady { model: model.clone(), version },
        })?;
        let shadow = self.release.shadow.filter(|split| split.version != version && takes(model, SHADOW, key, *split));
        let shadow = shadow.and_then(|split| self.versions.get(&split.version)).cloned();
        Ok(Choice { servable: Arc::clone(servable), role, shadow })
    }

    /// What watches the stable version.
    #[must_use]
    pub fn stable_watch(&self) -> Option<Arc<Watch>> {
        Some(Arc::clone(&self.versions.get(&self.release.stable?)?.watch))
    }

    /// What a request is to the rollout that goes on: `None` when there is none, or when the request
    /// was not drawn between the two versions. Only requests whose arm is a coin of their own are evidence.
    #[must_use]
    pub fn compared(
        &self,
        model: &ModelName,
        role: Role,
        routing_key: Option<&str>,
        id: &RequestId,
    ) -> Option<Compared> {
        let comparison = self.comparison.as_ref()?;
        let arm = match role {
            Role::Stable => Arm::Stable,
            Role::Canary => Arm::Canary,
            Role::Shadow | Role::Pinned => return None,
        };
        let stream = match routing_key.or_else(|| (!id.is_made()).then_some(id.as_str())) {
            None => Some(Stream::Fresh),
            Some(key) => {
                let was_canary = is_below(bucket(model, CANARY, key), comparison.floor());
                (!was_canary && comparison.is_first(bucket(model, UNIT, key))).then_some(Stream::Keyed)
            }
        };
        Some(Compared::new(Arc::clone(comparison), arm, stream))
    }

    /// A version that is not there now, but is no invention of the client.
    fn knows(&self, version: Version) -> bool {
        self.not_ready.contains(&version) || self.release.versions().any(|named| named == version)
    }

    fn release_choice(&self, model: &ModelName, key: &str) -> Result<(Version, Role), RouteError> {
        // A canary that is not loaded takes no traffic: stable answers its share.
        let canary = self.release.canary.filter(|split| self.versions.contains_key(&split.version));
        if let Some(split) = canary.filter(|split| takes(model, CANARY, key, *split)) {
            return Ok((split.version, Role::Canary));
        }
        self.release
            .stable
            .map(|version| (version, Role::Stable))
            .ok_or_else(|| RouteError::NothingReady(model.clone()))
    }
}

/// Salts, so that the canary and the shadow draw independently of each other.
const CANARY: &str = "canary";
const SHADOW: &str = "shadow";
/// For the place of a key among those that a rollout has counted.
const UNIT: &str = "unit";

fn takes(model: &ModelName, salt: &str, key: &str, split: Split) -> bool {
    is_below(bucket(model, salt, key), split.percent)
}

/// The place of a key between 0 and 1, the same on every replica and for every percentage:
/// XXH3 of the model, the salt and the key.
fn bucket(model: &ModelName, salt: &str, key: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = twox_hash::XxHash3_64::new();
    for part in [model.as_str(), salt, key] {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

/// Monotone: a key below one percentage is below every larger one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^64; the cast saturates")]
fn is_below(bucket: u64, percent: Percent) -> bool {
    const WHOLE: f64 = 18_446_744_073_709_551_616.0; // 2^64
    percent.get() >= 100.0 || bucket < (percent.get() / 100.0 * WHOLE) as u64
}

fn shown(name: &str) -> String {
    name.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{observe::Reading, rollout::Segment};

    fn model() -> ModelName {
        "m".parse().unwrap()
    }

    fn percent(value: f64) -> Percent {
        Percent::new(value).unwrap()
    }

    fn share(salt: &str, at: f64, keys: u32) -> f64 {
        let hits = (0..keys).filter(|key| is_below(bucket(&model(), salt, &key.to_string()), percent(at))).count();
        hits as f64 / f64::from(keys)
    }

    #[test]
    fn canary_gets_its_percent_of_keys() {
        for at in [0.0, 0.1, 1.0, 10.0, 50.0, 99.0, 100.0] {
            let expected = at / 100.0;
            // Five standard deviations of a binomial share of 100,000.
            let margin = 5.0 * (expected * (1.0 - expected) / 100_000.0_f64).sqrt();
            let got = share(CANARY, at, 100_000);
            assert!((got - expected).abs() <= margin, "{at} %: {got}");
        }
    }

    #[test]
    fn shadow_draws_independently_of_the_canary() {
        let both = (0..100_000_u32)
            .filter(|key| {
                let key = key.to_string();
                let hit = |salt| is_below(bucket(&model(), salt, &key), percent(50.0));
                hit(CANARY) && hit(SHADOW)
            })
            .count();
        assert!((24_000..26_000).contains(&both), "{both}");
    }

    #[test]
    fn bucket_is_the_same_everywhere() {
        // XXH3 of b"m\xffcanary\xffuser-1\xff", computed with another implementation (Python's
        // xxhash). A changed hash would move every sticky key at the next upgrade.
        assert_eq!(bucket(&model(), CANARY, "user-1"), 4_417_151_742_064_158_466);
    }

    proptest! {
        #[test]
        fn raising_the_percent_never_takes_a_key_back(key in ".*", low in 0.0..=100.0_f64, more in 0.0..=100.0_f64) {
            let high = (low + more).min(100.0);
            let place = bucket(&model(), CANARY, &key);
            prop_assert!(!is_below(place, percent(low)) || is_below(place, percent(high)));
        }
    }

    fn empty_route(release: Release) -> ModelRoute {
        ModelRoute {
            release,
            versions: BTreeMap::new(),
            not_ready: BTreeSet::new(),
            allow_pinning: true,
            comparison: None,
            unrouted: Arc::default(),
        }
    }

    /// The route of a model whose rollout has raised the canary from 10 % to 30 %.
    fn rolling_route() -> ModelRoute {
        let segment = Segment::new(percent(30.0), percent(10.0));
        let comparison = Comparison::new(&segment, None, Reading::default(), &[]);
        ModelRoute { comparison: Some(Arc::new(comparison)), ..empty_route(Release::default()) }
    }

    #[test]
    fn request_is_evidence_by_the_coin_that_drew_its_arm() {
        let route = rolling_route();
        let (made, given) = (RequestId::given_or_new("").unwrap(), RequestId::given_or_new("r").unwrap());
        let stream = |role, key, id| route.compared(&model(), role, key, id).map(|compared| compared.stream());
        assert_eq!(stream(Role::Canary, None, &made), Some(Some(Stream::Fresh)));
        assert_eq!(stream(Role::Pinned, None, &made), None);
        assert_eq!(stream(Role::Shadow, None, &made), None);
        // A key counts once, whoever gives it: as a routing key, or as the id where there is none.
        let keyed: Vec<_> = (0..3).map(|_| stream(Role::Stable, Some("user-0"), &made)).collect();
        assert_eq!(keyed, [Some(Some(Stream::Keyed)), Some(None), Some(None)]);
        assert_eq!(stream(Role::Stable, None, &given), Some(Some(Stream::Keyed)));
        assert_eq!(stream(Role::Stable, None, &given), Some(None));
        assert!(empty_route(Release::default()).compared(&model(), Role::Canary, None, &made).is_none());
    }

    #[test]
    fn keys_that_are_evidence_go_to_the_canary_by_the_share_that_was_added() {
        let route = rolling_route();
        let id = RequestId::given_or_new("").unwrap();
        let (mut canary, mut all) = (0_u32, 0_u32);
        for key in (0..20_000).map(|key| key.to_string()) {
            let is_canary =
                takes(&model(), CANARY, &key, Split { version: Version::new(2).unwrap(), percent: percent(30.0) });
            let role = if is_canary { Role::Canary } else { Role::Stable };
            if route.compared(&model(), role, Some(&key), &id).unwrap().stream().is_some() {
                (canary, all) = (canary + u32::from(is_canary), all + 1);
            }
        }
        // A tenth was on the canary before; some keys share a place with another.
        assert!((15_000..=18_000).contains(&all), "{all}");
        let (share, expected) = (f64::from(canary) / f64::from(all), 20.0 / 90.0);
        let margin = 5.0 * (expected * (1.0 - expected) / f64::from(all)).sqrt();
        assert!((share - expected).abs() <= margin, "{share}");
    }

    #[test]
    fn unknown_model_is_told_with_the_one_that_is_meant() {
        let (routes, publisher) = routes();
        let route = || Arc::new(empty_route(Release::default()));
        let models = ["fraud", "car_loan", "magika"].map(|name| (name.parse().unwrap(), route()));
        publisher.publish(RouteTable { models: models.into(), complete: true });
        let told = |name: &str| routes.model(name).unwrap_err().to_string();
        for (name, similar) in [
            ("fruad", "fraud"),
            ("Fraud", "fraud"),
            ("car-loan", "car_loan"),
            ("carloan", "car_loan"),
            ("magica", "magika"),
        ] {
            assert_eq!(told(name), format!("unknown model '{name}': did you mean '{similar}'?"));
        }
        for name in ["churn", "", "f", "fr", "x".repeat(4000).as_str()] {
            assert_eq!(told(name), format!("unknown model '{}'", shown(name)));
        }
        assert!(routes.knows("fraud") && !routes.knows("fruad"));
    }

    #[test]
    fn pinning_can_be_forbidden() {
        let targets = [Target::Version(Version::new(1).unwrap()), Target::Label("x".parse().unwrap())];
        let open = empty_route(Release::default());
        let closed = ModelRoute { allow_pinning: false, ..empty_route(Release::default()) };
        for target in &targets {
            assert_eq!(open.permits(&model(), target), Ok(()));
            assert_eq!(closed.permits(&model(), target).unwrap_err().code(), ErrorCode::PermissionDenied);
        }
        assert_eq!(closed.permits(&model(), &Target::Release), Ok(()));
    }

    #[test]
    fn each_missing_target_is_named() {
        let one = Version::new(1).unwrap();
        let released = || Release { stable: Some(one), ..Release::default() };
        let cases = [
            (Release::default(), Target::Release, "model 'm' has no version that is ready", ErrorCode::Unavailable),
            (released(), Target::Release, "version 1 of model 'm' is not ready", ErrorCode::Unavailable),
            (released(), Target::Version(one), "version 1 of model 'm' is not ready", ErrorCode::Unavailable),
            (Release::default(), Target::Version(one), "model 'm' has no version 1", ErrorCode::NotFound),
            (released(), Target::Label("x".parse().unwrap()), "model 'm' has no label 'x'", ErrorCode::NotFound),
        ];
        for (release, target, message, code) in cases {
            let error = empty_route(release).choose(&model(), &target, "k").unwrap_err();
            assert_eq!((error.to_string().as_str(), error.code()), (message, code));
        }
    }
}
