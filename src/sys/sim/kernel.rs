//! Who waits, and the clock.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use shuttle::{
    rand::{Rng, thread_rng},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread::Thread,
};

/// What the kernel does to the server beyond being slow: each in so many of 256 calls.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Calls are interrupted.
    pub(crate) interrupted: u8,
    /// The kernel is full, or empty, though it need not be.
    pub(crate) again: u8,
    /// Only a part is taken, or given.
    pub(crate) short: u8,
    /// A send fails for want of buffers.
    pub(crate) no_buffers: u8,
    /// A stream is reset by its peer.
    pub(crate) reset: u8,
    /// An accept fails: no descriptor, no memory, or the peer is gone again.
    pub(crate) accept: u8,
    /// A thread does not start: there is no memory for its stack, or there are too many.
    pub(crate) thread: u8,
}

#[derive(Default)]
struct Kernel {
    now: Duration,
    /// Threads that live, and those of them that wait.
    threads: usize,
    waiting: usize,
    timers: BTreeMap<(Duration, u64), Arc<Ticket>>,
    serial: u64,
    haste: Duration,
    faults: Faults,
    calls: u64,
}

/// Calls of one execution; more is a thread that spins.
const CALLS_MAX: u64 = 200_000;

std::thread_local! {
    /// Of the execution that runs on this thread of the system, coroutines and all.
    static KERNEL: RefCell<Kernel> = RefCell::default();
}

fn with<T>(look: impl FnOnce(&mut Kernel) -> T) -> T {
    KERNEL.with_borrow_mut(look)
}

/// A new execution: the calling thread is alone, and it is noon.
pub(crate) fn begin() {
    with(|kernel| {
        *kernel = Kernel { now: Duration::from_secs(1 << 20), threads: 1, ..Kernel::default() };
    });
}

/// How far the clock may go on while somebody could run.
pub(crate) fn set_haste(haste: Duration) {
    with(|kernel| kernel.haste = haste);
}

pub(crate) fn set_faults(faults: Faults) {
    with(|kernel| kernel.faults = faults);
}

/// Whether a fault of this frequency happens now.
pub(super) fn happens(frequency: impl FnOnce(&Faults) -> u8) -> bool {
    let frequency = with(|kernel| frequency(&kernel.faults));
    frequency > 0 && thread_rng().gen_range(0..256) < usize::from(frequency)
}

/// One of `1..=most`, often the most.
pub(super) fn some_of(most: usize) -> usize {
    if most > 1 && happens(|faults| faults.short) { thread_rng().gen_range(1..=most) } else { most }
}

pub(super) fn now() -> Duration {
    with(|kernel| kernel.now)
}

/// The threads that live, the calling one included.
pub(crate) fn threads() -> usize {
    with(|kernel| kernel.threads)
}

pub(super) fn thread_begins() {
    with(|kernel| kernel.threads += 1);
}

pub(super) fn thread_ends() {
    let due = with(|kernel| {
        kernel.threads -= 1;
        kernel.due(false)
    });
    unpark_all(due);
}

fn unpark_all(tickets: Vec<Arc<Ticket>>) {
    for ticket in tickets {
        ticket.thread.unpark();
    }
}

/// Another thread may run here.
pub(super) fn point() {
    let calls = with(|kernel| {
        kernel.calls += 1;
        kernel.calls
    });
    assert!(calls != CALLS_MAX, "a thread spins, and it may be this one");
    AtomicBool::new(false).load(SeqCst);
}

/// One wait of one thread.
#[derive(Debug)]
pub(super) struct Ticket {
    thread: Thread,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not waiting yet.
    New,
    Waiting,
    Woken,
    TimedOut,
}

