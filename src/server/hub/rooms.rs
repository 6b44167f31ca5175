//! Which member is in which room: an index in both directions.
//!
//! A plain type without imports: members are small numbers (slots). The cost of an operation grows with the rooms of
//! its member, or with the members of its room, and with nothing else.

use std::{collections::HashMap, sync::Arc};

/// The rooms of one namespace. A room exists as long as it has a member.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    by_name: HashMap<Arc<str>, usize>,
    rooms: Vec<Room>,
    free: Vec<usize>,
    of: HashMap<u32, Vec<RoomEntry>>,
    /// The bytes of memory that all this takes, or a little less.
    bytes: usize,
}

/// The bytes that a room takes beside its name: its entries in two tables, each of which may have twice the capacity
/// that it needs.
const ROOM_COST: usize = 160;

/// The bytes that a membership takes: a number in the room, and an entry with the member.
const MEMBERSHIP_COST: usize = 64;

#[derive(Debug)]
struct Room {
    name: Arc<str>,
    members: Vec<u32>,
}

/// Where a member is in a room: the index of the room, and its own among the members.
#[derive(Debug, Clone, Copy)]
struct RoomEntry {
    room: usize,
    at: usize,
}

impl Rooms {
    /// `false`: it was in the room already.
    pub(super) fn join(&mut self, member: u32, name: &Arc<str>) -> bool {
        let room = self.room(name);
        let entries = self.of.entry(member).or_default();
        if entries.iter().any(|entry| entry.room == room) {
            return false;
        }
        self.bytes += MEMBERSHIP_COST;
        let members = &mut self.rooms[room].members;
        entries.push(RoomEntry { room, at: members.len() });
        members.push(member);
        true
    }

    /// `false`: it was not in the room.
    pub(super) fn leave(&mut self, member: u32, name: &str) -> bool {
        let Some(&room) = self.by_name.get(name) else { return false };
        let Some(entries) = self.of.get_mut(&member) else { return false };
        let Some(index) = entries.iter().position(|entry| entry.room == room) else { return false };
        let entry = entries.swap_remove(index);
        if entries.is_empty() {
            self.of.remove(&member);
        }
        self.vacate(entry);
        true
    }

    pub(super) fn leave_all(&mut self, member: u32) {
        for entry in self.of.remove(&member).unwrap_or_default() {
            self.vacate(entry);
        }
    }

    pub(super) fn members(&self, name: &str) -> &[u32] {
        self.by_name.get(name).map_or(&[], |&room| &self.rooms[room].members)
    }

    /// In no particular order.
    pub(super) fn of(&self, member: u32) -> impl Iterator<Item = &Arc<str>> {
        self.of.get(&member).into_iter().flatten().map(|entry| &self.rooms[entry.room].name)
    }

    pub(super) fn count(&self, member: u32) -> usize {
        self.of.get(&member).map_or(0, Vec::len)
    }

    /// The bytes of memory that the rooms take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many more bytes a new membership of this room would take.
    pub(super) fn cost(&self, name: &str) -> usize {
        let room = if self.by_name.contains_key(name) { 0 } else { ROOM_COST + name.len() };
        MEMBERSHIP_COST + room
    }

    fn room(&mut self, name: &Arc<str>) -> usize {
        if let Some(&room) = self.by_name.get(name) {
            return room;
        }
        let room = Room { name: Arc::clone(name), members: Vec::new() };
        let index = match self.free.pop() {
            Some(index) => {
                self.rooms[index] = room;
                index
            }
            None => {
                self.rooms.push(room);
                self.rooms.len() - 1
            }
        };
        self.by_name.insert(Arc::clone(name), index);
        self.bytes += ROOM_COST + name.len();
        index
    }

    /// Removes an entry from its room. The room's last member moves into it.
    fn vacate(&mut self, entry: RoomEntry) {
        self.bytes -= MEMBERSHIP_COST;
        let room = &mut self.rooms[entry.room];
        room.members.swap_remove(entry.at);
        if let Some(&moved) = room.members.get(entry.at)
            && let Some(entries) = self.of.get_mut(&moved)
        {
            for other in entries.iter_mut().filter(|other| other.room == entry.room) {
                other.at = entry.at;
            }
        }
        if room.members.is_empty() {
            room.members = Vec::new();
            self.by_name.remove(&room.name);
            self.bytes -= ROOM_COST + room.name.len();
            room.name = Arc::default();
            self.free.push(entry.room);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The index against the obvious model: a set of members a name.
        #[test]
        fn agrees_with_a_map_of_sets(steps in proptest::collection::vec((0u8..4, 0u32..6, 0u8..5), 0..200)) {
            let mut rooms = Rooms::default();
            let mut model: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
            for (verb, member, room) in steps {
                let name: Arc<str> = format!("room {room}").into();
                let set = model.entry(name.to_string()).or_default();
                match verb {
                    0 | 1 => prop_assert_eq!(rooms.join(member, &name), set.insert(member)),
                    2 => prop_assert_eq!(rooms.leave(member, &name), set.remove(&member)),
                    _ => {
                        rooms.leave_all(member);
                        for set in model.values_mut() {
                            set.remove(&member);
                        }
                    }
                }
                for (name, set) in &model {
                    let members: BTreeSet<u32> = rooms.members(name).iter().copied().collect();
                    prop_assert_eq!(&members, set);
                    prop_assert_eq!(rooms.members(name).len(), set.len());
                }
                for member in 0..6 {
                    let of: BTreeSet<String> = rooms.of(member).map(ToString::to_string).collect();
                    let expected: BTreeSet<String> =
                        model.iter().filter(|(_, set)| set.contains(&member)).map(|(name, _)| name.clone()).collect();
                    prop_assert_eq!(of.len(), rooms.count(member));
                    prop_assert_eq!(of, expected);
                }
            }
            let memberships: usize = model.values().map(BTreeSet::len).sum();
            let names: usize = model.iter().filter(|(_, set)| !set.is_empty()).map(|(name, _)| ROOM_COST + name.len()).sum();
            prop_assert_eq!(rooms.bytes(), memberships * MEMBERSHIP_COST + names);
            prop_assert_eq!(rooms.by_name.len(), model.values().filter(|set| !set.is_empty()).count());
        }
    }
}
