//! Which versions of a model are loaded by themselves, by its `version_policy`.

use std::collections::BTreeSet;

use crate::{
    domain::{Version, VersionPolicy},
    release::Release,
};

/// Whether `version` is to be loaded, of the `versions` on disk. One that has traffic is,
/// whatever the policy says: it is an operator's word against a file's.
pub(super) fn is_selected(
    policy: &VersionPolicy,
    versions: &BTreeSet<Version>,
    release: &Release,
    version: Version,
) -> bool {
    let by_policy = match policy {
        VersionPolicy::All => true,
        VersionPolicy::Latest(count) => versions.iter().rev().take(*count).any(|latest| *latest == version),
        VersionPolicy::Specific(named) => named.contains(&version.get()),
    };
    by_policy || release.versions().any(|named| named == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_selects_and_the_release_keeps() {
        let version = |number| Version::new(number).unwrap();
        let on_disk: BTreeSet<Version> = [1, 2, 10].into_iter().map(version).collect();
        let mut release = Release::default();
        let selected = |policy: VersionPolicy, release: &Release| -> Vec<u64> {
            let selected = on_disk.iter().filter(|version| is_selected(&policy, &on_disk, release, **version));
            selected.map(|version| version.get()).collect()
        };
        assert_eq!(selected(VersionPolicy::All, &release), [1, 2, 10]);
        assert_eq!(selected(VersionPolicy::Latest(2), &release), [2, 10]);
        assert_eq!(selected(VersionPolicy::Specific(vec![2, 7]), &release), [2]);
        release.stable = Some(version(1));
        assert_eq!(selected(VersionPolicy::Latest(1), &release), [1, 10]);
    }
}
