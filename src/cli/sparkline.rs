//! Two histograms over the same bins, as small bar pictures that can be compared.

use crate::admin::wire::Bin;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const MAX_BARS: usize = 12;

/// The bars of reference and live. Both have one scale: the tallest bar of the two is full.
/// The lowest bar means none at all.
pub(super) fn pair(bins: &[Bin]) -> (String, String) {
    let bars = shares(bins);
    let tallest = bars.iter().flatten().copied().fold(0.0, f64::max);
    let picture = |side: usize| bars.iter().map(|bar| BARS[level(bar[side], tallest)]).collect();
    (picture(0), picture(1))
}

/// The shares of reference and live by bar. Bins that neither has seen are left out; of too
/// many, the smallest are one bar at the end.
fn shares(bins: &[Bin]) -> Vec<[f64; 2]> {
    let total = |count: fn(&Bin) -> u64| bins.iter().map(count).sum::<u64>().max(1) as f64;
    let (reference, live) = (total(|bin| bin.reference), total(|bin| bin.live));
    let seen = bins.iter().filter(|bin| bin.reference + bin.live > 0);
    let shares: Vec<_> = seen.map(|bin| [bin.reference as f64 / reference, bin.live as f64 / live]).collect();
    if shares.len() <= MAX_BARS {
        return shares;
    }
    let mut by_size: Vec<usize> = (0..shares.len()).collect();
    by_size.sort_by(|&a, &b| size(shares[b]).total_cmp(&size(shares[a])));
    let (kept, rest) = by_size.split_at_mut(MAX_BARS - 1);
    kept.sort_unstable();
    let rest = rest.iter().fold([0.0, 0.0], |sum, &at| [sum[0] + shares[at][0], sum[1] + shares[at][1]]);
    kept.iter().map(|&at| shares[at]).chain([rest]).collect()
}

fn size([reference, live]: [f64; 2]) -> f64 {
    reference.max(live)
}

fn level(share: f64, tallest: f64) -> usize {
    if share <= 0.0 {
        return 0;
    }
    let highest = BARS.len() - 1;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the tallest, times 7")]
    let level = (share / tallest * highest as f64).round() as usize;
    level.clamp(1, highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(counts: &[(u64, u64)]) -> Vec<Bin> {
        let bin = |(at, &(reference, live)): (usize, &(u64, u64))| Bin { bin: at.to_string(), reference, live };
        counts.iter().enumerate().map(bin).collect()
    }

    #[test]
    fn pair_has_one_scale_for_both() {
        let (reference, live) = pair(&bins(&[(50, 100), (50, 0)]));
        assert_eq!((reference.as_str(), live.as_str()), ("▅▅", "█▁"));
    }

    #[test]
    fn few_rows_are_more_than_none() {
        assert_eq!(pair(&bins(&[(1, 0), (9999, 1)])).0, "▂█");
    }

    #[test]
    fn pair_compares_shares_and_not_counts() {
        let (reference, live) = pair(&bins(&[(1000, 1), (3000, 3)]));
        assert_eq!(reference, live);
    }

    #[test]
    fn bins_that_nobody_saw_are_left_out() {
        assert_eq!(pair(&bins(&[(0, 0), (5, 5), (0, 0)])).0, "█");
        assert_eq!(pair(&[]), (String::new(), String::new()));
    }

    #[test]
    fn feature_without_live_rows_has_an_empty_picture() {
        assert_eq!(pair(&bins(&[(10, 0), (10, 0)])), ("██".to_owned(), "▁▁".to_owned()));
    }

    #[test]
    fn too_many_bins_keep_the_largest_and_sum_the_rest() {
        let mut counts = vec![(1, 1); 40];
        counts[20] = (60, 60);
        let (reference, live) = pair(&bins(&counts));
        assert_eq!(reference.chars().count(), MAX_BARS);
        assert_eq!(reference, live);
        assert!(reference.contains('█') && reference.ends_with('▄'), "{reference}");
    }
}
