//! The sockets that the hub knows: how they come and go, their rooms, and what is emitted to them.

use std::sync::Arc;

use crate::server::{
    hub::actor::Hub,
    hub::command::{Question, Selection, large},
    hub::in_flight::InFlightGuard,
    hub::membership::Membership,
    hub::session::HubSession,
    recovery::{Claim, Recovery, Resume, RetainedData},
};
use crate::{
    proto::{CloseReason, socket::Encoded},
    sys::time::Instant,
};

/// A batch with more than this for clients who have come back is at its end.
pub(crate) const REPLAY_MAX: usize = 4 << 20;

impl Hub {
    pub(super) fn enter(
        &mut self,
        socket: Arc<Membership>,
        mut consent: Encoded,
        resume: Option<Box<Resume>>,
        order: InFlightGuard,
    ) {
        let (namespace, session) = (socket.namespace_index(), Arc::clone(socket.session()));
        let before = self.held_back();
        let Some(recovery) = &mut self.recovery else {
            self.spaces[namespace].enter(socket);
            return self.consent(&session, consent, order, before);
        };
        let Some(resume) = resume else {
            if socket.pid().is_some() {
                consent.set_offset(recovery.last());
                recovery.enter(&socket);
            }
            self.spaces[namespace].enter(socket);
            return self.consent(&session, consent, order, before);
        };
        let left = self.room_bytes_left();
        let Some(recovery) = &mut self.recovery else { return };
        let (space, max) = (&self.spaces[namespace], self.config.max_rooms);
        let Some(restored) = recovery.restore(&socket, &resume, |rooms| space.fits(rooms, max, left)) else {
            // Something has left the log meanwhile, or its rooms have no room. It comes again, and is told.
            log::info!("session {}: it cannot be recovered any more", session.name());
            return Arc::clone(&session).end(CloseReason::TransportClose);
        };
        consent.set_offset(resume.offset);
        self.spaces[namespace].enter(socket.clone());
        self.spaces[namespace].join(&socket, &restored.rooms, max, left, |_| ());
        self.consent(&session, consent, order, before);
        let waits = self.held_back() != before;
        for packets in restored.missed {
            self.replayed += packets.bytes().len();
            self.share((packets, false), &[session.slot()], 0, waits);
        }
        if self.replayed > REPLAY_MAX {
            self.flush();
        }
    }

    pub(super) fn exit(&mut self, socket: &Arc<Membership>, lost: Option<RetainedData>) {
        self.spaces[socket.namespace_index()].exit(socket);
        self.keep(|recovery| recovery.exit(socket, lost, Instant::now()));
    }

    pub(super) fn room_bytes_left(&self) -> usize {
        let taken: usize = self.spaces.iter().map(|space| space.rooms.bytes()).sum();
        self.config.room_bytes_total.saturating_sub(taken)
    }

    pub(super) fn join(&mut self, socket: &Arc<Membership>, names: &[Arc<str>]) {
        let left = self.room_bytes_left();
        let recovery = &mut self.recovery;
        let space = &mut self.spaces[socket.namespace_index()];
        space.join(socket, names, self.config.max_rooms, left, |name| {
            if let Some(recovery) = recovery {
                recovery.join(socket, name);
            }
        });
    }

    /// The answer to a CONNECT. It waits for the store if something has changed since `before`.
    pub(super) fn consent(
        &mut self,
        session: &Arc<dyn HubSession>,
        consent: Encoded,
        order: InFlightGuard,
        before: u64,
    ) {
        let waits = self.held_back() != before || order.is_behind();
        let slot = self.sits(session).then_some(session.slot());
        let waits = self.share((consent, false), slot.as_slice(), 0, waits);
        self.sent(order, waits);
    }

    pub(super) fn emit(
        &mut self,
        namespace: usize,
        to: &Arc<Selection>,
        mut packet: Encoded,
        volatile: bool,
        order: InFlightGuard,
    ) {
        let before = self.held_back();
        let mut selected = self.select(namespace, to);
        let mut non_recoverable = Vec::new();
        if let Some(recovery) = &mut self.recovery {
            non_recoverable = recovery.take_non_recoverable(namespace, &mut selected);
            // What is for one client that declined is nobody's to ask for later.
            if to.only.is_none() || non_recoverable.is_empty() {
                recovery.stamp(namespace, to, &mut packet, volatile, &selected);
            }
        }
        // A volatile one carries the offset of the last packet that is kept, which may not be durable yet.
        let is_ahead = volatile && !selected.is_empty() && !self.held.is_idle();
        let mut waits = self.held_back() != before || order.is_behind() || is_ahead;
        if !non_recoverable.is_empty() {
            waits |= self.share((packet.without_offset(), volatile), &non_recoverable, 0, waits);
        }
        let large = large(&packet);
        waits |= self.share((packet, volatile), &selected, large, waits);
        self.sent(order, waits);
    }

    pub(super) fn answer(&mut self, namespace: usize, question: Question) {
        // An asker that is gone needs no answer.
        let _ = match question {
            Question::RoomsOf(socket, reply) => reply.send(self.spaces[namespace].rooms_of(&socket)).is_ok(),
            Question::Count(name, reply) => reply.send(self.spaces[namespace].count(&name)).is_ok(),
            Question::Sockets(selection, reply) => {
                let selected = self.select(namespace, &selection);
                let sockets = &self.spaces[namespace].sockets;
                let sockets = selected.iter().filter_map(|slot| sockets.get(slot));
                // Whoever was disconnected stays in its rooms until its handlers have been told.
                reply.send(sockets.filter(|socket| socket.is_connected()).cloned().collect()).is_ok()
            }
            Question::Claim(pid, offset, reply) => {
                let claim = |recovery: &mut Recovery| recovery.claim(namespace, &pid, offset.as_deref());
                reply.send(self.recovery.as_mut().map_or(Claim::Unknown, claim)).is_ok()
            }
        };
    }
}
