//! Which version of a model serves what: the release, and the changes that operators make to it.
//!
//! Pure: a [`Release`] is a value, [`Release::apply`] makes the next one. The `registry` decides
//! whether a version may be named (it must be ready), makes the change durable and publishes it.

mod difference;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    domain::{Label, Percent, Version},
    fault::{ErrorCode, Fault},
};

/// A version that gets a share of the traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    pub version: Version,
    pub percent: Percent,
}

/// The state of a model's release. The default is that of a model never released.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Release {
    /// Grows by one with each change; what `If-Match` compares with.
    pub generation: u64,
    /// Serves every request that nothing else claims.
    pub stable: Option<Version>,
    /// The stable version before: what a rollback returns to, kept loaded and warm.
    pub previous: Option<Version>,
    pub canary: Option<Split>,
    /// Gets copies of requests; its answers are only counted.
    pub shadow: Option<Split>,
    pub labels: BTreeMap<Label, Version>,
    /// The highest version that ever was stable: the policy `latest` looks for a higher one, and leaves
    /// alone those that an operator has gone back from.
    pub newest: Option<Version>,
    /// The versions that somebody has rolled back from: none of them is the target of a rollback that names no
    /// version. A promotion, or a rollback that names it, takes a version out.
    pub rolled_back: BTreeSet<Version>,
}

/// A label that every model has, and nobody can set: it stands for what the release names at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservedLabel {
    Stable,
    Previous,
    Canary,
    Shadow,
}

impl ReservedLabel {
    pub const ALL: [Self; 4] = [Self::Stable, Self::Previous, Self::Canary, Self::Shadow];

    #[must_use]
    pub fn of(label: &Label) -> Option<Self> {
        Self::ALL.into_iter().find(|reserved| reserved.as_str() == label.as_str())
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Previous => "previous",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
        }
    }

    /// What it stands for, in words for people.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Stable => "the model's stable version",
            Self::Previous => "the version that a rollback returns to",
            Self::Canary => "the model's canary",
            Self::Shadow => "the model's shadow",
        }
    }

    /// The command that changes it.
    fn command(self) -> &'static str {
        match self {
            Self::Stable | Self::Previous => "promote",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
        }
    }
}
/// Versions rolled back from that are remembered; the lowest are forgotten first.
const MOST_ROLLED_BACK: usize = 64;

/// A change that an operator asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Promote(Version),
    /// To the previous version, or to the one that is named.
    Rollback(Option<Version>),
    /// Ends the traffic of a canary that was found worse. It stays named, at 0 %, so that it stays loaded.
    RollBackCanary(Version),
    SetCanary(Split),
    ClearCanary,
    SetShadow(Split),
    ClearShadow,
    SetLabel(Label, Version),
    ClearLabel(Label),
    /// Gives up the rollback target, so that it can be unloaded.
    ForgetPrevious,
    /// The model is gone on purpose: nothing is released any more.
    Forget,
}

impl Change {
    /// The name of the operation in metrics and in the audit log.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Promote(_) => "promote",
            Self::Rollback(_) => "rollback",
            Self::RollBackCanary(_) => "canary_roll_back",
            Self::SetCanary(_) => "canary",
            Self::ClearCanary => "canary_clear",
            Self::SetShadow(_) => "shadow",
            Self::ClearShadow => "shadow_clear",
            Self::SetLabel(..) => "label",
            Self::ClearLabel(_) => "label_clear",
            Self::ForgetPrevious => "forget_previous",
            Self::Forget => "forget",
        }
    }

    /// What is asked, in a few words, such as `version 4 at 10%`; empty for a change that takes nothing.
    #[must_use]
    pub fn asked(&self) -> String {
        match self {
            Self::Promote(version) => format!("version {version}"),
            Self::Rollback(Some(version)) => format!("to version {version}"),
            Self::RollBackCanary(version) => format!("version {version} at 0%"),
            Self::SetCanary(split) | Self::SetShadow(split) => {
                format!("version {} at {}%", split.version, split.percent.get())
            }
            Self::SetLabel(label, version) => format!("{label} = {version}"),
            Self::ClearLabel(label) => label.to_string(),
            Self::Rollback(None) | Self::ClearCanary | Self::ClearShadow | Self::ForgetPrevious | Self::Forget => {
                String::new()
            }
        }
    }

    /// The version that the change sends requests to, which must be ready.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Promote(version) | Self::SetLabel(_, version) => Some(*version),
            Self::Rollback(version) => *version,
            Self::SetCanary(split) | Self::SetShadow(split) => Some(split.version),
            Self::RollBackCanary(_)
            | Self::ClearCanary
            | Self::ClearShadow
            | Self::ClearLabel(_)
            | Self::ForgetPrevious
            | Self::Forget => None,
        }
    }
}

