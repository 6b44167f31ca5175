//! How the thread that a client has for itself waits for it when the machine is busy.
//!
//! A thread that blocks must be woken. Under load, waking it costs more than the message itself. So before a thread
//! blocks, it lets the other threads run once (`sched_yield`). With many active clients the next message has often
//! come by then, and no wake is needed. If the last wait was short, the thread polls without blocking, for [`AWAKE`]
//! at most.
//!
//! ```text
//!   would wait ─► yield ─┬─ was quick last time: read, yield, read … for AWAKE ─► block
//!                        └─ was not: block
//! ```
//! **Other programs.** A yield to a thread of another program that computes costs a whole time slice, which is
//! milliseconds. So each yield is timed. When too many take longer than [`PREEMPTED`], no thread yields or polls for
//! [`NO_YIELD_TIME`]. Then one thread tries again for all. A yield to the threads of this server takes some hundred
//! microseconds under load, because each of them works for microseconds.
//!
//! It uses a stream and the clock.
#![allow(clippy::disallowed_types, reason = "it measures the real scheduler")]

use std::{
    io,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::server::net::stream::Stream;
use crate::wide::AtomicU64;

/// How long a thread polls for a client that was quick. To block and to be woken costs about as much.
const AWAKE: Duration = Duration::from_micros(50);

/// The first waits of a connection, such as for the end of a handshake, block at once.
const WARM: u8 = 4;

/// A yield that took longer counts as preempted: another program has computed meanwhile.
const PREEMPTED: Duration = Duration::from_millis(1);

/// So many short yields make up for a preempted one. When only this server loads both cores of a small machine, one
/// yield in seven is preempted. When another program computes too, every other one is.
const PREEMPTION_WEIGHT: u32 = 4;

/// The score at which no thread yields any more. It allows a few rounds in which the yields of all threads are
/// preempted at once.
const SCORE_MAX: u32 = 1_024;

/// How long no thread yields then.
const NO_YIELD_TIME: Duration = Duration::from_millis(500);

/// One for the whole process, because it depends on the machine.
static YIELDS: Yields = Yields::new();

static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The recent yields of all threads, and whether they still pay. Every time is in microseconds since [`BEGINNING`].
struct Yields {
    /// Up to [`SCORE_MAX`].
    score: AtomicU32,
    /// The end of the time in which no thread yields. 0: all threads may yield.
    off_until: AtomicU64,
}

/// What a connection knows of its last waits.
#[derive(Debug, Default)]
pub(crate) struct AdaptiveWait {
    /// Waits so far, up to [`WARM`].
    waits: u8,
    quick: bool,
}

impl AdaptiveWait {
    /// As [`Stream::recv_into`] without a deadline.
    pub(crate) fn recv_into(&mut self, stream: &Stream, buffer: &mut Vec<u8>) -> io::Result<()> {
        if self.is_cold() {
            return stream.recv_into(buffer);
        }
        let begun = Instant::now();
        let mut now = begun;
        while let Some(back) = yield_once(now) {
            now = back;
            if !self.quick || now - begun > AWAKE {
                break;
            }
            match stream.recv_now(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
        let read = stream.recv_into(buffer);
        self.quick = now.elapsed() < AWAKE;
        read
    }

    fn is_cold(&mut self) -> bool {
        let cold = self.waits < WARM;
        self.waits += u8::from(cold);
        cold
    }
}

/// Lets the other threads run once. Returns the time afterwards. `None`: yields are off at present.
fn yield_once(now: Instant) -> Option<Instant> {
    if !YIELDS.may_yield(micros(now)) {
        return None;
    }
    thread::yield_now();
    let back = Instant::now();
    YIELDS.yielded(micros(back), back - now);
    Some(back)
}

fn micros(now: Instant) -> u64 {
    now.saturating_duration_since(*BEGINNING).as_micros() as u64
}

impl Yields {
    const fn new() -> Self {
        Self { score: AtomicU32::new(0), off_until: AtomicU64::new(0) }
    }

    fn may_yield(&self, now: u64) -> bool {
        let until = self.off_until.load(Relaxed);
        if until == 0 {
            return true;
        }
        // The thread that moves the end is the one that tries.
        now >= until
            && self
                .off_until
                .compare_exchange(until, now + NO_YIELD_TIME.as_micros() as u64, Relaxed, Relaxed)
                .is_ok()
    }

    /// Updates the score. There is no lock: a lost update does no harm.
    fn yielded(&self, now: u64, took: Duration) {
        let lately = self.score.load(Relaxed);
        if took > PREEMPTED {
            self.score.store((lately + PREEMPTION_WEIGHT).min(SCORE_MAX), Relaxed);
            if lately == SCORE_MAX {
                self.off_until.store(now + NO_YIELD_TIME.as_micros() as u64, Relaxed);
            }
            return;
        }
        if lately > 0 {
            self.score.store(lately - 1, Relaxed);
        }
        if self.off_until.load(Relaxed) != 0 {
            self.off_until.store(0, Relaxed);
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    const SHORT: Duration = PREEMPTED;
    const LONG: Duration = Duration::from_micros(1_001);
    /// [`NO_YIELD_TIME`].
    const PAUSE: u64 = 500_000;

    /// Yields that a thread finds switched off at 1 s.
    fn off() -> Yields {
        let yields = Yields::new();
        for _ in 0..257 {
            yields.yielded(1_000_000, LONG);
        }
        yields
    }

    #[test]
    fn many_long_yields_switch_them_off() {
        let yields = Yields::new();
        // 256 times 4 is the largest score.
        for now in 0..256 {
            assert!(yields.may_yield(now));
            yields.yielded(now, LONG);
        }
        assert!(yields.may_yield(256));
        yields.yielded(257, LONG);
        assert!(!yields.may_yield(257));
        assert!(!yields.may_yield(256 + PAUSE));
        assert!(yields.may_yield(257 + PAUSE));
    }

    #[test]
    fn short_yields_make_up_for_long_ones() {
        let fills = |short: u64| {
            let yields = Yields::new();
            (0..10_000).any(|now| {
                yields.yielded(now, LONG);
                let is_full = yields.score.load(Relaxed) == SCORE_MAX;
                (0..short).for_each(|_| yields.yielded(now, SHORT));
                is_full
            })
        };
        // One long yield in seven, one in five, one in four, every other one.
        assert_eq!([6, 4, 3, 1].map(fills), [false, false, true, true]);
    }

    #[test]
    fn one_thread_tries_again_for_all() {
        let yields = off();
        let now = 1_000_000 + PAUSE;
        assert!(!yields.may_yield(now - 1));
        assert!(yields.may_yield(now));
        assert!(!yields.may_yield(now), "another thread tries already");
        assert!(!yields.may_yield(now + PAUSE - 1));
        assert!(yields.may_yield(now + PAUSE), "the thread that tried has never come back");
    }

    #[test]
    fn a_try_that_is_short_switches_them_on() {
        let yields = off();
        let now = 1_000_000 + PAUSE;
        assert!(yields.may_yield(now));
        yields.yielded(now + 10, SHORT);
        assert!(yields.may_yield(now + 10));
        // The score is still near its maximum, so two long yields suffice.
        yields.yielded(now + 20, LONG);
        assert!(yields.may_yield(now + 20));
        yields.yielded(now + 30, LONG);
        assert!(!yields.may_yield(now + 30));
    }

    #[test]
    fn a_try_that_is_long_keeps_them_off() {
        let yields = off();
        let now = 1_000_000 + PAUSE;
        assert!(yields.may_yield(now));
        yields.yielded(now + 10, LONG);
        assert!(!yields.may_yield(now + 9 + PAUSE));
        assert!(yields.may_yield(now + 10 + PAUSE));
    }

    #[test]
    fn the_first_four_waits_block_at_once() {
        let mut wait = AdaptiveWait::default();
        let cold: Vec<bool> = (0..300).map(|_| wait.is_cold()).collect();
        assert_eq!(cold.iter().take_while(|cold| **cold).count(), 4);
        assert_eq!(cold.iter().filter(|cold| **cold).count(), 4);
    }
}
