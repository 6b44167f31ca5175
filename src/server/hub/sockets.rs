//! The hub and the sockets: how they connect and disconnect, their rooms, and the events that are emitted to them.
//!
//! It combines the parts of the hub: [`NamespaceMembers`](super::members) selects the recipients, recovery numbers and
//! keeps the packets, and [`Delivery`](super::delivery) sends them.

use std::sync::Arc;

use crate::server::{
    guard,
    hub::actor::Hub,
    hub::command::{Query, Selection, large},
    hub::in_flight::InFlightGuard,
    hub::membership::Membership,
    hub::recovery::{Claim, Recovery, Resume, RetainedData},
};
use crate::{
    proto::{CloseReason, socket::Encoded},
    sys::time::Instant,
};

/// A batch is flushed early when its replayed packets have more bytes than this.
pub(crate) const REPLAY_MAX: usize = 4 << 20;

impl Hub {
    pub(super) fn connect_socket(
        &mut self,
        socket: Arc<Membership>,
        mut connect_ack: Encoded,
        resume: Option<Box<Resume>>,
        guard: InFlightGuard,
    ) {
        if let Some(resume) = resume {
            return self.resume_socket(&socket, connect_ack, &resume, guard);
        }
        let before = self.durable_changes();
        if let Some(recovery) = &mut self.recovery
            && socket.pid().is_some()
        {
            connect_ack.set_offset(recovery.last());
            recovery.connect(&socket);
        }
        self.namespaces[socket.namespace_index()].insert(Arc::clone(&socket));
        self.send_connect_ack(&socket, connect_ack, guard, before);
    }

    /// A socket connects in the place of a disconnected client: it gets its rooms, and the packets that it has missed.
    fn resume_socket(
        &mut self,
        socket: &Arc<Membership>,
        mut connect_ack: Encoded,
        resume: &Resume,
        guard: InFlightGuard,
    ) {
        let (before, left, max) = (self.durable_changes(), self.room_bytes_left(), self.config.max_rooms);
        let Some(recovery) = &mut self.recovery else { return };
        let members = &mut self.namespaces[socket.namespace_index()];
        let fits = |rooms: &[Arc<str>]| members.fits(rooms, max, left);
        let Some(restored) = recovery.restore(socket, resume, fits) else {
            // A packet has left the log meanwhile, or the limits of rooms are reached. The client connects again, and
            // is then told that it is not recovered.
            guard::info!("session {}: it cannot be recovered any more", socket.session().name());
            return Arc::clone(socket.session()).end(CloseReason::TransportClose);
        };
        connect_ack.set_offset(resume.offset);
        members.insert(Arc::clone(socket));
        members.join(socket, &restored.rooms, max, left, |_| ());
        self.send_connect_ack(socket, connect_ack, guard, before);
        let waits = self.durable_changes() != before;
        for packets in restored.missed {
            self.replayed += packets.bytes().len();
            self.delivery.share((packets, false), &[socket.slot()], 0, waits);
        }
        if self.replayed > REPLAY_MAX {
            self.flush();
        }
    }

    /// It waits for the store if something has changed since `before`.
    fn send_connect_ack(
        &mut self,
        socket: &Arc<Membership>,
        connect_ack: Encoded,
        guard: InFlightGuard,
        before: u64,
    ) {
        let waits = self.durable_changes() != before;
        self.delivery.send_to(socket.session(), (connect_ack, false), 0, guard, waits);
    }

    pub(super) fn disconnect_socket(&mut self, socket: &Arc<Membership>, lost: Option<RetainedData>) {
        self.namespaces[socket.namespace_index()].remove(socket);
        self.with_recovery(|recovery| recovery.disconnect(socket, lost, Instant::now()));
    }

    fn room_bytes_left(&self) -> usize {
        let taken: usize = self.namespaces.iter().map(|members| members.room_bytes()).sum();
        self.config.room_bytes_total.saturating_sub(taken)
    }

    pub(super) fn join(&mut self, socket: &Arc<Membership>, rooms: &[Arc<str>]) {
        let left = self.room_bytes_left();
        let recovery = &mut self.recovery;
        let members = &mut self.namespaces[socket.namespace_index()];
        members.join(socket, rooms, self.config.max_rooms, left, |room| {
            if let Some(recovery) = recovery {
                recovery.join(socket, room);
            }
        });
    }

    pub(super) fn leave(&mut self, socket: &Arc<Membership>, room: &str) {
        if self.namespaces[socket.namespace_index()].leave(socket, room) {
            self.with_recovery(|recovery| recovery.leave(socket, room));
        }
    }

    pub(super) fn emit(
        &mut self,
        namespace: usize,
        to: &Arc<Selection>,
        mut packet: Encoded,
        volatile: bool,
        guard: InFlightGuard,
    ) {
        let before = self.durable_changes();
        let mut selected = self.namespaces[namespace].select(to, &mut self.marks);
        let mut non_recoverable = Vec::new();
        if let Some(recovery) = &mut self.recovery {
            non_recoverable = recovery.take_non_recoverable(namespace, &mut selected);
            // A packet for one client that has declined recovery is not kept.
            if to.only.is_none() || non_recoverable.is_empty() {
                recovery.stamp(namespace, to, &mut packet, volatile, &selected);
            }
        }
        // A volatile packet carries the offset of the last packet that is kept, which may not be durable yet.
        let is_ahead = volatile && !selected.is_empty() && !self.delivery.is_nothing_held();
        let mut waits = self.durable_changes() != before || guard.is_behind() || is_ahead;
        if !non_recoverable.is_empty() {
            waits |= self.delivery.share((packet.without_offset(), volatile), &non_recoverable, 0, waits);
        }
        let large = large(&packet);
        waits |= self.delivery.share((packet, volatile), &selected, large, waits);
        self.delivery.finish(guard, waits);
    }

    pub(super) fn answer(&mut self, namespace: usize, query: Query) {
        let members = &self.namespaces[namespace];
        // It fails if the asking thread has gone.
        let _ = match query {
            Query::RoomsOf(socket, reply) => reply.send(members.rooms_of(&socket)).is_ok(),
            Query::Count(room, reply) => reply.send(members.count(&room)).is_ok(),
            Query::Sockets(to, reply) => {
                let selected = members.select(&to, &mut self.marks);
                let sockets = selected.iter().filter_map(|&slot| members.get(slot));
                // A disconnected socket is a member until its handlers have run.
                reply.send(sockets.filter(|socket| socket.is_connected()).cloned().collect()).is_ok()
            }
            Query::Claim(pid, offset, reply) => {
                let claim = |recovery: &mut Recovery| recovery.claim(namespace, &pid, offset.as_deref());
                reply.send(self.recovery.as_mut().map_or(Claim::Unknown, claim)).is_ok()
            }
        };
    }
}
