//! A gate: a thread that passes it while it is closed waits until it opens.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::PATIENCE;

#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    /// How often it is closed.
    closed: usize,
    waiting: usize,
}

/// Keeps a gate closed until it is dropped, so also when a test fails.
pub(crate) struct Closed<'a>(&'a Gate);

impl Gate {
    pub(crate) fn close(&self) -> Closed<'_> {
        self.0.0.lock().closed += 1;
        Closed(self)
    }

    pub(crate) fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock();
        state.waiting += 1;
        changed.notify_all();
        changed.wait_while(&mut state, |state| state.closed > 0);
        state.waiting -= 1;
    }
}

impl Closed<'_> {
    /// Waits until somebody waits at the gate.
    pub(crate) fn holds_up(&self, what: &str) {
        let (state, changed) = &*self.0.0;
        let waited = changed.wait_while_for(&mut state.lock(), |state| state.waiting == 0, PATIENCE);
        assert!(!waited.timed_out(), "waited in vain until the gate holds up {what}");
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.0.0.lock().closed -= 1;
        self.0.0.1.notify_all();
    }
}
