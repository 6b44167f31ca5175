//! Rates: token buckets for the packets of one client, and for the sessions that all clients open.
//!
//! ```text
//!   event ─► Pace::take ─┬─ Pass ──────► its handler
//!                        ├─ Refuse ────► on_rate_limited
//!                        └─ Disconnect ► on_rate_limited, then the end: "rate limited"
//! ```
//! Every packet of a client is charged for its bytes. Events, CONNECTs and acknowledgements that nothing awaits are
//! counted too. Refused bytes are charged as well, because they were received.
//!
//! A bucket may be overdrawn: a packet passes if there is at least one token. So a message that is larger than the
//! burst passes too, and the next one waits longer. Plain types: the time is an argument.

use std::time::Duration;

use crate::sys::time::Instant;

/// A rate: a number per second in the long run, and a number at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Per second, in the long run. 0 switches the limit off.
    pub per_second: u32,
    /// At once after a pause. At least 1.
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

/// Refusals after which the client is disconnected. The count starts again when all its buckets are full.
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

    /// Adds the tokens of the time since the last call. `true`: the bucket is full.
    fn refill(&mut self, now: Instant) -> bool {
        let burst = f64::from(self.rate.burst.max(1));
        let gained =
            now.saturating_duration_since(self.filled).as_secs_f64() * f64::from(self.rate.per_second);
        self.filled = now;
        self.tokens = (self.tokens + gained).min(burst);
        self.tokens >= burst
    }

    /// Takes `count` tokens in any case. `false`: there was none before.
    fn charge(&mut self, now: Instant, count: usize) -> bool {
        if !self.rate.is_limit() {
            return true;
        }
        self.refill(now);
        let had_some = self.tokens >= 1.0;
        self.tokens -= count as f64;
        had_some
    }

    /// Takes `count` tokens. `Err`: there is none before this time has passed.
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

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Refuse,
    /// Refused, and the client has been refused too often.
    Disconnect,
}

/// What a packet counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    Connect,
    /// Only its bytes are counted.
    Other,
}

/// The rates of one client: events, CONNECTs, bytes, and the number of refusals.
#[derive(Debug)]
pub(crate) struct Pace {
    events: Bucket,
    /// The same rate as for events, but counted apart, so that a CONNECT costs no event.
    connects: Bucket,
    bytes: Bucket,
    breaches: u32,
}

impl Pace {
    /// `None`: there is no limit, and no clock need be read.
    pub(crate) fn new(now: Instant, events: Rate, bytes: Rate) -> Option<Self> {
        let limits = events.is_limit() || bytes.is_limit();
        limits.then(|| Self {
            events: Bucket::new(now, events),
            connects: Bucket::new(now, events),
            bytes: Bucket::new(now, bytes),
            breaches: 0,
        })
    }

    /// A packet of this kind has come, with this number of bytes since the last one.
    pub(crate) fn take(&mut self, now: Instant, kind: Kind, bytes: usize) -> Verdict {
        // `&`, not `&&`: each must be refilled.
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
        // The refused bytes were received too.
        assert_eq!(pace.take(start + Duration::from_millis(2_020), Kind::Event, 1), Verdict::Refuse);
        assert_eq!(pace.take(start + Duration::from_millis(2_050), Kind::Event, 1), Verdict::Pass);
    }

    #[test]
    fn other_packets_are_charged_for_their_bytes_only() {
        let start = Instant::now();
        let mut pace = pace(start, Rate { per_second: 1, burst: 1 }, Rate { per_second: 100, burst: 50 });
        assert!((0..5).all(|_| pace.take(start, Kind::Other, 10) == Verdict::Pass));
        assert_eq!(pace.take(start, Kind::Other, 10), Verdict::Refuse);
        assert_eq!(pace.take(start + Duration::from_secs(1), Kind::Event, 1), Verdict::Pass);
    }

    #[test]
    fn a_client_that_goes_on_is_disconnected() {
        let start = Instant::now();
        let mut pace = pace(start, RATE, Rate::NONE);
        let verdicts = take(&mut pace, start, RATE.burst + BREACHES_MAX);
        assert_eq!(verdicts.last(), Some(&Verdict::Disconnect));
        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == Verdict::Disconnect).count(), 1);
    }

    #[test]
    fn a_pause_resets_the_refusals() {
        let start = Instant::now();
        let mut pace = pace(start, RATE, Rate::NONE);
        take(&mut pace, start, RATE.burst + BREACHES_MAX - 1);
        let verdicts = take(&mut pace, start + Duration::from_secs(1), RATE.burst + BREACHES_MAX - 1);
        assert!(!verdicts.contains(&Verdict::Disconnect));
    }

    #[test]
    fn a_connect_costs_no_event() {
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
