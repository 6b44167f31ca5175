//! Budgets of bytes that all clients share: one for the packets that wait for them, one for the bytes that they send.
//!
//! ```text
//!   outboxes    add ─► over? ─► the session with the largest backlog ends: "slow consumer"
//!   receiving   Charge::hold ─► no room ─► the client that needs it: 503, or close 1013 "overloaded"
//! ```
//! The two have different rules. Any thread can drop a backlog at once, and the client with the largest backlog most
//! likely does not read. A body that is being received belongs to the thread that reads it, which would have to be
//! woken and waited for. The largest sender is not necessarily abusive. So there the request for more is refused.
//! Small messages are not charged ([`ALLOWANCE`]), so a full budget does not keep them out.

use std::sync::Arc;

use crate::sys::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of a connection that are not charged. They are a part of the memory of each connection.
pub(crate) const ALLOWANCE: usize = 16 << 10;

/// A number of bytes, and how many of them are used.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    /// A holder has `after` bytes instead of `before`. The budget may be exceeded.
    pub(crate) fn change(&self, before: usize, after: usize) {
        if after > before {
            self.used.fetch_add(after - before, Relaxed);
        } else if before > after {
            self.used.fetch_sub(before - after, Relaxed);
        }
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        self.used() > self.max
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    fn try_add(&self, bytes: usize) -> Result<(), Full> {
        let more = |used: usize| used.checked_add(bytes).filter(|&used| used <= self.max);
        self.used.fetch_update(Relaxed, Relaxed, more).map(|_| ()).map_err(|_| Full)
    }
}

/// The budget has no room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The part of a budget that one holder has. Given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// The holder has `bytes` from now on. The first [`ALLOWANCE`] of them are not charged.
    ///
    /// # Errors
    /// [`Full`]: the charge is as before.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        let bytes = bytes.saturating_sub(ALLOWANCE);
        if bytes > self.bytes {
            self.budget.try_add(bytes - self.bytes)?;
        } else if bytes < self.bytes {
            self.budget.change(self.bytes, bytes);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.change(self.bytes, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_charge_stays_as_it_was() {
        let budget = Arc::new(Budget::new(100));
        let (mut one, mut two) = (Charge::new(&budget), Charge::new(&budget));
        assert_eq!(one.hold(ALLOWANCE + 60), Ok(()));
        assert_eq!(two.hold(ALLOWANCE), Ok(()));
        assert_eq!(two.hold(ALLOWANCE + 41), Err(Full));
        assert_eq!((budget.used(), two.hold(ALLOWANCE + 40)), (60, Ok(())));
        assert_eq!((budget.used(), one.hold(0)), (100, Ok(())));
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn outboxes_may_exceed_it() {
        let budget = Budget::new(100);
        budget.change(0, 101);
        assert!(budget.is_exceeded());
        budget.change(101, 100);
        assert!(!budget.is_exceeded());
    }
}
