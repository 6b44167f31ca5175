//! The order of one sender's packets.
//!
//! A direct emit must not overtake an earlier emit to a room by the same sender; on the official server it cannot. A
//! sender is the handlers of one session, on any thread, or a thread of the application. Each sender counts its
//! commands that the hub has not finished. While the count is not zero ([`caught_up`]), its direct emits go through
//! the hub too.
//!
//! It knows counts only. The hub's thread and the sending threads share them.

use std::{cell::RefCell, sync::Arc};

use crate::sys::{
    sync::atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread_local,
};

/// One command of a sender that the hub has not finished. The command is finished when this is dropped.
pub(super) struct InFlightGuard(Arc<Tally>);

/// The commands of one sender that the hub has not finished.
#[derive(Debug, Default)]
struct Tally {
    unfinished: AtomicUsize,
    /// Those that wait for the store. Only the hub changes it.
    waiting: AtomicUsize,
}

impl InFlightGuard {
    /// Whether an earlier command of the same sender waits for the store.
    pub(super) fn is_behind(&self) -> bool {
        self.0.waiting.load(Relaxed) > 0
    }

    /// The command waits for the store.
    pub(super) fn mark_waiting(&self) {
        self.0.waiting.fetch_add(1, Relaxed);
    }

    /// The command has waited for the store, and is finished.
    pub(super) fn finish_waiting(self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.unfinished.fetch_sub(1, Release);
    }
}

thread_local! {
    /// The sender that this thread is: the session whose handlers it runs, or else the thread itself.
    static SENDER: RefCell<Unfinished> = RefCell::default();
}

/// A sender's count of commands that the hub has not finished.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unfinished(Arc<Tally>);

impl Unfinished {
    pub(super) fn is_none(&self) -> bool {
        self.0.unfinished.load(Acquire) == 0
    }

    /// Whether it is not zero, and another sender's than this thread's.
    pub(crate) fn is_of_another(&self) -> bool {
        !self.is_none() && SENDER.with_borrow(|own| !Arc::ptr_eq(&own.0, &self.0))
    }

    /// From now on this thread sends as this sender. In its place is the sender that the thread was before.
    pub(crate) fn swap_with_current(&mut self) {
        SENDER.with_borrow_mut(|current| std::mem::swap(current, self));
    }

    pub(super) fn guard(&self) -> InFlightGuard {
        self.0.unfinished.fetch_add(1, Relaxed);
        InFlightGuard(Arc::clone(&self.0))
    }
}

/// Whether the hub has finished all commands of this thread's sender.
pub(crate) fn caught_up() -> bool {
    SENDER.with_borrow(Unfinished::is_none)
}

/// The count of this thread's sender. `None`: it is zero.
pub(crate) fn unfinished() -> Option<Unfinished> {
    SENDER.with_borrow(|sender| (!sender.is_none()).then(|| sender.clone()))
}

pub(super) fn guard() -> InFlightGuard {
    SENDER.with_borrow(Unfinished::guard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_caught_up_when_its_guards_are_dropped() {
        assert!(caught_up() && unfinished().is_none());
        let guards = [guard(), guard()];
        let [first, second] = guards;
        drop(first);
        assert!(!caught_up() && unfinished().is_some());
        drop(second);
        assert!(caught_up());
    }

    #[test]
    fn each_sender_counts_its_own_commands() {
        let session = Unfinished::default();
        let mut thread = session.clone();
        thread.swap_with_current();
        let guard = guard();
        assert!(!caught_up() && !session.is_of_another());
        thread.swap_with_current();
        assert!(caught_up() && session.is_of_another());
        drop(guard);
        assert!(!session.is_of_another());
    }

    #[test]
    fn later_commands_are_behind_one_that_waits_for_the_store() {
        let (first, second) = (guard(), guard());
        first.mark_waiting();
        assert!(second.is_behind());
        first.finish_waiting();
        assert!(!second.is_behind());
    }
}
