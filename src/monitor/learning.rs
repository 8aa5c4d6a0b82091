//! A profile to be, of a version's own rows.
//!
//! Rows are collected into a chunk. Each save seals it, so that the thread that counts begins another one at once, and
//! writes it behind those that the file has already; the profile is made of all chunks together.

mod file;
mod progress;

use std::{
    fmt, io,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use self::progress::LearningProgress;

use self::file::{Found, LearningFile, Saved};
use super::{
    Answered, Built, ColumnNames, ColumnTypes, MAX_COLUMNS, MonitorSettings, Profile, ProfileBuilder, VersionMonitor,
    columns::columns_of,
};
use crate::domain::{Elements, Signature, Tensor};

/// Rows more than these are not learnt from: the first ones are.
const MOST_ROWS: usize = 500_000;
/// Nor are rows beyond so many bytes of memory, about.
const MOST_BYTES: usize = 256 << 20;

/// Rows that are learnt from, together.
#[derive(Debug, Clone, Default)]
struct Chunk {
    builder: ProfileBuilder,
    rows: usize,
    /// What its rows keep in memory, about.
    bytes: usize,
}

impl Chunk {
    /// One to add rows to.
    fn of(options: &LearningOptions) -> Self {
        let builder = ProfileBuilder::new(options.names.clone()).with_types(options.types.clone());
        Self { builder, ..Self::default() }
    }
}

/// Whose rows are learnt from, and what for.
pub struct LearningOptions {
    /// From the first row on.
    pub length: Duration,
    /// Tells the version's model apart from others.
    pub model_identity: String,
    pub names: ColumnNames,
    /// What columns are taken for.
    pub types: ColumnTypes,
    pub signature: Arc<Signature>,
    pub settings: MonitorSettings,
    /// Is told the profile, on a thread of its own; true when it is kept for good, and the rows need not be.
    pub keep: Box<dyn FnOnce(&Profile) -> bool + Send>,
}

/// A profile to be, of the version's own rows.
pub struct Learning {
    options: LearningOptions,
    /// Tells apart what rows are of.
    identity: u64,
    /// When the first row came; `None` before it.
    began: Option<Duration>,
    sealed: Vec<Arc<Chunk>>,
    fresh: Chunk,
    /// Of all chunks.
    rows: usize,
    bytes: usize,
    /// No more rows are learnt from.
    is_full: bool,
    file: Option<SharedFile>,
}

/// Locked by who writes. Whoever holds this lock may take that of the learning, never the other way round.
pub(super) type SharedFile = Arc<Mutex<LearningFile>>;

impl Learning {
    #[must_use]
    pub fn new(options: LearningOptions) -> Self {
        let LearningOptions { model_identity, names, types, signature, .. } = &options;
        let mut of = format!("{model_identity} {signature:?} {names:?}");
        if !types.is_empty() {
            of += &format!(" {types}");
        }
        let identity = twox_hash::XxHash3_64::oneshot(of.as_bytes());
        let (sealed, fresh) = (Vec::new(), Chunk::of(&options));
        Self { options, identity, began: None, sealed, fresh, rows: 0, bytes: 0, is_full: false, file: None }
    }

    /// Goes on from the rows that were saved at `path`, if they are of the same model and columns, and saves there from now
    /// on. What was saved and is not used is told in the log.
    pub fn go_on_from(&mut self, path: &Path, now: Duration) {
        let mut file = LearningFile::new(path.to_owned(), self.identity);
        let path = path.display();
        match file.read() {
            Ok(Found::Nothing) => {}
            Ok(Found::OfAnother) => {
                tracing::info!(%path, "saved rows to learn from are of another model or other columns");
            }
            Ok(Found::Saved(Saved { began, chunks, damage })) => {
                // The machine's clock may have been set back.
                self.began = Some(began.min(now));
                for chunk in chunks {
                    (self.rows, self.bytes) = (self.rows + chunk.rows, self.bytes + chunk.bytes);
                    self.sealed.push(Arc::new(chunk));
                }
                let rows = self.rows;
                if let Some(error) = damage {
                    tracing::warn!(%path, %error, rows, "saved rows to learn from are damaged: the first ones are used");
                }
                tracing::info!(%path, rows, "learning the version's profile goes on");
            }
            Err(error) => tracing::warn!(%path, %error, "saved rows to learn from are not used"),
        }
        self.file = Some(Arc::new(Mutex::new(file)));
    }

    /// Learns from the chosen rows.
    pub(super) fn add(&mut self, answered: Answered<'_>, now: Duration) {
        self.began.get_or_insert(now);
        let Some(chosen) = answered.chosen else { return self.add_all(answered.inputs, answered.outputs) };
        for run in runs(chosen) {
            self.add_all(&rows_of(answered.inputs, &run), &rows_of(answered.outputs, &run));
        }
    }

    fn add_all(&mut self, inputs: &[Tensor], outputs: &[Tensor]) {
        let rows = inputs.first().map_or(1, |input| input.shape().rows());
        let bytes: usize = inputs.iter().chain(outputs).map(kept_bytes).sum();
        if self.is_full || self.rows + rows > MOST_ROWS || self.bytes + bytes > MOST_BYTES {
            self.is_full = true;
            return;
        }
        self.fresh.builder.add(inputs, outputs);
        (self.rows, self.bytes) = (self.rows + rows, self.bytes + bytes);
        (self.fresh.rows, self.fresh.bytes) = (self.fresh.rows + rows, self.fresh.bytes + bytes);
    }

    pub(super) fn has_ended(&self, now: Duration) -> bool {
        self.progress(now).has_ended()
    }

    /// Takes over the settings of another learning, if it is of the same model and columns.
    pub(super) fn adopt_settings(&mut self, other: &Self) -> bool {
        let are_same = self.identity == other.identity;
        if are_same {
            self.options.length = other.options.length;
            self.options.settings.clone_from(&other.options.settings);
        }
        are_same
    }

    pub(super) fn file(&self) -> Option<SharedFile> {
        self.file.clone()
    }

    /// Begins a new chunk; all others, and when the first one began. `None` before the first row.
    fn seal(&mut self) -> Option<(Duration, Vec<Arc<Chunk>>)> {
        if self.fresh.rows > 0 {
            let fresh = Chunk::of(&self.options);
            self.sealed.push(Arc::new(std::mem::replace(&mut self.fresh, fresh)));
        }
        Some((self.began?, self.sealed.clone()))
    }

    /// The longest window of the monitor to be.
    pub(super) fn longest_window(&self) -> Option<Duration> {
        self.options.settings.windows.iter().max().copied()
    }

    /// The monitor that compares with what was learnt.
    pub(super) fn finish(self) -> Option<VersionMonitor> {
        let Self { options, sealed, fresh, file, .. } = self;
        let LearningOptions { model_identity, names, types, signature, settings, keep, .. } = options;
        let mut builder = ProfileBuilder::new(names).with_types(types);
        for chunk in sealed.into_iter().chain([Arc::new(fresh)]) {
            builder.append(Arc::unwrap_or_clone(chunk).builder);
        }
        let Built { profile, .. } = builder.finish();
        if profile.features.iter().all(super::FeatureProfile::is_empty) {
            tracing::error!("nothing was learnt: no feature of the rows ever had a value that can be counted");
            return None;
        }
        let profile = Profile { learnt_from: Some(model_identity), ..profile };
        if keep(&profile)
            && let Some(file) = file
        {
            file.lock().unwrap_or_else(PoisonError::into_inner).remove();
        }
        let monitor = VersionMonitor::new(profile, &signature, &settings);
        monitor.inspect_err(|error| tracing::error!(%error, "the learnt profile is of no use")).ok()
    }
}

/// Makes the profile of one chunk as a file has it, if these bytes are one.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn profile_of_saved(chunk: &[u8]) {
    if let Ok(chunk) = file::decode(chunk) {
        let mut builder = ProfileBuilder::new(ColumnNames::default());
        builder.append(chunk.builder);
        drop(builder.finish());
    }
}

