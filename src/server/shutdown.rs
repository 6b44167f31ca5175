//! The stop of a server, in the one order that loses nothing: sessions, listener, connections, queued handlers,
//! leaders, hub, drain thread, worker threads.
//!
//! It owns the threads of a running server and how far a stop has come. It uses what the sessions share. It must not
//! run on a thread that the stop waits for: [`Server::shutdown`](crate::server::Server::shutdown) sees to that.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::server::{
    connection::Service, connection::accept::Accepting, guard, recovery::store::StoreStatus, session::Shared,
};
use crate::{
    proto::CloseReason,
    sys::{
        channel::{RecvTimeoutError, bounded},
        sync::{Condvar, Mutex, atomic::Ordering::SeqCst},
        thread::{self, JoinHandle},
        time::Instant,
        wait::deadline_in,
    },
};

/// How long a thread with nothing to do needs to end.
const THREAD_END: Duration = Duration::from_millis(100);

/// The same on a very busy machine, as long as every thread has ended in time so far.
const THREAD_END_BUSY: Duration = Duration::from_secs(2);

/// The least time that a store gets to commit the last changes and to close.
pub(super) const STORE_COMMIT_MIN: Duration = Duration::from_secs(1);

/// A running server, and its stop. When a handler stops the server, a thread of its own shares this with the handle.
pub(super) struct Running {
    pub(super) service: Arc<Service>,
    pub(super) local_addr: Option<SocketAddr>,
    stage: Mutex<Stage>,
    staged: Condvar,
}

/// How far a stop has come.
enum Stage {
    /// Empty while one thread stops the server.
    Running(Option<Threads>),
    Stopped {
        all_gone: bool,
    },
}

/// What a server runs all the time. `None`: the start has failed before this one.
#[derive(Default)]
pub(super) struct Threads {
    pub(super) accepting: Option<Accepting>,
    pub(super) hub: Option<JoinHandle<bool>>,
    pub(super) drain: Option<JoinHandle<()>>,
    pub(super) watchdog: Option<JoinHandle<()>>,
}

impl Running {
    pub(super) fn new(service: Arc<Service>, local_addr: Option<SocketAddr>, threads: Threads) -> Self {
        let stage = Mutex::new(Stage::Running(Some(threads)));
        Self { service, local_addr, stage, staged: Condvar::new() }
    }

    /// Waits until the server has been stopped. `false`: some thread was left behind.
    pub(super) fn wait(&self) -> bool {
        let mut stage = self.stage.lock();
        loop {
            if let Stage::Stopped { all_gone } = *stage {
                return all_gone;
            }
            self.staged.wait(&mut stage);
        }
    }

    /// See [`Server::shutdown_spread`](crate::server::Server::shutdown_spread).
    pub(super) fn shutdown(&self, window: Duration, deadline: Duration) -> bool {
        self.service.shared.ending.store(true, SeqCst);
        let deadline = self.end_sessions(window, deadline);
        let threads = match &mut *self.stage.lock() {
            Stage::Running(threads) => threads.take(),
            Stage::Stopped { .. } => None,
        };
        if let Some(threads) = threads {
            let grace = deadline.max(Duration::from_secs(1));
            let all_gone = stop(&self.service, threads, deadline_in(deadline), grace);
            *self.stage.lock() = Stage::Stopped { all_gone };
            self.staged.notify_all();
        }
        self.wait()
    }

    /// Ends the sessions. Returns the time that is left for the rest of the stop. `deadline` begins after the last
    /// session.
    ///
    /// If there is a store, a separate thread ends the sessions. While the store blocks, the hub may take no
    /// commands, and that thread waits until the hub is stopped.
    fn end_sessions(&self, window: Duration, deadline: Duration) -> Duration {
        if self.service.shared.store_watch.status() == StoreStatus::Off {
            end_all(&self.service.shared, window);
            return deadline;
        }
        let (done, ended) = bounded::<()>(0);
        let shared = Arc::clone(&self.service.shared);
        let end = move || {
            end_all(&shared, window);
            drop(done);
        };
        if let Err(error) = thread::Builder::new().name("ending".into()).spawn(end) {
            guard::error!("no thread to end the sessions in good order: {error}");
        }
        let patience = window.saturating_add(deadline.max(STORE_COMMIT_MIN));
        // Nothing is ever sent.
        let in_time = ended.recv_deadline(deadline_in(patience));
        if in_time == Err(RecvTimeoutError::Timeout) { Duration::ZERO } else { deadline }
    }
}

