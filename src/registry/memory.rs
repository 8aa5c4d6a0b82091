//! Which versions stay in memory: a budget, and what makes room for a version that is to be loaded.
//!
//! The measure is the size of a version's files, which a session holds at least once. Versions that no
//! release names make room, the one that was used longest ago first. The rollback target does so only by an
//! explicit choice; what a release names otherwise never does.

use std::time::SystemTime;

use crate::domain::{ModelName, Version};

/// A version in memory, or on its way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) model: ModelName,
    pub(super) version: Version,
    pub(super) bytes: u64,
    /// When it answered last, or was loaded.
    pub(super) used: SystemTime,
    pub(super) claim: Claim,
}

/// What keeps a version in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nothing: no release names it.
    None,
    /// It is a rollback target, and no more.
    Previous,
    /// It is a rollback target that may make room.
    SparePrevious,
    /// A release names it, or it is being loaded.
    InUse,
}

/// Why there is no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    pub needed: u64,
    pub limit: u64,
    pub held: u64,
    /// What unloading everything unclaimed would free.
    pub spare: u64,
    /// What unloading the rollback targets would free beside.
    pub previous: u64,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { needed, limit, held, spare, previous } = *self;
        write!(
            f,
            "{} are needed and limits.model_memory is {}: {} are in use, of which {} can be freed",
            size(needed),
            size(limit),
            size(held),
            size(spare)
        )?;
        if previous > 0 {
            let enough = if held - spare - previous + needed <= limit { "" } else { ", which is not enough" };
            write!(f, "; rollback targets hold {}{enough} (evict_previous lets that of the model go)", size(previous))?;
        }
        Ok(())
    }
}

/// The versions to unload so that `needed` bytes more fit into `limit`; none when they fit already.
///
/// # Errors
/// When there would be no room even then. Nothing is to be unloaded in that case.
pub(super) fn make_room(limit: u64, needed: u64, mut held: Vec<Held>) -> Result<Vec<Held>, Shortage> {
    let in_use: u64 = held.iter().map(|version| version.bytes).sum();
    held.sort_by_key(|version| (version.claim == Claim::SparePrevious, version.used));
    let (mut left, mut evicted) = (in_use, Vec::new());
    for version in held.iter().filter(|version| matches!(version.claim, Claim::None | Claim::SparePrevious)) {
        if left.saturating_add(needed) <= limit {
            break;
        }
        left -= version.bytes;
        evicted.push(version.clone());
    }
    if left.saturating_add(needed) <= limit {
        return Ok(evicted);
    }
    let of = |claims: &[Claim]| held.iter().filter(|held| claims.contains(&held.claim)).map(|held| held.bytes).sum();
    let (spare, previous) = (of(&[Claim::None, Claim::SparePrevious]), of(&[Claim::Previous]));
    Err(Shortage { needed, limit, held: in_use, spare, previous })
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn held(version: u64, bytes: u64, used: u64, claim: Claim) -> Held {
        Held {
            model: "m".parse().unwrap(),
            version: Version::new(version).unwrap(),
            bytes,
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(used),
            claim,
        }
    }

    fn evicted(limit: u64, needed: u64, versions: &[Held]) -> Result<Vec<u64>, Shortage> {
        let evicted = make_room(limit, needed, versions.to_vec())?;
        Ok(evicted.iter().map(|held| held.version.get()).collect())
    }

    #[test]
    fn nothing_goes_while_there_is_room() {
        assert_eq!(evicted(100, 40, &[held(1, 60, 0, Claim::None)]), Ok(vec![]));
        assert_eq!(evicted(100, 100, &[]), Ok(vec![]));
    }

    #[test]
    fn unclaimed_versions_go_in_the_order_of_their_last_use_and_no_more_than_needed() {
        let versions = [
            held(1, 30, 5, Claim::None),
            held(2, 30, 3, Claim::None),
            held(3, 30, 1, Claim::InUse),
            held(4, 10, 4, Claim::None),
        ];
        assert_eq!(evicted(100, 20, &versions), Ok(vec![2]));
        assert_eq!(evicted(100, 40, &versions), Ok(vec![2, 4]));
        assert_eq!(evicted(100, 41, &versions), Ok(vec![2, 4, 1]));
    }

    #[test]
    fn rollback_target_goes_last_and_by_choice_only() {
        let with = |claim| [held(1, 40, 1, claim), held(2, 40, 2, Claim::InUse), held(3, 20, 9, Claim::None)];
        assert_eq!(evicted(100, 20, &with(Claim::SparePrevious)), Ok(vec![3]));
        assert_eq!(evicted(100, 50, &with(Claim::SparePrevious)), Ok(vec![3, 1]));
        let refused = evicted(100, 50, &with(Claim::Previous)).unwrap_err();
        assert_eq!(refused, Shortage { needed: 50, limit: 100, held: 100, spare: 20, previous: 40 });
    }

    #[test]
    fn shortage_is_told_with_figures() {
        let shortage = Shortage { needed: 90 << 20, limit: 256 << 20, held: 200 << 20, spare: 0, previous: 100 << 20 };
        assert_eq!(
            shortage.to_string(),
            "90.0 MiB are needed and limits.model_memory is 256.0 MiB: 200.0 MiB are in use, of which 0 B can be \
             freed; rollback targets hold 100.0 MiB (evict_previous lets that of the model go)"
        );
        let never = Shortage { needed: 300 << 20, previous: 0, ..shortage };
        assert!(never.to_string().ends_with("of which 0 B can be freed"), "{never}");
    }

    proptest! {
        #[test]
        fn plan_fits_spares_what_is_claimed_and_is_made_whenever_possible(
            limit in 0..1000_u64,
            needed in 0..500_u64,
            versions in prop::collection::vec((0..300_u64, 0..100_u64, 0..4_u8), 0..12),
        ) {
            let claims = [Claim::None, Claim::Previous, Claim::SparePrevious, Claim::InUse];
            let versions: Vec<Held> = versions
                .into_iter()
                .zip(1..)
                .map(|((bytes, used, claim), version)| held(version, bytes, used, claims[usize::from(claim)]))
                .collect();
            let bytes = |claims: &[Claim]| -> u64 {
                versions.iter().filter(|held| claims.contains(&held.claim)).map(|held| held.bytes).sum()
            };
            let fixed = bytes(&[Claim::Previous, Claim::InUse]);
            match make_room(limit, needed, versions.clone()) {
                Ok(evicted) => {
                    let freed: u64 = evicted.iter().map(|held| held.bytes).sum();
                    prop_assert!(bytes(&claims) - freed + needed <= limit);
                    prop_assert!(evicted.iter().all(|held| matches!(held.claim, Claim::None | Claim::SparePrevious)));
                    // The last one was needed.
                    if let Some(last) = evicted.last() {
                        prop_assert!(bytes(&claims) - (freed - last.bytes) + needed > limit);
                    }
                }
                Err(_) => prop_assert!(fixed + needed > limit),
            }
        }
    }
}
