//! The log: the packets that were sent, the oldest first, each with the selection of its recipients.
//!
//! It is a plain type. It knows no store, no socket and no client that is connected: [`Recovery`](super::Recovery)
//! tells the store what has changed. Each packet is in the log once, however many clients receive it. The oldest
//! packets are dropped when the log is full, or when they are old. The **floor** is the offset of the last packet
//! that was dropped.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::server::{hub::Selection, hub::recovery::members::Member, recovery::store::KeptPacket};
use crate::{
    proto::socket::{Encoded, Offset},
    sys::time::Instant,
};

/// The bytes that an entry takes beside its packet: its place in a queue that may have twice the capacity that it
/// needs, and a buffer that may have more than the packet needs.
const ENTRY_COST: usize = 400;

/// The store is trimmed when this part of the log's bytes has been dropped.
const TRIM_SHARE: usize = 8;

/// A packet that was sent.
pub(super) struct Entry {
    pub(super) offset: Offset,
    pub(super) namespace: usize,
    to: Arc<Selection>,
    pub(super) packet: Encoded,
    at: Instant,
    /// The bytes of all packets that were ever added, up to this one.
    total: u64,
}

impl Entry {
    pub(super) fn new(
        offset: Offset,
        namespace: usize,
        to: Arc<Selection>,
        packet: Encoded,
        at: Instant,
    ) -> Self {
        Self { offset, namespace, to, packet, at, total: 0 }
    }

    /// The entry as the store keeps it.
    pub(super) fn kept(&self, namespace: &Arc<str>) -> KeptPacket {
        KeptPacket {
            offset: self.offset.number(),
            namespace: Arc::clone(namespace),
            only: self.to.only.clone(),
            rooms: self.to.rooms.to_vec(),
            except: self.to.except.to_vec(),
            skip: self.to.skip.clone(),
            frames: self.packet.bytes().clone(),
        }
    }

    fn bytes(&self) -> usize {
        let names = self.to.rooms.iter().chain(&self.to.except).chain(&self.to.skip).chain(&self.to.only);
        ENTRY_COST + self.packet.bytes().len() + names.map(|name| name.len()).sum::<usize>()
    }
}

/// How much the log keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) packets: usize,
    pub(super) bytes: usize,
    pub(super) age: Duration,
}

pub(super) struct Log {
    limits: Limits,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The bytes of all packets that were ever added.
    total: u64,
    floor: Offset,
    last: Offset,
    /// The last offset of the generations before this one.
    before: Offset,
    /// The bytes that were dropped since the store was last trimmed.
    trimmed: usize,
}

impl Log {
    /// `last`: where this generation's offsets begin. `before`: the last offset of the generations before it.
    pub(super) fn new(limits: Limits, floor: Offset, before: Offset, last: Offset) -> Self {
        Self { limits, entries: VecDeque::new(), bytes: 0, total: 0, floor, last, before, trimmed: 0 }
    }

    /// The offset of the last packet that was sent.
    pub(super) fn last(&self) -> Offset {
        self.last
    }

    /// The offset of the last packet that was dropped.
    pub(super) fn floor(&self) -> Offset {
        self.floor
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The offset of the next packet.
    pub(super) fn next_offset(&mut self) -> Offset {
        self.last = self.last.next();
        self.last
    }

    /// Adds a packet, which has the largest offset of all.
    pub(super) fn push(&mut self, mut entry: Entry) {
        self.total += entry.packet.bytes().len() as u64;
        entry.total = self.total;
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
    }

    /// Drops the packets that are too many or too old. `true`: so many were dropped that the store is to be trimmed
    /// too.
    pub(super) fn trim(&mut self, now: Instant) -> bool {
        while self.entries.front().is_some_and(|entry| self.is_over(entry, now)) {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.bytes();
            self.trimmed += entry.bytes();
            self.floor = entry.offset;
        }
        let trims_store = self.trimmed > self.limits.bytes / TRIM_SHARE;
        if trims_store {
            self.trimmed = 0;
        }
        trims_store
    }

    fn is_over(&self, entry: &Entry, now: Instant) -> bool {
        self.entries.len() > self.limits.packets
            || self.bytes > self.limits.bytes
            // Not only after the deadline: an entry that stays at its deadline would be due again and again.
            || now.saturating_duration_since(entry.at) >= self.limits.age
    }

    /// Returns memory that the log does not need while it is empty.
    pub(super) fn shrink(&mut self) {
        if self.entries.is_empty() {
            self.entries.shrink_to(64);
        }
    }

    /// When the oldest packet is too old.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.at + self.limits.age)
    }

    /// The store is empty and has begun a new generation, whose offsets begin here.
    pub(super) fn begin_generation(&mut self, begin: Offset) {
        // Each packet that was sent until now is in the log, or below its floor.
        self.before = self.last;
        self.last = begin;
        self.trimmed = 0;
    }

