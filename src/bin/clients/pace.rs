//! Limits sending to the rate of the chat.

use std::time::{Duration, Instant};

use tinysio::chat::Rate;

use super::stop::Stop;

/// Keeps sending below the rate that the chat allows.
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

    /// Waits until one more event may be sent. The rate is a tenth below the limit, because the clocks of
    /// client and server differ.
    pub(crate) fn wait(&mut self, stop: &Stop) {
        self.sent += 1;
        let late = self.sent.saturating_sub(self.rate.burst / 10 * 9);
        let due = Duration::from_secs_f64(f64::from(late) / (f64::from(self.rate.per_second) * 0.9));
        if let Some(early) = due.checked_sub(self.begun.elapsed()) {
            stop.pause(early);
        }
    }
}
