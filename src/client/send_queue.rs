//! The send queue of one session: what was emitted and is not yet handed to the transport.
//!
//! Owns the order of the packets, their bytes, and whether the `link` thread sleeps. Uses the packets of `proto`, the
//! packets of the offline buffer, and [`Error`]. It must not lock, log, or know a transport.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{Error, offline::BufferedPacket};
use crate::proto::socket::{Encoded, Opcode};

/// Bytes that are taken at a time: enough to fill a socket's buffer, and few enough that a pong is not delayed for
/// long.
const BATCH: usize = 64 << 10;

/// One message for the transport.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) data: Bytes,
}

/// The queue. Its limit is checked by [`check_room`](Self::check_room), because some packets may exceed it.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    /// The answer to the last ping. It is written before the packets.
    pong: Option<Encoded>,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Whether `link` must be woken to see a new packet.
    writer_asleep: bool,
}

#[derive(Debug)]
enum Entry {
    Packet(QueuedPacket),
    /// The packets behind it are sent once the server has handled the packets before it. The official server discards
    /// events that it reads together with the DISCONNECT that follows them.
    Pause,
}

/// A packet in the queue.
#[derive(Debug)]
pub(super) struct QueuedPacket {
    encoded: Encoded,
    /// For an event that outlives its session: the index of its namespace, and the id of its acknowledgement.
    kept_for: Option<(usize, Option<u64>)>,
    /// Whether it is counted in `Stats::sent`.
    is_counted: bool,
}

impl QueuedPacket {
    /// CONNECT or DISCONNECT: ends with its session, and is not counted.
    pub(super) fn control(encoded: Encoded) -> Self {
        Self { encoded, kept_for: None, is_counted: false }
    }

    /// An event or acknowledgement that ends with its session.
    pub(super) fn of_session(encoded: Encoded) -> Self {
        Self { encoded, kept_for: None, is_counted: true }
    }

    /// An event that goes back to the offline buffer when it was not written.
    pub(super) fn kept(encoded: Encoded, namespace: usize, ack: Option<u64>) -> Self {
        Self { encoded, kept_for: Some((namespace, ack)), is_counted: true }
    }
}

/// What [`SendQueue::take`] has moved.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Packets that count as sent.
    pub(super) sent: u64,
    pub(super) pong: bool,
    /// Nothing more is to be written until the server has handled what was written.
    pub(super) pause: bool,
}

impl SendQueue {
    pub(super) fn push(&mut self, packet: QueuedPacket) {
        self.bytes += packet.encoded.bytes().len();
        self.entries.push_back(Entry::Packet(packet));
    }

    pub(super) fn push_pause(&mut self) {
        self.entries.push_back(Entry::Pause);
    }

    /// Sets the answer to a ping. One answer is enough for several pings.
    pub(super) fn set_pong(&mut self, pong: Encoded) {
        self.pong = Some(pong);
    }

