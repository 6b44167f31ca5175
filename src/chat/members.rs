//! How many are in each room.
//!
//! The library's hub knows too, but asking it costs a hop to its thread and back, and every room message carries the
//! number.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Members by room. A room exists as long as somebody is in it.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Guards the counts alone, and for the time of one look-up.
    counts: Mutex<HashMap<String, usize>>,
}

impl Members {
    /// One more. Gives the number with it.
    pub(super) fn join(&self, room: &str) -> usize {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(room) {
            *count += 1;
            return *count;
        }
        counts.insert(room.to_owned(), 1);
        1
    }

    /// One less. Gives the number without it.
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

    /// Rooms with somebody in them.
    pub(super) fn rooms(&self) -> usize {
        self.counts.lock().len()
    }
}
