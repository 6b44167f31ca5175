//! The number of members of each room.
//!
//! The library's hub knows it too, but a query costs a round trip to its thread, and each room message carries
//! the number.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Members by room. A room exists while it has members.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Guards only the counts, during one look-up.
    counts: Mutex<HashMap<String, usize>>,
}

impl Members {
    /// Adds a member and returns the new number.
    pub(super) fn join(&self, room: &str) -> usize {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(room) {
            *count += 1;
            return *count;
        }
        counts.insert(room.to_owned(), 1);
        1
    }

    /// Removes a member and returns the new number.
    pub(super) fn leave(&self, room: &str) -> usize {
        let mut counts = self.counts.lock();
        let Some(count) = counts.get_mut(room) else { return 0 };
        *count -= 1;
        let left = *count;
        if left == 0 {
            counts.remove(room);
        }
        left
    }

    pub(super) fn count(&self, room: &str) -> usize {
        self.counts.lock().get(room).copied().unwrap_or(0)
    }

    /// Number of rooms with members.
    pub(super) fn rooms(&self) -> usize {
        self.counts.lock().len()
    }
}
