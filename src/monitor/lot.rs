//! Which rows are counted when there are more than there is time for.

use std::time::Duration;

/// Draws rows by lot, each with the same probability: as many as are allowed in a second, about.
#[derive(Debug)]
pub(super) struct Lot {
    /// Rows a second; 0: all.
    most: u64,
    second: u64,
    /// Rows that came in this second.
    came: u64,
    /// The share that is drawn because of what came in the second before.
    share: f64,
    state: u64,
}

impl Lot {
    pub(super) fn new(most: u64) -> Self {
        Self { most, second: 0, came: 0, share: 1.0, state: 0x2545_f491_4f6c_dd1d }
    }

    /// Row by row, whether it is drawn; `None`: all are.
    pub(super) fn draw(&mut self, rows: usize, now: Duration) -> Option<Vec<bool>> {
        if self.most == 0 {
            return None;
        }
        let allowed = |came: u64| if came > self.most { self.most as f64 / came as f64 } else { 1.0 };
        if now.as_secs() != self.second {
            self.share = if now.as_secs() == self.second + 1 { allowed(self.came) } else { 1.0 };
            (self.second, self.came) = (now.as_secs(), 0);
        }
        self.came += rows as u64;
        let share = self.share.min(allowed(self.came));
        (share < 1.0).then(|| (0..rows).map(|_| self.next() < share).collect())
    }

    /// A number from 0 to 1 (xorshift64*, Vigna, 2016).
    fn next(&mut self) -> f64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows drawn in each second, when so many come in each.
    fn drawn(most: u64, coming: &[usize]) -> Vec<usize> {
        let mut lot = Lot::new(most);
        let of_second = |(second, rows): (u64, &usize)| {
            let mut draw = |_| {
                lot.draw(10, Duration::from_secs(second)).map_or(10, |rows| rows.iter().filter(|row| **row).count())
            };
            (0..rows / 10).map(&mut draw).sum()
        };
        (0..).zip(coming).map(of_second).collect()
    }

    #[test]
    fn all_rows_are_drawn_within_the_bound() {
        assert_eq!(drawn(0, &[100_000]), [100_000]);
        assert_eq!(drawn(1000, &[1000, 500, 1000]), [1000, 500, 1000]);
    }

    #[test]
    fn rows_beyond_the_bound_are_drawn_so_that_it_is_kept_about() {
        let drawn = drawn(1000, &[10_000; 4]);
        // In the first second it is not known yet how many will come.
        assert!(drawn[0] < 4000, "{drawn:?}");
        assert!(drawn[1..].iter().all(|rows| (850..=1150).contains(rows)), "{drawn:?}");
    }
}
