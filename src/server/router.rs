//! Where connections come in: the accept threads, and the way of a request to whoever serves it.
//!
//! ```text
//!   accept ─► permit? ─► thread conn-N ─► head ─┬─ a route of the application ──────────► next head
//!               │ no: 503     ▲                 ├─ endpoint + WebSocket ─► websocket
//!                             │                 └─ endpoint ─► handshake | polling ───► next head
//!                             └─── lot ◄─── silent: next head, held poll, websocket
//! ```

use std::{fmt, io, net::Shutdown, sync::Arc, time::Duration};

use crate::server::{
    core::Core,
    guard::{self, Callee},
    http::cors::{Cors, Target},
    http::response::Answer,
    http::{self, Connection, Head, Method, NextHead, Request, Response, header},
    limits::log_throttle::LogThrottle,
    limits::refusals::RefusalReason,
    net::stream::{self, Stream, Waker},
    net::unix_socket::SocketFile,
    peer::Peer,
    session::engine::{self, Refused},
    session::{Handshake, Session},
    transport::polling::{self, Served},
    transport::websocket::{self, Unfit, WebSocket},
};
use crate::{
    proto::{
        CloseReason,
        engine::{HandshakeError, Query, TransportKind},
    },
    sys::{
        fd::{AsFd, BorrowedFd},
        net::{TcpListener, UnixListener},
        os::{Errno, PollFd, PollFlags, epoll::EventFlags, set_tcp_nodelay},
        thread::{self, JoinHandle},
        time::Instant,
    },
};

/// How long accepting rests when the system has no descriptors or memory for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// What we listen on.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// The file is removed before the listener goes, because an inode that nobody holds may be another file's.
    Unix {
        _file: SocketFile,
        listener: UnixListener,
    },
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix { listener, .. } => listener.as_fd(),
        }
    }
}

impl Listener {
    /// `inherits`: the connection came after [`be_prompt`](Self::be_prompt).
    fn accept(&self, inherits: bool) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                if !inherits {
                    // A peer that is gone already is found out by reading.
                    let _ = set_tcp_nodelay(&stream, true);
                }
                Ok((Stream::tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix { listener, .. } => Ok((Stream::unix(listener.accept()?.0), Peer::Unix)),
        }
    }

    /// Packets are small and wanted at once. On Linux a connection inherits that from its listener. `false`: here not.
    fn be_prompt(&self) -> bool {
        match self {
            Self::Tcp(listener) => set_tcp_nodelay(listener, true).is_ok(),
            Self::Unix { .. } => true,
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix { listener, .. } => listener.set_nonblocking(true),
        }
    }
}

/// Starts the thread that accepts from `listener` until the server stops.
pub(crate) fn start(core: &Arc<Core>, listener: Listener, waker: Arc<Waker>) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking()?;
    let core = Arc::clone(core);
    thread::Builder::new()
        .name("accept".into())
        .stack_size(128 << 10)
        .spawn(move || accept_loop(&core, &listener, &waker))
}

