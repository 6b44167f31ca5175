//! What a server takes, and what it refuses.

pub(crate) mod admission;
pub(crate) mod budget;
pub(crate) mod log_throttle;
pub(crate) mod rate;
pub(crate) mod refusals;
