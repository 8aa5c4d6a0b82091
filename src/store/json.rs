//! The stored form of a release: JSON, with a shape of its own so that the file outlives
//! changes of the types and of the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    domain::{Percent, Version},
    release::{Release, Split},
};

#[derive(Serialize, Deserialize)]
struct Stored {
    generation: u64,
    stable: Option<u64>,
    previous: Option<u64>,
    canary: Option<StoredSplit>,
    shadow: Option<StoredSplit>,
    #[serde(default)]
    labels: BTreeMap<String, u64>,
    /// Absent in what the first format's program wrote.
    #[serde(default)]
    newest: Option<u64>,
    /// Absent in what older programs wrote, and where there are none: the text of such a release stays what it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rolled_back: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct StoredSplit {
    version: u64,
    percent: f64,
}

pub(super) fn encode(release: &Release) -> String {
    let split = |split: Split| StoredSplit { version: split.version.get(), percent: split.percent.get() };
    let stored = Stored {
        generation: release.generation,
        stable: release.stable.map(Version::get),
        previous: release.previous.map(Version::get),
        canary: release.canary.map(split),
        shadow: release.shadow.map(split),
        labels: release.labels.iter().map(|(label, version)| (label.to_string(), version.get())).collect(),
        newest: release.newest.map(Version::get),
        rolled_back: release.rolled_back.iter().map(|version| version.get()).collect(),
    };
    serde_json::to_string(&stored).expect("numbers and text always have a JSON form")
}

/// # Errors
/// What is wrong, in words.
pub(super) fn decode(body: &str) -> Result<Release, String> {
    let stored: Stored = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let version = |number: u64| Version::new(number).ok_or_else(|| "version 0".to_owned());
    let split = |split: StoredSplit| -> Result<Split, String> {
        let percent = Percent::new(split.percent).map_err(|error| error.to_string())?;
        Ok(Split { version: version(split.version)?, percent })
    };
    let mut labels = BTreeMap::new();
    for (label, number) in stored.labels {
        let label = label.parse().map_err(|error: crate::domain::IdError| error.to_string())?;
        labels.insert(label, version(number)?);
    }
    let newest = stored.newest.max(stored.stable).max(stored.previous);
    Ok(Release {
        generation: stored.generation,
        stable: stored.stable.map(version).transpose()?,
        previous: stored.previous.map(version).transpose()?,
        canary: stored.canary.map(split).transpose()?,
        shadow: stored.shadow.map(split).transpose()?,
        labels,
        newest: newest.map(version).transpose()?,
        rolled_back: stored.rolled_back.into_iter().map(version).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Change;

    #[test]
    fn release_round_trips() {
        let version = |number| Version::new(number).unwrap();
        let split = |number, percent| Split { version: version(number), percent: Percent::new(percent).unwrap() };
        let changes = [
            Change::Promote(version(1)),
            Change::Promote(version(2)),
            Change::Rollback(None),
            Change::SetCanary(split(3, 12.5)),
            Change::SetShadow(split(4, 100.0)),
            Change::SetLabel("champion".parse().unwrap(), version(2)),
        ];
        let release = changes.iter().fold(Release::default(), |release, change| release.apply(change).unwrap());
        assert_eq!(release.rolled_back.len(), 1);
        assert_eq!(decode(&encode(&release)).unwrap(), release);
    }

    #[test]
    fn nonsense_is_refused() {
        for body in ["", "{}", r#"{"generation":1,"stable":0,"previous":null,"canary":null,"shadow":null}"#] {
            assert!(decode(body).is_err(), "{body}");
        }
    }
}
