//! Serves connections: the state machine of a connection, and the threads that drive it.
//!
//! ```text
//!   accept ─► limits ─► poller ─► leader ─┬─ head ─┬─ a route of the application ──────────► next head
//!               │ full: 503               │        ├─ endpoint + WebSocket ─► websocket
//!                                         │        └─ endpoint ─► handshake | polling ────► next head
//!                                         └─ held GET, upgrade, websocket: the next packet
//! ```
//! It owns what a connection does next ([`Stage`]) and the way of a request to its session. A connection waits in the
//! poller, without a thread. The leader serves each one that is ready, up to the point where it would wait again (see
//! [`leader`]). It uses sessions and their dispatch, the codecs and outboxes of `transport`, and `http` and `net`. None
//! of these may use it. Only the start, the stop and the figures of a server use it.

pub(crate) mod accept;
mod checks;
pub(crate) mod leader;
mod polling;
mod router;
mod websocket;

use std::{io, mem, net::Shutdown, sync::Arc, time::Duration};

use crate::server::{
    connection::accept::Acceptor,
    connection::polling::Hold,
    connection::websocket::{After, Step, Upgrade, WebSocket},
    dispatch::core::Core,
    http::{Awaited, Connection, Head, READ_CHUNK},
    lead::{self, Lead, Watchdog},
    net::poller::{EventFlags, Lease, Pollable, Poller, Source},
    net::stream::Stream,
    session::{Session, Shared},
};
use crate::{
    proto::CloseReason,
    sys::{
        sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        time::Instant,
    },
};

/// How long a peer has to read the last answer of its connection.
const LAST_READ: Duration = Duration::from_millis(500);

/// A connection that made the leader lose the lead gets a thread for so many turns.
const SLOW_TURNS: u8 = 32;

/// Reads of a peer whose input is dropped, before the other connections have their turn.
const DROPPED_READS: usize = 16;

/// A connection and its stage.
#[derive(Debug)]
pub(crate) struct Work {
    connection: Connection,
    stage: Stage,
    /// More than 0: its last handler was slow, so it gets a thread for the next ones.
    slow: u8,
}

/// What a connection waits for.
#[derive(Debug)]
enum Stage {
    /// A request.
    Request(Awaited),
    /// The answer to a GET that is held.
    Poll(Box<HeldGet>),
    /// The next step of an upgrade.
    Upgrade(Box<Upgrade>),
    /// Messages on WebSocket.
    WebSocket(Box<WebSocket>),
    /// The session on WebSocket has ended: the end of its peer. The hub aborts a session whose peer takes too long.
    Linger(Arc<Session>),
    /// The last answer was written: the end of its peer, until this time. To close a socket that has unread input
    /// would reset the connection, and the answer would be lost.
    LastRead(Instant),
    /// A thread serves it. No connection waits in this stage.
    Served,
}

/// A GET of a session that is held.
#[derive(Debug)]
struct HeldGet {
    request: (Head, Arc<Session>),
    hold: Hold,
    /// What its client sends behind it is read after the answer.
    ignores_input: bool,
}

impl HeldGet {
    fn new(request: (Head, Arc<Session>), hold: Hold) -> Self {
        Self { request, hold, ignores_input: false }
    }
}

/// What follows when a stage was served.
enum Next {
    /// The next stage, at once.
    Stage(Stage),
    /// This stage, when there is something to do.
    Wait(Stage),
    /// The connection ends. Its peer may not have read the last answer yet.
    End,
    /// Both sides have ended the connection.
    Over,
}

impl Work {
    /// A new connection. The first byte of its first request is due at `due`.
    fn new(connection: Connection, due: Instant) -> Self {
        Self { connection, stage: Stage::Request(Awaited::new(due)), slow: 0 }
    }

    /// The session that ends with this connection.
    fn session(&self) -> Option<&Arc<Session>> {
        match &self.stage {
            Stage::Poll(held) => Some(&held.request.1),
            Stage::WebSocket(socket) => Some(socket.session()),
            Stage::Request(_) | Stage::Upgrade(_) | Stage::Linger(_) | Stage::LastRead(_) | Stage::Served => {
                None
            }
        }
    }

