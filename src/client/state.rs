//! The state of one client, and the lock over it.
//!
//! Owns what `Core` locks, and the log lines that are written once it is unlocked. Uses the plain types it is made
//! of. It must not know a thread or a handle.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    time::Instant,
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{
    Error, Stats, acks::Acks, config::OfflineLimits, connection::Connection, namespaces::Namespaces,
    offline::OfflineBuffer,
};

/// The state of one client.
pub(super) struct State {
    pub(super) connection: Connection,
    pub(super) namespaces: Namespaces,
    pub(super) acks: Acks,
    pub(super) offline: OfflineBuffer,
    pub(super) stats: Stats,
    /// Threads that have not ended yet.
    pub(super) threads: usize,
    /// What is logged once the state is unlocked.
    notes: Vec<(log::Level, String)>,
}

impl State {
    pub(super) fn new(limits: OfflineLimits) -> Self {
        Self {
            connection: Connection::default(),
            namespaces: Namespaces::default(),
            acks: Acks::default(),
            offline: OfflineBuffer::new(limits),
            stats: Stats::default(),
            threads: 0,
            notes: Vec::new(),
        }
    }

    /// Counts and keeps an error of the connection.
    pub(super) fn set_error(&mut self, error: &Error) {
        self.stats.errors += 1;
        self.connection.set_last_error(error);
    }

    /// Logs when the state is unlocked.
    pub(super) fn log(&mut self, level: log::Level, text: fmt::Arguments<'_>) {
        if level <= log::max_level() {
            self.notes.push((level, text.to_string()));
        }
    }
}

/// The locked state. Log lines are written when it is unlocked: a logger is the user's code, which may block, or call
/// the client.
pub(super) struct Locked<'c>(MutexGuard<'c, State>);

impl<'c> Locked<'c> {
    pub(super) fn new(state: &'c Mutex<State>) -> Self {
        Self(state.lock())
    }

    /// Waits until `changed` is notified (`true`), or until `deadline` (`false`).
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
