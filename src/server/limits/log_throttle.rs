//! A limit for log lines that one fault could repeat a million times.
//!
//! It reads the clock and nothing else.

use std::time::Duration;

use crate::sys::time::Instant;

/// A line is repeated only when the fault has not occurred for so long.
const QUIET_TIME: Duration = Duration::from_secs(60);

/// Allows a line the first time, and again after [`QUIET_TIME`] without a call.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Option<Instant>);

impl LogThrottle {
    /// Whether to log the line now.
    pub(crate) fn allows(&mut self) -> bool {
        let now = Instant::now();
        let last = self.0.replace(now);
        last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logged_once() {
        let mut throttle = LogThrottle::default();
        assert_eq!([throttle.allows(), throttle.allows(), throttle.allows()], [true, false, false]);
    }
}
