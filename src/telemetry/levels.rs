//! Which log lines are written, in the terms of Triton's log settings, and their change while
//! the gateway runs. A change is not kept: at the next start the configuration says again.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::{Targets, filter_fn},
    layer::Filter,
    reload,
};

/// The target of our own lines; verbose lines of libraries are for the configuration to ask for.
const OURS: &str = "tidegate";

pub(super) type LineFilter = Box<dyn Filter<Registry> + Send + Sync>;

/// The kinds of lines that are written. Unlike levels elsewhere, each kind is on or off by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevels {
    pub error: bool,
    pub warning: bool,
    pub info: bool,
    /// 0: none, 1: debug, 2 and more: trace.
    pub verbose: u32,
}

impl LogLevels {
    /// What `filter` lets through of the gateway's own lines.
    fn of(filter: &EnvFilter) -> Self {
        // The plain form can be asked about a target; filters by span or field have only a maximum.
        let plain: Option<Targets> = filter.to_string().parse().ok();
        let highest = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
        let shows = |level: Level| plain.as_ref().map_or(highest >= level, |plain| plain.would_enable(OURS, &level));
        Self {
            error: shows(Level::ERROR),
            warning: shows(Level::WARN),
            info: shows(Level::INFO),
            verbose: u32::from(shows(Level::DEBUG)) + u32::from(shows(Level::TRACE)),
        }
    }

    fn shows(self, metadata: &Metadata<'_>) -> bool {
        let verbose = if metadata.target().starts_with(OURS) { self.verbose } else { 0 };
        match *metadata.level() {
            Level::ERROR => self.error,
            Level::WARN => self.warning,
            Level::INFO => self.info,
            Level::DEBUG => verbose >= 1,
            Level::TRACE => verbose >= 2,
        }
    }

    fn filter(self) -> LineFilter {
        let highest = match self {
            Self { verbose: 2.., .. } => LevelFilter::TRACE,
            Self { verbose: 1, .. } => LevelFilter::DEBUG,
            Self { info: true, .. } => LevelFilter::INFO,
            Self { warning: true, .. } => LevelFilter::WARN,
            Self { error: true, .. } => LevelFilter::ERROR,
            _ => LevelFilter::OFF,
        };
        Box::new(filter_fn(move |metadata| self.shows(metadata)).with_max_level_hint(highest))
    }
}

/// Shows and changes what is logged. Clones are one control.
#[derive(Clone)]
pub struct LogControl(Arc<Inner>);

struct Inner {
    levels: Mutex<LogLevels>,
    /// `None` before logging has started: there is nothing to change then.
    filter: Option<reload::Handle<LineFilter, Registry>>,
}

impl LogControl {
    /// The control of `filter`, and the filter to log with.
    pub(super) fn new(filter: EnvFilter) -> (Self, reload::Layer<LineFilter, Registry>) {
        let levels = LogLevels::of(&filter);
        let (layer, handle) = reload::Layer::new(Box::new(filter) as LineFilter);
        (Self(Arc::new(Inner { levels: Mutex::new(levels), filter: Some(handle) })), layer)
    }

    #[must_use]
    pub fn levels(&self) -> LogLevels {
        *self.0.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is logged from now on, by what `change` makes of the present levels; answers
    /// with the new ones.
    pub fn change(&self, change: impl FnOnce(&mut LogLevels)) -> LogLevels {
        let mut levels = self.0.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *levels;
        change(&mut levels);
        if *levels != before
            && let Some(filter) = &self.0.filter
        {
            // Fails only once the subscriber is gone, when nothing is logged at all.
            let _ = filter.reload(levels.filter());
        }
        *levels
    }
}

impl Default for LogControl {
    /// The levels of a program that has not started to log.
    fn default() -> Self {
        let levels = LogLevels { error: true, warning: true, info: true, verbose: 0 };
        Self(Arc::new(Inner { levels: Mutex::new(levels), filter: None }))
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogControl").field(&self.levels()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::*;

    fn levels(filter: &str) -> LogLevels {
        LogLevels::of(&EnvFilter::try_new(filter).unwrap())
    }

    #[test]
    fn levels_are_those_of_our_own_lines() {
        let of = |error, warning, info, verbose| LogLevels { error, warning, info, verbose };
        for (filter, expected) in [
            ("info", of(true, true, true, 0)),
            ("off", of(false, false, false, 0)),
            ("warn", of(true, true, false, 0)),
            ("tidegate=debug,info", of(true, true, true, 1)),
            ("trace", of(true, true, true, 2)),
            ("h2=trace,error", of(true, false, false, 0)),
            ("h2=trace", of(false, false, false, 0)),
            ("info,[infer]=debug", of(true, true, true, 0)),
        ] {
            assert_eq!(levels(filter), expected, "{filter}");
        }
    }

    /// Remembers the levels of the lines that it was given.
    struct Lines(Arc<Mutex<Vec<Level>>>);

    impl<S: tracing::Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }

    #[test]
    fn change_takes_effect_at_once_and_each_kind_is_by_itself() {
        let (control, filter) = LogControl::new(EnvFilter::new("info"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Lines(Arc::clone(&seen)).with_filter(filter));
        let write = || {
            tracing::error!("e");
            tracing::warn!("w");
            tracing::info!("i");
            tracing::debug!("d");
            tracing::debug!(target: "h2", "d");
            tracing::trace!("t");
            std::mem::take(&mut *seen.lock().unwrap())
        };
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(write(), [Level::ERROR, Level::WARN, Level::INFO]);
            let now = control.change(|levels| (levels.verbose, levels.warning) = (1, false));
            assert_eq!(now, LogLevels { error: true, warning: false, info: true, verbose: 1 });
            assert_eq!(write(), [Level::ERROR, Level::INFO, Level::DEBUG]);
            control
                .clone()
                .change(|levels| *levels = LogLevels { error: false, warning: false, info: false, verbose: 0 });
            assert!(write().is_empty());
        });
    }
}