    /// Whether there is room for an event. An empty queue has room for an event of any size.
    pub(super) fn check_room(&self, encoded: &Encoded, limit: usize) -> Result<(), Error> {
        if self.bytes > 0 && self.bytes + encoded.bytes().len() > limit {
            return Err(Error::QueueFull { bytes: self.bytes });
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `link` sleeps and must be woken. It is then expected to be awake.
    pub(super) fn must_wake(&mut self) -> bool {
        std::mem::take(&mut self.writer_asleep)
    }

    /// Moves a batch to `pending`, if that is empty: the pong first, then packets unless `paused`.
    pub(super) fn take(&mut self, pending: &mut VecDeque<Frame>, paused: bool) -> Taken {
        let mut taken = Taken::default();
        if pending.is_empty() {
            let pong = self.pong.take();
            taken.pong = pong.is_some();
            pong.iter().for_each(|pong| unpack(pong, pending));
            if !paused {
                taken.sent = self.take_packets(pending);
                taken.pause = pending.is_empty() && self.take_pause();
            }
        }
        self.writer_asleep = pending.is_empty();
        taken
    }

    fn take_packets(&mut self, pending: &mut VecDeque<Frame>) -> u64 {
        let (mut taken, mut sent) = (0, 0);
        while taken < BATCH
            && let Some(Entry::Packet(packet)) =
                self.entries.pop_front_if(|entry| matches!(entry, Entry::Packet(_)))
        {
            let bytes = packet.encoded.bytes().len();
            taken += bytes;
            sent += u64::from(packet.is_counted);
            self.bytes -= bytes;
            unpack(&packet.encoded, pending);
        }
        sent
    }

    fn take_pause(&mut self) -> bool {
        self.entries.pop_front_if(|entry| matches!(entry, Entry::Pause)).is_some()
    }

    /// The events that outlive the session, in order, for the offline buffer.
    pub(super) fn into_unwritten(self, since: Instant) -> impl Iterator<Item = BufferedPacket> {
        self.entries.into_iter().filter_map(move |entry| {
            let Entry::Packet(QueuedPacket { encoded, kept_for, .. }) = entry else { return None };
            let (namespace, ack) = kept_for?;
            Some(BufferedPacket { namespace, encoded, ack, since })
        })
    }
}

fn unpack(encoded: &Encoded, pending: &mut VecDeque<Frame>) {
    let frames = encoded.frames();
    pending.extend(
        frames.map(|frame| Frame { opcode: frame.opcode, data: encoded.bytes().slice_ref(frame.data) }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> QueuedPacket {
        QueuedPacket::kept(Encoded::text(text), 0, None)
    }

    fn take(queue: &mut SendQueue, paused: bool) -> (Vec<String>, Taken) {
        let mut pending = VecDeque::new();
        let taken = queue.take(&mut pending, paused);
        let texts = pending.iter().map(|frame| String::from_utf8(frame.data.to_vec()).unwrap()).collect();
        (texts, taken)
    }

    #[test]
    fn the_pong_is_first_and_the_pause_is_alone() {
        let mut queue = SendQueue::default();
        queue.push(event("a"));
        queue.push_pause();
        queue.push(QueuedPacket::control(Encoded::text("b")));
        queue.set_pong(Encoded::text("3"));
        let (texts, taken) = take(&mut queue, false);
        assert_eq!((texts.len(), &*texts[0], taken), (2, "3", Taken { sent: 1, pong: true, pause: false }));
        assert!(!queue.must_wake(), "link writes");
        assert_eq!(take(&mut queue, false), (vec![], Taken { sent: 0, pong: false, pause: true }));
        assert!(queue.must_wake(), "nothing was taken");
        assert!(!queue.must_wake(), "it is awake already");
        assert_eq!(take(&mut queue, true), (vec![], Taken::default()));
        assert_eq!(take(&mut queue, false).0.len(), 1);
        assert_eq!((queue.bytes(), queue.is_empty()), (0, true));
    }

    #[test]
    fn nothing_is_taken_while_frames_are_pending() {
        let mut queue = SendQueue::default();
        queue.push(event("a"));
        let mut pending = VecDeque::from([Frame { opcode: Opcode::Text, data: Bytes::new() }]);
        assert_eq!(queue.take(&mut pending, false), Taken::default());
        assert_eq!((pending.len(), queue.is_empty()), (1, false));
    }

    #[test]
    fn an_empty_queue_has_room_for_anything() {
        let mut queue = SendQueue::default();
        let large = Encoded::text(&"x".repeat(100));
        assert!(queue.check_room(&large, 10).is_ok());
        queue.push(event("a"));
        assert!(matches!(queue.check_room(&large, 100), Err(Error::QueueFull { .. })));
        assert!(queue.check_room(&large, 1_000).is_ok());
    }

    #[test]
    fn only_events_of_their_own_outlive_the_session() {
        let mut queue = SendQueue::default();
        queue.push(QueuedPacket::control(Encoded::text("a")));
        queue.push(QueuedPacket::kept(Encoded::text("b"), 1, Some(7)));
        queue.push_pause();
        queue.push(QueuedPacket::of_session(Encoded::text("c")));
        let left: Vec<_> =
            queue.into_unwritten(Instant::now()).map(|left| (left.namespace, left.ack)).collect();
        assert_eq!(left, [(1, Some(7))]);
    }
}
