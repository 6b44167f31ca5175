//! The sessions of a server by id, and the slots that they hold in the hub's tables.
//!
//! A session holds its slot until the hub has removed it and nothing waits for it any more. So there are never more
//! sessions anywhere than there are slots.

use std::{collections::HashMap, sync::Arc};

use super::Session;
use crate::sys::{
    sync::{Condvar, Mutex},
    time::Instant,
};

/// All sessions by id, and the free slots.
#[derive(Debug)]
pub(crate) struct Registry {
    table: Mutex<Table>,
    fewer: Condvar,
    max: usize,
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<Arc<str>, Arc<Session>>,
    free: Vec<u32>,
    /// Slots that were ever taken.
    slots: u32,
    /// Sessions that hold a slot.
    occupied: usize,
}

impl Registry {
    pub(crate) fn new(max: usize) -> Self {
        Self { table: Mutex::default(), fewer: Condvar::new(), max }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Session>> {
        self.table.lock().sessions.get(id).cloned()
    }

    /// A slot for a new session. `None`: the server is full.
    pub(super) fn take_slot(&self) -> Option<u32> {
        let mut table = self.table.lock();
        if table.occupied >= self.max {
            return None;
        }
        table.occupied += 1;
        table.free.pop().or_else(|| {
            table.slots += 1;
            Some(table.slots - 1)
        })
    }

    pub(super) fn insert(&self, session: &Arc<Session>) {
        self.table.lock().sessions.insert(Arc::clone(&session.id), Arc::clone(session));
    }

    /// From now on the id is unknown to requests.
    pub(super) fn remove(&self, id: &str) {
        self.table.lock().sessions.remove(id);
        self.fewer.notify_all();
    }

    /// Waits until no session is left, or until the deadline.
    pub(crate) fn wait_until_none(&self, deadline: Instant) {
        let mut table = self.table.lock();
        while !table.sessions.is_empty() && !self.fewer.wait_until(&mut table, deadline).timed_out() {}
    }

    /// The slot can be used again.
    pub(super) fn free_slot(&self, slot: u32) {
        let mut table = self.table.lock();
        table.occupied -= 1;
        table.free.push(slot);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.table.lock().sessions.values().cloned().collect()
    }

    /// The session with the most unsent bytes.
    pub(super) fn largest_backlog(&self) -> Option<Arc<Session>> {
        let table = self.table.lock();
        let most = table.sessions.values().max_by_key(|session| session.outbox.charged());
        most.filter(|session| session.outbox.charged() > 0).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.lock().occupied
    }
}
