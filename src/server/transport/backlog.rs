//! The packets that wait for one client: a queue of WebSocket frames that counts its memory.
//!
//! A plain type: no lock, no I/O. Only the outbox uses it, under its lock.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::proto::{
    engine::payload,
    limits,
    socket::{Encoded, Frames, Opcode},
};

/// A waiting packet of this size is shared by its recipients. A smaller one is copied, which is cheaper.
const SHARE_MIN: usize = 4096;

/// Small packets are copied into one chunk up to this size, so that one `send` takes them.
pub(super) const GATHER_MAX: usize = 64 << 10;

/// Bytes of memory of a chunk beside its content: its place in the queue, which may have twice the room that it needs,
/// and the overhead of its allocation.
const CHUNK_COST: usize = 96;

/// No packet is added to a polling payload of this size.
const PAYLOAD_FULL: usize = 256 << 10;

/// Packets on their way to one client.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packets<'a> {
    /// Frames in a buffer of the caller.
    Borrowed(&'a [u8]),
    /// Frames that other clients get too.
    Shared(&'a Encoded),
}

impl Packets<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(encoded) => encoded.bytes(),
        }
    }
}

/// The WebSocket frames that wait, in order. The first one may be sent in part.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that were taken.
    taken: usize,
    /// Bytes that wait.
    pub(super) len: usize,
    /// Bytes of memory of the chunks, with what was taken of the first one.
    pub(super) memory: usize,
}

#[derive(Debug)]
enum Chunk {
    /// Small frames, copied.
    Copied(Vec<u8>),
    /// A large frame.
    Shared(Bytes),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// Bytes of memory, as if no other client shared them.
    fn memory(&self) -> usize {
        CHUNK_COST
            + match self {
                Self::Copied(bytes) => bytes.capacity(),
                Self::Shared(bytes) => bytes.len(),
            }
    }
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends packets without their first `sent` bytes.
    pub(super) fn push(&mut self, packets: Packets<'_>, sent: usize) {
        let rest = &packets.bytes()[sent..];
        self.len += rest.len();
        match (packets, self.chunks.back_mut()) {
            (Packets::Shared(encoded), _) if rest.len() >= SHARE_MIN => {
                self.chunks.push_back(Chunk::Shared(encoded.bytes().slice(sent..)));
            }
            (_, Some(Chunk::Copied(last))) if last.len() + rest.len() <= GATHER_MAX => {
                self.memory -= last.capacity();
                last.extend_from_slice(rest);
                self.memory += last.capacity();
                return;
            }
            _ => self.chunks.push_back(Chunk::Copied(rest.to_vec())),
        }
        self.memory += self.chunks.back().map_or(0, Chunk::memory);
    }

    /// The bytes that are sent next. `None`: nothing waits.
    pub(super) fn front(&self) -> Option<&[u8]> {
        self.chunks.front().map(|chunk| &chunk.bytes()[self.taken..])
    }

    /// The first `bytes` of [`front`](Self::front) were sent.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.taken += bytes;
        self.len -= bytes;
        if self.front().is_some_and(<[u8]>::is_empty) {
            self.memory -= self.chunks.pop_front().map_or(0, |chunk| chunk.memory());
            self.taken = 0;
        }
        if self.chunks.is_empty() {
            // Frees the memory of the queue.
            self.chunks = VecDeque::new();
        }
    }

    /// Moves whole packets into a polling payload, as many as every client accepts.
    pub(super) fn take_packets(&mut self, body: &mut payload::Builder) {
        while body.packets() < limits::MAX_SENT_PACKETS && body.len() < PAYLOAD_FULL {
            let Some(frame) = self.front().and_then(|chunk| Frames::new(chunk).next()) else {
                return;
            };
            match (frame.opcode, frame.text()) {
                (Opcode::Text, Some(text)) => body.push_text(text),
                (Opcode::Binary, _) => body.push_binary(frame.data),
                _ => {}
            }
            let size = frame.size;
            self.advance(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(backlog: &mut Backlog) -> String {
        let mut body = payload::Builder::new();
        backlog.take_packets(&mut body);
        body.finish()
    }

    #[test]
    fn small_packets_are_one_chunk_and_large_ones_are_shared() {
        let (small, large) = (Encoded::text("4a"), Encoded::text(&"b".repeat(SHARE_MIN)));
        let mut backlog = Backlog::default();
        for packet in [&small, &small, &large, &small] {
            backlog.push(Packets::Shared(packet), 0);
        }
        assert_eq!(backlog.chunks.len(), 3);
        assert!(
            matches!(&backlog.chunks[1], Chunk::Shared(bytes) if bytes.as_ptr() == large.bytes().as_ptr())
        );
        assert_eq!(backlog.len, 3 * small.bytes().len() + large.bytes().len());
        assert!(backlog.memory >= backlog.len + 3 * CHUNK_COST);
    }

    #[test]
    fn a_packet_that_was_sent_in_part_waits_with_its_rest() {
        let packet = Encoded::text("4abc");
        let mut backlog = Backlog::default();
        backlog.push(Packets::Shared(&packet), 2);
        assert_eq!(backlog.front(), Some(&packet.bytes()[2..]));
        backlog.advance(1);
        assert_eq!(backlog.front(), Some(&packet.bytes()[3..]));
        backlog.advance(packet.bytes().len() - 3);
        assert_eq!((backlog.front(), backlog.len, backlog.memory), (None, 0, 0));
    }

    #[test]
    fn a_polling_payload_takes_whole_packets_in_order() {
        let mut backlog = Backlog::default();
        backlog.push(Packets::Shared(&Encoded::text("4a")), 0);
        backlog.push(Packets::Shared(&Encoded::binary(&[1, 2, 3])), 0);
        backlog.push(Packets::Shared(&Encoded::text("2")), 0);
        assert_eq!(payload(&mut backlog), "4a\u{1e}bAQID\u{1e}2");
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_polling_payload_that_is_full_leaves_the_rest() {
        let packet = Encoded::text(&"x".repeat(PAYLOAD_FULL / 2));
        let mut backlog = Backlog::default();
        (0..3).for_each(|_| backlog.push(Packets::Shared(&packet), 0));
        assert!(payload(&mut backlog).len() >= PAYLOAD_FULL);
        assert_eq!(backlog.len, packet.bytes().len());
        let mut small = Backlog::default();
        let count = limits::MAX_SENT_PACKETS + 1;
        (0..count).for_each(|_| small.push(Packets::Shared(&Encoded::text("6")), 0));
        assert_eq!(payload(&mut small).split('\u{1e}').count(), limits::MAX_SENT_PACKETS);
        assert_eq!(small.len, Encoded::text("6").bytes().len());
    }
}