/// Stops all threads, and waits for them. `false`: some thread was left behind.
///
/// Connections have until `deadline` to end. Handlers that run then have `grace` more.
pub(super) fn stop(service: &Service, threads: Threads, deadline: Instant, grace: Duration) -> bool {
    service.shared.sessions.wait_until_none(deadline);
    service.shared.closed.store(true, SeqCst);
    // The listener first: no connection must come after those that are waited for.
    let mut all_gone =
        threads.accepting.is_some_and(|accepting| accepting.end(Instant::now() + THREAD_END_BUSY));
    service.shared.connections.interrupt_waiting();
    let in_time = service.shared.connections.wait_until_none(deadline);
    // A polling session has no connection between two requests. It may still be there when all connections are gone.
    for session in service.shared.sessions.all() {
        session.abort();
    }
    if !in_time {
        service.shared.connections.shutdown_all();
    }
    let grace = deadline_in(grace);
    all_gone &= service.shared.connections.wait_until_none(grace);
    // The worker threads before the hub, because the last handlers may use it. What a handler asks of the hub later
    // fails. Where some user code is known not to return, the other threads get only a moment more.
    let at_least =
        |all_gone: bool| grace.max(Instant::now() + if all_gone { THREAD_END_BUSY } else { THREAD_END });
    all_gone &= service.shared.workers.wait_until_idle(at_least(all_gone));
    // No connection is parked any more, unless its last handler has not returned.
    for group in &service.groups {
        group.poller.stop();
    }
    service.watchdog.stop();
    // The store may need a moment for the last changes.
    service.shared.hub.stop(grace.max(Instant::now() + STORE_COMMIT_MIN));
    service.shared.drain.stop();
    // These threads run no handlers, so they end.
    all_gone &= join(threads.hub).unwrap_or(false);
    for thread in [threads.drain, threads.watchdog] {
        all_gone &= join(thread).is_some();
    }
    // The hub kept data of the application for lost clients. Worker threads drop it.
    all_gone &= service.shared.workers.wait_until_idle(at_least(all_gone));
    service.shared.workers.close();
    all_gone &= service.shared.workers.wait_until_none(at_least(all_gone));
    for (callee, session) in service.shared.workers.activities() {
        let session = session.map_or_else(String::new, |session| format!("session {session}: "));
        guard::warn!(
            "{session}{} has not returned; the server stops without it",
            service.core.describe(callee)
        );
    }
    all_gone
}

/// What the thread gave. `None`: it was never started, or has panicked.
fn join<T>(thread: Option<JoinHandle<T>>) -> Option<T> {
    thread?.join().ok()
}

/// Ends the sessions, evenly over the window, behind all packets that were emitted before.
fn end_all(shared: &Shared, window: Duration) {
    if !window.is_zero() {
        end_one_by_one(shared, window.min(Duration::from_secs(24 * 3600)));
    }
    // Packets that other threads have emitted are sent first.
    shared.hub.fence();
    for session in shared.sessions.all() {
        session.end(CloseReason::ServerShuttingDown);
    }
}

fn end_one_by_one(shared: &Shared, window: Duration) {
    let sessions = shared.sessions.all();
    let (begun, count) = (Instant::now(), sessions.len().max(1));
    for (index, session) in sessions.into_iter().enumerate() {
        if session.ended().is_some() {
            continue;
        }
        shared.sessions.wait_until_none(begun + window.mul_f64(index as f64 / count as f64));
        session.end(CloseReason::ServerShuttingDown);
    }
}