/// What became of an attempt at a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It was made.
    Done,
    /// All was so already.
    Unchanged,
    /// It may not be, or not now.
    Refused,
    /// It was tried, and could not be done.
    Failed,
}

impl Outcome {
    pub const ALL: [Self; 4] = [Self::Done, Self::Unchanged, Self::Refused, Self::Failed];

    /// The value in the audit log, and of the metric label `outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// Why a change makes no sense for the release as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    #[error("there is no previous version to roll back to")]
    NothingToRollBackTo,
    /// The target of a rollback that names no version was itself rolled back from.
    #[error("version {0} was rolled back from: it is the target of a rollback only where it is named")]
    RolledBack(Version),
    #[error("version {0} is the stable version already: it cannot be its own {1}")]
    SameAsStable(Version, &'static str),
    #[error("there is no label '{0}'")]
    UnknownLabel(Label),
    #[error(
        "the label '{label}' is always there and stands for {0} by itself: `tidegate {command}` changes which version that is; \
         choose another name for a label of your own",
        role.meaning(), label = role.as_str(), command = role.command()
    )]
    ReservedLabel { role: ReservedLabel },
}

impl Fault for ReleaseError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::NothingToRollBackTo | Self::RolledBack(_) | Self::SameAsStable(..) => ErrorCode::Conflict,
            Self::UnknownLabel(_) => ErrorCode::NotFound,
            Self::ReservedLabel { .. } => ErrorCode::BadRequest,
        }
    }
}

impl Release {
    /// The release after `change`. A change that alters nothing keeps the generation, so that
    /// repeating an operation is harmless.
    pub fn apply(&self, change: &Change) -> Result<Self, ReleaseError> {
        let mut next = self.clone();
        match change {
            Change::Promote(version) => next.make_stable(*version),
            Change::Rollback(named) => next.roll_back(self.rollback_target(*named)?),
            Change::RollBackCanary(version) => {
                next.canary = Some(self.beside_stable(Split { version: *version, percent: Percent::ZERO }, "canary")?);
                next.mark(*version);
            }
            Change::SetCanary(split) => next.canary = Some(self.beside_stable(*split, "canary")?),
            Change::ClearCanary => next.canary = None,
            Change::SetShadow(split) => next.shadow = Some(self.beside_stable(*split, "shadow")?),
            Change::ClearShadow => next.shadow = None,
            Change::ForgetPrevious => next.previous = None,
            // The generation goes on: what was seen before must not be taken for what comes later.
            Change::Forget => next = Self { generation: self.generation, ..Self::default() },
            Change::SetLabel(label, version) => {
                if let Some(role) = ReservedLabel::of(label) {
                    return Err(ReleaseError::ReservedLabel { role });
                }
                next.labels.insert(label.clone(), *version);
            }
            Change::ClearLabel(label) => {
                let role = ReservedLabel::of(label);
                // One that was set before these were reserved can be removed.
                next.labels.remove(label).ok_or_else(|| match role {
                    Some(role) => ReleaseError::ReservedLabel { role },
                    None => ReleaseError::UnknownLabel(label.clone()),
                })?;
            }
        }
        if next != *self {
            next.generation += 1;
        }
        Ok(next)
    }

    /// The version that a label stands for now.
    ///
    /// # Errors
    /// When there is no such label, or it is reserved and the release names no such version at the moment.
    pub fn labelled(&self, label: &Label) -> Result<Version, Option<ReservedLabel>> {
        let Some(role) = ReservedLabel::of(label) else { return self.labels.get(label).copied().ok_or(None) };
        let version = match role {
            ReservedLabel::Stable => self.stable,
            ReservedLabel::Previous => self.previous,
            ReservedLabel::Canary => self.canary.map(|split| split.version),
            ReservedLabel::Shadow => self.shadow.map(|split| split.version),
        };
        version.ok_or(Some(role))
    }

