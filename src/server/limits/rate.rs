//! How fast: token buckets for what one client sends, and for the sessions that all of them open.
//!
//! ```text
//!   event ─► Pace::take ─┬─ Pass ──────► its handler
//!                        ├─ Refuse ────► on_rate_limited
//!                        └─ Disconnect ► on_rate_limited, then the end: "rate limited"
//! ```
//! Every packet that a client sends is charged for its bytes; events, CONNECTs and acknowledgements that nobody awaits are
//! counted too. Bytes that are refused are charged as well: they have been received.
//!
//! A bucket may go below nothing: what it is asked for passes as long as anything is in it. So a message that is larger than
//! the burst passes too, and the next one waits the longer.

use std::time::Duration;

use crate::sys::time::Instant;

/// A rate: so much a second in the long run, and so much at once after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, a second; 0 switches the limit off.
    pub per_second: u32,
    /// At once after a rest, at least 1.
    pub burst: u32,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self { per_second: 0, burst: 1 };

    /// Whether it limits anything.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        self.per_second > 0
    }
}

/// Refusals after which the client is disconnected. The count starts anew when its buckets have been full again.
const BREACHES_MAX: u32 = 100;

/// Tokens that come back with time.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(crate) fn new(now: Instant, rate: Rate) -> Self {
        Self { rate, tokens: rate.burst.into(), filled: now }
    }

    /// Adds what has come back since the last time. `true`: it is full.
    fn refill(&mut self, now: Instant) -> bool {
        let burst = f64::from(self.rate.burst.max(1));
        let gained =
            now.saturating_duration_since(self.filled).as_secs_f64() * f64::from(self.rate.per_second);
        self.filled = now;
        self.tokens = (self.tokens + gained).min(burst);
        self.tokens >= burst
    }

    /// Takes `count` in any case. `false`: there was nothing left before.
    fn charge(&mut self, now: Instant, count: usize) -> bool {
        if !self.rate.is_limit() {
            return true;
        }
        self.refill(now);
        let had_some = self.tokens >= 1.0;
        self.tokens -= count as f64;
        had_some
    }

    /// Takes `count`. `Err`: after so long there would be something again.
    pub(crate) fn take(&mut self, now: Instant, count: usize) -> Result<(), Duration> {
        if !self.rate.is_limit() {
            return Ok(());
        }
        self.refill(now);
        if self.tokens < 1.0 {
            let missing = (1.0 - self.tokens) / f64::from(self.rate.per_second);
            return Err(Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX));
        }
        self.tokens -= count as f64;
        Ok(())
    }
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Refuse,
    /// Refused, and one time too many.
    Disconnect,
}

/// What a packet counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    Connect,
    /// Nothing but its bytes.
    Other,
}

/// How fast one client sends: events, CONNECTs, bytes, and how often it was told to be slower.
#[derive(Debug)]
pub(crate) struct Pace {
    events: Bucket,
    /// As fast as events, but apart from them, so that joining costs no event.
    connects: Bucket,
    bytes: Bucket,
    breaches: u32,
}

impl Pace {
    /// `None`: neither is limited, and no clock need be read.
    pub(crate) fn new(now: Instant, events: Rate, bytes: Rate) -> Option<Self> {
        let limits = events.is_limit() || bytes.is_limit();
        limits.then(|| Self {
            events: Bucket::new(now, events),
            connects: Bucket::new(now, events),
            bytes: Bucket::new(now, bytes),
            breaches: 0,
        })
    }

