//! Sending no faster than the chat allows.

use std::time::{Duration, Instant};

use tinysio::chat::Rate;

use super::stop::Stop;

/// Keeps what is sent under the rate that the chat allows its clients.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Rate,
    begun: Instant,
    sent: u32,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, begun: Instant::now(), sent: 0 }
    }

    /// Waits until one more may be sent. A tenth below the limits, because the server's clock is not ours.
    pub(crate) fn wait(&mut self, stop: &Stop) {
        self.sent += 1;
        let late = self.sent.saturating_sub(self.rate.burst / 10 * 9);
        let due = Duration::from_secs_f64(f64::from(late) / (f64::from(self.rate.per_second) * 0.9));
        if let Some(early) = due.checked_sub(self.begun.elapsed()) {
            stop.pause(early);
        }
    }
}
