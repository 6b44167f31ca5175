//! The connections of a server: their permits, which limit their number, and the means to end them all.
//!
//! It owns the table of connections. It uses their streams, and the share of an address from `limits`. It reads
//! nothing from them.

use std::{
    collections::{BTreeSet, HashMap},
    net::Shutdown,
    sync::Arc,
    time::Duration,
};

use crate::server::{limits::admission::Share, net::stream::Stream};
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

/// How long a connection may be without a request while the server is full. Clients send their first request at once.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// The number of connections that were ended for a new one and still exist. So many may exist beyond the limit.
const LEAVING_MAX: usize = 8;

/// The answer to such a connection, if it can be sent without waiting.
const TOO_LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// All connections. A stop ends them and waits for them.
#[derive(Debug)]
pub(crate) struct Connections {
    table: Mutex<Table>,
    fewer: Condvar,
    next: AtomicU64,
    max: usize,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Arc<Place>>,
    /// The connections that have sent no request yet, the oldest first.
    unasked: BTreeSet<u64>,
    /// The number of connections in `open` that were ended for a new one.
    leaving: usize,
}

impl Table {
    /// Ends the oldest connection that has not sent a request in time. `false`: there is none.
    fn make_room(&mut self) -> bool {
        if self.leaving >= LEAVING_MAX {
            return false;
        }
        let now = Instant::now();
        let in_time = |place: &Place| now.saturating_duration_since(place.since) < FIRST_REQUEST;
        let places =
            self.unasked.iter().take(LEAVING_MAX).filter_map(|number| self.open.get_key_value(number));
        let mut late = places.take_while(|(_, place)| !in_time(place));
        // On a busy machine a request may have come that no thread has read yet.
        let Some((&number, place)) = late.find(|(_, place)| !place.stream.has_input()) else {
            return false;
        };
        place.leaves.store(true, Relaxed);
        let _ = place.stream.send_now(TOO_LATE);
        place.stream.shutdown(Shutdown::Both);
        self.unasked.remove(&number);
        self.leaving += 1;
        true
    }
}

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        Self { table: Mutex::default(), fewer: Condvar::new(), next: AtomicU64::new(0), max }
    }

    /// `None`: the server is full. `share` is given back to its address with the permit.
    pub(crate) fn permit(self: &Arc<Self>, stream: &Arc<Stream>, share: Option<Share>) -> Option<Permit> {
        let mut table = self.table.lock();
        if table.open.len() - table.leaving >= self.max && !table.make_room() {
            return None;
        }
        let number = self.next.fetch_add(1, Relaxed);
        let place = Arc::new(Place {
            stream: Arc::clone(stream),
            since: Instant::now(),
            // For its first request.
            waiting: AtomicBool::new(true),
            asked: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
        });
        table.open.insert(number, Arc::clone(&place));
        table.unasked.insert(number);
        Some(Permit { connections: Arc::clone(self), place, number, _share: share })
    }

    pub(crate) fn len(&self) -> usize {
        self.table.lock().open.len()
    }

    /// Ends the connections that only wait for a request.
    pub(crate) fn interrupt_waiting(&self) {
        for place in self.table.lock().open.values().filter(|place| place.waiting.load(SeqCst)) {
            place.stream.shutdown(Shutdown::Read);
        }
    }

    pub(crate) fn shutdown_all(&self) {
        for place in self.table.lock().open.values() {
            place.stream.shutdown(Shutdown::Both);
        }
    }

    /// `false`: there are still some at the deadline.
    pub(crate) fn wait_until_none(&self, deadline: Instant) -> bool {
        let mut table = self.table.lock();
        while !table.open.is_empty() {
            if self.fewer.wait_until(&mut table, deadline).timed_out() {
                return table.open.is_empty();
            }
        }
        true
    }
}

/// A connection in the table.
#[derive(Debug)]
struct Place {
    stream: Arc<Stream>,
    since: Instant,
    waiting: AtomicBool,
    /// It has sent a request.
    asked: AtomicBool,
    /// It was ended for a new one.
    leaves: AtomicBool,
}

/// The permit of one connection. Given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    connections: Arc<Connections>,
    place: Arc<Place>,
    number: u64,
    _share: Option<Share>,
}

impl Permit {
    /// Whether the connection only waits for the next request of its peer, or for the next step of an upgrade. Then a
    /// stop interrupts it. A connection sets this before it checks for a stop, so that either the connection or the
    /// stop sees the other.
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.place.waiting.store(waiting, SeqCst);
    }

    /// The connection has sent a request. It is not ended for a new one any more.
    pub(crate) fn set_asked(&self) {
        if !self.place.asked.load(Relaxed) {
            self.place.asked.store(true, Relaxed);
            self.connections.table.lock().unasked.remove(&self.number);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.connections.table.lock();
        table.open.remove(&self.number);
        table.unasked.remove(&self.number);
        // It is set under the same lock.
        table.leaving -= usize::from(self.place.leaves.load(Relaxed));
        drop(table);
        self.connections.fewer.notify_all();
    }
}
