//! Rows that were collected apart, put together as if they had been added one after the other.

use super::{Collected, MAX_WHOLE_CATEGORIES, Parts, ProfileBuilder, Values};

impl ProfileBuilder {
    /// Adds all rows of another builder after the own ones.
    pub fn append(&mut self, later: Self) {
        self.rows += later.rows;
        for (own, later) in [(&mut self.inputs, later.inputs), (&mut self.outputs, later.outputs)] {
            for collected in later {
                match own.iter_mut().find(|known| known.tensor == collected.tensor) {
                    Some(known) => known.append(collected),
                    None => own.push(collected),
                }
            }
        }
    }
}

impl Collected {
    fn append(&mut self, later: Self) {
        let Ok(own) = &mut self.parts else { return };
        match later.parts {
            Ok(later) => {
                if let Err(reason) = own.append(later) {
                    self.parts = Err(reason);
                }
            }
            Err(reason) => self.parts = Err(reason),
        }
    }
}

impl Parts {
    pub(super) fn columns(&self) -> usize {
        match self {
            Self::Columns(columns) => columns.len(),
            Self::Wide { columns, .. } => *columns,
        }
    }

    /// # Errors
    /// With the reason why the tensor is in no profile.
    fn append(&mut self, later: Self) -> Result<(), String> {
        let (before, now) = (self.columns(), later.columns());
        if before != now {
            return Err(other_columns(before, now));
        }
        let (Self::Columns(own) | Self::Wide { derived: own, .. }) = self;
        let (Self::Columns(later) | Self::Wide { derived: later, .. }) = later;
        let are_alike = own.iter_mut().zip(later).all(|(own, later)| own.append(later));
        are_alike.then_some(()).ok_or_else(|| "its datatype changes".into())
    }
}

/// Why a tensor whose width changes is in no profile.
pub(super) fn other_columns(before: usize, now: usize) -> String {
    format!("it has {before} columns in one batch, {now} in another")
}

impl Values {
    /// False when the values are of another kind.
    fn append(&mut self, later: Self) -> bool {
        match (self, later) {
            (Self::Numbers(own), Self::Numbers(mut later)) => own.append(&mut later),
            (Self::Wholes(own, distinct), Self::Wholes(mut later, later_distinct)) => {
                own.append(&mut later);
                *distinct = distinct.take().zip(later_distinct).and_then(|(mut counts, later)| {
                    for (whole, count) in later {
                        *counts.entry(whole).or_default() += count;
                    }
                    (counts.len() <= MAX_WHOLE_CATEGORIES).then_some(counts)
                });
            }
            (Self::Flags(own), Self::Flags(later)) => {
                own.iter_mut().zip(later).for_each(|(own, later)| *own += later);
            }
            (Self::Texts(own), Self::Texts(later)) => {
                for (text, count) in later {
                    *own.entry(text).or_default() += count;
                }
            }
            (Self::Ignored, Self::Ignored) => {}
            _ => return false,
        }
        true
    }
}
