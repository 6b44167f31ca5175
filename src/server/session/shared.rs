//! What all sessions of a server share: its options, limits, tables and threads.
//!
//! It starts nothing and calls no user code.

use std::sync::Arc;

use super::Registry;
use crate::server::{
    config::Config,
    guard::{self, Records},
    hub::HubHandle,
    limits::{admission::Admission, budget::Budget, refusals::Refusals},
    net::connections::Connections,
    recovery::store::StoreWatch,
    session::drain::DrainHandle,
    session::workers::Workers,
};
use crate::{
    proto::CloseReason,
    sys::{
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        time::Instant,
    },
};

/// What all sessions of a server share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) hub: HubHandle,
    pub(crate) drain: DrainHandle,
    pub(crate) sessions: Registry,
    pub(crate) connections: Arc<Connections>,
    pub(crate) workers: Arc<Workers>,
    /// The log records of the threads that are not workers.
    pub(crate) records: Arc<Records>,
    /// Bytes that wait for clients.
    pub(crate) waiting: Arc<Budget>,
    /// Bytes that are being received from clients.
    pub(crate) receiving: Arc<Budget>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) refusals: Refusals,
    pub(crate) store_watch: StoreWatch,
    pub(crate) born: Instant,
    /// No new session is taken.
    pub(crate) ending: AtomicBool,
    /// No new connection and no new request is taken.
    pub(crate) closed: AtomicBool,
}

impl Shared {
    /// An instant as microseconds of the server's life.
    pub(super) fn micros_at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.born).as_micros() as u64
    }

    /// Ends the sessions with the largest backlogs until no more than `outbox_bytes_total` waits.
    pub(super) fn end_largest_backlogs(&self) {
        while let Some(largest) = self.sessions.largest_backlog() {
            // Another thread may have been faster.
            if !self.waiting.is_exceeded() {
                return;
            }
            guard::info!(
                "session {}: {} bytes wait for it, the most while outbox_bytes_total is used up",
                largest.name(),
                largest.outbox.charged()
            );
            largest.end(CloseReason::SlowConsumer);
            // It may already be closing behind its pending packets.
            largest.abort();
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(SeqCst)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }
}
