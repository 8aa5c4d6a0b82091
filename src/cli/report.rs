//! The drift report as a page of its own: one HTML file that needs nothing else, no script either.

mod chart;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use super::{
    output::printable,
    view::{drifted, learning, percent, spaced, state, worst_first},
};
use crate::admin::wire::{Bin, Checked, DriftReport, Feature, Learning, Measures, Quality, RareBin};

const STYLE: &str = include_str!("report/style.css");

/// What stands where there is nothing to say.
const NONE: &str = "–";

/// The page of a report that was asked for at the time `at`.
pub(super) fn page(report: &DriftReport, at: SystemTime) -> String {
    let title = format!("Drift of {} version {}", escaped(&report.model), report.version);
    let words = escaped(&state(report));
    let badge = badge_of(&report.state, &words);
    let content = match &report.learning {
        Some(progress) => facts_of_learning(progress, at),
        None => content(report, at),
    };
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: {words}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<h1>{title} {badge}</h1>
{content}
<footer>A feature has drifted when its corrected PSI reaches the threshold, which no chance would at this number of rows,
when the share of a rare bin is nearly twice what it was or more, or about half of it or less, or when a share of rows that should not grow has grown. There is no
verdict on too few rows. PSI is corrected by what chance alone makes of it; the
interval holds the true one with probability 0.95. Bins of a number go from the lowest value up; <i>below</i> and
<i>above</i> are out of the reference's range.</footer>
</main>
</body>
</html>
"#
    )
}

fn content(report: &DriftReport, at: SystemTime) -> String {
    let features = worst_first(report);
    let (facts, summary) = (facts(report, at), summary(&features));
    let sections: String = features.iter().enumerate().map(|(at, feature)| section(at, feature)).collect();
    format!(
        r#"{facts}
<h2 id="summary">All features</h2>
{summary}
<h2>Each feature</h2>
<p class="key"><span class="reference">reference</span><span class="live">live</span></p>
<div class="features">
{sections}</div>"#
    )
}

/// There is nothing to compare with yet.
fn facts_of_learning(progress: &Learning, at: SystemTime) -> String {
    list(&[("Profile", format!("learnt from its own rows: {}", escaped(&learning(progress)))), generated(at)])
}

fn facts(report: &DriftReport, at: SystemTime) -> String {
    let (drifted, all) = drifted(report);
    let against = match report.against.as_str() {
        "stable" => "the stable version's live rows",
        _ => "its profile",
    };
    let segment = if report.segment.is_empty() { "all rows" } else { &report.segment };
    list(&[
        ("Window", format!("last {}", escaped(&report.window))),
        ("Rows", grouped(report.rows)),
        ("Rows for a verdict", grouped(report.min_rows)),
        ("Drifted", format!("{drifted} of {all} features")),
        ("Compared with", against.to_owned()),
        ("Segment", escaped(segment)),
        ("False alarm per test and look", format!("{:.1e}", report.alpha)),
        generated(at),
    ])
}

fn generated(at: SystemTime) -> (&'static str, String) {
    ("Generated", humantime::format_rfc3339_seconds(at).to_string().replace('T', " ").replace('Z', " UTC"))
}

fn list(facts: &[(&str, String)]) -> String {
    let facts: String = facts.iter().map(|(name, value)| entry(name, value)).collect();
    format!("<dl class=\"facts\">\n{facts}</dl>")
}

fn summary(features: &[&Feature]) -> String {
    let widest = features.iter().flat_map(|feature| chart::ends(feature)).fold(0.0, f64::max);
    let rows: String = features.iter().enumerate().map(|(at, feature)| summary_row(at, feature, widest)).collect();
    format!(
        r#"<div class="wide"><table>
<thead><tr><th scope="col">Feature</th><th scope="col" class="word">State</th>
<th scope="col">PSI corrected<br><small>interval</small></th><th scope="col">Threshold</th>
<th scope="col" class="word">PSI, interval<br>and threshold</th><th scope="col">Jensen–<br>Shannon</th>
<th scope="col">Kolmogorov–<br>Smirnov</th><th scope="col">Wasser-<br>stein / σ</th><th scope="col">χ² p</th>
<th scope="col">Missing<br><small>reference → live</small></th>
<th scope="col">Unseen, or out of range<br><small>reference → live</small></th></tr></thead>
<tbody>
{rows}</tbody>
</table></div>"#
    )
}

fn summary_row(at: usize, feature: &Feature, widest: f64) -> String {
    let Feature { measures, quality, .. } = feature;
    format!(
        "<tr><th scope=\"row\"><a href=\"#feature-{at}\">{}</a><br><small>{}</small></th><td class=\"word\">{}</td>\
         <td>{}<br><small>{}</small></td><td>{}</td><td class=\"word\">{}</td>\
         <td>{}</td><td>{}</td><td>{}</td><td>{}</td>{}{}</tr>\n",
        escaped(&feature.feature),
        escaped(&feature.kind),
        badge(&feature.state),
        number(measures.psi_corrected),
        interval(feature.psi_interval),
        number(feature.threshold),
        chart::interval(feature, widest),
        number(measures.jensen_shannon),
        number(measures.kolmogorov_smirnov),
        number(measures.wasserstein),
        number(measures.p_value),
        share(quality.missing.as_ref()),
        // A category can be unseen, a number out of range.
        share(quality.unseen.as_ref().or(quality.out_of_range.as_ref())),
    )
}

