//! The retry queue of one namespace: events that are sent one at a time, until each is acknowledged.
//!
//! Owns the events, the tries, and when a try counts as failed. Uses [`Error`] and the encoded packets. It must not
//! lock, send, or look at the clock.

use std::{collections::VecDeque, time::Instant};

use super::{Error, config::OfflineLimits};
use crate::proto::socket::Encoded;

/// The queue, in the order of the ids. It has the limits of the offline buffer.
#[derive(Debug, Default)]
pub(super) struct RetryQueue {
    events: VecDeque<RetriedEvent>,
    bytes: usize,
    /// The id that was queued last.
    last_id: Option<u64>,
}

#[derive(Debug)]
struct RetriedEvent {
    encoded: Encoded,
    id: u64,
    tries: u32,
    /// When the current try counts as failed. `None`: it is not being tried.
    expires: Option<Instant>,
}

impl RetryQueue {
    pub(super) fn push(&mut self, encoded: Encoded, id: u64, limits: &OfflineLimits) -> Result<(), Error> {
        let size = encoded.bytes().len();
        if !limits.admits(self.events.len(), self.bytes, size) {
            return Err(Error::BufferFull { packets: self.events.len(), bytes: self.bytes });
        }
        self.bytes += size;
        self.last_id = Some(id);
        self.events.push_back(RetriedEvent { encoded, id, tries: 0, expires: None });
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The id that was queued last. The server recognises a retry by its id, so later ids must be greater.
    pub(super) fn last_id(&self) -> Option<u64> {
        self.last_id
    }

    /// The event that is to be sent now: the first one, unless it is being tried.
    pub(super) fn due(&self) -> Option<&Encoded> {
        self.events.front().filter(|first| first.expires.is_none()).map(|first| &first.encoded)
    }

    /// The first event was sent. The try fails at `expires`.
    pub(super) fn begin_try(&mut self, expires: Instant) {
        if let Some(first) = self.events.front_mut() {
            first.tries = first.tries.saturating_add(1);
            first.expires = Some(expires);
        }
    }

    /// When the current try fails.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.events.front()?.expires
    }

    /// The current try has failed. `true`: the event has been tried `retries` times again, and is to be given up.
    pub(super) fn try_failed(&mut self, retries: u32) -> bool {
        let Some(first) = self.events.front_mut() else { return false };
        // `tries` is at most `u32::MAX`, so that many retries are unlimited.
        first.expires.take().is_some() && first.tries > retries
    }

    /// Removes the first event. Gives its id.
    pub(super) fn pop(&mut self) -> Option<u64> {
        let first = self.events.pop_front()?;
        self.bytes -= first.encoded.bytes().len();
        Some(first.id)
    }

    /// Removes the first event if it has this id.
    pub(super) fn acknowledged(&mut self, id: u64) {
        if self.events.front().is_some_and(|first| first.id == id) {
            self.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OfflineLimits = OfflineLimits { packets: 2, bytes: 100, ttl: None };

    fn queue() -> RetryQueue {
        let mut queue = RetryQueue::default();
        queue.push(Encoded::text("a"), 4, &LIMITS).unwrap();
        queue.push(Encoded::text("b"), 7, &LIMITS).unwrap();
        queue
    }

    #[test]
    fn one_event_is_tried_at_a_time() {
        let (mut queue, now) = (queue(), Instant::now());
        assert!(queue.due().is_some() && queue.deadline().is_none());
        queue.begin_try(now);
        assert!(queue.due().is_none() && queue.deadline() == Some(now));
        queue.acknowledged(7);
        assert_eq!(queue.len(), 2, "the second cannot be acknowledged before the first");
        queue.acknowledged(4);
        assert!(queue.due().is_some());
        assert_eq!((queue.len(), queue.last_id(), queue.pop(), queue.bytes()), (1, Some(7), Some(7), 0));
    }

    #[test]
    fn an_event_is_given_up_after_so_many_retries() {
        let (mut queue, now) = (queue(), Instant::now());
        assert!(!queue.try_failed(0), "it was not being tried");
        for last in [false, false, true] {
            queue.begin_try(now);
            assert_eq!(queue.try_failed(2), last);
        }
        queue.begin_try(now);
        assert!(!queue.try_failed(u32::MAX));
    }

    #[test]
    fn has_the_limits_of_the_offline_buffer() {
        let full = queue().push(Encoded::text("c"), 9, &LIMITS);
        assert!(matches!(full, Err(Error::BufferFull { packets: 2, .. })));
        let large = RetryQueue::default().push(Encoded::text(&"x".repeat(200)), 1, &LIMITS);
        assert!(matches!(large, Err(Error::BufferFull { packets: 0, bytes: 0 })));
    }
}