    fn interest(&self) -> EventFlags {
        match &self.stage {
            Stage::Poll(held) if held.ignores_input => EventFlags::RDHUP,
            _ => EventFlags::IN | EventFlags::RDHUP,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Request(awaited) => Some(awaited.due),
            Stage::Poll(held) => held.hold.noop_at,
            Stage::Upgrade(upgrade) => Some(upgrade.deadline),
            Stage::LastRead(until) => Some(*until),
            // The hub has the deadlines of sessions.
            Stage::WebSocket(_) | Stage::Linger(_) | Stage::Served => None,
        }
    }
}

/// What waits in the poller.
#[derive(Debug)]
pub(crate) enum Pending {
    /// In a box, so that it is not copied whenever a thread takes it and returns it.
    Connection(Box<Work>),
    Listener(Box<Acceptor>),
}

impl Pollable for Pending {
    fn source(&self) -> Arc<dyn Source> {
        match self {
            Self::Connection(work) => Arc::<Stream>::clone(&work.connection.stream),
            Self::Listener(acceptor) => acceptor.source(),
        }
    }

    fn interest(&self) -> EventFlags {
        match self {
            Self::Connection(work) => work.interest(),
            Self::Listener(acceptor) => acceptor.interest(),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Connection(work) => work.deadline(),
            Self::Listener(acceptor) => acceptor.deadline(),
        }
    }
}

/// What serves the connections of a server.
pub(crate) struct Service {
    pub(crate) core: Arc<Core>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) groups: Vec<Group>,
    /// Counts the connections that came, to spread them over the groups.
    came: AtomicUsize,
    pub(crate) watchdog: Arc<Watchdog>,
}

/// Connections that have one leader. Each stays in its group.
pub(crate) struct Group {
    pub(crate) poller: Arc<Poller<Pending>>,
    pub(crate) lead: Arc<Lead>,
    /// Its WebSockets that have a thread of their own.
    alone: AtomicUsize,
    /// Many of its clients talk.
    is_crowded: AtomicBool,
}

impl Service {
    /// Each poller has the connections of one group.
    pub(crate) fn new(core: Core, pollers: Vec<Poller<Pending>>) -> Self {
        let watchdog = Arc::new(Watchdog::new());
        let group = |poller| Group {
            poller: Arc::new(poller),
            lead: Arc::new(Lead::new(&watchdog)),
            alone: AtomicUsize::new(0),
            is_crowded: AtomicBool::new(false),
        };
        Self {
            shared: Arc::clone(&core.shared),
            core: Arc::new(core),
            groups: pollers.into_iter().map(group).collect(),
            came: AtomicUsize::new(0),
            watchdog,
        }
    }

    /// The group of the next connection. Not simply in turn: a client that opens two connections, one after the other,
    /// would have all its WebSockets in one group. The multiples of the golden ratio spread evenly, and so does every
    /// second one.
    fn next_group(&self) -> &Group {
        let spread = (self.came.fetch_add(1, Relaxed) as u32).wrapping_mul(0x9E37_79B9);
        &self.groups[((u64::from(spread) * self.groups.len() as u64) >> 32) as usize]
    }

    /// The number of connections that wait without a thread.
    pub(crate) fn parked(&self) -> usize {
        let parked = |group: &Group| group.poller.count(|pending| matches!(pending, Pending::Connection(_)));
        self.groups.iter().map(parked).sum()
    }
}

