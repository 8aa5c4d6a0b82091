//! What differs between two releases, in words for logs and events.

use std::{collections::BTreeSet, fmt::Display};

use super::{Release, Split};

const NONE: &str = "-";

impl Release {
    /// Such as `stable 1 → 2, previous - → 1`; `nothing` where no version has another part.
    #[must_use]
    pub fn difference(&self, after: &Self) -> String {
        let mut parts = Vec::new();
        let mut compare = |name: &str, from: String, to: String| {
            if from != to {
                parts.push(format!("{name} {from} → {to}"));
            }
        };
        compare("stable", shown(self.stable), shown(after.stable));
        compare("previous", shown(self.previous), shown(after.previous));
        compare("canary", split(self.canary), split(after.canary));
        compare("shadow", split(self.shadow), split(after.shadow));
        let labels: BTreeSet<_> = self.labels.keys().chain(after.labels.keys()).collect();
        for label in labels {
            let at = |release: &Self| shown(release.labels.get(label));
            compare(&format!("label {label}"), at(self), at(after));
        }
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }
}

fn shown(value: Option<impl Display>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| value.to_string())
}

fn split(split: Option<Split>) -> String {
    shown(split.map(|split| format!("{} at {}%", split.version, split.percent.get())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Percent, Version},
        release::Change,
    };

    #[test]
    fn every_part_that_differs_is_named_with_both_values() {
        let version = |number| Version::new(number).unwrap();
        let split = |number, percent| Split { version: version(number), percent: Percent::new(percent).unwrap() };
        let before = Release::default().apply(&Change::Promote(version(1))).unwrap();
        let changes = [
            Change::Promote(version(2)),
            Change::SetCanary(split(3, 12.5)),
            Change::SetShadow(split(4, 100.0)),
            Change::SetLabel("champion".parse().unwrap(), version(2)),
        ];
        let after = changes.iter().fold(before.clone(), |release, change| release.apply(change).unwrap());
        assert_eq!(
            before.difference(&after),
            "stable 1 → 2, previous - → 1, canary - → 3 at 12.5%, shadow - → 4 at 100%, label champion - → 2"
        );
        assert_eq!(after.difference(&after), "nothing");
    }
}
