//! Bytes that all clients share: what waits for them, and what is being received from them.
//!
//! ```text
//!   outboxes    add ─► over? ─► the session with the largest backlog ends: "slow consumer"
//!   receiving   Charge::hold ─► no room ─► whoever asked loses: 503, or close 1013 "overloaded"
//! ```
//! Two rules, because they are two situations. A backlog can be taken from its client at once, by whoever notices, and the
//! largest is the one that most likely nobody reads. What is being received belongs to a thread that reads it and would have to
//! be woken and waited for; and whoever has sent most has used its uplink for it in good faith as likely as not. So there the
//! one that wants more is told no. Small messages never ask ([`ALLOWANCE`]): nobody can keep them out by filling the budget.

use std::sync::Arc;

use crate::sys::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What a connection may have under way without asking; a part of what every connection costs.
pub(crate) const ALLOWANCE: usize = 16 << 10;

/// So many bytes, and how many of them are used.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    /// Notes that what was `before` is `after` now, also when that is too much.
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

/// There is no room for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// One holder's part of a budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// From now on `bytes` are held, of which the first [`ALLOWANCE`] count for nothing.
    ///
    /// # Errors
    /// [`Full`]: it has what it had.
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
    fn whoever_asks_for_too_much_keeps_what_it_had() {
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
    fn outboxes_may_pass_it_and_it_says_so() {
        let budget = Budget::new(100);
        budget.change(0, 101);
        assert!(budget.is_exceeded());
        budget.change(101, 100);
        assert!(!budget.is_exceeded());
    }
}
