//! Which version of a model serves what: the release, and the changes that operators make to it.
//!
//! Pure: a [`Release`] is a value, [`Release::apply`] makes the next one. The `registry` decides
//! whether a version may be named (it must be ready), makes the change durable and publishes it.

use std::collections::BTreeMap;

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

/// A change that an operator asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Promote(Version),
    Rollback,
    SetCanary(Split),
    ClearCanary,
    SetShadow(Split),
    ClearShadow,
    SetLabel(Label, Version),
    ClearLabel(Label),
    /// Gives up the rollback target, so that it can be unloaded.
    ForgetPrevious,
}

impl Change {
    /// The name of the operation in metrics and in the audit log.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Promote(_) => "promote",
            Self::Rollback => "rollback",
            Self::SetCanary(_) => "canary",
            Self::ClearCanary => "canary_clear",
            Self::SetShadow(_) => "shadow",
            Self::ClearShadow => "shadow_clear",
            Self::SetLabel(..) => "label",
            Self::ClearLabel(_) => "label_clear",
            Self::ForgetPrevious => "forget_previous",
        }
    }

    /// What is asked, in a few words, such as `version 4 at 10%`; empty for a change that takes nothing.
    #[must_use]
    pub fn asked(&self) -> String {
        match self {
            Self::Promote(version) => format!("version {version}"),
            Self::SetCanary(split) | Self::SetShadow(split) => {
                format!("version {} at {}%", split.version, split.percent.get())
            }
            Self::SetLabel(label, version) => format!("{label} = {version}"),
            Self::ClearLabel(label) => label.to_string(),
            Self::Rollback | Self::ClearCanary | Self::ClearShadow | Self::ForgetPrevious => String::new(),
        }
    }

    /// The version that the change sends requests to, which must be ready.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Promote(version) | Self::SetLabel(_, version) => Some(*version),
            Self::SetCanary(split) | Self::SetShadow(split) => Some(split.version),
            Self::Rollback | Self::ClearCanary | Self::ClearShadow | Self::ClearLabel(_) | Self::ForgetPrevious => None,
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
            Self::NothingToRollBackTo | Self::SameAsStable(..) => ErrorCode::Conflict,
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
            Change::Rollback => next.make_stable(self.previous.ok_or(ReleaseError::NothingToRollBackTo)?),
            Change::SetCanary(split) => next.canary = Some(self.beside_stable(*split, "canary")?),
            Change::ClearCanary => next.canary = None,
            Change::SetShadow(split) => next.shadow = Some(self.beside_stable(*split, "shadow")?),
            Change::ClearShadow => next.shadow = None,
            Change::ForgetPrevious => next.previous = None,
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

    /// Every version that the release refers to. They stay loaded.
    pub fn versions(&self) -> impl Iterator<Item = Version> + '_ {
        let splits = self.canary.iter().chain(&self.shadow).map(|split| split.version);
        self.stable.into_iter().chain(self.previous).chain(splits).chain(self.labels.values().copied())
    }

    fn make_stable(&mut self, version: Version) {
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
    fn rollback_flips_and_flips_back() {
        let two = stable(1).apply(&Change::Promote(v(2))).unwrap();
        let back = two.apply(&Change::Rollback).unwrap();
        assert_eq!((back.stable, back.previous), (Some(v(1)), Some(v(2))));
        let forth = back.apply(&Change::Rollback).unwrap();
        assert_eq!((forth.stable, forth.generation), (Some(v(2)), 4));
    }

    #[test]
    fn rollback_without_a_previous_version_is_refused() {
        assert_eq!(stable(1).apply(&Change::Rollback), Err(ReleaseError::NothingToRollBackTo));
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
        assert_eq!(without.apply(&Change::Rollback), Err(ReleaseError::NothingToRollBackTo));
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
