//! Who is connected: the permits that bound the connections, and the means to end them all.

use std::{collections::HashMap, net::Shutdown, sync::Arc};

use super::{admission::Share, stream::Stream};
use crate::sys::{
    sync::{
        Condvar, Mutex,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Instant,
};

/// Every connection there is, so that a stop can end them and wait for them.
#[derive(Debug)]
pub(super) struct Connections {
    open: Mutex<HashMap<u64, Arc<Place>>>,
    fewer: Condvar,
    next: AtomicU64,
    max: usize,
}

impl Connections {
    pub(super) fn new(max: usize) -> Self {
        Self { open: Mutex::default(), fewer: Condvar::new(), next: AtomicU64::new(0), max }
    }

    /// `None`: there are as many as may be. `share`: what is given back to its address with the permit.
    pub(super) fn permit(self: &Arc<Self>, stream: &Arc<Stream>, share: Option<Share>) -> Option<Permit> {
        let mut open = self.open.lock();
        if open.len() >= self.max {
            return None;
        }
        let number = self.next.fetch_add(1, Relaxed);
        let place = Arc::new(Place { stream: Arc::clone(stream), waiting: AtomicBool::new(false) });
        open.insert(number, Arc::clone(&place));
        Some(Permit { connections: Arc::clone(self), place, number, _share: share })
    }

    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Ends the connections that have nothing under way.
    pub(super) fn interrupt_waiting(&self) {
        for place in self.open.lock().values().filter(|place| place.waiting.load(SeqCst)) {
            place.stream.shutdown(Shutdown::Read);
        }
    }

    pub(super) fn shutdown_all(&self) {
        for place in self.open.lock().values() {
            place.stream.shutdown(Shutdown::Both);
        }
    }

    /// `false`: some are still there at the deadline.
    pub(super) fn wait_until_none(&self, deadline: Instant) -> bool {
        let mut open = self.open.lock();
        while !open.is_empty() {
            if self.fewer.wait_until(&mut open, deadline).timed_out() {
                return open.is_empty();
            }
        }
        true
    }
}

/// A connection as a stop sees it.
#[derive(Debug)]
struct Place {
    stream: Arc<Stream>,
    waiting: AtomicBool,
}

/// A connection's right to be; given back when nothing of it is left.
#[derive(Debug)]
pub(super) struct Permit {
    connections: Arc<Connections>,
    place: Arc<Place>,
    number: u64,
    _share: Option<Share>,
}

impl Permit {
    /// Whether the connection only waits for its peer's next request, or next step of an upgrade. A stop
    /// interrupts it then; set before the stop is asked about, so that one of the two sees the other.
    pub(super) fn set_waiting(&self, waiting: bool) {
        self.place.waiting.store(waiting, SeqCst);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.number);
        self.connections.fewer.notify_all();
    }
}
