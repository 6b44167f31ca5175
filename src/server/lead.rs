//! The lead: one worker thread waits for all connections of a group and serves those that are ready (the pattern
//! Leader/Followers).
//!
//! ```text
//!   leader: wait ─► begin_work ─► packets, handlers ─► end_work ─► wait …
//!                        │
//!                        ├─ before_wait: the leader is about to block ─────┐
//!                        └─ watchdog: it has worked for a whole tick ──────┴─► a successor takes the lead.
//!                           The thread keeps the connection that it serves, and has no lead afterwards.
//! ```
//! The **term** is a number that grows: even while the leader waits, odd while it serves a connection. A successor
//! takes the lead by one compare-and-swap of an odd term, so it takes it from a thread that still works and from no
//! other.
//!
//! It owns the term and the watchdog. It uses `sys` and `guard`, and knows no connections: what a successor does is
//! given to [`Lead::set_successor`]. It never blocks but in the watchdog's own thread.

use std::{cell::RefCell, fmt, io, sync::Arc, time::Duration};

use crate::server::guard::{self, Records};
use crate::sys::{
    sync::{
        Condvar, Mutex, OnceLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle},
    thread_local,
};

/// A leader that serves one connection for this long, or for up to twice this long, loses the lead.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// After so many ticks without work the watchdog sleeps until there is work again.
const QUIET_TICKS: u32 = 4;

/// Starts a thread that calls [`Lead::take`] with this term.
type StartSuccessor = Box<dyn Fn(u64) -> io::Result<()> + Send + Sync>;

/// The lead over one group of connections. Shared by the worker threads and the watchdog.
pub(crate) struct Lead {
    term: AtomicU64,
    /// The term that a successor was started for.
    succession: AtomicU64,
    start_successor: OnceLock<StartSuccessor>,
    watchdog: Arc<Watchdog>,
}

/// Sees to it that no leader works for long. One for all leads of a server.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// It ticks.
    watches: AtomicBool,
    /// There is work to watch.
    awake: Mutex<bool>,
    changed: Condvar,
    stopped: AtomicBool,
}

/// What a thread knows of its lead.
struct Leader {
    lead: Arc<Lead>,
    /// The term in which it waits. It works in the next one.
    term: u64,
    works: bool,
}

thread_local! {
    /// `None`: this thread does not lead. A leader that has lost the lead learns of it in [`end_work`].
    static LEADER: RefCell<Option<Leader>> = const { RefCell::new(None) };
}

/// This thread begins to work, if it leads: it handles what may call user code, and the watchdog looks how long it
/// takes.
pub(crate) fn begin_work() {
    LEADER.with_borrow_mut(|leader| {
        if let Some(leader) = leader {
            leader.begin_work();
        }
    });
}

/// This thread may be about to wait. If it leads, another thread takes the lead.
pub(crate) fn before_wait() {
    // If there is no successor, the watchdog tries again.
    let _ = hand_over();
}

/// As [`before_wait`], before a wait without an end. `false`: this thread must stay the leader, because no other could
/// be started.
pub(crate) fn hand_over() -> bool {
    LEADER.with_borrow_mut(|leader| {
        leader.as_mut().is_none_or(|leader| {
            leader.begin_work();
            leader.lead.succeed(leader.term + 1).is_ok()
        })
    })
}

/// Whether this thread has lost the lead while it served a connection.
pub(crate) fn is_lost() -> bool {
    LEADER.with_borrow(|leader| leader.as_ref().is_some_and(Leader::is_lost))
}

/// This thread has served a connection. `false`: another thread leads now.
pub(crate) fn end_work() -> bool {
    LEADER.with_borrow_mut(|slot| {
        let Some(leader) = slot else { return false };
        let leads = leader.end_work();
        if !leads {
            *slot = None;
        }
        leads
    })
}

/// This thread ends its lead, and has no successor.
pub(crate) fn resign() {
    LEADER.with_borrow_mut(|leader| *leader = None);
}

