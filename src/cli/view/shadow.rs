//! What shadow runs found, for people.

use comfy_table::Cell;

use super::{NONE, table::Table};
use crate::{
    admin::wire::{Bin, Comparison, ModelStatus},
    cli::{
        output::{Look, printable},
        sparkline,
    },
};

pub(super) fn comparison(found: &Comparison, look: Look) -> String {
    let Comparison { version, against, copies, .. } = found;
    let (answer, shadow) = (found.against_seconds * 1e3, found.version_seconds * 1e3);
    let head = format!(
        "\nShadow {version} against {against}: {copies} copies, a run took {shadow:.3} ms (that of the answer {answer:.3} ms)\n\n"
    );
    let answers = format!("SCORES {against}");
    let shadows = format!("SCORES {version}");
    let headers = ["OUTPUT", "ROWS", "SAME CLASS", "MEAN DIFF", "MAX DIFF", "PSI", &answers, &shadows];
    let mut table = Table::new(&headers, look);
    table.right(1).right(2).right(3).right(4).right(5);
    let number = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.6}"));
    for output in &found.outputs {
        let (live, own) = pictures(&output.against_bins, &output.version_bins);
        table.row([
            Cell::new(printable(&output.output)),
            Cell::new(output.rows),
            Cell::new(output.agreement.map_or_else(|| NONE.to_owned(), |share| format!("{:.2}%", share * 100.0))),
            Cell::new(number(output.mean_difference)),
            Cell::new(number(output.max_difference)),
            Cell::new(output.psi.map_or_else(|| NONE.to_owned(), |psi| format!("{psi:.4}"))),
            Cell::new(live),
            Cell::new(own),
        ]);
    }
    head + &table.text()
}

/// Both distributions on one scale.
fn pictures(live: &[u64], own: &[u64]) -> (String, String) {
    let bin = |(at, (live, own)): (usize, (&u64, &u64))| Bin { bin: at.to_string(), reference: *live, live: *own };
    let bins: Vec<Bin> = live.iter().zip(own).enumerate().map(bin).collect();
    if bins.is_empty() { (NONE.to_owned(), NONE.to_owned()) } else { sparkline::pair(&bins) }
}

/// The copies that came to nothing, of the versions that are or were a shadow.
pub(super) fn dropped(model: &ModelStatus) -> String {
    let mut lines = String::new();
    for version in model.versions.iter().filter(|version| !version.shadow_dropped.is_empty()) {
        let reasons = version.shadow_dropped.iter().map(|(why, copies)| format!("{copies} {}", printable(why)));
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        lines += &format!("\nShadow copies dropped by version {}: {reasons}\n", version.version);
    }
    lines
}
