//! The sessions that the hub knows, by their slot.
//!
//! A slot is a small number that a session has until the last step of its end. The next session may have the same one.
//! A command may come after the end of its session, so each use of a slot first checks that it still is this
//! session's.

use std::{sync::Arc, time::Duration};

use crate::server::hub::{held::HeldAt, session::HubSession};
use crate::{proto::engine::Heartbeat, sys::time::Instant};

/// An open session.
pub(super) struct Slot {
    pub(super) session: Arc<dyn HubSession>,
    pub(super) heartbeat: Heartbeat,
    /// The packets of the current batch that it gets.
    pub(super) due: Vec<usize>,
    /// Where its packets are that wait for the store.
    pub(super) held_at: HeldAt,
    /// The binary packet that was incomplete when the heartbeat last looked, and since when.
    assembling: (u64, Instant),
}

impl Slot {
    pub(super) fn new(session: Arc<dyn HubSession>, heartbeat: Heartbeat, since: Instant) -> Self {
        Self { session, heartbeat, due: Vec::new(), held_at: HeldAt::default(), assembling: (0, since) }
    }

    /// Whether the attachments of the same packet have been missing for longer than `timeout`.
    pub(super) fn is_packet_overdue(&mut self, now: Instant, timeout: Duration) -> bool {
        let assembling = self.session.assembling();
        if assembling != self.assembling.0 {
            self.assembling = (assembling, now);
        }
        assembling != 0 && now > self.assembling.1 + timeout
    }
}

#[derive(Default)]
pub(super) struct Slots(Vec<Option<Slot>>);

impl Slots {
    pub(super) fn insert(&mut self, slot: Slot) {
        let index = slot.session.slot() as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(slot);
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(slot) = self.0.get_mut(slot as usize) {
            *slot = None;
        }
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.0.get_mut(slot as usize)?.as_mut()
    }

    /// The slot of this session. `None`: it is closed, and its slot may be another session's.
    pub(super) fn of(&self, session: &Arc<dyn HubSession>) -> Option<&Slot> {
        let slot = self.0.get(session.slot() as usize)?.as_ref()?;
        Arc::ptr_eq(&slot.session, session).then_some(slot)
    }

    /// The slot's number, if the session is open.
    pub(super) fn number_of(&self, session: &Arc<dyn HubSession>) -> Option<u32> {
        self.of(session).map(|_| session.slot())
    }
}