    /// True when no version is released: at first, and once the model was forgotten.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.versions().next().is_none()
    }

    /// Every version that the release refers to. They stay loaded.
    pub fn versions(&self) -> impl Iterator<Item = Version> + '_ {
        let splits = self.canary.iter().chain(&self.shadow).map(|split| split.version);
        self.stable.into_iter().chain(self.previous).chain(splits).chain(self.labels.values().copied())
    }

    fn rollback_target(&self, named: Option<Version>) -> Result<Version, ReleaseError> {
        if let Some(named) = named {
            return Ok(named);
        }
        let previous = self.previous.ok_or(ReleaseError::NothingToRollBackTo)?;
        // Two people who roll back at once must not make the bad version stable again.
        if self.rolled_back.contains(&previous) { Err(ReleaseError::RolledBack(previous)) } else { Ok(previous) }
    }

    fn roll_back(&mut self, target: Version) {
        let left = self.stable.filter(|stable| *stable != target);
        self.make_stable(target);
        if let Some(left) = left {
            self.mark(left);
        }
    }

    fn mark(&mut self, version: Version) {
        self.rolled_back.insert(version);
        while self.rolled_back.len() > MOST_ROLLED_BACK {
            self.rolled_back.pop_first();
        }
    }

    fn make_stable(&mut self, version: Version) {
        self.rolled_back.remove(&version);
        if self.stable == Some(version) {
            return;
        }
        self.previous = self.stable.replace(version);
        self.newest = self.newest.max(Some(version));
        // A version cannot be compared with itself: as stable it ends its own canary and shadow.
        self.canary = self.canary.filter(|split| split.version != version);
        self.shadow = self.shadow.filter(|split| split.version != version);
    }

    fn beside_stable(&self, split: Split, role: &'static str) -> Result<Split, ReleaseError> {
        if self.stable == Some(split.version) {
            return Err(ReleaseError::SameAsStable(split.version, role));
        }
        Ok(split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(number: u64) -> Version {
        Version::new(number).unwrap()
    }

    fn split(version: u64, percent: f64) -> Split {
        Split { version: v(version), percent: Percent::new(percent).unwrap() }
    }

    fn stable(version: u64) -> Release {
        Release::default().apply(&Change::Promote(v(version))).unwrap()
    }

    #[test]
    fn promote_keeps_the_old_stable_as_rollback_target() {
        let release = stable(1).apply(&Change::Promote(v(2))).unwrap();
        assert_eq!((release.stable, release.previous, release.generation), (Some(v(2)), Some(v(1)), 2));
    }

    #[test]
    fn promoting_the_stable_version_changes_nothing() {
        assert_eq!(stable(1).apply(&Change::Promote(v(1))).unwrap(), stable(1));
    }

    #[test]
    fn rollback_goes_back_once_and_forth_only_to_a_version_that_is_named() {
        let two = stable(1).apply(&Change::Promote(v(2))).unwrap();
        let back = two.apply(&Change::Rollback(None)).unwrap();
        assert_eq!((back.stable, back.previous), (Some(v(1)), Some(v(2))));
        assert_eq!(back.apply(&Change::Rollback(None)), Err(ReleaseError::RolledBack(v(2))));
        let forth = back.apply(&Change::Rollback(Some(v(2)))).unwrap();
        assert_eq!((forth.stable, forth.previous, forth.generation), (Some(v(2)), Some(v(1)), 4));
        // Version 1 was left by the last rollback, and is no target either.
        assert_eq!(forth.apply(&Change::Rollback(None)), Err(ReleaseError::RolledBack(v(1))));
        assert_eq!(forth.apply(&Change::Rollback(Some(v(2)))).unwrap(), forth, "it is stable already");
    }

    #[test]
    fn promotion_makes_a_rollback_possible_again_and_takes_its_version_out() {
        let two = stable(1).apply(&Change::Promote(v(2))).unwrap();
        let back = two.apply(&Change::Rollback(None)).unwrap();
        assert_eq!(back.rolled_back, BTreeSet::from([v(2)]));
        let three = back.apply(&Change::Promote(v(3))).unwrap();
        let back = three.apply(&Change::Rollback(None)).unwrap();
        assert_eq!((back.stable, &back.rolled_back), (Some(v(1)), &BTreeSet::from([v(2), v(3)])));
        assert_eq!(back.apply(&Change::Promote(v(3))).unwrap().rolled_back, BTreeSet::from([v(2)]));
    }

    #[test]
    fn canary_that_was_found_worse_gets_nothing_and_is_marked() {
        let release = stable(1).apply(&Change::SetCanary(split(2, 10.0))).unwrap();
        let back = release.apply(&Change::RollBackCanary(v(2))).unwrap();
        assert_eq!((back.canary, &back.rolled_back), (Some(split(2, 0.0)), &BTreeSet::from([v(2)])));
        let previous = Release { previous: Some(v(2)), ..back };
        assert_eq!(previous.apply(&Change::Rollback(None)), Err(ReleaseError::RolledBack(v(2))));
    }

    #[test]
    fn number_of_versions_rolled_back_from_is_bounded() {
        let mut release = stable(1);
        for number in 2..=100 {
            release = release.apply(&Change::Promote(v(number))).unwrap().apply(&Change::Rollback(None)).unwrap();
        }
        assert_eq!(release.rolled_back.len(), MOST_ROLLED_BACK);
        assert_eq!(release.apply(&Change::Rollback(None)), Err(ReleaseError::RolledBack(v(100))));
    }

    #[test]
    fn rollback_without_a_previous_version_is_refused() {
        assert_eq!(stable(1).apply(&Change::Rollback(None)), Err(ReleaseError::NothingToRollBackTo));
    }

    #[test]
    fn canary_ends_when_its_version_becomes_stable() {
        let release = stable(1).apply(&Change::SetCanary(split(2, 10.0))).unwrap();
        assert_eq!(release.canary, Some(split(2, 10.0)));
        assert_eq!(release.apply(&Change::Promote(v(2))).unwrap().canary, None);
        assert!(release.apply(&Change::Promote(v(3))).unwrap().canary.is_some());
    }

    #[test]
    fn stable_version_cannot_be_its_own_canary_or_shadow() {
        assert!(stable(1).apply(&Change::SetCanary(split(1, 10.0))).is_err());
        assert!(stable(1).apply(&Change::SetShadow(split(1, 10.0))).is_err());
    }

    #[test]
    fn newest_stable_version_is_remembered_when_operators_go_back() {
        let back = stable(1).apply(&Change::Promote(v(3))).unwrap().apply(&Change::Promote(v(2))).unwrap();
        let further = back.apply(&Change::Promote(v(1))).unwrap();
        assert_eq!((further.stable, further.previous, further.newest), (Some(v(1)), Some(v(2)), Some(v(3))));
    }

    #[test]
    fn rollback_target_can_be_given_up() {
        let two = stable(1).apply(&Change::Promote(v(2))).unwrap();
        let without = two.apply(&Change::ForgetPrevious).unwrap();
        assert_eq!((without.previous, without.generation), (None, 3));
        assert_eq!(without.apply(&Change::Rollback(None)), Err(ReleaseError::NothingToRollBackTo));
    }

    #[test]
    fn model_that_is_forgotten_has_no_release_and_goes_on_counting_generations() {
        let gone = stable(1).apply(&Change::Promote(v(2))).unwrap().apply(&Change::Forget).unwrap();
        assert_eq!(gone, Release { generation: 3, ..Release::default() });
        assert!(gone.is_empty() && gone.apply(&Change::Forget).unwrap() == gone);
        let again = gone.apply(&Change::Promote(v(1))).unwrap();
        assert_eq!((again.generation, again.newest, again.is_empty()), (4, Some(v(1)), false));
    }

    #[test]
    fn reserved_label_stands_for_what_the_release_names_and_cannot_be_set() {
        let mut release = stable(1).apply(&Change::Promote(v(2))).unwrap();
        let named =
            |release: &Release| ReservedLabel::ALL.map(|role| release.labelled(&role.as_str().parse().unwrap()));
        let none = |role| Err(Some(role));
        assert_eq!(named(&release), [Ok(v(2)), Ok(v(1)), none(ReservedLabel::Canary), none(ReservedLabel::Shadow)]);
        release = release.apply(&Change::SetCanary(split(3, 0.0))).unwrap();
        release = release.apply(&Change::SetShadow(split(4, 100.0))).unwrap();
        assert_eq!(named(&release), [Ok(v(2)), Ok(v(1)), Ok(v(3)), Ok(v(4))]);
        assert_eq!(Release::default().labelled(&"stable".parse().unwrap()), none(ReservedLabel::Stable));
        for role in ReservedLabel::ALL {
            let label: Label = role.as_str().parse().unwrap();
            for change in [Change::SetLabel(label.clone(), v(1)), Change::ClearLabel(label.clone())] {
                let refused = release.apply(&change).unwrap_err();
                assert_eq!((&refused, refused.code()), (&ReleaseError::ReservedLabel { role }, ErrorCode::BadRequest));
                assert!(refused.to_string().contains(role.as_str()), "{refused}");
            }
            // A state file from before these were reserved may have one. It can go, and means nothing.
            release.labels.insert(label.clone(), v(9));
            assert_ne!(release.labelled(&label), Ok(v(9)));
            release = release.apply(&Change::ClearLabel(label)).unwrap();
        }
        assert!(release.labels.is_empty());
    }

    #[test]
    fn label_moves_and_goes() {
        let label: Label = "champion".parse().unwrap();
        let release = stable(1).apply(&Change::SetLabel(label.clone(), v(2))).unwrap();
        assert_eq!(release.versions().collect::<Vec<_>>(), [v(1), v(2)]);
        let gone = release.apply(&Change::ClearLabel(label.clone())).unwrap();
        assert_eq!(gone.apply(&Change::ClearLabel(label.clone())), Err(ReleaseError::UnknownLabel(label)));
    }
}