fn share(checked: Option<&Checked>) -> String {
    let Some(checked) = checked else { return format!("<td class=\"soft\">{NONE}</td>") };
    let (reference, live) = (100.0 * checked.reference, 100.0 * checked.live);
    format!("<td class=\"{}\">{reference:.1} → {live:.1} %</td>", escaped(&checked.state))
}

fn section(at: usize, feature: &Feature) -> String {
    let Feature { measures, quality, .. } = feature;
    format!(
        r#"<section class="feature" id="feature-{at}" aria-labelledby="name-{at}">
<header><h3 id="name-{at}">{name}</h3>{state}</header>
<p>{kind}, tensor {tensor}, {rows} rows, {missing} missing</p>
{chart}
<dl class="measures">
{measures}{quality}</dl>
{bins}
</section>
"#,
        name = escaped(&feature.feature),
        state = badge(&feature.state),
        kind = escaped(&feature.kind),
        tensor = escaped(&feature.tensor),
        rows = grouped(feature.rows),
        missing = grouped(feature.missing),
        chart = chart::histograms(feature),
        measures = entries_of_measures(feature, measures),
        quality = feature.rare_bin.iter().map(entry_of_rare_bin).collect::<String>() + &entries_of_quality(quality),
        bins = bins(feature),
    )
}

fn entries_of_measures(feature: &Feature, measures: &Measures) -> String {
    let mut entries = vec![
        ("Interval of PSI".to_owned(), interval(feature.psi_interval)),
        ("Threshold".to_owned(), number(feature.threshold)),
        ("Design effect".to_owned(), number(feature.design_effect)),
        (
            "Effective rows".to_owned(),
            feature.effective_rows.map_or_else(|| NONE.to_owned(), |rows| format!("{rows:.0}")),
        ),
    ];
    entries.extend(measures.named().map(|(name, value)| (spelt(name), number(Some(value)))));
    entries.iter().map(|(name, value)| entry(name, value)).collect()
}

fn entry_of_rare_bin(rare: &RareBin) -> String {
    let of = |share: f64| format!("{:.2} %", share * 100.0);
    let (bin, state, from, to) = (escaped(&rare.bin), escaped(&rare.state), of(rare.reference), of(rare.live));
    format!("<div><dt>Rare bin {bin}</dt><dd class=\"{state}\">{from} → {to}</dd></div>\n")
}

fn entries_of_quality(quality: &Quality) -> String {
    let one = |(name, checked): (&str, &Checked)| {
        let name = match name {
            // Its shares are those of one value; live rows that are all alike are what it is about.
            "constant" => "Most frequent value".to_owned(),
            name => spelt(name),
        };
        let (from, to) = (percent(checked.reference), percent(checked.live));
        let (state, limit) = (escaped(&checked.state), percent(checked.threshold));
        format!("<div><dt>{name}</dt><dd class=\"{state}\" title=\"drift from {limit}\">{from} → {to}</dd></div>\n")
    };
    quality.named().map(one).collect()
}

/// Both histograms as a table, for who cannot see the picture.
fn bins(feature: &Feature) -> String {
    let rows: String = chart::shares(feature).map(|(bin, both)| row_of_bin(bin, both)).collect();
    format!(
        "<details><summary>Rows by bin</summary><table>\n<thead><tr><th scope=\"col\">Bin</th>\
         <th scope=\"col\" colspan=\"2\">Reference</th><th scope=\"col\" colspan=\"2\">Live</th></tr></thead>\n\
         <tbody>\n{rows}</tbody></table></details>"
    )
}

fn row_of_bin(bin: &Bin, [reference, live]: [f64; 2]) -> String {
    format!(
        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
        escaped(&bin.bin),
        grouped(bin.reference),
        percent(reference),
        grouped(bin.live),
        percent(live)
    )
}

fn entry(name: &str, value: &str) -> String {
    format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n")
}

fn badge(state: &str) -> String {
    badge_of(state, &escaped(&spaced(state)))
}

/// Words in the colour of a state.
fn badge_of(state: &str, words: &str) -> String {
    format!("<span class=\"state {}\">{words}</span>", escaped(state))
}

/// The name of a measure or check in words.
fn spelt(name: &str) -> String {
    match name {
        "psi" => "PSI".into(),
        "psi_corrected" => "PSI corrected".into(),
        "jensen_shannon" => "Jensen–Shannon".into(),
        "kolmogorov_smirnov" => "Kolmogorov–Smirnov".into(),
        "wasserstein" => "Wasserstein / σ".into(),
        "chi_square" => "χ²".into(),
        "p_value" => "χ² p".into(),
        "cramers_v" => "Cramér’s V".into(),
        "l_infinity" => "L∞".into(),
        "nonfinite" => "Not finite".into(),
        other => {
            let words = escaped(&other.replace('_', " "));
            let mut letters = words.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        }
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(value) if value != 0.0 && value.abs() < 0.0001 => format!("{value:.1e}"),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.4}"),
    }
}

fn interval(ends: Option<[f64; 2]>) -> String {
    ends.map_or_else(|| NONE.to_owned(), |[low, high]| format!("{low:.3} – {high:.3}"))
}

/// A whole number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A text from elsewhere, which must not become markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in printable(text).chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            char => escaped.push(char),
        }
    }
    escaped
}
