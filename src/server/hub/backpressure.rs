//! The bound on the bytes of large packets between an emit and its flush. Emitting threads wait while there are too
//! many.

use crate::server::hub::{
    command::Command,
    threads::{self, Role},
};
use crate::sys::sync::{Condvar, Mutex};

/// The bytes of large packets that may be on their way to the hub.
pub(crate) const INFLIGHT_MAX: usize = 16 << 20;

/// The bytes of large packets between an emit and its flush.
#[derive(Debug, Default)]
pub(super) struct InFlightBytes {
    state: Mutex<InFlightState>,
    less: Condvar,
}

#[derive(Debug, Default)]
struct InFlightState {
    bytes: usize,
    /// The hub has stopped: do not wait.
    stopped: bool,
}

impl InFlightBytes {
    pub(super) fn enter(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state.lock();
        // One packet may always enter, of any size. The hub itself never waits.
        while threads::role() != Role::Hub
            && state.bytes > 0
            && state.bytes + bytes > INFLIGHT_MAX
            && !state.stopped
        {
            self.less.wait(&mut state);
        }
        state.bytes += bytes;
    }

    /// For a thread that must not wait.
    pub(super) fn entered(&self, command: Command) -> Command {
        self.state.lock().bytes += command.large_bytes();
        command
    }

    pub(super) fn leave(&self, bytes: usize) {
        if bytes > 0 {
            self.state.lock().bytes -= bytes;
            self.less.notify_all();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.less.notify_all();
    }
}
