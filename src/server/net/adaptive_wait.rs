//! How a connection's thread waits for its client when the machine is busy.
//!
//! A thread that blocks must be woken, and under load that costs its waker more than the message itself. So before it blocks it
//! lets the others run once (`sched_yield`): where many clients talk, the next message has often come by then, and nobody
//! has to wake anybody. And a client that answers within microseconds is waited for awake, for [`AWAKE`] at most.
//!
//! ```text
//!   would wait ─► yield ─┬─ was quick last time: look, yield, look … for AWAKE ─► block
//!                        └─ was not: block
//! ```
//! **When others compute.** To a thread of another program that computes, a yield gives away a whole slice, milliseconds. So
//! each is timed, and when too many take longer than [`PREEMPTED`], no thread yields or waits awake for [`NO_YIELD_TIME`]; then one of them
//! tries again for all. Among our own threads, of which each works for microseconds, a yield takes some hundred microseconds
//! under load.

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

/// How long a client that was quick is waited for awake: about what it costs to fall asleep and to be woken.
const AWAKE: Duration = Duration::from_micros(50);

/// The first waits of a connection, for the end of a handshake and the like, are plain ones.
const WARM: u8 = 4;

/// A yield that took longer went to a thread that computes, or to one that should have been ours.
const PREEMPTED: Duration = Duration::from_millis(1);

/// So many good yields make up for a stolen one. A load of our own making, on both cores of a small machine, steals one in seven; a
/// program that computes beside us, every other.
const PREEMPTION_WEIGHT: u32 = 4;

/// What is borne before nobody yields: some rounds in which all our threads met with a thief at once.
const SCORE_MAX: u32 = 1_024;

/// How long nobody yields then.
const NO_YIELD_TIME: Duration = Duration::from_millis(500);

/// What stolen yields have cost lately. Of the process, like the next one: it is a fact about the machine.
static PREEMPTION_SCORE: AtomicU32 = AtomicU32::new(0);

/// The end of the time in which nobody yields, in microseconds since [`BEGINNING`]; 0: everybody may.
static NO_YIELD_UNTIL: AtomicU64 = AtomicU64::new(0);

static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What a connection remembers of its last wait.
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
            return stream.recv_into(buffer, None);
        }
        let begun = Instant::now();
        let mut now = begun;
        while let Some(back) = make_way(now) {
            now = back;
            if !self.quick || now - begun > AWAKE {
                break;
            }
            match stream.recv_now(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
        let read = stream.recv_into(buffer, None);
        self.quick = now.elapsed() < AWAKE;
        read
    }

    /// To be called before any other wait.
    pub(crate) fn pause(&mut self) {
        if !self.is_cold() {
            make_way(Instant::now());
        }
    }

    fn is_cold(&mut self) -> bool {
        let cold = self.waits < WARM;
        self.waits += u8::from(cold);
        cold
    }
}

/// Lets the other threads run once; the time afterwards. `None`: better not.
fn make_way(now: Instant) -> Option<Instant> {
    if !may_yield(now) {
        return None;
    }
    thread::yield_now();
    let back = Instant::now();
    yielded(back, back - now);
    Some(back)
}

fn micros(now: Instant) -> u64 {
    now.saturating_duration_since(*BEGINNING).as_micros() as u64
}

fn may_yield(now: Instant) -> bool {
    let until = NO_YIELD_UNTIL.load(Relaxed);
    if until == 0 {
        return true;
    }
    let now = micros(now);
    // Whoever moves the end on is the one who tries.
    now >= until
        && NO_YIELD_UNTIL
            .compare_exchange(until, now + NO_YIELD_TIME.as_micros() as u64, Relaxed, Relaxed)
            .is_ok()
}

/// Keeps the account. The threads do so without a lock; that they may miss each other's entries does not matter.
fn yielded(now: Instant, took: Duration) {
    let lately = PREEMPTION_SCORE.load(Relaxed);
    if took > PREEMPTED {
        PREEMPTION_SCORE.store((lately + PREEMPTION_WEIGHT).min(SCORE_MAX), Relaxed);
        if lately == SCORE_MAX {
            NO_YIELD_UNTIL.store(micros(now) + NO_YIELD_TIME.as_micros() as u64, Relaxed);
        }
        return;
    }
    if lately > 0 {
        PREEMPTION_SCORE.store(lately - 1, Relaxed);
    }
    if NO_YIELD_UNTIL.load(Relaxed) != 0 {
        NO_YIELD_UNTIL.store(0, Relaxed);
    }
}
