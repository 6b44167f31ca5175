//! The offline buffer: events that were emitted without a connection, in order, within limits.
//!
//! Owns the packets and their bytes. Uses [`Error`] and the limits. It must not lock, or look at the clock.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Error, config::OfflineLimits};
use crate::proto::socket::Encoded;

/// The offline buffer of one client. When it is full, the emit is refused with [`Error::BufferFull`].
#[derive(Debug)]
pub(super) struct OfflineBuffer {
    limits: OfflineLimits,
    packets: VecDeque<BufferedPacket>,
    bytes: usize,
}

/// A packet in the buffer.
#[derive(Debug)]
pub(super) struct BufferedPacket {
    /// Index of its namespace.
    pub(super) namespace: usize,
    pub(super) encoded: Encoded,
    /// The id of its acknowledgement.
    pub(super) ack: Option<u64>,
    pub(super) since: Instant,
}

impl OfflineBuffer {
    pub(super) fn new(limits: OfflineLimits) -> Self {
        Self { limits, packets: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, packet: BufferedPacket) -> Result<(), Error> {
        self.admit(packet).map_err(|_| self.full())
    }

    /// The error of a packet that does not fit.
    pub(super) fn full(&self) -> Error {
        if self.limits.is_off() {
            return Error::NotConnected;
        }
        Error::BufferFull { packets: self.packets.len(), bytes: self.bytes }
    }

    /// Puts the packets that were not written when the connection broke before all others. Gives those that do not fit.
    pub(super) fn restore(&mut self, packets: Vec<BufferedPacket>) -> Vec<BufferedPacket> {
        let mut refused = Vec::new();
        let waiting = std::mem::take(&mut self.packets);
        self.bytes = 0;
        for packet in packets.into_iter().chain(waiting) {
            refused.extend(self.admit(packet).err());
        }
        refused
    }

    /// Appends a packet, or gives it back when it does not fit.
    fn admit(&mut self, packet: BufferedPacket) -> Result<(), BufferedPacket> {
        let size = packet.encoded.bytes().len();
        if !self.limits.admits(self.packets.len(), self.bytes, size) {
            return Err(packet);
        }
        self.bytes += size;
        self.packets.push_back(packet);
        Ok(())
    }

    /// Takes the packets of a namespace, in order.
    pub(super) fn drain(&mut self, namespace: usize) -> Vec<BufferedPacket> {
        self.take(|packet| packet.namespace == namespace)
    }

    /// Drops the event whose acknowledgement is not waited for any more.
    pub(super) fn forget(&mut self, namespace: usize, ack: u64) {
        let place =
            self.packets.iter().position(|packet| packet.namespace == namespace && packet.ack == Some(ack));
        if let Some(packet) = place.and_then(|place| self.packets.remove(place)) {
            self.bytes -= packet.encoded.bytes().len();
        }
    }

    /// Takes the packets that are too old.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<BufferedPacket> {
        let Some(ttl) = self.limits.ttl else { return Vec::new() };
        if self.packets.front().is_none_or(|oldest| !old(oldest, now, ttl)) {
            return Vec::new();
        }
        self.take(|packet| old(packet, now, ttl))
    }

    fn take(&mut self, wanted: impl Fn(&BufferedPacket) -> bool) -> Vec<BufferedPacket> {
        let (taken, left): (Vec<_>, Vec<_>) = self.packets.drain(..).partition(wanted);
        self.packets = left.into();
        self.bytes = self.packets.iter().map(|packet| packet.encoded.bytes().len()).sum();
        taken
    }
}

fn old(packet: &BufferedPacket, now: Instant, ttl: Duration) -> bool {
    now.saturating_duration_since(packet.since) > ttl
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(namespace: usize, text: &str, since: Instant) -> BufferedPacket {
        BufferedPacket { namespace, encoded: Encoded::text(text), ack: None, since }
    }

    fn offline(packets: usize, bytes: usize, ttl: Option<Duration>) -> OfflineBuffer {
        OfflineBuffer::new(OfflineLimits { packets, bytes, ttl })
    }

    fn texts(packet: &[BufferedPacket]) -> Vec<String> {
        packet
            .iter()
            .map(|packet| packet.encoded.frames().next().unwrap().text().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn keeps_the_order_of_each_namespace() {
        let (mut offline, now) = (offline(10, 1_000, None), Instant::now());
        for (namespace, text) in [(0, "a"), (1, "x"), (0, "b"), (1, "y"), (0, "c")] {
            offline.push(packet(namespace, text, now)).unwrap();
        }
        assert_eq!(texts(&offline.drain(0)), ["a", "b", "c"]);
        assert_eq!((offline.len(), offline.bytes()), (2, 6));
        assert_eq!(texts(&offline.drain(1)), ["x", "y"]);
        assert_eq!((offline.len(), offline.bytes()), (0, 0));
    }

    #[test]
    fn refuses_what_passes_its_bounds() {
        let (mut offline, now) = (offline(2, 10, None), Instant::now());
        offline.push(packet(0, "1234", now)).unwrap();
        assert!(matches!(
            offline.push(packet(0, "12345", now)),
            Err(Error::BufferFull { packets: 1, bytes: 6 })
        ));
        offline.push(packet(0, "12", now)).unwrap();
        assert!(matches!(offline.push(packet(0, "", now)), Err(Error::BufferFull { packets: 2, bytes: 10 })));
    }

    #[test]
    fn off_means_not_connected() {
        let mut offline = offline(0, 0, None);
        assert!(matches!(offline.push(packet(0, "a", Instant::now())), Err(Error::NotConnected)));
    }

    #[test]
    fn forgets_what_is_too_old() {
        let now = Instant::now();
        let mut offline = offline(10, 1_000, Some(Duration::from_secs(1)));
        offline.push(packet(0, "old", now)).unwrap();
        offline.push(packet(0, "new", now + Duration::from_secs(2))).unwrap();
        assert!(offline.expired(now + Duration::from_secs(1)).is_empty());
        assert_eq!(texts(&offline.expired(now + Duration::from_millis(2_500))), ["old"]);
        assert_eq!(texts(&offline.drain(0)), ["new"]);
    }

    #[test]
    fn what_was_not_written_goes_first_again() {
        let (mut offline, now) = (offline(3, 1_000, None), Instant::now());
        offline.push(packet(1, "c", now)).unwrap();
        let refused = offline.restore(vec![packet(0, "a", now), packet(1, "b", now)]);
        assert!(refused.is_empty());
        assert_eq!(texts(&offline.drain(1)), ["b", "c"]);
        let refused = offline.restore((0..4).map(|_| packet(1, "d", now)).collect());
        assert_eq!(refused.len(), 2, "one of them and the one that was there first");
    }
}
