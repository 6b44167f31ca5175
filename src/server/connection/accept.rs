//! Accepting: takes connections from the listener, and refuses those that are over a limit.
//!
//! The listener waits in the poller as the connections do, so the leader accepts. It uses the limits, the worker
//! threads and the state machine of [`super`]. It never waits for a peer, and it calls no code of the application:
//! where the application may exempt an address from its limit, another thread asks it.

use std::{fmt, io, net::Shutdown, sync::Arc, time::Duration};

use crate::server::{
    connection::Pending,
    connection::Service,
    connection::Work,
    guard,
    http::Connection,
    limits::log_throttle::LogThrottle,
    limits::refusals::RefusalReason,
    net::listener::{self, Listener},
    net::poller::{ConnectionWaker, EventFlags, Lease, Source},
    net::stream::{Stream, Waker},
    peer::Peer,
    session::Shared,
};
use crate::sys::{
    channel::{Receiver, RecvTimeoutError, Sender, bounded},
    time::Instant,
};

/// The pause before the next accept when the system has no descriptors or no memory for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are accepted before the others have their turn.
const ACCEPTS_MAX: usize = 16;

/// The listener of a running server.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Arc<Listener>,
    /// The option is set on the listener.
    nodelay: bool,
    /// The next connection has it too. Connections that came before the option was set do not.
    inherits: bool,
    /// A descriptor for a connection that is answered with 503 when there is no other.
    spare: Option<Waker>,
    /// Nothing is accepted until this time.
    paused_until: Option<Instant>,
    log_throttle: LogThrottle,
    /// Nothing is ever sent. It is dropped with the listener.
    _ended: Sender<()>,
}

/// Ends the accepting.
#[derive(Debug)]
pub(crate) struct Accepting {
    waker: ConnectionWaker,
    ended: Receiver<()>,
}

/// Accepts from `listener` until the server is closed.
pub(crate) fn start(service: &Arc<Service>, listener: Listener) -> io::Result<Accepting> {
    listener.set_nonblocking()?;
    let (alive, ended) = bounded(0);
    let acceptor = Acceptor {
        nodelay: listener.set_nodelay(),
        inherits: false,
        listener: Arc::new(listener),
        spare: Waker::new().ok(),
        paused_until: None,
        log_throttle: LogThrottle::default(),
        _ended: alive,
    };
    let lease = service.next_group().poller.lease();
    let waker = lease.waker();
    match lease.put_back(Pending::Listener(Box::new(acceptor))) {
        None => Ok(Accepting { waker, ended }),
        Some(_) => Err(io::Error::other("the listener cannot be watched")),
    }
}

impl Accepting {
    /// Waits until nothing is accepted any more. The server is closed already. `false`: the listener is still open at
    /// the deadline.
    pub(crate) fn end(self, deadline: Instant) -> bool {
        self.waker.wake();
        self.ended.recv_deadline(deadline) != Err(RecvTimeoutError::Timeout)
    }
}

impl Acceptor {
    pub(crate) fn source(&self) -> Arc<dyn Source> {
        Arc::<Listener>::clone(&self.listener)
    }

    pub(crate) fn interest(&self) -> EventFlags {
        if self.paused_until.is_some() { EventFlags::empty() } else { EventFlags::IN }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Accepts the connections that have come.
    fn accept(&mut self, service: &Arc<Service>) {
        self.paused_until = None;
        for _ in 0..ACCEPTS_MAX {
            match self.listener.accept(self.inherits) {
                Ok((stream, peer)) => admit(service, stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.inherits = self.nodelay;
                    return;
                }
                Err(error) if listener::is_of_the_connection(&error) => {}
                Err(error) => {
                    // Too many open files, or no memory. Accepting is tried again until it succeeds.
                    if self.log_throttle.allows() {
                        guard::error!("cannot accept connections for now: {error}");
                    }
                    if listener::is_out_of_descriptors(&error) && self.turn_away(&service.shared) {
                        continue;
                    }
                    self.paused_until = Some(Instant::now() + EXHAUSTED_PAUSE);
                    return;
                }
            }
        }
    }

    /// Answers the next connection in the queue with 503. It uses the descriptor that is kept for this case. `false`:
    /// no descriptor is kept, or no connection waits.
    fn turn_away(&mut self, shared: &Shared) -> bool {
        // Closed first: the accept takes its descriptor.
        let had_one = self.spare.take().is_some();
        let accepted = if had_one { self.listener.accept(true).ok() } else { None };
        if let Some((stream, peer)) = &accepted {
            shared.refusals.add(RefusalReason::System, *peer, &"no descriptor for the connection");
            refuse(stream);
        }
        let refused = accepted.is_some();
        drop(accepted);
        self.spare = Waker::new().ok();
        refused
    }
}

/// Serves the listener: accepts, or closes it if the server is closed.
pub(crate) fn serve(service: &Arc<Service>, lease: Lease<'_, Pending>, mut acceptor: Box<Acceptor>) {
    if service.shared.is_closed() {
        // Left first: the listener closes with the acceptor.
        drop(lease);
        return;
    }
    // The logger may block, and the next connections must not wait for it.
    let _held = service.shared.records.hold();
    acceptor.accept(service);
    if lease.put_back(Pending::Listener(acceptor)).is_some() {
        guard::error!("the listener cannot be watched any more: the server accepts nothing");
    }
}

/// Puts the connection into the poller, or answers it with 503.
fn admit(service: &Arc<Service>, stream: Stream, peer: Peer) {
    let stream = Arc::new(stream);
    let refuse = |reason, why: &dyn fmt::Display| {
        service.shared.refusals.add(reason, peer, why);
        refuse(&stream);
    };
    let share = service.shared.admission.stream(peer);
    let is_beyond_limit = share.is_err();
    if is_beyond_limit && !service.shared.admission.has_exemptions() {
        return refuse_for_address(&service.shared, &stream, peer);
    }
    let Some(permit) = service.shared.connections.permit(&stream, share.ok().flatten()) else {
        return refuse(RefusalReason::MaxTcpConnections, &"Too many connections");
    };
    let due = Instant::now() + service.shared.config.head_timeout;
    let work = Box::new(Work::new(Connection::new(Arc::clone(&stream), peer, permit), due));
    if !is_beyond_limit {
        return take_in(service, work, peer, &stream);
    }
    let (service_of_thread, stream_of_thread) = (Arc::clone(service), Arc::clone(&stream));
    let ask = move || {
        let (service, stream) = (service_of_thread, stream_of_thread);
        if service.shared.admission.is_exempt(peer) {
            take_in(&service, work, peer, &stream);
        } else {
            refuse_for_address(&service.shared, &stream, peer);
        }
    };
    if let Err(error) = service.shared.workers.run(ask) {
        refuse(RefusalReason::System, &format_args!("no thread for the connection: {error}"));
    }
}

/// The connection waits for its first request.
fn take_in(service: &Service, work: Box<Work>, peer: Peer, stream: &Stream) {
    if service.next_group().poller.insert(Pending::Connection(work)).is_some() {
        service.shared.refusals.add(RefusalReason::System, peer, &"no kernel memory for the connection");
        refuse(stream);
    }
}

fn refuse_for_address(shared: &Shared, stream: &Stream, peer: Peer) {
    shared.refusals.add(RefusalReason::MaxConnectionsPerIp, peer, &"Too many connections of this address");
    refuse(stream);
}

/// Answers 503 without waiting, and ends the connection.
fn refuse(stream: &Stream) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = stream.send_now(FULL);
    stream.shutdown(Shutdown::Write);
}
