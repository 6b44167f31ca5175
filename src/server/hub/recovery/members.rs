//! The connected sockets of all namespaces: the rooms in which each of them was, and when.
//!
//! It is a plain type. It knows slots, ids and offsets; no session, no store and no packet.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::proto::socket::Offset;
use crate::server::{
    hub::Selection,
    recovery::store::{KeptSession, Stay},
};

/// The bytes that an interval in a room takes beside the room's name, which is shared.
pub(super) const INTERVAL_COST: usize = 48;

/// The intervals of rooms that a member has left and that are kept.
const LEFT_MAX: usize = 64;

/// The bytes that a member takes beside the rooms that it is in.
pub(crate) const MEMBER_BYTES: usize = 1_024 + LEFT_MAX * INTERVAL_COST;

/// The end of an interval that has none.
pub(super) const OPEN: Offset = Offset::new(u64::MAX);

/// When a member was in a room: after the offset `from`, up to the offset `to`.
#[derive(Debug, Clone)]
pub(super) struct RoomInterval {
    pub(super) room: Arc<str>,
    from: Offset,
    to: Offset,
}

/// A socket and its history.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) sid: Arc<str>,
    pub(super) pid: Arc<str>,
    /// The last offset when it connected: later packets may be for it.
    pub(super) entered: Offset,
    /// The last packet that was for it.
    pub(super) last: Offset,
    intervals: Vec<RoomInterval>,
    /// At and before this offset its rooms are not known any more.
    pub(super) history_from: Offset,
    /// The application's data, as the store keeps it.
    pub(super) data: Option<Bytes>,
    /// It has changed since the store was last given it.
    dirty: bool,
    /// The `last` that the store has.
    stored_last: Offset,
}

impl Member {
    pub(super) fn new(sid: Arc<str>, pid: Arc<str>, entered: Offset) -> Self {
        Self {
            sid,
            pid,
            entered,
            last: entered,
            intervals: Vec::new(),
            history_from: Offset::ZERO,
            data: None,
            dirty: false,
            stored_last: entered,
        }
    }

    pub(super) fn from_kept(session: KeptSession) -> Self {
        let last = Offset::new(session.last);
        let interval =
            |Stay { room, from, to }| RoomInterval { room, from: Offset::new(from), to: Offset::new(to) };
        Self {
            sid: session.sid,
            pid: session.pid,
            entered: Offset::new(session.entered),
            last,
            intervals: session.stays.into_iter().map(interval).collect(),
            history_from: Offset::new(session.blind),
            data: session.data,
            dirty: false,
            stored_last: last,
        }
    }

    /// The member as the store keeps it. `valid_until`: up to this offset `last` is right; [`OPEN`] for a connected
    /// one.
    pub(super) fn kept(&self, namespace: &Arc<str>, valid_until: Offset) -> KeptSession {
        let stay = |interval: &RoomInterval| Stay {
            room: Arc::clone(&interval.room),
            from: interval.from.number(),
            to: interval.to.number(),
        };
        KeptSession {
            pid: Arc::clone(&self.pid),
            sid: Arc::clone(&self.sid),
            namespace: Arc::clone(namespace),
            entered: self.entered.number(),
            blind: self.history_from.number(),
            stays: self.intervals.iter().map(stay).collect(),
            data: self.data.clone(),
            last: self.last.number(),
            known: valid_until.number(),
        }
    }

    /// The store has been given this state.
    pub(super) fn mark_stored(&mut self) {
        (self.dirty, self.stored_last) = (false, self.last);
    }

    pub(super) fn intervals(&self) -> &[RoomInterval] {
        &self.intervals
    }

    /// The rooms that it is in.
    pub(super) fn rooms(&self) -> impl Iterator<Item = &Arc<str>> {
        self.intervals.iter().filter(|interval| interval.to == OPEN).map(|interval| &interval.room)
    }

    /// It is in the room from now on. `last`: the last offset.
    pub(super) fn join(&mut self, room: Arc<str>, last: Offset) {
        self.intervals.push(RoomInterval { room, from: last, to: OPEN });
    }