impl Ticket {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { thread: shuttle::thread::current(), state: Mutex::new(State::New) })
    }

    fn state(&self) -> State {
        *self.state.lock().expect("nobody panics here")
    }

    fn set(&self, state: State) {
        *self.state.lock().expect("nobody panics here") = state;
    }

    fn is_open(&self) -> bool {
        matches!(self.state(), State::New | State::Waiting)
    }

    /// Waits until somebody wakes it (`true`), or the clock has come so far (`false`).
    pub(super) fn wait(self: &Arc<Self>, deadline: Option<Duration>) -> bool {
        if self.state() == State::New {
            self.set(State::Waiting);
            with(|kernel| {
                kernel.waiting += 1;
                if let Some(deadline) = deadline {
                    kernel.serial += 1;
                    kernel.timers.insert((deadline, kernel.serial), Arc::clone(self));
                }
            });
            let hasty = thread_rng().gen_bool(0.125);
            unpark_all(with(|kernel| kernel.due(hasty)));
        }
        while self.is_open() {
            shuttle::thread::park();
        }
        self.state() == State::Woken
    }

    /// `false`: it waits no more.
    pub(super) fn wake(self: &Arc<Self>) -> bool {
        match self.state() {
            State::New => self.set(State::Woken),
            State::Waiting => {
                self.set(State::Woken);
                with(|kernel| {
                    kernel.waiting -= 1;
                    kernel.timers.retain(|_, ticket| !Arc::ptr_eq(ticket, self));
                });
                self.thread.unpark();
            }
            State::Woken | State::TimedOut => return false,
        }
        true
    }
}

impl Kernel {
    /// Those whose time comes next, if nobody else can do anything; in haste also otherwise, if it comes soon.
    fn due(&mut self, hasty: bool) -> Vec<Arc<Ticket>> {
        let soon = |(&(at, _), _)| at <= self.now + self.haste;
        let rings =
            self.waiting == self.threads || (hasty && self.timers.first_key_value().is_some_and(soon));
        if rings { self.ring() } else { Vec::new() }
    }

    /// Goes to the next deadline.
    fn ring(&mut self) -> Vec<Arc<Ticket>> {
        let Some((&(next, _), _)) = self.timers.first_key_value() else { return Vec::new() };
        self.now = self.now.max(next);
        let later = self.timers.split_off(&(self.now, u64::MAX));
        let due: Vec<Arc<Ticket>> = std::mem::replace(&mut self.timers, later).into_values().collect();
        for ticket in &due {
            ticket.set(State::TimedOut);
            self.waiting -= 1;
        }
        due
    }
}

/// Those who wait for one thing.
#[derive(Debug, Default)]
pub(super) struct WaitSet(Mutex<Vec<Arc<Ticket>>>);

impl WaitSet {
    pub(super) fn add(&self, ticket: &Arc<Ticket>) {
        let mut tickets = self.0.lock().expect("nobody panics here");
        tickets.retain(|ticket| ticket.is_open());
        tickets.push(Arc::clone(ticket));
    }

    /// Waits for this alone.
    pub(super) fn wait(&self, deadline: Option<Duration>) -> bool {
        let ticket = Ticket::new();
        self.add(&ticket);
        ticket.wait(deadline)
    }

    pub(super) fn wake_all(&self) {
        let tickets = std::mem::take(&mut *self.0.lock().expect("nobody panics here"));
        for ticket in tickets {
            ticket.wake();
        }
    }

    pub(super) fn wake_one(&self) {
        loop {
            let open = {
                let mut tickets = self.0.lock().expect("nobody panics here");
                tickets.retain(|ticket| ticket.is_open());
                if tickets.is_empty() {
                    return;
                }
                let which = if tickets.len() > 1 { thread_rng().gen_range(0..tickets.len()) } else { 0 };
                tickets.swap_remove(which)
            };
            if open.wake() {
                return;
            }
        }
    }
}

/// The simulated clock, with the verbs of `std`'s.
pub(crate) mod time {
    use std::{
        ops::{Add, Sub},
        time::Duration,
    };

    /// A moment of the simulated clock.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Instant(Duration);

    #[allow(missing_docs, reason = "as of std's")]
    impl Instant {
        #[must_use]
        pub fn now() -> Self {
            Self(super::now())
        }
        #[must_use]
        pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
        #[must_use]
        pub fn elapsed(&self) -> Duration {
            Self::now().saturating_duration_since(*self)
        }
        #[must_use]
        pub fn checked_sub(&self, duration: Duration) -> Option<Self> {
            self.0.checked_sub(duration).map(Self)
        }
        pub(crate) fn since_boot(self) -> Duration {
            self.0
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;
        fn add(self, duration: Duration) -> Self {
            Self(self.0 + duration)
        }
    }
    impl Sub<Duration> for Instant {
        type Output = Self;
        fn sub(self, duration: Duration) -> Self {
            Self(self.0 - duration)
        }
    }
}
