//! How a connection's thread waits for its client when the machine is busy.
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

/// The score of the recent yields. One for the whole process, as the next one, because it depends on the machine.
static PREEMPTION_SCORE: AtomicU32 = AtomicU32::new(0);

/// The end of the time in which no thread yields, in microseconds since [`BEGINNING`]. 0: all threads may yield.
static NO_YIELD_UNTIL: AtomicU64 = AtomicU64::new(0);

static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

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
            return stream.recv_into(buffer, None);
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
        let read = stream.recv_into(buffer, None);
        self.quick = now.elapsed() < AWAKE;
        read
    }

    /// Lets other threads run. To be called before a wait that is not [`recv_into`](Self::recv_into).
    pub(crate) fn pause(&mut self) {
        if !self.is_cold() {
            yield_once(Instant::now());
        }
    }

    fn is_cold(&mut self) -> bool {
        let cold = self.waits < WARM;
        self.waits += u8::from(cold);
        cold
    }
}

/// Lets the other threads run once. Returns the time afterwards. `None`: yields are off at present.
fn yield_once(now: Instant) -> Option<Instant> {
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
    // The thread that moves the end is the one that tries.
    now >= until
        && NO_YIELD_UNTIL
            .compare_exchange(until, now + NO_YIELD_TIME.as_micros() as u64, Relaxed, Relaxed)
            .is_ok()
}

/// Updates the score. There is no lock: a lost update does no harm.
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
