//! What operator commands show to people.

mod admission;
mod all;
mod drift;
mod history;
mod learning;
mod rollout;
mod runs;
mod self_test;
mod shadow;
mod table;
mod taken;
mod traffic;

pub(super) use admission::admission;
pub(super) use all::{drift_of_all, histories};
pub(super) use drift::{drift, drifted, percent, spaced, state, worst_first};
pub(super) use history::history;
pub(super) use learning::learning;
pub(super) use rollout::{rollout, rollout_line};
pub(super) use self_test::self_test;
pub(super) use taken::taken;

use admission::{admissions, admissions_in_short};
use comfy_table::{Cell, Color};

use super::output::{Look, printable};
use crate::admin::wire::{Misplaced, ModelList, ModelStatus, Release, Split, VersionStatus};
use table::Table;

pub(super) fn models(list: &ModelList, look: Look) -> String {
    let headers =
        ["MODEL", "STABLE", "CANARY", "SHADOW", "PREVIOUS", "READY VERSIONS", "FAILED", "RATE", "ERRORS", "REFUSED"];
    let mut table = Table::new(&headers, look);
    table.right(7).right(8).right(9);
    for model in &list.models {
        let release = &model.release;
        table.row([
            Cell::new(printable(&model.model)),
            Cell::new(version_or_none(release.stable)),
            Cell::new(split_or_none(release.canary.as_ref())),
            Cell::new(split_or_none(release.shadow.as_ref())),
            Cell::new(version_or_none(release.previous)),
            Cell::new(versions_in(model, "ready")),
            table.coloured(
                &versions_in(model, "failed"),
                (!versions_in(model, "failed").eq(NONE)).then_some(Color::Red),
            ),
            Cell::new(traffic::model_rate(model)),
            Cell::new(model.unrouted.errors + traffic::sum(model, |traffic| traffic.errors)),
            Cell::new(model.unrouted.refusals + traffic::sum(model, |traffic| traffic.refusals)),
        ]);
    }
    // What a narrow terminal does without.
    table.fit(&[3, 4]);
    table.text() + &failures(list)
}

/// A line for each thing that failed, with its reason.
fn failures(list: &ModelList) -> String {
    let mut lines = Vec::new();
    for model in &list.models {
        let name = printable(&model.model);
        let failed = model.versions.iter().filter(|version| version.state == "failed");
        lines.extend(failed.filter_map(|version| {
            let reason = printable(version.reason.as_deref()?);
            Some(format!("{name}: version {} failed: {reason}\n", version.version))
        }));
        lines.extend(model.misplaced.iter().map(|it| misplaced_line(&name, it)));
    }
    if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
}

fn misplaced_line(model: &str, misplaced: &Misplaced) -> String {
    format!(
        "{model}: {} {}: {}\n",
        printable(&misplaced.path),
        printable(&misplaced.state),
        printable(&misplaced.reason)
    )
}

/// `is_verbose`: every step of every admission is shown.
pub(super) fn status(model: &ModelStatus, is_verbose: bool, look: Look) -> String {
    let compared = model.comparison.as_ref().map(|comparison| shadow::comparison(comparison, look));
    let dropped = shadow::dropped(model);
    let versions_shown = versions(&model.versions, look);
    let runs = runs::runs(&model.versions, look).map_or_else(String::new, |runs| format!("\n{runs}"));
    let release = release_line(&model.model, &model.release);
    let traffic = traffic::traffic(model, look);
    let show = if is_verbose { admissions } else { admissions_in_short };
    let admissions = show(&model.versions, look);
    let misplaced: String = model.misplaced.iter().map(|it| misplaced_line(&printable(&model.model), it)).collect();
    format!(
        "{release}\n\n{versions_shown}{misplaced}{traffic}{runs}{}{dropped}{admissions}",
        compared.unwrap_or_default()
    )
}

/// What a load or an unload came to.
pub(super) fn version(model: &str, version: &VersionStatus, dry_run: bool, look: Look) -> String {
    let note = if dry_run { " (dry run: nothing changed)" } else { "" };
    let head = format!("{model}: version {} is {}{note}", version.version, printable(&version.state));
    let version = std::slice::from_ref(version);
    format!("{head}\n\n{}{}", versions(version, look), admissions(version, look))
}

/// What a change came to: the difference in one line, and the release. There is no `before` when
/// an earlier request with the same key did it.
pub(super) fn change(model: &str, before: Option<&Release>, after: &Release, dry_run: bool, look: Look) -> String {
    let difference = match (before.map(|before| difference(before, after)), dry_run) {
        (None, _) => "done before with this key; the release was then".to_owned(),
        (Some(None), _) if before.is_some_and(|before| before.generation != after.generation) => {
            "nothing is different, but it was changed meanwhile: `tidegate history` says by whom".to_owned()
        }
        (Some(None), _) => "nothing to change".to_owned(),
        (Some(Some(difference)), true) => format!("dry run, would change {difference}"),
        (Some(Some(difference)), false) => format!("changed {difference}"),
    };
    let mut table = Table::new(&["STABLE", "PREVIOUS", "CANARY", "SHADOW", "LABELS", "GENERATION"], look);
    table.row([
        Cell::new(version_or_none(after.stable)),
        Cell::new(version_or_none(after.previous)),
        Cell::new(split_or_none(after.canary.as_ref())),
        Cell::new(split_or_none(after.shadow.as_ref())),
        Cell::new(labels_or_none(after)),
        Cell::new(after.generation),
    ]);
    format!("{model}: {difference}\n\n{}", table.text())
}

