//! The sockets of a namespace.

use std::{collections::HashMap, sync::Arc};

use crate::server::hub::{membership::Membership, rooms::Rooms};

/// A namespace's members.
#[derive(Default)]
pub(super) struct Space {
    pub(super) sockets: HashMap<u32, Arc<Membership>>,
    pub(super) by_id: HashMap<Arc<str>, u32>,
    pub(super) everybody: Vec<u32>,
    /// Where in `everybody` each is, so that a crowd that leaves costs no search each.
    places: HashMap<u32, usize>,
    pub(super) rooms: Rooms,
}

impl Space {
    /// Whether the socket is a member: its seat may be another's by now.
    fn has(&self, socket: &Arc<Membership>) -> bool {
        self.sockets.get(&socket.slot()).is_some_and(|member| member.is_same(socket))
    }

    pub(super) fn rooms_of(&self, socket: &Arc<Membership>) -> Vec<Arc<str>> {
        if self.has(socket) { self.rooms.of(socket.slot()).cloned().collect() } else { Vec::new() }
    }

    /// How many a broadcast to the room reaches: its members, and the socket with this id.
    pub(super) fn count(&self, name: &str) -> usize {
        let members = self.rooms.members(name);
        let own = self.by_id.get(name).filter(|slot| !members.contains(slot));
        members.len() + usize::from(own.is_some())
    }

    /// `false`: it was not there.
    pub(super) fn leave(&mut self, socket: &Arc<Membership>, name: &str) -> bool {
        self.has(socket) && self.rooms.leave(socket.slot(), name)
    }

    pub(super) fn enter(&mut self, socket: Arc<Membership>) {
        let slot = socket.slot();
        self.by_id.insert(socket.shared_id(), slot);
        self.places.insert(slot, self.everybody.len());
        self.everybody.push(slot);
        self.sockets.insert(slot, socket);
    }

    pub(super) fn exit(&mut self, socket: &Arc<Membership>) {
        let slot = socket.slot();
        if !self.has(socket) {
            return;
        }
        self.sockets.remove(&slot);
        self.by_id.remove(socket.id());
        self.rooms.leave_all(slot);
        if let Some(at) = self.places.remove(&slot) {
            self.everybody.swap_remove(at);
            if let Some(&moved) = self.everybody.get(at) {
                self.places.insert(moved, at);
            }
        }
    }

    /// Whether there is room for a newcomer in all of these.
    pub(super) fn fits(&self, names: &[Arc<str>], max: usize, left: usize) -> bool {
        names.len() <= max && names.iter().map(|name| self.rooms.cost(name)).sum::<usize>() <= left
    }

    /// `joined`: hears of each room that it was not in before.
    pub(super) fn join(
        &mut self,
        socket: &Arc<Membership>,
        names: &[Arc<str>],
        max: usize,
        mut left: usize,
        mut joined: impl FnMut(&Arc<str>),
    ) {
        if !self.has(socket) {
            return;
        }
        for name in names {
            if self.rooms.count(socket.slot()) >= max {
                log::warn!("socket {}: refused to join a room beyond max_rooms = {max}", socket.id());
                return;
            }
            let cost = self.rooms.cost(name);
            if cost > left {
                log::warn!("socket {}: refused to join a room: room_bytes_total is used up", socket.id());
                return;
            }
            if self.rooms.join(socket.slot(), name) {
                left -= cost;
                joined(name);
            }
        }
    }
}