    /// It was in the room up to the last offset. `floor`: that of the log.
    pub(super) fn leave(&mut self, room: &str, last: Offset, floor: Offset) {
        let mut open = self.intervals.iter_mut().filter(|interval| interval.to == OPEN);
        let Some(interval) = open.find(|interval| *interval.room == *room) else { return };
        interval.to = last;
        // An interval that is not needed: the log has nothing of that time any more, or nothing was sent during it.
        self.intervals.retain(|interval| interval.to > floor && interval.from < interval.to);
        let left = self.intervals.iter().filter(|interval| interval.to != OPEN);
        if left.clone().count() > LEFT_MAX
            && let Some(first) = left.map(|interval| interval.to).min()
        {
            self.history_from = first;
            self.intervals.retain(|interval| interval.to != first);
        }
    }

    /// Its rooms in a form that is fast to search.
    pub(super) fn history(&self) -> History<'_> {
        let mut intervals: HashMap<_, SmallVec<_>> = HashMap::new();
        for interval in &self.intervals {
            intervals.entry(&*interval.room).or_default().push((interval.from, interval.to));
        }
        History { member: self, intervals }
    }
}

/// Where a member was, by room.
pub(super) struct History<'a> {
    member: &'a Member,
    intervals: HashMap<&'a str, SmallVec<[(Offset, Offset); 1]>>,
}

impl History<'_> {
    fn is_in(&self, room: &str, at: Offset) -> bool {
        let contains = |&(from, to): &(Offset, Offset)| from < at && at <= to;
        room == &*self.member.sid
            || self.intervals.get(room).is_some_and(|intervals| intervals.iter().any(contains))
    }

    /// Whether the packet with this offset was for the member.
    pub(super) fn gets(&self, to: &Selection, at: Offset) -> bool {
        if let Some(only) = &to.only {
            return *only == self.member.sid;
        }
        let is_in = |room: &Arc<str>| self.is_in(room, at);
        at > self.member.entered
            && (to.rooms.is_empty() || to.rooms.iter().any(is_in))
            && !to.except.iter().any(is_in)
            && to.skip.as_ref() != Some(&self.member.sid)
    }
}

/// The members of all namespaces by their slot.
pub(super) struct Members {
    by_slot: Vec<Vec<Option<Box<Member>>>>,
    /// Members that have changed since the store was last given them: namespace and slot.
    dirty: Vec<(usize, u32)>,
}

impl Members {
    pub(super) fn new(namespaces: usize) -> Self {
        Self { by_slot: (0..namespaces).map(|_| Vec::new()).collect(), dirty: Vec::new() }
    }

    pub(super) fn insert(&mut self, namespace: usize, slot: u32, member: Member) {
        let (members, index) = (&mut self.by_slot[namespace], slot as usize);
        if members.len() <= index {
            members.resize_with(index + 1, || None);
        }
        members[index] = Some(Box::new(member));
    }

    pub(super) fn get_mut(&mut self, namespace: usize, slot: u32) -> Option<&mut Member> {
        self.by_slot[namespace].get_mut(slot as usize)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, namespace: usize, slot: u32) -> Option<Member> {
        self.by_slot[namespace].get_mut(slot as usize)?.take().map(|member| *member)
    }

    /// Removes the slots of sockets that are not members, because their clients have declined recovery, and returns
    /// them.
    pub(super) fn take_non_recoverable(&self, namespace: usize, slots: &mut Vec<u32>) -> Vec<u32> {
        let members = &self.by_slot[namespace];
        let is_member = |slot: u32| members.get(slot as usize).is_some_and(Option::is_some);
        slots.extract_if(.., |slot| !is_member(*slot)).collect()
    }

    /// The store is to be given this member.
    pub(super) fn mark_dirty(&mut self, namespace: usize, slot: u32) {
        if let Some(member) = self.get_mut(namespace, slot)
            && !std::mem::replace(&mut member.dirty, true)
        {
            self.dirty.push((namespace, slot));
        }
    }

    /// Gives `store` the members that are marked as dirty.
    pub(super) fn store_dirty(&mut self, mut store: impl FnMut(usize, &Member)) {
        for (namespace, slot) in self.dirty.drain(..) {
            if let Some(Some(member)) = self.by_slot[namespace].get_mut(slot as usize) {
                member.mark_stored();
                store(namespace, member);
            }
        }
    }

    /// Gives `store` the members whose `last` has changed since the store was last given it.
    pub(super) fn store_last(&mut self, mut store: impl FnMut(usize, &Member)) {
        for (namespace, member) in self.iter_mut() {
            if member.last != member.stored_last {
                member.stored_last = member.last;
                store(namespace, member);
            }
        }
    }