fn accept_loop(core: &Arc<Core>, listener: &Listener, waker: &Waker) {
    let mut log_throttle = LogThrottle::default();
    let mut spare = Waker::new().ok();
    let prompt = listener.be_prompt();
    // Some may have come before, to a listener that the application brought.
    let mut inherits = false;
    while !core.is_closed() {
        match listener.accept(inherits) {
            Ok((stream, peer)) => {
                admit(core, stream, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                inherits = prompt;
                let mut fds = [waker.poll_fd(), PollFd::new(listener, PollFlags::IN)];
                // A failure is as good as a wake: the loop looks again.
                let _ = stream::wait(&mut fds, None);
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                // Too many files, or no memory: tried again until it passes.
                if log_throttle.allows() {
                    log::error!("cannot accept connections for now: {error}");
                }
                if is_out_of_descriptors(&error) && turn_away(core, listener, &mut spare) {
                    continue;
                }
                let mut fds = [waker.poll_fd()];
                let _ = stream::wait(&mut fds, Some(Instant::now() + EXHAUSTED_PAUSE));
            }
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Tells the next peer in the queue that there is no place for it, with the descriptor that is kept for this. `false`: there is
/// none, or nobody waits any more.
fn turn_away(core: &Core, listener: &Listener, spare: &mut Option<Waker>) -> bool {
    let had_one = spare.is_some();
    // Closed before the call, which takes its number.
    *spare = None;
    let accepted = if had_one { listener.accept(true).ok() } else { None };
    if let Some((stream, peer)) = &accepted {
        core.refusals.add(RefusalReason::System, *peer, &"no descriptor for the connection");
        refuse(stream);
    }
    let told = accepted.is_some();
    drop(accepted);
    *spare = Waker::new().ok();
    told
}

/// Whether an accept failed because the peer was gone again, which is no matter.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// A connection, and how far it is.
#[derive(Debug)]
pub(crate) struct Work {
    connection: Connection,
    stage: Stage,
}

/// What a connection's thread does next.
#[derive(Debug)]
pub(crate) enum Stage {
    /// A request is due until then.
    Request(Instant),
    /// This GET is held.
    Poll(Box<(Head, Arc<Session>)>),
    WebSocket(Box<WebSocket>),
}

/// What follows a stage.
pub(crate) enum Next {
    /// On this thread.
    Stage(Stage),
    /// Without a thread, until something comes.
    Park(Stage),
    /// The connection ends, but its peer may not have read the last answer yet.
    End,
    /// Both sides have ended it.
    Over,
}

impl Work {
    pub(crate) fn stream(&self) -> &Stream {
        &self.connection.stream
    }

    /// What ends the wait of a parked connection, beside its peer's end.
    pub(crate) fn interest(&self) -> EventFlags {
        match self.stage {
            // What a client sends behind its GET waits for the answer.
            Stage::Poll(_) => EventFlags::RDHUP,
            _ => EventFlags::IN | EventFlags::RDHUP,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Request(due) => Some(due),
            // These are the hub's.
            Stage::Poll(_) | Stage::WebSocket(_) => None,
        }
    }

    /// Looks at what has come for a parked connection. `true`: it was not worth a thread.
    pub(crate) fn visit(&mut self) -> bool {
        match &mut self.stage {
            Stage::WebSocket(socket) => socket.visit(),
            _ => false,
        }
    }

    fn session(&self) -> Option<Arc<Session>> {
        match &self.stage {
            Stage::Request(_) => None,
            Stage::Poll(held) => Some(Arc::clone(&held.1)),
            Stage::WebSocket(socket) => Some(Arc::clone(socket.session())),
        }
    }
}

/// Gives the connection a thread, or a 503.
fn admit(core: &Arc<Core>, stream: Stream, peer: Peer) {
    let stream = Arc::new(stream);
    let refuse = |reason, why: &dyn fmt::Display| {
        core.refusals.add(reason, peer, why);
        refuse(&stream);
    };
    let share = core.admission.stream(peer);
    let is_beyond_limit = share.is_err();
    if is_beyond_limit && !core.admission.has_exemptions() {
        return refuse_for_address(core, &stream, peer);
    }
    let Some(permit) = core.connections.permit(&stream, share.ok().flatten()) else {
        return refuse(RefusalReason::MaxTcpConnections, &"Too many connections");
    };
    let stage = Stage::Request(Instant::now() + core.config.head_timeout);
    let work = Work { connection: Connection::new(Arc::clone(&stream), peer, permit), stage };
    let core_of_thread = Arc::clone(core);
    let serve = move || {
        if is_beyond_limit && !core_of_thread.admission.is_exempt(peer) {
            return refuse_for_address(&core_of_thread, work.stream(), peer);
        }
        serve(&core_of_thread, work);
    };
    if let Err(error) = core.workers.run(serve) {
        refuse(RefusalReason::System, &format_args!("no thread for the connection: {error}"));
    }
}

fn refuse_for_address(core: &Core, stream: &Stream, peer: Peer) {
    core.refusals.add(RefusalReason::MaxConnectionsPerIp, peer, &"Too many connections of this address");
    refuse(stream);
}

/// Gives a parked connection a thread again. Without one its session ends, for its handlers cannot run.
pub(crate) fn resume(core: &Arc<Core>, work: Work) {
    let session = work.session();
    let core_of_thread = Arc::clone(core);
    if let Err(error) = core.workers.run(move || serve(&core_of_thread, work)) {
        log::error!("no thread for a parked connection: {error}");
        if let Some(session) = session {
            session.end(CloseReason::TransportError);
        }
    }
}

/// Says 503 without waiting, and lets go.
fn refuse(stream: &Stream) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = stream.send_now(FULL);
    stream.shutdown(Shutdown::Write);
}

/// Serves a connection until it ends, or parks.
fn serve(core: &Arc<Core>, mut work: Work) {
    loop {
        let Work { mut connection, stage } = work;
        let next = match stage {
            Stage::Request(due) => request(core, &mut connection, due),
            Stage::Poll(held) => {
                let served = polling::resume(&connection, &held.1);
                answer_session(core, &mut connection, *held, served).unwrap_or(Next::End)
            }
            Stage::WebSocket(socket) => socket.run(),
        };
        match next {
            Next::Stage(stage) => work = Work { connection, stage },
            Next::Park(stage) => match park(core, Work { connection, stage }) {
                Some(back) => work = back,
                None => return,
            },
            Next::End => return drain_input(&connection),
            Next::Over => return,
        }
    }
}

/// `Some`: there is something to do already.
fn park(core: &Core, mut work: Work) -> Option<Work> {
    work.connection.rest();
    let token = core.idle.reserve();
    if let Stage::Poll(held) = &work.stage
        && !polling::park(&held.1, token)
    {
        core.idle.give_back(token);
        return Some(work);
    }
    core.idle.park(token, work)
}

/// Serves the next request.
fn request(core: &Arc<Core>, connection: &mut Connection, due: Instant) -> Next {
    connection.permit.set_waiting(true);
    if core.is_closed() {
        return Next::End;
    }
    let head = match connection.read_head(&core.config, due, core.silence()) {
        Ok(NextHead::Head(head)) => {
            connection.permit.set_asked();
            head
        }
        Ok(NextHead::Silence) => return Next::Park(Stage::Request(due)),
        Ok(NextHead::None) => return Next::End,
        Ok(NextHead::Over) => return Next::Over,
        Err(error) => {
            connection.permit.set_waiting(false);
            connection.end_after_response();
            if let Some(status) = error.status() {
                let why = format_args!("the request is answered with HTTP status {status}");
                core.refusals.add(RefusalReason::BadRequest, connection.peer, &why);
                let _ = connection.respond(http::text(status, "text/html", ""), None);
            }
            return Next::End;
        }
    };
    connection.permit.set_waiting(false);
    route(core, connection, head).unwrap_or(Next::End)
}

/// A request has been answered.
fn next_request(core: &Core, connection: &Connection) -> Next {
    if connection.keeps_alive() {
        Next::Stage(Stage::Request(Instant::now() + core.config.keep_alive_timeout))
    } else {
        Next::End
    }
}

/// Gives the peer a moment to read the last answer: closing a socket with unread input resets it, and the answer would
/// be lost.
fn drain_input(connection: &Connection) {
    connection.stream.shutdown(Shutdown::Write);
    let deadline = Instant::now() + Duration::from_millis(500);
    let mut sink = [0; 4096];
    let mut left = 1024;
    while left > 0 && connection.stream.recv_until(&mut sink, deadline).is_ok_and(|read| read > 0) {
        left -= 1;
    }
}

fn route(core: &Arc<Core>, connection: &mut Connection, head: Head) -> io::Result<Next> {
    if let Some(endpoint) = core.endpoint_at(head.path()) {
        let wants_websocket =
            head.has_token("upgrade", "websocket") && head.has_token("connection", "upgrade");
        if wants_websocket {
            return websocket_request(core, connection, endpoint, head);
        }
        return polling_request(core, connection, endpoint, head);
    }
    let response = match core.route(head.path()) {
        Some(handler) => {
            // Routes take no bodies; one that comes is not read, so the connection ends.
            if !matches!(head.method(), Method::Get | Method::Head) {
                connection.end_after_response();
            }
            let request = Request::new(&head, connection.peer);
            guard::call(Callee::ROUTE, format_args!("the route {:?}", head.path()), || handler(&request))
                .unwrap_or_else(|| http::text(500, "text/plain; charset=UTF-8", "Internal Server Error\n"))
        }
        None => {
            connection.end_after_response();
            http::text(404, "text/plain; charset=UTF-8", "Not Found\n")
        }
    };
    connection.respond(response, Some(&head))?;
    Ok(next_request(core, connection))
}

/// What a request to an endpoint turns out to be.
enum Wanted {
    Session(Arc<Session>),
    NewSession,
}

/// The checks of the official server, in its order.
fn check(core: &Core, peer: Peer, endpoint: usize, head: &Head, websocket: bool) -> Result<Wanted, Refusal> {
    let query = Query::parse(head.query());
    let transport = query.transport()?;
    if !core.config.transports.contains(&transport) {
        return Err(HandshakeError::TransportUnknown.into());
    }
    check_origin(core, head, websocket)?;
    let Some(sid) = query.sid() else {
        if *head.method() != Method::Get {
            return Err(HandshakeError::BadMethod.into());
        }
        if websocket != (transport == TransportKind::Websocket) {
            return Err(HandshakeError::BadRequest.into());
        }
        if let Some(allow) = &core.config.allow_request {
            let request = Request::new(head, peer);
            guard::call(Callee::ALLOW_REQUEST, format_args!("allow_request"), || allow(&request))
                .unwrap_or_else(|| Err("Internal server error".into()))
                .map_err(Refusal::Message)?;
        }
        query.version()?;
        return Ok(Wanted::NewSession);
    };
    let find = || core.sessions.get(sid).filter(|session| session.endpoint == endpoint);
    let mut session = find();
    if session.as_ref().is_some_and(|session| session.is_overdue()) {
        // Clients ask right at the deadline whether a session has timed out.
        core.hub.ring();
        session = find();
    }
    let session = session.ok_or(HandshakeError::SessionUnknown)?;
    let fits = if websocket {
        transport == TransportKind::Websocket
    } else {
        transport == TransportKind::Polling && session.transport() == TransportKind::Polling
    };
    if !fits || query.version().is_err() {
        return Err(HandshakeError::BadRequest.into());
    }
    if session.ended().is_some() && *head.method() != Method::Get {
        // Its last packets may still be fetched, but nothing is taken any more.
        return Err(HandshakeError::SessionUnknown.into());
    }
    Ok(Wanted::Session(session))
}

fn check_origin(core: &Core, head: &Head, websocket: bool) -> Result<(), Refusal> {
    if head.is_illegible("origin") {
        return Err(HandshakeError::BadRequest.into());
    }
    let Some(origin) = head.header("origin") else { return Ok(()) };
    let target = target(head);
    if core.config.cors.allows(origin, target, websocket) {
        return Ok(());
    }
    Err(Refusal::Origin(format!("the origin {origin:?} for the host {:?}", target.host)))
}

/// The host that the browser meant: a proxy's word for it, if there is one. A page of another origin cannot make a
/// browser send these headers on a WebSocket.
fn target(head: &Head) -> Target<'_> {
    // Several proxies make a list; the first is what the browser asked for.
    let forwarded = head.header("x-forwarded-host").and_then(|list| list.split(',').next()).map(str::trim);
    let proxied = ["x-forwarded-for", "x-forwarded-proto", "x-real-ip", "forwarded", "via"];
    Target {
        host: forwarded.or_else(|| head.header("host")),
        proxied: proxied.iter().any(|name| head.header(name).is_some()),
    }
}

enum Refusal {
    Rule(HandshakeError),
    /// The page's origin may not connect; for the log.
    Origin(String),
    /// `allow_request`'s own words.
    Message(String),
    Session(Refused),
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        Self::Rule(error)
    }
}

impl Refusal {
    /// Counts it, and answers it: as JSON for polling; on WebSocket the official server answers the bare message, always
    /// with 400.
    fn response(self, core: &Core, peer: Peer, websocket: bool) -> Response {
        let count = |reason, why: &dyn fmt::Display| core.refusals.add(reason, peer, why);
        let (status, code, message) = match self {
            Self::Rule(error) => {
                let is_unknown = error == HandshakeError::SessionUnknown;
                let reason =
                    if is_unknown { RefusalReason::UnknownSession } else { RefusalReason::BadRequest };
                count(reason, &error);
                (error.status(), error.code(), error.to_string())
            }
            Self::Origin(origin) => {
                count(RefusalReason::Cors, &origin);
                let error = HandshakeError::Forbidden;
                (error.status(), error.code(), error.to_string())
            }
            Self::Message(message) => {
                count(RefusalReason::AllowRequest, &message);
                (403, HandshakeError::Forbidden.code(), message)
            }
            Self::Session(Refused::Busy { reason, retry_after }) => {
                count(reason, &reason.message());
                return http::text(503, "text/html", reason.message())
                    .with_header(header("Retry-After", &retry_after.to_string()));
            }
            Self::Session(Refused::NoId(error)) => {
                count(RefusalReason::System, &format_args!("no randomness for a session id: {error}"));
                return http::text(500, "text/html", "");
            }
        };
        if websocket {
            return http::text(400, "text/html", message);
        }
        let body = serde_json::json!({ "code": code, "message": message }).to_string();
        http::text(status, "application/json", body)
    }
}

fn polling_request(
    core: &Arc<Core>,
    connection: &mut Connection,
    endpoint: usize,
    head: Head,
) -> io::Result<Next> {
    let cors = &core.config.cors;
    if *head.method() == Method::Options && *cors != Cors::SameOrigin {
        let preflight = http::text(204, "text/html", "")
            .with_header(header("Access-Control-Allow-Methods", "GET,HEAD,PUT,PATCH,POST,DELETE"))
            .with_header(header("Access-Control-Allow-Headers", allowed_headers(&head)))
            .with_header(header("Vary", "Access-Control-Request-Headers"));
        connection.answer(Answer::Other(preflight), cors.headers(head.header("origin")), Some(&head))?;
        return Ok(next_request(core, connection));
    }
    match check(core, connection.peer, endpoint, &head, false) {
        Ok(Wanted::Session(session)) => {
            let served = polling::serve(connection, &head, &session);
            return answer_session(core, connection, (head, session), served);
        }
        Ok(Wanted::NewSession) => {
            let origin = head.header("origin").map(ToOwned::to_owned);
            let answer = polling::handshake(core, endpoint, Handshake::new(head, connection.peer))
                .unwrap_or_else(|refused| {
                    Answer::Other(Refusal::Session(refused).response(core, connection.peer, false))
                });
            connection.answer(answer, cors.headers(origin.as_deref()), None)?;
        }
        Err(refusal) => {
            if !matches!(head.method(), Method::Get | Method::Head) {
                // Its body is not read.
                connection.end_after_response();
            }
            let refusal = Answer::Other(refusal.response(core, connection.peer, false));
            connection.answer(refusal, cors.headers(head.header("origin")), Some(&head))?;
        }
    }
    Ok(next_request(core, connection))
}

/// Answers a request of a session, if it is not to be held for longer.
fn answer_session(
    core: &Arc<Core>,
    connection: &mut Connection,
    request: (Head, Arc<Session>),
    served: io::Result<Served>,
) -> io::Result<Next> {
    let (head, session) = &request;
    let answer = match served? {
        Served::Parks => return Ok(Next::Park(Stage::Poll(Box::new(request)))),
        Served::Answer(answer) => answer,
    };
    let delivery = session.outbox.deliver(&connection.stream, answer.len());
    let responded = connection.answer(answer, core.config.cors.headers(head.header("origin")), Some(head));
    drop(delivery);
    if *head.method() == Method::Post {
        polling::answered(session);
    } else if responded.is_err() {
        // The packets in the answer are lost (the official "poll connection closed prematurely").
        session.end(CloseReason::TransportError);
    }
    responded.map(|()| next_request(core, connection))
}

fn allowed_headers(head: &Head) -> &str {
    head.header("access-control-request-headers").filter(|value| value.is_ascii()).unwrap_or("content-type")
}

fn websocket_request(
    core: &Arc<Core>,
    connection: &mut Connection,
    endpoint: usize,
    head: Head,
) -> io::Result<Next> {
    connection.end_after_response();
    let wanted = match check(core, connection.peer, endpoint, &head, true) {
        Ok(wanted) => wanted,
        Err(refusal) => {
            connection.respond(refusal.response(core, connection.peer, true), Some(&head))?;
            return Ok(Next::End);
        }
    };
    let accepted = match websocket::accept(&head) {
        Ok(accepted) => accepted,
        Err(unfit) => {
            let mut refusal = Refusal::Rule(HandshakeError::BadRequest).response(core, connection.peer, true);
            if unfit == Unfit::Version {
                // RFC 6455 4.4: the client may try again with a version that is named here.
                refusal = refusal.with_header(header("Sec-WebSocket-Version", websocket::VERSION));
            }
            connection.respond(refusal, Some(&head))?;
            return Ok(Next::End);
        }
    };
    let socket = match wanted {
        Wanted::Session(session) => websocket::upgrade(connection, &accepted, &session),
        Wanted::NewSession => match engine::open(core, endpoint, Handshake::new(head, connection.peer)) {
            Ok(session) => websocket::begin(connection, accepted, &session),
            Err(refused) => {
                connection.respond(Refusal::Session(refused).response(core, connection.peer, true), None)?;
                None
            }
        },
    };
    Ok(socket.map_or(Next::End, |socket| Next::Stage(Stage::WebSocket(Box::new(socket)))))
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use rustix::net::sockopt::tcp_nodelay;

    use super::*;

    #[test]
    fn connections_are_prompt_whether_they_came_before_or_after_the_start() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = tcp.local_addr().expect("it is bound");
        let dial = || std::net::TcpStream::connect(address).expect("it listens");
        let listener = Listener::Tcp(tcp);
        let _early = dial();
        assert!(listener.be_prompt());
        let _late = dial();
        for inherits in [false, true] {
            let (stream, _) = listener.accept(inherits).expect("somebody has come");
            assert_eq!(tcp_nodelay(&stream), Ok(true), "inherits: {inherits}");
        }
    }
}