/// How an absent thing is shown in a table.
const NONE: &str = "-";

fn versions(versions: &[VersionStatus], look: Look) -> String {
    let headers = ["VERSION", "STATE", "TRAFFIC", "REQUESTS", "MEMORY", "LOADED AT", "DIGEST", "MONITORED", "REASON"];
    let mut table = Table::new(&headers, look);
    table.right(0).right(2).right(3).right(4);
    for version in versions {
        let colour = match version.state.as_str() {
            "ready" => Some(Color::Green),
            "failed" => Some(Color::Red),
            "loading" | "draining" => Some(Color::Yellow),
            _ => None,
        };
        table.row([
            Cell::new(version.version),
            table.coloured(&version.state, colour),
            Cell::new(version.traffic_percent.map_or_else(|| NONE.to_owned(), |share| format!("{}%", share.0))),
            Cell::new(version.requests),
            Cell::new(version.memory_bytes.map_or_else(|| NONE.to_owned(), size)),
            Cell::new(version.loaded_at.as_deref().map_or_else(|| NONE.to_owned(), seconds)),
            Cell::new(version.digest.as_deref().map_or_else(|| NONE.to_owned(), short_digest)),
            Cell::new(monitored(version)),
            Cell::new(reason(version)),
        ]);
    }
    // What a narrow terminal does without: the digest, whether it is monitored, when it was loaded.
    table.fit(&[6, 7, 5]);
    table.wrap_last();
    table.text()
}

fn monitored(version: &VersionStatus) -> &'static str {
    match (version.monitored, &version.learning) {
        (true, _) => "yes",
        (false, Some(_)) => "learning",
        (false, None) => "no",
    }
}

/// Why it is as it is, where there is something to say.
fn reason(version: &VersionStatus) -> String {
    let changed = version.files_changed.then_some("files on disk changed since it was loaded");
    let learnt = version.learning.as_ref().map(|progress| format!("profile: {}", learning(progress)));
    let reasons = version.reason.as_deref().into_iter().chain(changed).map(printable);
    let reasons: Vec<_> = reasons.chain(learnt).collect();
    if reasons.is_empty() { NONE.to_owned() } else { reasons.join("; ") }
}

fn release_line(model: &str, release: &Release) -> String {
    let labels =
        if release.labels.is_empty() { String::new() } else { format!(", labels {}", labels_or_none(release)) };
    let back: Vec<_> = release.rolled_back.iter().map(ToString::to_string).collect();
    let back = if back.is_empty() { String::new() } else { format!(", rolled back from {}", back.join(" and ")) };
    format!(
        "{}: stable {}, previous {}, canary {}, shadow {}{labels}{back}, generation {}",
        printable(model),
        version_or_none(release.stable),
        version_or_none(release.previous),
        split_or_none(release.canary.as_ref()),
        split_or_none(release.shadow.as_ref()),
        release.generation,
    )
}

/// What differs between two releases, such as `stable 1 → 2, previous - → 1`.
fn difference(before: &Release, after: &Release) -> Option<String> {
    let mut parts = Vec::new();
    let mut compare = |name: &str, from: String, to: String| {
        if from != to {
            parts.push(format!("{name} {from} → {to}"));
        }
    };
    compare("stable", version_or_none(before.stable), version_or_none(after.stable));
    compare("previous", version_or_none(before.previous), version_or_none(after.previous));
    compare("canary", split_or_none(before.canary.as_ref()), split_or_none(after.canary.as_ref()));
    compare("shadow", split_or_none(before.shadow.as_ref()), split_or_none(after.shadow.as_ref()));
    let labels: std::collections::BTreeSet<_> = before.labels.keys().chain(after.labels.keys()).collect();
    for label in labels {
        let at = |release: &Release| version_or_none(release.labels.get(label).copied());
        compare(&format!("label {}", printable(label)), at(before), at(after));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn versions_in(model: &ModelStatus, state: &str) -> String {
    let versions = model.versions.iter().filter(|version| version.state == state);
    let misplaced = model.misplaced.iter().filter(|misplaced| misplaced.state == state);
    let numbers = versions.map(|version| version.version.to_string());
    let numbers: Vec<_> = numbers.chain(misplaced.map(|misplaced| printable(&misplaced.path))).collect();
    if numbers.is_empty() { NONE.to_owned() } else { numbers.join(", ") }
}

fn version_or_none(version: Option<u64>) -> String {
    version.map_or_else(|| NONE.to_owned(), |version| version.to_string())
}

fn split_or_none(split: Option<&Split>) -> String {
    split.map_or_else(|| NONE.to_owned(), |split| format!("{} at {}%", split.version, split.percent.0))
}

fn labels_or_none(release: &Release) -> String {
    let labels = release.labels.iter().map(|(label, version)| format!("{}={version}", printable(label)));
    let labels: Vec<_> = labels.collect();
    if labels.is_empty() { NONE.to_owned() } else { labels.join(", ") }
}

/// Enough of `sha256:<hex>` to tell versions apart.
fn short_digest(digest: &str) -> String {
    printable(digest.strip_prefix("sha256:").unwrap_or(digest)).chars().take(12).collect()
}

/// An RFC 3339 time without its fraction of a second.
fn seconds(at: &str) -> String {
    let at = printable(at);
    at.split_once('.').map_or_else(|| at.clone(), |(seconds, _)| format!("{seconds}Z"))
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests;
