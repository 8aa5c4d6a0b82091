//! What is kept of monitors over a restart, as functions of bytes: see [`crate::fuzzing`].

use super::{
    learning,
    saved::{self, Part},
};

/// Counts of a profile whose digest is 0. What is read can be written and read again, and so can what the counts are of.
pub(crate) fn counts(bytes: &[u8]) {
    let Ok(Some(counts)) = saved::decode(0, bytes) else { return };
    for (name, part) in counts.iter().filter_map(|(name, _)| Some((name, name.parse::<Part>().ok()?))) {
        assert_eq!(part.to_string(), *name);
    }
    let again = saved::encode(0, &counts).expect("memory takes all");
    assert_eq!(saved::decode(0, &again).expect("what was written can be read"), Some(counts));
}

/// Rows that a profile is learnt from. What is read makes a profile, if one at all.
pub(crate) fn rows(bytes: &[u8]) {
    learning::profile_of_saved(bytes);
}