impl Leader {
    fn begin_work(&mut self) {
        if self.works {
            return;
        }
        self.works = true;
        self.lead.term.store(self.term + 1, SeqCst);
        // Read after the term is written, and by the watchdog before: one of the two sees the other.
        if !self.lead.watchdog.watches.load(SeqCst) {
            self.lead.watchdog.watch_again();
        }
    }

    fn is_lost(&self) -> bool {
        self.works && self.lead.term.load(SeqCst) != self.term + 1
    }

    fn end_work(&mut self) -> bool {
        if !self.works {
            return true;
        }
        self.works = false;
        let worked = self.term + 1;
        self.term += 2;
        self.lead.term.compare_exchange(worked, self.term, SeqCst, Relaxed).is_ok()
    }
}

impl Lead {
    pub(crate) fn new(watchdog: &Arc<Watchdog>) -> Self {
        Self {
            term: AtomicU64::new(0),
            succession: AtomicU64::new(0),
            start_successor: OnceLock::new(),
            watchdog: Arc::clone(watchdog),
        }
    }

    /// Sets what starts a successor. To be called once, before the first [`take`](Self::take).
    pub(crate) fn set_successor(&self, start: impl Fn(u64) -> io::Result<()> + Send + Sync + 'static) {
        let _ = self.start_successor.set(Box::new(start));
    }

    /// This thread takes the lead, if the term is still this one. The first leader takes it in term 0.
    pub(crate) fn take(self: &Arc<Self>, expected: u64) -> bool {
        let term = (expected | 1) + 1;
        let taken = self.term.compare_exchange(expected, term, SeqCst, Relaxed).is_ok();
        if taken {
            let leader = Leader { lead: Arc::clone(self), term, works: false };
            LEADER.with_borrow_mut(|slot| *slot = Some(leader));
        }
        taken
    }

    /// Starts a successor for this term, if the term is not over and none was started. If no thread can be started,
    /// the leader stays, and the watchdog tries again.
    ///
    /// # Errors
    /// No thread could be started.
    fn succeed(&self, term: u64) -> io::Result<()> {
        if self.term.load(SeqCst) != term || self.succession.swap(term, SeqCst) == term {
            return Ok(());
        }
        let Some(start) = self.start_successor.get() else { return Ok(()) };
        start(term).inspect_err(|_| self.succession.store(0, SeqCst))
    }
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Self {
            watches: AtomicBool::new(false),
            awake: Mutex::new(false),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Starts the thread that watches these leads. It ends after [`stop`](Self::stop).
    pub(crate) fn start(
        self: &Arc<Self>,
        leads: Vec<Arc<Lead>>,
        records: &Arc<Records>,
    ) -> io::Result<JoinHandle<()>> {
        let watchdog = Arc::clone(self);
        records.thread("watchdog", 128 << 10, move || watchdog.run(&leads))
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, SeqCst);
        self.wake();
    }

    #[cold]
    fn watch_again(&self) {
        self.watches.store(true, SeqCst);
        self.wake();
    }

    fn wake(&self) {
        *self.awake.lock() = true;
        self.changed.notify_one();
    }

    fn run(&self, leads: &[Arc<Lead>]) {
        let mut seen: Vec<_> = leads.iter().map(|_| Seen::default()).collect();
        loop {
            {
                let mut awake = self.awake.lock();
                while !std::mem::take(&mut *awake) {
                    self.changed.wait(&mut awake);
                }
            }
            let mut quiet = 0;
            while quiet < QUIET_TICKS {
                if self.stopped.load(SeqCst) {
                    return;
                }
                thread::sleep(TICK);
                quiet = if tick(leads, &mut seen) { 0 } else { quiet + 1 };
                if quiet == QUIET_TICKS {
                    self.watches.store(false, SeqCst);
                    if leads.iter().zip(&seen).any(|(lead, seen)| lead.term.load(SeqCst) != seen.term) {
                        self.watches.store(true, SeqCst);
                        quiet = 0;
                    }
                }
            }
        }
    }
}

