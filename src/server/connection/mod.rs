//! Serves connections: the state machine of a connection, and the threads that drive it.
//!
//! ```text
//!   accept ─► limits ─► thread conn-N ─► head ─┬─ a route of the application ──────────► next head
//!               │ full: 503   ▲                ├─ endpoint + WebSocket ─► websocket
//!                             │                └─ endpoint ─► handshake | polling ────► next head
//!                             └── idle connections ◄── silent: next head, held GET, websocket
//! ```
//! It owns what a connection does next ([`Stage`]) and the way of a request to its session. It uses sessions and their
//! dispatch, the codecs and outboxes of `transport`, and `http` and `net`. None of these may use it. Only the start of
//! a server uses it, and [`Core`], which holds the idle connections.

pub(crate) mod accept;
mod checks;
mod polling;
mod router;
mod websocket;

use std::{io, net::Shutdown, ops::Deref, sync::Arc, time::Duration};

use crate::server::{
    connection::websocket::WebSocket,
    dispatch::core::Core,
    http::{Connection, Head},
    net::idle::{IdleConnection, IdleConnections},
    net::stream::Stream,
    session::Session,
};
use crate::{
    proto::CloseReason,
    sys::{os::epoll::EventFlags, thread::JoinHandle, time::Instant},
};

/// A connection and its stage.
#[derive(Debug)]
pub(crate) struct Work {
    connection: Connection,
    stage: Stage,
}

/// What the thread of a connection does next.
#[derive(Debug)]
enum Stage {
    /// Reads a request. Its first byte is due at this time.
    Request(Instant),
    /// Holds this GET of a session.
    Poll(Box<(Head, Arc<Session>)>),
    /// Serves a session on WebSocket.
    WebSocket(Box<WebSocket>),
}

/// What follows a stage.
enum Next {
    /// The next stage, on this thread.
    Stage(Stage),
    /// The next stage, without a thread until there is something to do.
    Park(Stage),
    /// The connection ends. Its peer may not have read the last answer yet.
    End,
    /// Both sides have ended the connection.
    Over,
}

impl Work {
    /// A new connection. The first byte of its first request is due at `due`.
    fn new(connection: Connection, due: Instant) -> Self {
        Self { connection, stage: Stage::Request(due) }
    }

    fn session(&self) -> Option<&Arc<Session>> {
        match &self.stage {
            Stage::Request(_) => None,
            Stage::Poll(held) => Some(&held.1),
            Stage::WebSocket(socket) => Some(socket.session()),
        }
    }
}

impl IdleConnection for Work {
    fn stream(&self) -> &Stream {
        &self.connection.stream
    }

    fn interest(&self) -> EventFlags {
        match self.stage {
            // What a client sends behind its GET is read after the answer.
            Stage::Poll(_) => EventFlags::RDHUP,
            Stage::Request(_) | Stage::WebSocket(_) => EventFlags::IN | EventFlags::RDHUP,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Request(due) => Some(due),
            // The hub has the deadlines of sessions.
            Stage::Poll(_) | Stage::WebSocket(_) => None,
        }
    }

    fn handles_without_thread(&mut self) -> bool {
        match &mut self.stage {
            Stage::WebSocket(socket) => socket.read_signs_of_life(),
            Stage::Request(_) | Stage::Poll(_) => false,
        }
    }
}

/// What serves the connections of a server.
pub(crate) struct Service {
    core: Arc<Core>,
    pub(crate) idle: Arc<IdleConnections<Work>>,
}

impl Service {
    pub(crate) fn new(core: Core, idle: IdleConnections<Work>) -> Self {
        Self { core: Arc::new(core), idle: Arc::new(idle) }
    }

    /// Starts the thread that waits for the idle connections.
    pub(crate) fn start_poller(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let service = Arc::clone(self);
        self.idle.start(move |work| resume(&service, work))
    }
}

impl Deref for Service {
    type Target = Arc<Core>;
    fn deref(&self) -> &Self::Target {
        &self.core
    }
}

/// Gives a parked connection a thread again. If there is none, its session ends, because its handlers cannot run.
fn resume(service: &Arc<Service>, work: Work) {
    let session = work.session().cloned();
    let service_of_thread = Arc::clone(service);
    if let Err(error) = service.workers.run(move || serve(&service_of_thread, work)) {
        log::error!("no thread for a parked connection: {error}");
        if let Some(session) = session {
            session.end(CloseReason::TransportError);
        }
    }
}

/// Serves a connection until it ends or parks.
fn serve(service: &Service, mut work: Work) {
    loop {
        let Work { mut connection, stage } = work;
        let next = match stage {
            Stage::Request(due) => router::request(service, &mut connection, due),
            Stage::Poll(held) => {
                let served = polling::resume(&connection, &held.1);
                router::answer_session(service, &mut connection, *held, served).unwrap_or(Next::End)
            }
            Stage::WebSocket(socket) => match socket.run() {
                Some(silent) => Next::Park(Stage::WebSocket(silent)),
                None => Next::Over,
            },
        };
        match next {
            Next::Stage(stage) => work = Work { connection, stage },
            Next::Park(stage) => match park(&service.idle, Work { connection, stage }) {
                Some(back) => work = back,
                None => return,
            },
            Next::End => return drain_input(&connection),
            Next::Over => return,
        }
    }
}

/// Parks the connection. `Some`: there is something to do already.
fn park(idle: &Arc<IdleConnections<Work>>, mut work: Work) -> Option<Work> {
    work.connection.shrink();
    let token = idle.reserve();
    if let Stage::Poll(held) = &work.stage
        && !polling::park(&held.1, idle, token)
    {
        idle.give_back(token);
        return Some(work);
    }
    idle.park(token, work)
}

/// Gives the peer a moment to read the last answer. To close a socket that has unread input would reset the
/// connection, and the answer would be lost.
fn drain_input(connection: &Connection) {
    connection.stream.shutdown(Shutdown::Write);
    let deadline = Instant::now() + Duration::from_millis(500);
    let mut sink = [0; 4096];
    let mut left = 1024;
    while left > 0 && connection.stream.recv_until(&mut sink, deadline).is_ok_and(|read| read > 0) {
        left -= 1;
    }
}