    /// Gives `store` all members.
    pub(super) fn store_all(&mut self, mut store: impl FnMut(usize, &Member)) {
        self.dirty.clear();
        for (namespace, member) in self.iter_mut() {
            member.mark_stored();
            store(namespace, member);
        }
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Member)> {
        let namespaces = self.by_slot.iter_mut().enumerate();
        namespaces.flat_map(|(namespace, members)| {
            members.iter_mut().flatten().map(move |member| (namespace, &mut **member))
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn member() -> Member {
        Member::new("sid".into(), "pid".into(), Offset::new(1))
    }

    fn selection(text: &str) -> Selection {
        let mut to = Selection::default();
        for word in text.split_whitespace() {
            match word.split_at(1) {
                ("=", sid) => to.only = Some(sid.into()),
                ("-", room) => to.except.push(room.into()),
                ("!", sid) => to.skip = Some(sid.into()),
                _ => to.rooms.push(word.into()),
            }
        }
        to
    }

    /// The member entered at 1, and was in the room `a` from 2 to 4.
    #[rstest]
    #[case::everybody("", 2, true)]
    #[case::before_it_connected("", 1, false)]
    #[case::before_it_joined("a", 2, false)]
    #[case::the_first_in_the_room("a", 3, true)]
    #[case::the_last_in_the_room("a", 4, true)]
    #[case::after_it_left("a", 5, false)]
    #[case::another_room("b", 3, false)]
    #[case::one_of_two_rooms("b a", 3, true)]
    #[case::its_own_room("sid", 5, true)]
    #[case::except("-a", 3, false)]
    #[case::except_after_it_left("-a", 5, true)]
    #[case::the_sender("!sid", 5, false)]
    #[case::another_sender("!other", 5, true)]
    #[case::only_it("=sid", 5, true)]
    #[case::only_another("=other", 5, false)]
    fn a_packet_is_for_the_member(#[case] to: &str, #[case] at: u64, #[case] gets: bool) {
        let mut member = member();
        member.join("a".into(), Offset::new(2));
        member.leave("a", Offset::new(4), Offset::ZERO);
        assert_eq!(member.history().gets(&selection(to), Offset::new(at)), gets);
    }

    #[test]
    fn an_interval_without_a_packet_is_not_kept() {
        let mut member = member();
        member.join("a".into(), Offset::new(2));
        member.leave("a", Offset::new(2), Offset::ZERO);
        member.join("b".into(), Offset::new(2));
        member.leave("b", Offset::new(3), Offset::new(3));
        assert!(member.intervals().is_empty());
    }

    #[test]
    fn the_history_is_bounded() {
        let mut member = member();
        for at in 0..=LEFT_MAX as u64 {
            member.join("a".into(), Offset::new(2 * at));
            member.leave("a", Offset::new(2 * at + 1), Offset::ZERO);
        }
        assert_eq!((member.intervals().len(), member.history_from), (LEFT_MAX, Offset::new(1)));
    }

    #[test]
    fn the_store_gives_back_what_it_was_given() {
        let mut member = member();
        member.join("a".into(), Offset::new(2));
        member.data = Some(Bytes::from_static(b"data"));
        let kept = member.kept(&"/".into(), OPEN);
        assert_eq!(Member::from_kept(kept.clone()).kept(&"/".into(), OPEN), kept);
    }

    #[test]
    fn the_store_is_given_each_change_once() {
        let mut members = Members::new(2);
        members.insert(1, 5, member());
        members.mark_dirty(1, 5);
        members.mark_dirty(1, 5);
        members.mark_dirty(0, 5);
        let stored = |members: &mut Members| {
            let mut stored = Vec::new();
            members.store_dirty(|namespace, member| stored.push((namespace, member.last.number())));
            stored
        };
        assert_eq!(stored(&mut members), [(1, 1)]);
        assert_eq!(stored(&mut members), []);
        members.get_mut(1, 5).expect("a member").last = Offset::new(3);
        let mut last = Vec::new();
        members.store_last(|_, member| last.push(member.last.number()));
        members.store_last(|_, member| last.push(member.last.number()));
        assert_eq!(last, [3]);
    }

    #[test]
    fn slots_without_a_member_are_taken_out() {
        let mut members = Members::new(1);
        members.insert(0, 2, member());
        let mut slots = vec![0, 2, 9];
        assert_eq!(members.take_non_recoverable(0, &mut slots), [0, 9]);
        assert_eq!(slots, [2]);
        assert!(members.remove(0, 2).is_some() && members.remove(0, 2).is_none());
    }
}
