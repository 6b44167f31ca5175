//! The delay before the next attempt: exponential, bounded, and randomised.
//!
//! Uses the options. It must not wait, or look at the clock.

use std::time::Duration;

use super::config::Config;

/// The delay before attempt `attempt` (0 for the first retry), as the options say.
pub(super) fn next_delay(config: &Config, attempt: u32) -> Duration {
    delay(config.delay, config.delay_max, config.randomization, attempt, random())
}

/// The delay before attempt `attempt` (0 for the first retry), for a random number from 0 to 1.
///
/// The official client randomises and then clamps. From the fifth attempt on, all its clients wait exactly the
/// maximum, and reconnect to a restarted server at the same moments. Here the clamp comes first: a delay is
/// `min(delay × 2^attempt, max)`, times a number between `1 - factor` and `1 + factor`.
fn delay(base: Duration, max: Duration, factor: f64, attempt: u32, random: f64) -> Duration {
    let clamped = base.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(max);
    let spread = clamped.as_secs_f64() * (1.0 + factor * (2.0 * random - 1.0));
    Duration::try_from_secs_f64(spread).unwrap_or(clamped)
}

/// A random number from 0 to 1 from the operating system, or 0.5 when it has none.
fn random() -> f64 {
    crate::random::u32().map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const BASE: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(5);

    /// `Backoff.duration` of socket.io-client 4.8.
    fn official(attempt: u32, random: f64) -> f64 {
        let mut ms = 1_000.0 * 2_f64.powi(attempt.try_into().unwrap());
        let deviation = (random * 0.5 * ms).floor();
        ms = if ((random * 10.0).floor() as u32) & 1 == 0 { ms - deviation } else { ms + deviation };
        ms.min(5_000.0)
    }

    /// The share of a crowd of a thousand that falls into its fullest tenth of a second.
    fn fullest(delays: impl Iterator<Item = f64>) -> f64 {
        let mut slots = std::collections::HashMap::new();
        for ms in delays {
            *slots.entry((ms / 100.0) as u64).or_insert(0) += 1;
        }
        f64::from(*slots.values().max().unwrap()) / 1_000.0
    }

    fn crowd() -> impl Iterator<Item = f64> {
        (0..1_000).map(|client| (f64::from(client) + 0.5) / 1_000.0)
    }

    #[rstest]
    #[case(0, 0.5, 1.0)]
    #[case(0, 0.0, 0.5)]
    #[case(0, 1.0, 1.5)]
    #[case(1, 0.5, 2.0)]
    #[case(2, 0.5, 4.0)]
    #[case(3, 0.5, 5.0)]
    #[case(9, 0.0, 2.5)]
    #[case(9, 1.0, 7.5)]
    #[case(31, 0.5, 5.0)]
    #[case(32, 0.5, 5.0)]
    #[case(u32::MAX, 0.5, 5.0)]
    fn values(#[case] attempt: u32, #[case] random: f64, #[case] seconds: f64) {
        assert_eq!(delay(BASE, MAX, 0.5, attempt, random), Duration::from_secs_f64(seconds));
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(delay(Duration::MAX, Duration::MAX, 0.0, 3, 0.5), Duration::MAX);
        assert_eq!(delay(Duration::ZERO, MAX, 1.0, 40, 0.9), Duration::ZERO);
    }

    #[test]
    fn a_crowd_keeps_spreading_where_the_official_one_falls_into_step() {
        for attempt in 4..20 {
            let theirs = fullest(crowd().map(|random| official(attempt, random)));
            let ours =
                fullest(crowd().map(|random| delay(BASE, MAX, 0.5, attempt, random).as_secs_f64() * 1e3));
            assert!(
                theirs > 0.9,
                "attempt {attempt}: {theirs} of the official crowd in one tenth of a second"
            );
            assert!(ours < 0.03, "attempt {attempt}: {ours} of our crowd in one tenth of a second");
        }
    }

    #[test]
    fn randomness_stays_between_zero_and_one() {
        assert!((0..1_000).map(|_| random()).all(|number| (0.0..=1.0).contains(&number)));
    }
}
