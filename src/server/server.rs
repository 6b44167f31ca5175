//! The handle to a running server, which the application holds.
//!
//! It owns nothing itself: it reads [`Core`](crate::server::dispatch::core::Core), and leaves the stop to `shutdown`.

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use serde::Serialize;

use crate::server::{
    builder::Builder,
    config::Config,
    error::EmitError,
    guard,
    recovery::store::StoreWatch,
    shutdown::Running,
    socket::broadcast::Broadcast,
    socket::namespace::Namespace,
    stats::{Stats, StatsWatch},
};
use crate::{proto::limits, sys::thread};

/// A running server. Dropping it stops it at once, with all its threads.
pub struct Server(Arc<Running>);

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("local_addr", &self.local_addr()).finish_non_exhaustive()
    }
}
impl Server {
    /// Sets up a server.
    pub fn builder() -> Builder {
        Builder {
            config: Config::default(),
            namespaces: Vec::new(),
            engines: Vec::new(),
            routes: HashMap::new(),
            store: None,
            store_required: true,
        }
    }

    pub(super) fn new(running: Running) -> Self {
        Self(Arc::new(running))
    }

    /// The address it listens on. `None` on a Unix-domain socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr
    }

    /// Official `io.of(name)`. `None`: no such namespace was set up.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Option<Namespace> {
        self.0.service.core.namespace(namespace).cloned()
    }

    /// Official `io.emit`: to everybody in the namespace `/`; without that namespace, to nobody. `args` as in
    /// [`Socket::emit`](crate::server::Socket::emit).
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        self.of(limits::DEFAULT_NAMESPACE).map_or(Ok(()), |namespace| namespace.emit(event, args))
    }

    /// Official `io.to(room)` of the namespace `/`. `None` without that namespace.
    #[must_use]
    pub fn to(&self, room: &str) -> Option<Broadcast> {
        self.of(limits::DEFAULT_NAMESPACE).map(|namespace| namespace.to(room))
    }

    /// Engine.IO sessions at this moment: the official `io.engine.clientsCount`.
    #[must_use]
    pub fn clients_count(&self) -> usize {
        self.0.service.shared.sessions.len()
    }

    /// Bytes that wait in all outboxes.
    #[cfg(all(shuttle, any(test, fuzzing)))]
    pub(crate) fn outbox_bytes(&self) -> usize {
        self.0.service.shared.waiting.used()
    }

    /// Connections at this moment, with and without a session.
    #[must_use]
    pub fn connections_count(&self) -> usize {
        self.0.service.shared.connections.len()
    }

    /// Connections that wait without a thread ([`Config::park_after`]).
    #[must_use]
    pub fn parked_count(&self) -> usize {
        self.0.service.parked()
    }

    /// The server's figures at this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.0.service)
    }

    /// Reads the figures from any thread, for a route or a thread that must not keep the server alive.
    #[must_use]
    pub fn stats_watch(&self) -> StatsWatch {
        StatsWatch::new(&self.0.service)
    }

    /// A handle that reads the state of the store from any thread.
    #[must_use]
    pub fn store_watch(&self) -> StoreWatch {
        self.0.service.shared.store_watch.clone()
    }

    /// [`Config::memory_bound`] of this server, with the namespaces that it serves.
    #[must_use]
    pub fn memory_bound(&self) -> usize {
        self.0.service.shared.config.memory_bound(self.0.service.core.namespaces.len())
    }

    /// Waits until the server has been shut down: by another thread, or by a handler.
    pub fn wait(&self) {
        self.0.wait();
    }

    /// Stops the server. It accepts no more sessions, and ends each session, "server shutting down", after the
    /// packets that wait for its client; a polling client may still fetch them. At the deadline it closes the
    /// connections that are left. Then it waits for all threads; for handlers that are still running it waits for
    /// `deadline` once more, and at least a second. `false`: some handlers have not returned, and their threads
    /// still run.
    ///
    /// Called inside a handler, it stops the server on a separate thread and returns `false` at once.
    /// [`wait`](Self::wait) waits until the server has stopped.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        self.shutdown_spread(Duration::ZERO, deadline)
    }

    /// As [`shutdown`](Self::shutdown), but ends the sessions one after the other, evenly over `window`, so that
    /// their clients do not all connect to the next server at the same moment. A session is served until it is
    /// ended. New sessions are refused from the beginning. `deadline` begins when the last session was ended. The
    /// call does not wait for the rest of `window` if no session is left, or if another thread calls
    /// [`shutdown`](Self::shutdown).
    pub fn shutdown_spread(&self, window: Duration, deadline: Duration) -> bool {
        let running = Arc::clone(&self.0);
        if !guard::is_in_handler() {
            return running.shutdown(window, deadline);
        }
        let stop = move || {
            running.shutdown(window, deadline);
        };
        if let Err(error) = thread::Builder::new().name("shutdown".into()).spawn(stop) {
            guard::error!("no thread to shut the server down: {error}");
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}