/// What the watchdog has seen of a lead at its last tick.
#[derive(Default)]
struct Seen {
    term: u64,
    /// No successor could be started, and that was logged.
    has_failed: bool,
}

/// Starts successors for the leaders that have worked since the last tick. `false`: no leader has worked.
fn tick(leads: &[Arc<Lead>], seen: &mut [Seen]) -> bool {
    let mut has_worked = false;
    for (lead, seen) in leads.iter().zip(seen) {
        let term = lead.term.load(SeqCst);
        let works = term % 2 == 1;
        if works && term == seen.term {
            // It is tried again at the next tick if it fails.
            match lead.succeed(term) {
                Err(error) if !seen.has_failed => {
                    guard::warn!("no thread takes the lead for now: {error}");
                    seen.has_failed = true;
                }
                Err(_) => {}
                Ok(()) => seen.has_failed = false,
            }
        }
        has_worked |= works || term != seen.term;
        seen.term = term;
    }
    has_worked
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").field("term", &self.term).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::sys::channel::{Receiver, bounded};

    /// A lead whose successors are started by the test.
    fn lead() -> (Arc<Lead>, Receiver<u64>) {
        let lead = Arc::new(Lead::new(&Arc::new(Watchdog::new())));
        let (started, successors) = bounded(8);
        lead.set_successor(move |term| started.try_send(term).map_err(io::Error::other));
        (lead, successors)
    }

    #[test]
    fn one_thread_leads_and_others_do_not() {
        let (lead, _successors) = lead();
        assert!(lead.take(0) && !lead.take(0));
        assert!(end_work(), "a wait is not work");
        for _ in 0..3 {
            begin_work();
            begin_work();
            assert!(!is_lost() && end_work());
        }
        resign();
        assert!(!end_work() && !is_lost());
    }

    #[test]
    fn a_successor_takes_the_lead_only_from_a_thread_that_still_works() {
        let (lead, successors) = lead();
        assert!(lead.take(0));
        before_wait();
        before_wait();
        let term = successors.try_recv().expect("a successor");
        assert!(successors.try_recv().is_err(), "one for each term");
        assert!(end_work(), "the wait was short");
        assert!(!lead.take(term), "the successor comes too late");
        before_wait();
        let term = successors.try_recv().expect("a successor");
        let other = Arc::clone(&lead);
        let successor = thread::Builder::new().spawn(move || other.take(term)).expect("a thread");
        assert!(successor.join().expect("no panic"));
        assert!(is_lost());
        before_wait();
        assert!(successors.try_recv().is_err(), "this thread does not lead any more");
        assert!(!end_work() && !is_lost());
    }

    #[test]
    fn without_a_thread_for_a_successor_the_leader_stays() {
        let lead = Arc::new(Lead::new(&Arc::new(Watchdog::new())));
        lead.set_successor(|_| Err(io::ErrorKind::OutOfMemory.into()));
        assert!(lead.take(0));
        assert!(!hand_over() && !hand_over(), "it is tried each time");
        assert!(end_work());
        resign();
        assert!(hand_over(), "who does not lead may always wait");
    }

    #[test]
    fn the_watchdog_starts_a_successor_for_a_leader_that_takes_long_and_for_no_other() {
        let (lead, successors) = lead();
        let watchdog = lead.watchdog.start(vec![Arc::clone(&lead)], &Records::new(drop)).expect("a thread");
        assert!(lead.take(0));
        for _ in 0..2 {
            begin_work();
            let term = successors.recv().expect("a successor");
            assert_eq!(term, lead.term.load(SeqCst));
            assert!(successors.recv_timeout(5 * TICK).is_err(), "one for each term");
            assert!(end_work());
            // It sleeps meanwhile, and wakes up with the next work.
            assert!(successors.recv_timeout(20 * TICK).is_err());
        }
        resign();
        lead.watchdog.stop();
        watchdog.join().expect("no panic");
    }
}