/// Saves what a learning that `learning` gives access to has learnt since its last save.
///
/// # Errors
/// Those of the file system; the rows are saved the next time.
pub(super) fn save(learning: &Mutex<Option<Learning>>) -> io::Result<()> {
    let learning = || learning.lock().unwrap_or_else(PoisonError::into_inner);
    let file = learning().as_ref().and_then(Learning::file);
    let Some(file) = file else { return Ok(()) };
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    let sealed = learning().as_mut().and_then(Learning::seal);
    sealed.map_or(Ok(()), |(began, chunks)| file.append(began, &chunks))
}

/// The runs of rows that are chosen, one behind the other.
fn runs(chosen: &[bool]) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    chosen.chunk_by(|row, next| row == next).filter_map(move |run| {
        let start = end;
        end += run.len();
        run[0].then_some(start..end)
    })
}

/// These rows of the tensors that have them. A scalar is the first row.
fn rows_of(tensors: &[Tensor], rows: &Range<usize>) -> Vec<Tensor> {
    let of = |tensor: &Tensor| {
        if tensor.shape().dimensions().is_empty() {
            return rows.contains(&0).then(|| tensor.clone());
        }
        let end = rows.end.min(tensor.shape().rows());
        if rows.start < end { tensor.rows(rows.start..end).ok() } else { None }
    };
    tensors.iter().filter_map(of).collect()
}

/// What the rows of a tensor keep in memory, about: of a text itself, of a column a number a row, of a wide row a few.
fn kept_bytes(tensor: &Tensor) -> usize {
    match tensor.elements() {
        Elements::Plain { .. } => {
            tensor.shape().rows() * columns_of(tensor.shape()).min(MAX_COLUMNS) * size_of::<f64>()
        }
        Elements::Text(texts) => texts.iter().map(|text| text.len() + size_of_val(text)).sum(),
    }
}

impl fmt::Debug for Learning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Learning").field("rows", &self.rows).field("began", &self.began).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
