//! What was emitted without a connection, in order, within bounds.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Error, config::OfflineLimits};
use crate::proto::socket::Encoded;

/// The offline buffer of one client. Full: the emit is refused with [`Error::BufferFull`], and what waits stays.
#[derive(Debug)]
pub(super) struct Offline {
    limits: OfflineLimits,
    kept: VecDeque<BufferedPacket>,
    bytes: usize,
}

/// One packet that waits.
#[derive(Debug)]
pub(super) struct BufferedPacket {
    /// Index of its namespace.
    pub(super) space: usize,
    pub(super) encoded: Encoded,
    /// The acknowledgement that somebody waits for.
    pub(super) ack: Option<u64>,
    pub(super) since: Instant,
}

impl Offline {
    pub(super) fn new(limits: OfflineLimits) -> Self {
        Self { limits, kept: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn is_off(&self) -> bool {
        self.limits.packets == 0 || self.limits.bytes == 0
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, kept: BufferedPacket) -> Result<(), Error> {
        if self.is_off() {
            return Err(Error::NotConnected);
        }
        let bytes = self.bytes + kept.encoded.bytes().len();
        if self.kept.len() >= self.limits.packets || bytes > self.limits.bytes {
            return Err(Error::BufferFull { packets: self.kept.len(), bytes: self.bytes });
        }
        self.bytes = bytes;
        self.kept.push_back(kept);
        Ok(())
    }

    /// Takes back what was not written when the connection broke, oldest first, before everything that waits already.
    /// What does not fit is given back.
    pub(super) fn restore(&mut self, packets: Vec<BufferedPacket>) -> Vec<BufferedPacket> {
        let mut refused = Vec::new();
        let waiting = std::mem::take(&mut self.kept);
        self.bytes = 0;
        for kept in packets.into_iter().chain(waiting) {
            let bytes = kept.encoded.bytes().len();
            if self.kept.len() >= self.limits.packets || self.bytes + bytes > self.limits.bytes {
                refused.push(kept);
            } else {
                self.bytes += bytes;
                self.kept.push_back(kept);
            }
        }
        refused
    }

    /// Takes what waits for a namespace, in order.
    pub(super) fn drain(&mut self, space: usize) -> Vec<BufferedPacket> {
        self.take(|kept| kept.space == space)
    }

    /// Throws away the event for whose acknowledgement nobody waits any more.
    pub(super) fn forget(&mut self, space: usize, ack: u64) {
        let place = self.kept.iter().position(|kept| kept.space == space && kept.ack == Some(ack));
        if let Some(kept) = place.and_then(|place| self.kept.remove(place)) {
            self.bytes -= kept.encoded.bytes().len();
        }
    }

    /// Takes what has waited too long.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<BufferedPacket> {
        let Some(ttl) = self.limits.ttl else { return Vec::new() };
        if self.kept.front().is_none_or(|oldest| !old(oldest, now, ttl)) {
            return Vec::new();
        }
        self.take(|kept| old(kept, now, ttl))
    }

    fn take(&mut self, wanted: impl Fn(&BufferedPacket) -> bool) -> Vec<BufferedPacket> {
        let (taken, left): (Vec<_>, Vec<_>) = self.kept.drain(..).partition(wanted);
        self.kept = left.into();
        self.bytes = self.kept.iter().map(|kept| kept.encoded.bytes().len()).sum();
        taken
    }
}

fn old(kept: &BufferedPacket, now: Instant, ttl: Duration) -> bool {
    now.saturating_duration_since(kept.since) > ttl
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(space: usize, text: &str, since: Instant) -> BufferedPacket {
        BufferedPacket { space, encoded: Encoded::text(text), ack: None, since }
    }

    fn offline(packets: usize, bytes: usize, ttl: Option<Duration>) -> Offline {
        Offline::new(OfflineLimits { packets, bytes, ttl })
    }

    fn texts(kept: &[BufferedPacket]) -> Vec<String> {
        kept.iter().map(|kept| kept.encoded.frames().next().unwrap().text().unwrap().to_owned()).collect()
    }

    #[test]
    fn keeps_the_order_of_each_namespace() {
        let (mut offline, now) = (offline(10, 1_000, None), Instant::now());
        for (space, text) in [(0, "a"), (1, "x"), (0, "b"), (1, "y"), (0, "c")] {
            offline.push(kept(space, text, now)).unwrap();
        }
        assert_eq!(texts(&offline.drain(0)), ["a", "b", "c"]);
        assert_eq!((offline.len(), offline.bytes()), (2, 6));
        assert_eq!(texts(&offline.drain(1)), ["x", "y"]);
        assert_eq!((offline.len(), offline.bytes()), (0, 0));
    }

    #[test]
    fn refuses_what_passes_its_bounds() {
        let (mut offline, now) = (offline(2, 10, None), Instant::now());
        offline.push(kept(0, "1234", now)).unwrap();
        assert!(matches!(
            offline.push(kept(0, "12345", now)),
            Err(Error::BufferFull { packets: 1, bytes: 6 })
        ));
        offline.push(kept(0, "12", now)).unwrap();
        assert!(matches!(offline.push(kept(0, "", now)), Err(Error::BufferFull { packets: 2, bytes: 10 })));
    }

    #[test]
    fn off_means_not_connected() {
        let mut offline = offline(0, 0, None);
        assert!(matches!(offline.push(kept(0, "a", Instant::now())), Err(Error::NotConnected)));
    }

    #[test]
    fn forgets_what_is_too_old() {
        let now = Instant::now();
        let mut offline = offline(10, 1_000, Some(Duration::from_secs(1)));
        offline.push(kept(0, "old", now)).unwrap();
        offline.push(kept(0, "new", now + Duration::from_secs(2))).unwrap();
        assert!(offline.expired(now + Duration::from_secs(1)).is_empty());
        assert_eq!(texts(&offline.expired(now + Duration::from_millis(2_500))), ["old"]);
        assert_eq!(texts(&offline.drain(0)), ["new"]);
    }

    #[test]
    fn what_was_not_written_goes_first_again() {
        let (mut offline, now) = (offline(3, 1_000, None), Instant::now());
        offline.push(kept(1, "c", now)).unwrap();
        let refused = offline.restore(vec![kept(0, "a", now), kept(1, "b", now)]);
        assert!(refused.is_empty());
        assert_eq!(texts(&offline.drain(1)), ["b", "c"]);
        let refused = offline.restore((0..4).map(|_| kept(1, "d", now)).collect());
        assert_eq!(refused.len(), 2, "one of them and the one that was there first");
    }
}
