//! What the threads and handles of one client share: the state under one lock, and the means to wake each thread.
//!
//! ```text
//!   lock order     state ─► event queue              (the handlers' tables are locked alone)
//!   never locked   while a handler, the auth function or a logger runs, or while anything is read, written or
//!                  waited for
//! ```
//!
//! Owns the lock, the condition and the wakers. The [`State`] consists of four plain types that change themselves.
//! What a change of one means for the others is in `lifecycle` (connection), `membership` (namespaces) and `emit`
//! (packets and acknowledgements). It must not know the API's types or the handlers, which get them: [`Handle`] has
//! both.
//!
//! [`Handle`]: super::Handle

use std::{
    sync::{Arc, OnceLock},
    thread::ThreadId,
    time::Instant,
};

use parking_lot::{Condvar, Mutex};

use super::{
    Stats, Status,
    cancel::CancelToken,
    config::Config,
    connection::{Phase, Target},
    dial::Dialer,
    event_queue::EventQueue,
    namespace::Namespace,
    session::Session,
    state::{Locked, State},
};
use crate::{random, sys::real::wait::Waker};

/// Everything that the threads and the handles of one client share.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) dialer: Dialer,
    /// With `retries`: the id of this client in every session, so that the server recognises a retry.
    pub(super) rid: Option<String>,
    /// Locked by [`Core::lock`] only.
    state: Mutex<State>,
    /// Notified when the connection, a namespace or the number of threads has changed.
    pub(super) changed: Condvar,
    /// Wakes the `link` thread.
    pub(super) link_waker: Arc<Waker>,
    pub(super) events: EventQueue,
    pub(super) events_thread: OnceLock<ThreadId>,
}

impl Core {
    pub(super) fn new(config: Config, dialer: Dialer) -> std::io::Result<Self> {
        let rid = (config.retries > 0).then(random::id).transpose()?;
        let link_waker = Arc::new(Waker::new()?);
        Ok(Self {
            rid,
            events: EventQueue::new(config.event_queue, link_waker.clone()),
            state: Mutex::new(State::new(config.offline)),
            config,
            dialer,
            changed: Condvar::new(),
            link_waker,
            events_thread: OnceLock::new(),
        })
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        Locked::new(&self.state)
    }

    /// Whether the caller is a handler.
    pub(super) fn in_handler(&self) -> bool {
        self.events_thread.get() == Some(&std::thread::current().id())
    }

    /// Cancels everything that waits with `token`.
    pub(super) fn cancel(&self, token: &CancelToken) {
        token.cancel();
        self.events.wake_reader();
    }

    /// Wakes `link`, if it sleeps.
    pub(super) fn wake_link(&self, session: &mut Session) {
        if session.queue.must_wake() {
            self.link_waker.wake();
        }
    }

    /// Waits until `done` gives a value, or until `deadline`.
    pub(super) fn wait_for<T>(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(value) = done(&mut state) {
                return Some(value);
            }
            if !state.wait(&self.changed, deadline) {
                return done(&mut state);
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        self.lock().stats.clone()
    }

    pub(super) fn status(&self) -> Status {
        let state = self.lock();
        let connection = &state.connection;
        let session = connection.session();
        let next = match (connection.target(), connection.phase()) {
            (Target::Up, Phase::Waiting(until)) => Some(until.saturating_duration_since(Instant::now())),
            _ => None,
        };
        let (retried, retried_bytes) = state.namespaces.retried();
        Status {
            state: connection.state(),
            transport: session.map(Session::transport),
            attempts: connection.attempts(),
            next_attempt_in: next,
            buffered: state.offline.len() + retried,
            buffered_bytes: state.offline.bytes() + retried_bytes,
            queued_bytes: session.map_or(0, |session| session.queue.bytes()),
            last_reason: connection.last_reason(),
            last_error: connection.last_error().cloned(),
        }
    }

    /// The client, and one of its namespaces, for the log.
    pub(super) fn place(&self, namespace: Option<&Namespace>) -> String {
        let server = self.dialer.endpoint.name();
        let Some(namespace) = namespace else { return format!("client of {server}") };
        let id = self.lock().namespaces[namespace.index].id().map(str::to_owned);
        format!(
            "client of {server}: socket {} of namespace {:?}",
            id.as_deref().unwrap_or("(not joined)"),
            namespace.name
        )
    }
}

/// Starts a thread of the client, and counts it until it ends.
pub(super) fn spawn(
    core: &Arc<Core>,
    name: &str,
    stack: usize,
    run: impl FnOnce(&Arc<Core>) + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    /// Dropped also when the thread panics.
    struct Running(Arc<Core>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.lock().threads -= 1;
            self.0.changed.notify_all();
        }
    }
    core.lock().threads += 1;
    let running = Running(core.clone());
    std::thread::Builder::new().name(name.to_owned()).stack_size(stack).spawn(move || {
        // The whole of it moves into the thread.
        let running = running;
        run(&running.0);
    })
}