    /// Whether every packet for this client after `offset` is in the log, or why not. `valid_until`: up to this offset,
    /// `client.last` is right.
    pub(super) fn is_complete(
        &self,
        client: &Member,
        valid_until: Offset,
        offset: Offset,
    ) -> Result<(), &'static str> {
        if offset > self.last {
            return Err("it has what has not been sent yet");
        }
        if offset < client.history_from {
            return Err("it is not known any more in which rooms it was");
        }
        if offset > self.before && !offset.is_of_life_of(self.last) && !offset.begins_a_life() {
            // The server may have lost other packets with this one that the client does not have.
            return Err("it has what this server has lost");
        }
        // Either nothing after the offset was dropped, or nothing that was for this client.
        if offset >= self.floor || (offset >= client.last && self.floor <= valid_until) {
            Ok(())
        } else {
            Err("what it has missed is not kept any more")
        }
    }

    /// The packets for this client after `offset`, in their order.
    pub(super) fn missed<'a>(
        &'a self,
        client: &'a Member,
        namespace: usize,
        offset: Offset,
    ) -> impl Iterator<Item = &'a Entry> {
        let history = client.history();
        self.entries
            .range(self.index_after(offset)..)
            .filter(move |entry| entry.namespace == namespace && history.gets(&entry.to, entry.offset))
    }

    /// Whether the packets for this client after `offset` have more bytes than `max`.
    pub(super) fn has_missed_more(
        &self,
        client: &Member,
        namespace: usize,
        offset: Offset,
        max: usize,
    ) -> bool {
        let bytes = |entry: &Entry| entry.packet.bytes().len();
        let first = self.entries.get(self.index_after(offset));
        let since = first.map_or(0, |first| self.total - first.total + bytes(first) as u64);
        // Usually all packets since then are few enough.
        since > max as u64 && self.missed(client, namespace, offset).map(bytes).sum::<usize>() > max
    }

    fn index_after(&self, offset: Offset) -> usize {
        self.entries.partition_point(|entry| entry.offset <= offset)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rstest::rstest;

    use super::*;

    const LIMITS: Limits = Limits { packets: 3, bytes: 1 << 20, age: Duration::from_secs(60) };

    fn log(limits: Limits) -> Log {
        let begin = Offset::of_life(2);
        Log::new(limits, Offset::ZERO, Offset::new(9), begin)
    }

    fn send(log: &mut Log, room: Option<&str>, bytes: usize, at: Instant) -> Offset {
        let offset = log.next_offset();
        let to = Selection { rooms: room.into_iter().map(Arc::from).collect(), ..Selection::default() };
        let packet = Encoded::from_bytes(Bytes::from(vec![b'x'; bytes]));
        log.push(Entry::new(offset, 0, to.into(), packet, at));
        offset
    }

    #[test]
    fn the_oldest_packets_are_dropped_when_there_are_too_many() {
        let (mut log, now) = (log(LIMITS), Instant::now());
        let offsets: Vec<_> = (0..5).map(|_| send(&mut log, None, 10, now)).collect();
        log.trim(now);
        assert_eq!((log.len(), log.floor(), log.last()), (3, offsets[1], offsets[4]));
    }

    #[test]
    fn the_oldest_packets_are_dropped_when_they_have_too_many_bytes() {
        let mut log = log(Limits { bytes: 2_500, ..LIMITS });
        let now = Instant::now();
        send(&mut log, None, 1_000, now);
        let second = send(&mut log, None, 1_000, now);
        assert!(log.trim(now), "more than an eighth was dropped");
        assert_eq!(log.entries().map(|entry| entry.offset).collect::<Vec<_>>(), [second]);
        assert_eq!(log.bytes(), ENTRY_COST + 1_000);
        assert!(!log.trim(now));
    }

    #[test]
    fn a_packet_is_dropped_at_its_deadline() {
        let (mut log, now) = (log(LIMITS), Instant::now());
        send(&mut log, None, 10, now);
        let due = log.deadline().expect("a packet");
        log.trim(due - Duration::from_millis(1));
        assert_eq!(log.len(), 1);
        log.trim(due);
        assert_eq!((log.len(), log.bytes(), log.deadline()), (0, 0, None));
    }

    #[test]
    fn a_client_gets_what_was_sent_while_it_was_in_the_room() {
        let (mut log, now) = (log(LIMITS), Instant::now());
        let mut client = Member::new("sid".into(), "pid".into(), log.last());
        let before = send(&mut log, Some("room"), 10, now);
        client.join("room".into(), log.last());
        let during = send(&mut log, Some("room"), 10, now);
        client.leave("room", log.last(), log.floor());
        send(&mut log, Some("room"), 10, now);
        let missed = |from| log.missed(&client, 0, from).map(|entry| entry.offset).collect::<Vec<_>>();
        assert_eq!(missed(Offset::of_life(2)), [during]);
        assert_eq!(missed(before), [during]);
        assert_eq!(missed(during), []);
        assert_eq!(log.missed(&client, 1, before).count(), 0, "another namespace");
        assert!(log.has_missed_more(&client, 0, before, 9));
        assert!(!log.has_missed_more(&client, 0, before, 10));
    }

    /// Offsets: how many packets of this generation, of six that were sent. The first three are not in the log any
    /// more.
    #[rstest]
    #[case::nothing_dropped_since(3, 6, 6, true)]
    #[case::something_dropped_since(2, 6, 6, false)]
    #[case::nothing_of_what_was_dropped_was_for_it(2, 2, 6, true)]
    #[case::not_known_of_the_last_that_was_dropped(2, 2, 2, false)]
    #[case::not_sent_yet(7, 6, 6, false)]
    fn completeness(
        #[case] offset: u64,
        #[case] last: u64,
        #[case] valid_until: u64,
        #[case] is_complete: bool,
    ) {
        let (mut log, now) = (log(LIMITS), Instant::now());
        (0..6).for_each(|_| _ = send(&mut log, None, 10, now));
        log.trim(now);
        let at = |count: u64| Offset::new(Offset::of_life(2).number() + count);
        let mut client = Member::new("sid".into(), "pid".into(), at(0));
        client.last = at(last);
        assert_eq!(log.is_complete(&client, at(valid_until), at(offset)).is_ok(), is_complete);
    }

    #[test]
    fn an_offset_that_was_lost_with_the_generation_before_is_refused() {
        let log = log(LIMITS);
        let client = Member::new("sid".into(), "pid".into(), Offset::ZERO);
        let is_complete = |offset| log.is_complete(&client, log.last(), offset).is_ok();
        assert!(is_complete(Offset::new(9)));
        assert!(!is_complete(Offset::new(10)));
    }
}
