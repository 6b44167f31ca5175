//! A server's figures, for health checks and metrics.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use crate::server::{connection::Service, limits::refusals::RefusalCounts, recovery::store::StoreStatus};

/// A server's figures at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Engine.IO sessions, the official `io.engine.clientsCount`: clients that have joined a namespace, and those
    /// that have not, or not yet.
    pub sessions: usize,
    /// Sessions that there may be: [`Config::max_connections`](crate::server::Config::max_connections).
    pub max_connections: usize,
    /// Connections, with and without a session.
    pub connections: usize,
    /// Connections that there may be: [`Config::max_tcp_connections`](crate::server::Config::max_tcp_connections), or
    /// what it is computed to.
    pub max_tcp_connections: usize,
    /// Connections that wait without a thread ([`Config::park_after`](crate::server::Config::park_after)).
    pub parked: usize,
    /// What was refused since the start.
    pub refused: RefusalCounts,
    /// The state of the store.
    pub store: StoreStatus,
}

impl Stats {
    pub(crate) fn of(service: &Service) -> Self {
        Self {
            sessions: service.shared.sessions.len(),
            max_connections: service.shared.config.max_connections,
            connections: service.shared.connections.len(),
            max_tcp_connections: service.shared.config.tcp_connections(),
            parked: service.parked(),
            refused: service.shared.refusals.counts(),
            store: service.shared.store_watch.status(),
        }
    }

    /// Whether the next client is refused because there are too many sessions or connections.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.sessions >= self.max_connections || self.connections >= self.max_tcp_connections
    }
}

/// Reads a server's figures from any thread. Cheap to clone; it does not keep the server alive.
#[derive(Clone)]
pub struct StatsWatch(Weak<Service>);

impl StatsWatch {
    pub(crate) fn new(service: &Arc<Service>) -> Self {
        Self(Arc::downgrade(service))
    }

    /// The figures. `None`: the server has been dropped.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        self.0.upgrade().map(|service| Stats::of(&service))
    }
}

impl fmt::Debug for StatsWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsWatch").finish_non_exhaustive()
    }
}
