//! Shared by all programs: log, signals, exit codes, colours.

pub(crate) mod colour;
pub(crate) mod exit;
pub(crate) mod log_queue;
pub(crate) mod logging;
pub(crate) mod signals;
pub(crate) mod visible;
