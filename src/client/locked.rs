//! The lock over a client's state, and what is logged while it is held.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    time::Instant,
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::core::State;

/// The state, locked. What is noted meanwhile is logged when it is unlocked: a logger is anybody's code, which may
/// block, or call the client.
pub(super) struct Locked<'c>(MutexGuard<'c, State>);

impl Deref for Locked<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl<'c> Locked<'c> {
    pub(super) fn new(state: &'c Mutex<State>) -> Self {
        Self(state.lock())
    }

    /// Waits until `changed` is notified, or until `deadline`, in which case it is `false`.
    pub(super) fn wait(&mut self, changed: &Condvar, deadline: Option<Instant>) -> bool {
        match deadline {
            Some(deadline) => !changed.wait_until(&mut self.0, deadline).timed_out(),
            None => {
                changed.wait(&mut self.0);
                true
            }
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let notes = std::mem::take(&mut self.0.notes);
        if !notes.is_empty() {
            MutexGuard::unlocked(&mut self.0, || {
                notes.into_iter().for_each(|(level, note)| log::log!(level, "{note}"));
            });
        }
    }
}

impl State {
    /// Logs when the state is unlocked.
    pub(super) fn log(&mut self, level: log::Level, text: fmt::Arguments<'_>) {
        if level <= log::max_level() {
            self.notes.push((level, text.to_string()));
        }
    }
}
