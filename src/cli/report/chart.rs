//! The pictures of the report, as SVG.

use super::{escaped, grouped, percent};
use crate::admin::wire::{Bin, Feature};

/// More categories than this are not drawn: the largest are, and the table has all.
const MOST_ROWS: usize = 20;
/// Letters of a category that fit beside its bars.
const LETTERS: usize = 18;

/// The bins with the shares of reference and live. Those that nobody saw are left out.
pub(super) fn shares(feature: &Feature) -> impl Iterator<Item = (&Bin, [f64; 2])> {
    let total = |count: fn(&Bin) -> u64| feature.bins.iter().map(count).sum::<u64>().max(1) as f64;
    let (reference, live) = (total(|bin| bin.reference), total(|bin| bin.live));
    let seen = feature.bins.iter().filter(|bin| bin.reference + bin.live > 0);
    seen.map(move |bin| (bin, [bin.reference as f64 / reference, bin.live as f64 / live]))
}

/// Both histograms, side by side: upright for numbers, whose bins have an order, lying for categories with their names.
pub(super) fn histograms(feature: &Feature) -> String {
    let shares: Vec<_> = shares(feature).collect();
    let tallest = shares.iter().flat_map(|(_, both)| *both).fold(0.0, f64::max);
    let (height, drawing) = match feature.kind.as_str() {
        "categorical" | "boolean" => lying(shares, tallest),
        _ => upright(&shares, tallest),
    };
    format!(
        "<svg viewBox=\"0 0 480 {height}\" role=\"img\" aria-label=\"Shares of rows by bin of {}, reference and live\">\n\
         {drawing}</svg>",
        escaped(&feature.feature)
    )
}

fn upright(shares: &[(&Bin, [f64; 2])], tallest: f64) -> (u32, String) {
    const TOP: f64 = 14.0;
    const FLOOR: f64 = 140.0;
    let step = 480.0 / shares.len().max(1) as f64;
    let bar = (step * 0.4).min(26.0);
    let mut drawing = format!("<text x=\"0\" y=\"9\">{}</text>\n", percent(tallest));
    for (at, (bin, both)) in shares.iter().enumerate() {
        let middle = step * (at as f64 + 0.5);
        drawing.push_str(&format!("<g><title>{}</title>", title(bin, *both)));
        for (share, x, class) in [(both[0], middle - bar, "reference"), (both[1], middle, "live")] {
            let height = length(share, tallest, FLOOR - TOP);
            drawing.push_str(&format!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{bar:.1}\" height=\"{height:.1}\"/>",
                FLOOR - height
            ));
        }
        // Of many bins, some have a name.
        if at.is_multiple_of(shares.len().div_ceil(16)) {
            let name = shown(&bin.bin, 9);
            drawing.push_str(&format!("<text x=\"{middle:.1}\" y=\"154\" text-anchor=\"middle\">{name}</text>"));
        }
        drawing.push_str("</g>\n");
    }
    drawing.push_str("<line class=\"axis\" x1=\"0\" x2=\"480\" y1=\"140.5\" y2=\"140.5\"/>\n");
    (160, drawing)
}

fn lying(mut shares: Vec<(&Bin, [f64; 2])>, tallest: f64) -> (u32, String) {
    const LEFT: f64 = 120.0;
    const RIGHT: f64 = 400.0;
    if shares.len() > MOST_ROWS {
        shares.sort_by(|(_, a), (_, b)| b[0].max(b[1]).total_cmp(&a[0].max(a[1])));
        shares.truncate(MOST_ROWS);
    }
    let mut drawing = String::new();
    let mut y = 4_u32;
    for (bin, both) in shares {
        drawing.push_str(&format!(
            "<g><title>{}</title><text x=\"112\" y=\"{}\" text-anchor=\"end\">{}</text>",
            title(bin, both),
            y + 13,
            shown(&bin.bin, LETTERS)
        ));
        for (share, y, class) in [(both[0], y, "reference"), (both[1], y + 9, "live")] {
            let width = length(share, tallest, RIGHT - LEFT);
            drawing.push_str(&format!(
                "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"8\"/>"
            ));
        }
        let end = LEFT + length(both[0].max(both[1]), tallest, RIGHT - LEFT) + 6.0;
        drawing.push_str(&format!("<text x=\"{end:.1}\" y=\"{}\">{}</text></g>\n", y + 13, percent(both[1])));
        y += 24;
    }
    (y, drawing)
}

/// The length of a bar. What is not nothing is seen.
fn length(share: f64, tallest: f64, longest: f64) -> f64 {
    if share <= 0.0 { 0.0 } else { (share / tallest * longest).max(1.0) }
}

fn title(bin: &Bin, [reference, live]: [f64; 2]) -> String {
    format!(
        "{}: reference {} ({}), live {} ({})",
        escaped(&bin.bin),
        grouped(bin.reference),
        percent(reference),
        grouped(bin.live),
        percent(live)
    )
}

/// A name, cut where it would not fit.
fn shown(name: &str, letters: usize) -> String {
    let is_long = name.chars().count() > letters;
    let cut: String = name.chars().take(if is_long { letters - 1 } else { letters }).collect();
    escaped(&cut) + if is_long { "…" } else { "" }
}

/// What the picture of the interval must hold.
pub(super) fn ends(feature: &Feature) -> impl Iterator<Item = f64> {
    let [low, high] = feature.psi_interval.unwrap_or_default();
    [Some(low), Some(high), feature.measures.psi_corrected, feature.threshold].into_iter().flatten()
}

/// The corrected PSI as a point, its interval as a line, the threshold as a stroke. The scale is that of the root, so that
/// small ones can be told apart beside large ones; all features have the same, up to `widest`.
pub(super) fn interval(feature: &Feature, widest: f64) -> String {
    let Some(found) = feature.measures.psi_corrected else { return super::NONE.to_owned() };
    let x = |value: f64| 4.0 + 112.0 * (value / widest.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0).sqrt();
    let [low, high] = feature.psi_interval.unwrap_or([found, found]);
    let limit = feature.threshold.map_or_else(String::new, |limit| {
        format!("<line class=\"limit\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"2\" y2=\"16\"/>", x(limit))
    });
    format!(
        "<svg width=\"120\" height=\"18\" role=\"img\" aria-label=\"PSI {found:.4} between {low:.3} and {high:.3}\">\
         <line class=\"axis\" x1=\"4\" x2=\"116\" y1=\"9\" y2=\"9\"/>\
         <line class=\"span\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"9\" y2=\"9\"/>\
         <circle class=\"live\" cx=\"{:.1}\" cy=\"9\" r=\"3.5\"/>{limit}</svg>",
        x(low),
        x(high),
        x(found)
    )
}
