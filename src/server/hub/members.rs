//! The connected sockets of a namespace, and the rooms that they are in.
//!
//! A plain type: it knows memberships and slots, and sends nothing.

use std::{collections::HashMap, sync::Arc};

use crate::server::guard;
use crate::server::hub::{command::Selection, membership::Membership, rooms::Rooms};

/// The sockets of a namespace.
#[derive(Default)]
pub(super) struct NamespaceMembers {
    sockets: HashMap<u32, Arc<Membership>>,
    by_id: HashMap<Arc<str>, u32>,
    /// The slots of all sockets.
    slots: Vec<u32>,
    /// The position of each slot in `slots`, so that a removal needs no search.
    positions: HashMap<u32, usize>,
    rooms: Rooms,
}

impl NamespaceMembers {
    /// Whether the socket is a member. Its slot may be another socket's already.
    fn has(&self, socket: &Arc<Membership>) -> bool {
        self.sockets.get(&socket.slot()).is_some_and(|member| member.is_same(socket))
    }

    pub(super) fn rooms_of(&self, socket: &Arc<Membership>) -> Vec<Arc<str>> {
        if self.has(socket) { self.rooms.of(socket.slot()).cloned().collect() } else { Vec::new() }
    }

    /// The number of recipients of a broadcast to the room: its members, and the socket with this id.
    pub(super) fn count(&self, name: &str) -> usize {
        let members = self.rooms.members(name);
        let own = self.by_id.get(name).filter(|slot| !members.contains(slot));
        members.len() + usize::from(own.is_some())
    }

    /// `false`: it was not in the room.
    pub(super) fn leave(&mut self, socket: &Arc<Membership>, name: &str) -> bool {
        self.has(socket) && self.rooms.leave(socket.slot(), name)
    }

    pub(super) fn insert(&mut self, socket: Arc<Membership>) {
        let slot = socket.slot();
        self.by_id.insert(socket.shared_id(), slot);
        self.positions.insert(slot, self.slots.len());
        self.slots.push(slot);
        self.sockets.insert(slot, socket);
    }

    pub(super) fn remove(&mut self, socket: &Arc<Membership>) {
        let slot = socket.slot();
        if !self.has(socket) {
            return;
        }
        self.sockets.remove(&slot);
        self.by_id.remove(socket.id());
        self.rooms.leave_all(slot);
        if let Some(at) = self.positions.remove(&slot) {
            self.slots.swap_remove(at);
            if let Some(&moved) = self.slots.get(at) {
                self.positions.insert(moved, at);
            }
        }
    }

    /// Whether a new socket may join all of these rooms. `max`: rooms of one socket; `left`: bytes that rooms may
    /// still take.
    pub(super) fn fits(&self, names: &[Arc<str>], max: usize, left: usize) -> bool {
        names.len() <= max && names.iter().map(|name| self.rooms.cost(name)).sum::<usize>() <= left
    }

    /// Joins the rooms, as far as the limits allow (see [`fits`](Self::fits)). `joined` is called for each room that
    /// the socket was not in before.
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
                guard::warn!("socket {}: refused to join a room beyond max_rooms = {max}", socket.id());
                return;
            }
            let cost = self.rooms.cost(name);
            if cost > left {
                guard::warn!("socket {}: refused to join a room: room_bytes_total is used up", socket.id());
                return;
            }
            if self.rooms.join(socket.slot(), name) {
                left -= cost;
                joined(name);
            }
        }
    }

    pub(super) fn room_bytes(&self) -> usize {
        self.rooms.bytes()
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Arc<Membership>> {
        self.sockets.get(&slot)
    }

    /// The slots of the selected sockets, each once.
    pub(super) fn select(&self, to: &Selection, marks: &mut Marks) -> Vec<u32> {
        if let Some(only) = &to.only {
            return self.by_id.get(only).copied().into_iter().collect();
        }
        marks.clear();
        for name in &to.except {
            for &slot in self.rooms.members(name).iter().chain(self.by_id.get(name)) {
                marks.mark(slot);
            }
        }
        if let Some(&slot) = to.skip.as_ref().and_then(|id| self.by_id.get(id)) {
            marks.mark(slot);
        }
        let mut selected = Vec::new();
        let mut add = |slot: u32| {
            if marks.mark(slot) {
                selected.push(slot);
            }
        };
        if to.rooms.is_empty() {
            self.slots.iter().copied().for_each(add);
        } else {
            for name in &to.rooms {
                self.rooms.members(name).iter().chain(self.by_id.get(name)).copied().for_each(&mut add);
            }
        }
        selected
    }
}

