//! The order of one sender's packets.
//!
//! A sender that has emitted to a room must not overtake itself with a direct emit, because on the official server it could
//! not. A sender is the handlers of one session, on whichever threads they run, or a thread of the application. Each
//! counts what the hub has not yet finished of its own ([`caught_up`]), and while that is not zero its direct emits take the way
//! through the hub too.

use std::{cell::RefCell, sync::Arc};

use crate::sys::{
    sync::atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread_local,
};

/// A token that one command of a sender is under way; dropping it says that the command is finished.
pub(crate) struct InFlightGuard(Arc<Tally>);

/// What the hub has not finished of one sender's.
#[derive(Debug, Default)]
struct Tally {
    unfinished: AtomicUsize,
    /// How many of those wait for the store. Only the hub changes it.
    waiting: AtomicUsize,
}

impl InFlightGuard {
    /// Whether something of the same sender waits for the store.
    pub(super) fn is_behind(&self) -> bool {
        self.0.waiting.load(Relaxed) > 0
    }

    /// It waits for the store.
    pub(crate) fn wait(&self) {
        self.0.waiting.fetch_add(1, Relaxed);
    }

    /// It has waited.
    pub(super) fn finish(self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.unfinished.fetch_sub(1, Release);
    }
}

thread_local! {
    /// The sender in whose name this thread sends: the session whose handlers it runs, or else the thread itself.
    static SENDER: RefCell<Unfinished> = RefCell::default();
}

/// The count of a sender's commands that carry packets and that the hub has not finished.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unfinished(Arc<Tally>);

impl Unfinished {
    pub(super) fn is_none(&self) -> bool {
        self.0.unfinished.load(Acquire) == 0
    }

    /// Whether there still are some, and of another sender than this thread's.
    pub(crate) fn is_of_another(&self) -> bool {
        !self.is_none() && SENDER.with_borrow(|own| !Arc::ptr_eq(&own.0, &self.0))
    }

    /// From now on this thread sends in the name of this sender. Returns the sender before it.
    pub(crate) fn make_current(self) -> Self {
        SENDER.replace(self)
    }

    pub(super) fn order(&self) -> InFlightGuard {
        self.0.unfinished.fetch_add(1, Relaxed);
        InFlightGuard(Arc::clone(&self.0))
    }
}

/// Whether the hub has finished everything that this thread's sender has asked it to send.
pub(crate) fn caught_up() -> bool {
    SENDER.with_borrow(Unfinished::is_none)
}

/// What the hub has not finished of this thread's sender. `None`: nothing.
pub(crate) fn unfinished() -> Option<Unfinished> {
    SENDER.with_borrow(|sender| (!sender.is_none()).then(|| sender.clone()))
}

pub(super) fn order() -> InFlightGuard {
    SENDER.with_borrow(Unfinished::order)
}
