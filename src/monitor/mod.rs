//! The drift monitor.