/// Which slots the current selection has visited, so that a socket in two rooms gets a packet once.
#[derive(Default)]
pub(super) struct Marks {
    /// The last selection that has visited each slot.
    last: Vec<u64>,
    current: u64,
}

impl Marks {
    /// There may be marks for this slot.
    pub(super) fn grow(&mut self, slot: u32) {
        if self.last.len() <= slot as usize {
            self.last.resize(slot as usize + 1, 0);
        }
    }

    fn clear(&mut self) {
        self.current += 1;
    }

    /// `false`: it was marked already.
    fn mark(&mut self, slot: u32) -> bool {
        std::mem::replace(&mut self.last[slot as usize], self.current) != self.current
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use rstest::rstest;

    use super::*;
    use crate::server::hub::{membership::Identity, session::tests::FakeSession};

    fn socket(slot: u32, id: &str) -> Arc<Membership> {
        let owner = Weak::<()>::new();
        Arc::new(Membership::new(id.into(), 0, FakeSession::new(slot), Identity::default(), owner))
    }

    /// `a` is in the room `x`, `b` in `x` and `y`, `c` in `y`, `d` in none.
    fn members() -> (NamespaceMembers, Marks) {
        let (mut members, mut marks) = (NamespaceMembers::default(), Marks::default());
        for (slot, (id, rooms)) in (0..).zip([("a", "x"), ("b", "x y"), ("c", "y"), ("d", "")]) {
            let socket = socket(slot, id);
            marks.grow(slot);
            members.insert(Arc::clone(&socket));
            let rooms: Vec<Arc<str>> = rooms.split_whitespace().map(Arc::from).collect();
            members.join(&socket, &rooms, usize::MAX, usize::MAX, |_| ());
        }
        (members, marks)
    }

    #[rstest]
    #[case::everybody("", "", None, &[0, 1, 2, 3])]
    #[case::a_room("x", "", None, &[0, 1])]
    #[case::two_rooms_each_once("x y", "", None, &[0, 1, 2])]
    #[case::the_room_of_a_socket("d", "", None, &[3])]
    #[case::except_a_room("", "x", None, &[2, 3])]
    #[case::except_a_socket("x", "a", None, &[1])]
    #[case::without_the_sender("x y", "", Some("b"), &[0, 2])]
    #[case::an_unknown_room("z", "", None, &[])]
    fn selections(
        #[case] rooms: &str,
        #[case] except: &str,
        #[case] skip: Option<&str>,
        #[case] expected: &[u32],
    ) {
        let (members, mut marks) = members();
        let to = Selection {
            only: None,
            rooms: rooms.split_whitespace().map(Arc::from).collect(),
            except: except.split_whitespace().map(Arc::from).collect(),
            skip: skip.map(Arc::from),
        };
        for _ in 0..2 {
            let mut selected = members.select(&to, &mut marks);
            selected.sort_unstable();
            assert_eq!(selected, expected);
        }
    }

    #[test]
    fn a_socket_that_has_left_is_not_selected() {
        let (mut members, mut marks) = members();
        let socket = members.get(1).cloned().expect("b");
        members.remove(&socket);
        assert_eq!(members.select(&Selection::default(), &mut marks), [0, 3, 2]);
        assert_eq!((members.count("x"), members.count("y"), members.count("b")), (1, 1, 0));
        assert!(members.rooms_of(&socket).is_empty());
    }

    /// The slot of a closed session has a new one, and a command of the old one comes late.
    #[test]
    fn an_old_socket_does_not_act_for_the_new_one_of_its_slot() {
        let (mut members, _) = members();
        let old = members.get(0).cloned().expect("a");
        members.remove(&old);
        members.insert(socket(0, "new"));
        members.join(&old, &["z".into()], usize::MAX, usize::MAX, |_| panic!("joined"));
        members.remove(&old);
        assert!(members.get(0).is_some_and(|socket| socket.id() == "new"));
    }

    #[test]
    fn the_limits_of_rooms_hold() {
        let (mut members, _) = members();
        let socket = members.get(3).cloned().expect("d");
        let rooms: Vec<Arc<str>> = ["k", "l", "m"].map(Arc::from).to_vec();
        assert!(!members.fits(&rooms, 2, usize::MAX) && !members.fits(&rooms, 3, 100));
        members.join(&socket, &rooms, 2, usize::MAX, |_| ());
        assert_eq!(members.rooms_of(&socket).len(), 2);
        members.join(&socket, &rooms, 3, 100, |_| panic!("joined"));
    }
}
