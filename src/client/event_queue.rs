//! The queue between the thread that reads and the thread that runs the handlers.
//!
//! Owns the queued items, their bytes, and the backpressure: when the queue is full, the reader waits. Uses
//! [`CancelToken`], and the namespaces that the items belong to. It must not call a handler or lock the client's state.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{Error, acks::Callback, cancel::CancelToken, guard::Guarded, namespace::Namespace};
use crate::{
    proto::{CloseReason, socket::OwnedArgs},
    sys::real::wait::Waker,
};

/// Bytes of events that may wait for their handlers.
const MAX_BYTES: usize = 16 << 20;

/// Factor of the limits while a handler waits for an acknowledgement: the acknowledgement may be behind the events.
const ACK_WAIT_FACTOR: usize = 4;

/// An item for the handlers.
pub(super) enum Item {
    Event(Box<Incoming>),
    Ack(Arc<Namespace>, Guarded<Callback>, Result<OwnedArgs, Error>),
    Connect(Arc<Namespace>),
    Disconnect(Arc<Namespace>, CloseReason),
    ConnectError(Arc<Namespace>, Error),
    Scheduled(u32, Duration),
    Attempt(u32),
    Reconnect(u32),
    ReconnectError(Error),
    ReconnectFailed,
}

/// An event that waits for its handlers.
pub(super) struct Incoming {
    pub(super) namespace: Arc<Namespace>,
    pub(super) epoch: u64,
    pub(super) name: String,
    pub(super) args: OwnedArgs,
    pub(super) ack: Option<u64>,
    /// Bytes that it occupied on the wire.
    pub(super) bytes: usize,
}

/// The queue.
///
/// It is full at `limit` events or [`MAX_BYTES`]. The reader then stops, and the network pushes back on the server.
/// Connects, disconnects and acknowledgements always fit: their number is bounded by the connections and emits.
/// Notices of the `backoff` thread, and CONNECTs that the server repeats, are dropped at twice as many items as
/// events may wait.
pub(super) struct EventQueue {
    limit: usize,
    inner: Mutex<Inner>,
    ready: Condvar,
    room: Condvar,
    /// Wakes the `link` thread, which waits for room in `poll(2)`.
    link_waker: Arc<Waker>,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    events: usize,
    bytes: usize,
    closed: bool,
    /// The earliest deadline of the acknowledgements has changed.
    nudged: bool,
    /// A handler waits for an acknowledgement.
    waiting_for_ack: bool,
    /// A reader has stopped because the queue is full.
    paused: bool,
}

/// What the `events` thread does next.
pub(super) enum Next {
    Item(Item),
    /// Looks at the deadlines of the acknowledgements.
    Deadlines,
    Exit,
}

impl EventQueue {
    pub(super) fn new(limit: usize, link_waker: Arc<Waker>) -> Self {
        Self { limit, inner: Mutex::default(), ready: Condvar::new(), room: Condvar::new(), link_waker }
    }

    /// Appends an item, or drops a notice; see above.
    pub(super) fn push(&self, item: Item) {
        let mut inner = self.inner.lock();
        let notice = matches!(
            item,
            Item::Scheduled(..) | Item::Attempt(_) | Item::ReconnectError(_) | Item::ConnectError(..)
        );
        if notice && self.has_too_many(&inner) {
            return;
        }
        if let Item::Event(event) = &item {
            inner.events += 1;
            inner.bytes += event.bytes;
        }
        inner.items.push_back(item);
        self.ready.notify_one();
    }

    /// Whether notices are dropped.
    pub(super) fn is_crowded(&self) -> bool {
        self.has_too_many(&self.inner.lock())
    }

    fn has_too_many(&self, inner: &Inner) -> bool {
        inner.items.len() / 2 > self.limit.saturating_add(32)
    }

    /// Whether so many events would fill an empty queue.
    pub(super) fn is_full_with(&self, events: usize, bytes: usize) -> bool {
        events >= self.limit || bytes >= MAX_BYTES
    }

    /// Whether there is room for another event. If not, the reader is woken once there is.
    pub(super) fn has_room(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.paused = !self.fits(&inner);
        !inner.paused
    }

    /// Waits for room. `false`: the connection was cancelled before, or a WebSocket is to take over.
    pub(super) fn wait_room(&self, token: &CancelToken) -> bool {
        let mut inner = self.inner.lock();
        while !token.is_cancelled() && !token.is_upgrading() {
            inner.paused = !self.fits(&inner);
            token.suspend_liveness(inner.paused);
            if !inner.paused {
                return true;
            }
            self.room.wait(&mut inner);
        }
        false
    }

    /// Drops the events of a namespace. Gives their number.
    pub(super) fn forget(&self, namespace: &Namespace) -> usize {
        let mut inner = self.inner.lock();
        let items = std::mem::take(&mut inner.items);
        let (forgotten, kept) = items.into_iter().partition::<VecDeque<_>, _>(
            |item| matches!(item, Item::Event(event) if event.namespace.index == namespace.index),
        );
        inner.items = kept;
        for item in &forgotten {
            if let Item::Event(event) = item {
                inner.events -= 1;
                inner.bytes -= event.bytes;
            }
        }
        self.resume(&mut inner);
        forgotten.len()
    }

    /// Wakes a reader that waits for room, so that it checks its token.
    pub(super) fn wake_reader(&self) {
        let _inner = self.inner.lock();
        self.room.notify_all();
    }

    /// Makes the `events` thread look at the deadlines of the acknowledgements.
    pub(super) fn nudge(&self) {
        self.inner.lock().nudged = true;
        self.ready.notify_one();
    }

    /// Raises the limits while a handler waits for an acknowledgement.
    pub(super) fn set_waiting_for_ack(&self, waiting_for_ack: bool) {
        let mut inner = self.inner.lock();
        inner.waiting_for_ack = waiting_for_ack;
        self.resume(&mut inner);
    }

    /// Ends the `events` thread once the queue is empty.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.ready.notify_all();
    }

    fn fits(&self, inner: &Inner) -> bool {
        let factor = if inner.waiting_for_ack { ACK_WAIT_FACTOR } else { 1 };
        inner.events < self.limit.saturating_mul(factor) && inner.bytes < MAX_BYTES * factor
    }

    /// Wakes the readers if there is room.
    fn resume(&self, inner: &mut Inner) {
        if !self.fits(inner) {
            return;
        }
        // Always, because `link` and `poll` may both have asked for room.
        self.room.notify_all();
        if std::mem::take(&mut inner.paused) {
            self.link_waker.wake();
        }
    }

    /// The next thing to do. Looks at the deadlines at `deadline`, the earliest of them.
    pub(super) fn next(&self, deadline: Option<Instant>) -> Next {
        let mut inner = self.inner.lock();
        loop {
            let Some(item) = inner.items.pop_front() else {
                if inner.closed {
                    return Next::Exit;
                }
                if std::mem::take(&mut inner.nudged) || deadline.is_some_and(|at| at <= Instant::now()) {
                    return Next::Deadlines;
                }
                match deadline {
                    Some(deadline) => drop(self.ready.wait_until(&mut inner, deadline)),
                    None => self.ready.wait(&mut inner),
                }
                continue;
            };
            let Item::Event(event) = &item else { return Next::Item(item) };
            inner.events -= 1;
            inner.bytes -= event.bytes;
            // At half of the limit, so that a reader does not stop and start with every event.
            if inner.events <= self.limit / 2 {
                self.resume(&mut inner);
            }
            if inner.closed {
                // The client is dropped: disconnects and acknowledgements are still delivered, events are not.
                continue;
            }
            return Next::Item(item);
        }
    }
}