/// Serves a connection until it would wait. `ready`: its events. `is_alone`: few clients talk, and this one may keep
/// the thread.
fn serve(
    service: &Arc<Service>,
    group: &Group,
    lease: Lease<'_, Pending>,
    mut work: Box<Work>,
    ready: EventFlags,
    is_alone: bool,
) {
    let mut gone = ready.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
    // The lead of a connection that was slow was given up before, so its loss says nothing.
    let begun = (work.slow > 0).then(Instant::now);
    let mut stage = mem::replace(&mut work.stage, Stage::Served);
    loop {
        let connection = &mut work.connection;
        let next = match stage {
            Stage::Request(awaited) => router::request(&service.core, connection, lease.waker(), awaited),
            Stage::Poll(held) if ready == EventFlags::IN && !held.ignores_input => {
                Next::Wait(Stage::Poll(Box::new(HeldGet { ignores_input: true, ..*held })))
            }
            Stage::Poll(held) => {
                let HeldGet { request, hold, .. } = *held;
                let served = polling::resume(&request.1, hold, mem::take(&mut gone));
                router::answer_session(&service.core, connection, request, served).unwrap_or(Next::End)
            }
            Stage::Upgrade(upgrade) => match upgrade.step(connection) {
                Step::Wait(upgrade) => Next::Wait(Stage::Upgrade(upgrade)),
                Step::Done(socket) => Next::Stage(Stage::WebSocket(socket)),
                Step::Failed => Next::End,
            },
            Stage::WebSocket(mut socket) => match socket.serve() {
                After::Wait
                    if (is_alone || service.shared.config.park_after.is_none()) && lead::hand_over() =>
                {
                    drop(lease);
                    return serve_alone(service, group, work, socket);
                }
                After::Wait => Next::Wait(Stage::WebSocket(socket)),
                After::Linger => Next::Wait(Stage::Linger(Arc::clone(socket.session()))),
                After::Over => Next::Over,
            },
            Stage::Linger(session) => {
                if drop_input(connection) {
                    Next::Wait(Stage::Linger(session))
                } else {
                    session.abort();
                    Next::Over
                }
            }
            Stage::LastRead(until) if Instant::now() < until && drop_input(connection) => {
                Next::Wait(Stage::LastRead(until))
            }
            Stage::LastRead(_) | Stage::Served => Next::Over,
        };
        work.stage = match next {
            Next::Stage(next) => {
                stage = next;
                continue;
            }
            Next::Wait(stage) => stage,
            Next::End => {
                connection.stream.shutdown(Shutdown::Write);
                Stage::LastRead(Instant::now() + LAST_READ)
            }
            Next::Over => return,
        };
        connection.shrink();
        let is_slow = begun.map_or_else(lead::is_lost, |begun| begun.elapsed() >= lead::TICK);
        work.slow = if is_slow { SLOW_TURNS } else { work.slow.saturating_sub(1) };
        return lost(lease.put_back(Pending::Connection(work)));
    }
}

/// Serves a WebSocket on this thread until its client is silent, or many clients talk.
fn serve_alone(service: &Service, group: &Group, mut work: Box<Work>, mut socket: Box<WebSocket>) {
    let silence = service.shared.config.park_after;
    group.alone.fetch_add(1, Relaxed);
    let after = socket.serve_alone(silence, || silence.is_none() || !group.is_crowded.load(Relaxed));
    group.alone.fetch_sub(1, Relaxed);
    work.stage = match after {
        After::Wait => Stage::WebSocket(socket),
        After::Linger => Stage::Linger(Arc::clone(socket.session())),
        After::Over => return,
    };
    work.slow = 0;
    lost(group.poller.insert(Pending::Connection(work)));
}

/// A connection that cannot wait in the poller, because there is no kernel memory, ends with its session.
fn lost(pending: Option<Pending>) {
    if let Some(Pending::Connection(work)) = &pending
        && let Some(session) = work.session()
    {
        session.end(CloseReason::TransportError);
    }
}

/// Reads and drops what has come. `false`: there is nothing more to come.
fn drop_input(connection: &Connection) -> bool {
    let mut sink = Vec::with_capacity(READ_CHUNK);
    for _ in 0..DROPPED_READS {
        match connection.stream.recv_now(&mut sink) {
            Ok(()) if sink.is_empty() => return false,
            Ok(()) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}
