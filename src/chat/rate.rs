//! How fast one client may send: a token bucket, and how often it may be empty.

use std::time::Instant;

use super::Rate;

/// Refused events after which the client is disconnected. The count starts anew when the bucket has been full again.
const BREACHES_MAX: u32 = 100;

/// One client's bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Instant,
    breaches: u32,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Refuse,
    /// Refused, and one time too many.
    Disconnect,
}

impl Bucket {
    pub(super) fn new(now: Instant, rate: &Rate) -> Self {
        Self { tokens: rate.burst.into(), filled: now, breaches: 0 }
    }

    pub(super) fn take(&mut self, now: Instant, rate: &Rate) -> Verdict {
        if rate.per_second == 0 {
            return Verdict::Pass;
        }
        let burst = f64::from(rate.burst.max(1));
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * f64::from(rate.per_second);
        self.filled = now;
        self.tokens = (self.tokens + gained).min(burst);
        if self.tokens >= burst {
            self.breaches = 0;
        }
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Verdict::Pass;
        }
        self.breaches += 1;
        if self.breaches >= BREACHES_MAX { Verdict::Disconnect } else { Verdict::Refuse }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    fn take(bucket: &mut Bucket, now: Instant, count: u32) -> Vec<Verdict> {
        (0..count).map(|_| bucket.take(now, &RATE)).collect()
    }

    #[test]
    fn a_burst_passes_and_then_what_the_rate_gives() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, &RATE);
        assert_eq!(
            take(&mut bucket, start, 4),
            [Verdict::Pass, Verdict::Pass, Verdict::Pass, Verdict::Refuse]
        );
        assert_eq!(take(&mut bucket, start + Duration::from_millis(50), 1), [Verdict::Refuse]);
        assert_eq!(
            take(&mut bucket, start + Duration::from_millis(150), 2),
            [Verdict::Pass, Verdict::Refuse]
        );
    }

    #[test]
    fn whoever_goes_on_is_disconnected() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, &RATE);
        let verdicts = take(&mut bucket, start, RATE.burst + BREACHES_MAX);
        assert_eq!(verdicts.last(), Some(&Verdict::Disconnect));
        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == Verdict::Disconnect).count(), 1);
    }

    #[test]
    fn a_rest_is_a_new_start() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, &RATE);
        take(&mut bucket, start, RATE.burst + BREACHES_MAX - 1);
        let rested = start + Duration::from_secs(1);
        let verdicts = take(&mut bucket, rested, RATE.burst + BREACHES_MAX - 1);
        assert!(!verdicts.contains(&Verdict::Disconnect));
    }

    #[test]
    fn zero_is_no_limit() {
        let start = Instant::now();
        let none = Rate { per_second: 0, burst: 1 };
        let mut bucket = Bucket::new(start, &none);
        assert!((0..10_000).all(|_| bucket.take(start, &none) == Verdict::Pass));
    }
}