    /// A packet of this kind, and so many bytes since the last one.
    pub(crate) fn take(&mut self, now: Instant, kind: Kind, bytes: usize) -> Verdict {
        // All of them, not one or the other: each fills up with the time.
        if self.events.refill(now) & self.connects.refill(now) & self.bytes.refill(now) {
            self.breaches = 0;
        }
        let packets = match kind {
            Kind::Event => Some(&mut self.events),
            Kind::Connect => Some(&mut self.connects),
            Kind::Other => None,
        };
        if self.bytes.charge(now, bytes) && packets.is_none_or(|packets| packets.take(now, 1).is_ok()) {
            return Verdict::Pass;
        }
        self.breaches += 1;
        if self.breaches >= BREACHES_MAX { Verdict::Disconnect } else { Verdict::Refuse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    fn pace(start: Instant, events: Rate, bytes: Rate) -> Pace {
        Pace::new(start, events, bytes).expect("a limit")
    }

    fn take(pace: &mut Pace, now: Instant, count: u32) -> Vec<Verdict> {
        (0..count).map(|_| pace.take(now, Kind::Event, 1)).collect()
    }

    #[test]
    fn a_burst_passes_and_then_what_the_rate_gives() {
        let start = Instant::now();
        let mut pace = pace(start, RATE, Rate::NONE);
        assert_eq!(take(&mut pace, start, 4), [Verdict::Pass, Verdict::Pass, Verdict::Pass, Verdict::Refuse]);
        assert_eq!(take(&mut pace, start + Duration::from_millis(50), 1), [Verdict::Refuse]);
        assert_eq!(take(&mut pace, start + Duration::from_millis(150), 2), [Verdict::Pass, Verdict::Refuse]);
    }

    #[test]
    fn bytes_are_taken_on_credit_and_paid_back() {
        let start = Instant::now();
        let mut pace = pace(start, Rate::NONE, Rate { per_second: 100, burst: 50 });
        assert_eq!(
            [pace.take(start, Kind::Event, 250), pace.take(start, Kind::Event, 1)],
            [Verdict::Pass, Verdict::Refuse]
        );
        assert_eq!(pace.take(start + Duration::from_millis(1_990), Kind::Event, 1), Verdict::Refuse);
        // What was refused had come too.
        assert_eq!(pace.take(start + Duration::from_millis(2_020), Kind::Event, 1), Verdict::Refuse);
        assert_eq!(pace.take(start + Duration::from_millis(2_050), Kind::Event, 1), Verdict::Pass);
    }

    #[test]
    fn whatever_counts_as_nothing_else_is_charged_for_its_bytes() {
        let start = Instant::now();
        let mut pace = pace(start, Rate { per_second: 1, burst: 1 }, Rate { per_second: 100, burst: 50 });
        assert!((0..5).all(|_| pace.take(start, Kind::Other, 10) == Verdict::Pass));
        assert_eq!(pace.take(start, Kind::Other, 10), Verdict::Refuse);
        assert_eq!(pace.take(start + Duration::from_secs(1), Kind::Event, 1), Verdict::Pass);
    }

    #[test]
    fn whoever_goes_on_is_disconnected() {
        let start = Instant::now();
        let mut pace = pace(start, RATE, Rate::NONE);
        let verdicts = take(&mut pace, start, RATE.burst + BREACHES_MAX);
        assert_eq!(verdicts.last(), Some(&Verdict::Disconnect));
        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == Verdict::Disconnect).count(), 1);
    }

    #[test]
    fn a_rest_is_a_new_start() {
        let start = Instant::now();
        let mut pace = pace(start, RATE, Rate::NONE);
        take(&mut pace, start, RATE.burst + BREACHES_MAX - 1);
        let verdicts = take(&mut pace, start + Duration::from_secs(1), RATE.burst + BREACHES_MAX - 1);
        assert!(!verdicts.contains(&Verdict::Disconnect));
    }

    #[test]
    fn joining_costs_no_event() {
        let start = Instant::now();
        let mut pace = pace(start, RATE, Rate::NONE);
        assert!((0..3).all(|_| pace.take(start, Kind::Connect, 1) == Verdict::Pass));
        assert_eq!(pace.take(start, Kind::Connect, 1), Verdict::Refuse);
        assert_eq!(pace.take(start, Kind::Event, 1), Verdict::Pass);
    }

    #[test]
    fn zero_is_no_limit() {
        let start = Instant::now();
        assert!(Pace::new(start, Rate::NONE, Rate::NONE).is_none());
        let mut bucket = Bucket::new(start, Rate::NONE);
        assert!((0..10_000).all(|_| bucket.take(start, 1).is_ok()));
    }

    #[test]
    fn an_empty_bucket_says_when_to_come_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, Rate { per_second: 2, burst: 1 });
        assert_eq!(bucket.take(start, 1), Ok(()));
        assert_eq!(bucket.take(start, 1), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(start + Duration::from_millis(500), 1), Ok(()));
    }
}
