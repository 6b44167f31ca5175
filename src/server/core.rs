//! What every thread of a server shares.
//!
//! It owns the handles to everything that exists once in a server, and the steps of its stop. The functions that accept,
//! route and open sessions get it. It starts nothing and calls no user code.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::server::{
    config::Config,
    connection::Work,
    dispatch::retries::Retried,
    guard::Callee,
    http::{Request, Response},
    hub::HubHandle,
    limits::admission::Admission,
    limits::budget::Budget,
    limits::refusals::Refusals,
    namespace::Namespace,
    net::connections::Connections,
    net::idle::IdleConnections,
    recovery::journal::StoreWatch,
    session::Registry,
    session::engine::EngineHandlers,
    transport::drain::DrainHandle,
    workers::Workers,
};
use crate::{
    proto::CloseReason,
    sys::{
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        time::Instant,
    },
};

pub(crate) type RouteHandler = Box<dyn Fn(&Request<'_>) -> Response + Send + Sync>;

/// What a path is served by.
#[derive(Debug)]
pub(crate) enum Endpoint {
    SocketIo,
    Engine(EngineHandlers),
}

/// How much sooner than usual silent connections give their threads back while there is a crowd of threads.
const HASTE: u32 = 10;

/// What every thread of a server shares.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) hub: HubHandle,
    pub(crate) drain: DrainHandle,
    pub(crate) sessions: Registry,
    pub(crate) connections: Arc<Connections>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) idle: Arc<IdleConnections<Work>>,
    /// What waits for the clients.
    pub(crate) waiting: Arc<Budget>,
    /// What is being received from them.
    pub(crate) receiving: Arc<Budget>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) refusals: Refusals,
    /// What the clients that send again were answered.
    pub(crate) retried: Retried,
    pub(crate) store_watch: StoreWatch,
    pub(super) endpoints: Vec<(String, Endpoint)>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) routes: HashMap<String, RouteHandler>,
    pub(super) born: Instant,
    /// No new session is taken.
    pub(super) ending: AtomicBool,
    /// No new connection and no new request is taken.
    pub(super) closed: AtomicBool,
}

impl Core {
    /// An instant as microseconds of the server's life.
    pub(crate) fn micros_at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.born).as_micros() as u64
    }

    /// How long a connection may be silent before it is parked. `None`: for ever.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let silence = self.config.park_after?;
        Some(if self.workers.is_crowded() { silence / HASTE } else { silence })
    }

    /// Too much waits for all clients together: the largest backlogs go, until it is no more than may be.
    pub(crate) fn relieve(&self) {
        while let Some(largest) = self.sessions.largest_backlog() {
            // Another thread may have been faster.
            if !self.waiting.is_exceeded() {
                return;
            }
            log::info!(
                "session {}: {} bytes wait for it, the most while outbox_bytes_total is used up",
                largest.name(),
                largest.outbox.charged()
            );
            largest.end(CloseReason::SlowConsumer);
            // It may have been ending in peace.
            largest.cut();
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(SeqCst)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    pub(crate) fn endpoint(&self, index: usize) -> &Endpoint {
        &self.endpoints[index].1
    }

    /// The endpoint that serves this path; a missing slash at its end is forgiven, as by the official server.
    pub(crate) fn endpoint_at(&self, path: &str) -> Option<usize> {
        self.endpoints.iter().position(|(at, _)| path == at || at.strip_suffix('/') == Some(path))
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.name() == name)
    }

    /// What user code that is, and of which namespace.
    pub(crate) fn describe(&self, callee: Callee) -> String {
        if let Some(name) = callee.name() {
            return name.to_owned();
        }
        let of = |namespace: &Namespace| {
            let handler = namespace.0.handlers.describe(callee)?;
            Some(format!("{handler} of namespace {:?}", namespace.name()))
        };
        self.namespaces.iter().find_map(of).unwrap_or_else(|| "a handler".to_owned())
    }

    pub(crate) fn route(&self, path: &str) -> Option<&RouteHandler> {
        self.routes.get(path)
    }
}
