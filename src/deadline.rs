//! When a timeout is over.

use std::time::Duration;

use crate::sys::time::Instant;

/// No timeout is longer, so that no clock overflows.
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The instant at which a timeout that begins now is over. A timeout of more than ten years ends after ten years.
pub(crate) fn after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(TIMEOUT_MAX)
}
