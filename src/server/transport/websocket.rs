//! WebSocket: tungstenite's handshake and frame codec over our streams and outboxes.
//!
//! The connection's thread reads; what the codec wants to write (pongs, the answer to a close) goes through the session's
//! outbox like everything else, so frames of two threads never mix.
//!
//! A client that is silent for `park_after` is parked: [`WebSocket::run`] returns, and the thread is free.
//!
//! **Several messages in one read** are answered with one write: the codec is asked for the next message before this one is
//! handled, and while there is one, the outbox is corked. Nothing waits in it for long: the drain thread watches.

use std::{
    collections::HashSet,
    fmt,
    io::{self, Read, Write},
    mem,
    net::Shutdown,
    sync::Arc,
};

use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use tungstenite::{
    Error, Message,
    error::ProtocolError,
    handshake::server::{create_response, write_response},
    protocol::{Role, WebSocketConfig, WebSocketContext, frame::coding::CloseCode},
};

use crate::server::{
    config::Config,
    http::{Connection, Head},
    net::adaptive_wait::AdaptiveWait,
    net::stream::{Stream, WRITE_PATIENCE},
    router::{Next, Stage},
    session::engine,
    session::{CloseMode, Session},
    transport::frame_meter::Meter,
    transport::outbox::Packets,
};
use crate::{
    proto::{
        CloseReason,
        engine::{Data, Packet, ProbeStep, TransportKind, UpgradeProbe},
        socket::Encoded,
    },
    sys::{
        sync::atomic::Ordering::{AcqRel, Release},
        time::Instant,
    },
};

/// What is read from the socket at once: little at first, and more for a client that fills it.
const READ_MIN: usize = 1 << 10;
pub(crate) const READ_MAX: usize = 64 << 10;

/// What the codec reads at once, out of our buffer. It clears that much before each read, and keeps it for each
/// connection; tungstenite's default would be 128 KiB.
const CODEC_BUFFER: usize = 512;

/// Signs of life that a parked WebSocket may give at once; a flood of them gets a thread.
const VISIT_MAX: usize = 4;

/// Bytes of signs of life that a parked WebSocket may bring before they are charged: those of an hour and more.
const UNPAID_MAX: usize = 512;

/// Pings and pongs that a WebSocket may send while it probes.
const PROBE_SIGNS_MAX: usize = 16;

/// The version of WebSocket that is spoken here.
pub(crate) const VERSION: &str = "13";

/// Why a request cannot become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It asks for another version, or names none.
    Version,
    Malformed,
}

/// The answer to an upgrade request.
///
/// # Errors
/// Why it is no good one (RFC 6455 4.2.1).
pub(crate) fn accept(head: &Head) -> Result<Vec<u8>, Unfit> {
    if !head.may_upgrade() {
        return Err(Unfit::Malformed);
    }
    let mut versions = head.header_values(SEC_WEBSOCKET_VERSION.as_str());
    if versions.next() != Some(VERSION) || versions.next().is_some() {
        return Err(Unfit::Version);
    }
    answer(head).ok_or(Unfit::Malformed)
}

fn answer(head: &Head) -> Option<Vec<u8>> {
    let mut request = http::Request::builder().method(head.method().as_str()).uri("/");
    // What the answer depends on; the others of a browser would only be copied.
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_KEY] {
        for value in head.header_values(name.as_str()) {
            request = request.header(&name, value);
        }
    }
    let mut response = create_response(&request.body(()).ok()?).ok()?;
    if let Some(protocol) = subprotocol(head)? {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol.parse().ok()?);
    }
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, &response).ok()?;
    Some(bytes)
}

/// The first of the subprotocols that the client offers, as the official server picks it; clients fail a handshake that
/// answers none of theirs. Outer `None`: the header is no list of distinct tokens.
fn subprotocol(head: &Head) -> Option<Option<&str>> {
    if head.is_illegible("sec-websocket-protocol") {
        return None;
    }
    let mut first = None;
    let mut offered = HashSet::new();
    for protocol in head.header_values("sec-websocket-protocol").flat_map(|list| list.split(',')) {
        let protocol = protocol.trim_matches([' ', '\t']);
        if protocol.is_empty() || !protocol.bytes().all(is_token) || !offered.insert(protocol) {
            return None;
        }
        first.get_or_insert(protocol);
    }
    Some(first)
}

/// A byte that a token may have (RFC 9110 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A session that begins on WebSocket: says so. `None`: its client is gone already.
pub(crate) fn begin(
    connection: &mut Connection,
    response: Vec<u8>,
    session: &Arc<Session>,
) -> Option<WebSocket> {
    session.set_websocket();
    let stream = Arc::clone(&connection.stream);
    let mut greeting = response;
    if !engine::is_plain(session) {
        greeting.extend_from_slice(Encoded::text(&engine::open_packet(session).packet()).bytes());
    }
    let greeted = stream.send_all(&greeting, session.core.config.head_timeout);
    let attached = session.outbox.attach(&stream);
    if greeted.is_err() || attached.is_none() {
        session.end(CloseReason::TransportClose);
        return None;
    }
    engine::opened(session);
    let mut socket = WebSocket::new(connection, session);
    socket.io.bound = true;
    Some(socket)
}

/// A WebSocket that wants to take over a polling session (EIO "Upgrade"). Its failure costs the session nothing. `None`: it
/// is of no use, and closed.
pub(crate) fn upgrade(
    connection: &mut Connection,
    response: &[u8],
    session: &Arc<Session>,
) -> Option<WebSocket> {
    // Before the answer is out, because a client that has it may count on this.
    let alone = !session.upgrading.swap(true, AcqRel);
    let upgraded = try_upgrade(connection, response, session, alone);
    if alone {
        session.outbox.begin_upgrade(false);
        session.sent_home.store(0, Release);
        session.upgrading.store(false, Release);
    }
    upgraded
}

/// `None`: the WebSocket is of no use, and closed. `alone`: no other one is upgrading the session.
fn try_upgrade(
    connection: &mut Connection,
    response: &[u8],
    session: &Arc<Session>,
    alone: bool,
) -> Option<WebSocket> {
    let deadline = Instant::now() + session.core.config.upgrade_timeout;
    connection.stream.send_all(response, session.core.config.head_timeout).ok()?;
    let mut socket = WebSocket::new(connection, session);
    connection.permit.set_waiting(true);
    let upgraded = alone
        && !session.core.is_closed()
        && session.transport() == TransportKind::Polling
        && socket.probe(deadline);
    connection.permit.set_waiting(false);
    if upgraded {
        return Some(socket);
    }
    socket.close_unused();
    None
}

/// A WebSocket that a session is on, or is about to move to.
pub(crate) struct WebSocket {
    codec: WebSocketContext,
    io: Io,
    /// Read, and not handled yet.
    next: Option<Result<Message, Error>>,
    /// Bytes of signs of life that came while this was parked, and are not charged yet.
    unpaid: usize,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("session", &self.io.session.name()).finish_non_exhaustive()
    }
}

/// The codec's stream.
struct Io {
    stream: Arc<Stream>,
    session: Arc<Session>,
    /// The session is on this stream: writes go through its outbox.
    bound: bool,
    reading: Reading,
    adaptive_wait: AdaptiveWait,
    input: Input,
    /// The peer has ended the stream, or it is broken: there is nothing to read any more.
    over: bool,
    meter: Meter,
}

/// What was read from the socket, and how much of it the codec has.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    taken: usize,
}

impl Input {
    fn is_spent(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// The buffer, whose content is spent, for the next read.
    fn room(&mut self) -> &mut Vec<u8> {
        self.taken = 0;
        let (filled, capacity) = (self.bytes.len(), self.bytes.capacity());
        if filled == capacity && capacity < READ_MAX {
            self.bytes = Vec::with_capacity((4 * capacity).clamp(READ_MIN, READ_MAX));
        }
        &mut self.bytes
    }

    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.bytes[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        count
    }
}

/// How far a read goes for its bytes.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// Waits, until the stream's own timeout.
    Waits,
    /// Waits until then.
    Until(Instant),
    /// To the socket, and takes what is there.
    Looks,
    /// To what was read from the socket, so that the codec says what it can make of that.
    Stays,
}

impl Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_spent() {
            let received = match self.reading {
                Reading::Waits => self.adaptive_wait.recv_into(&self.stream, self.input.room()),
                Reading::Until(deadline) => self.stream.recv_into(self.input.room(), Some(deadline)),
                Reading::Looks => self.stream.recv_now(self.input.room()),
                Reading::Stays => return Err(io::ErrorKind::WouldBlock.into()),
            };
            let later = |error: &io::Error| {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
            };
            self.over = received.as_ref().map_or_else(|error| !later(error), |()| self.input.is_spent());
            received?;
        }
        let count = self.input.take(buffer);
        // The codec hands the error on as it is.
        self.meter.feed(&buffer[..count]).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(count)
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.bound {
            let sent = self.stream.send_all(bytes, WRITE_PATIENCE);
            if sent.is_err() {
                // A part of the frame may have left, and nothing that followed would be understood.
                self.stream.shutdown(Shutdown::Write);
            }
            return sent.map(|()| bytes.len());
        }
        // The codec hands over whole frames. That the session has ended, it learns by reading.
        let _ = self.session.send(Packets::Borrowed(bytes), false);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WebSocket {
    fn new(connection: &mut Connection, session: &Arc<Session>) -> Self {
        let codec = WebSocketContext::new(Role::Server, Some(codec_config(&session.core.config)));
        let io = Io {
            stream: Arc::clone(&connection.stream),
            session: Arc::clone(session),
            bound: false,
            reading: Reading::Waits,
            adaptive_wait: AdaptiveWait::default(),
            // The first frames of a hasty client came with the request.
            input: Input { bytes: connection.take_input(), taken: 0 },
            over: false,
            meter: Meter::new(&session.core.receiving),
        };
        Self { codec, io, next: None, unpaid: 0 }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.io.session
    }

    fn read(&mut self, reading: Reading) -> Result<Message, Error> {
        self.io.reading = reading;
        let read = self.codec.read(&mut self.io);
        if read.is_ok() {
            self.io.meter.given_out();
        }
        read
    }

    /// The next message of what was read from the socket. `None`: there is none, which the codec need not be asked for.
    fn read_on(&mut self) -> Option<Result<Message, Error>> {
        let more = !self.io.input.is_spent() || self.io.meter.has_ready();
        more.then(|| self.read_now(Reading::Stays)).flatten()
    }

    /// A message that needs no waiting. `None`: there is none.
    fn read_now(&mut self, reading: Reading) -> Option<Result<Message, Error>> {
        match self.read(reading) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            read => Some(read),
        }
    }

    /// Serves the session until it, or the stream, is over, or its client has been silent for `park_after`.
    pub(crate) fn run(mut self: Box<Self>) -> Next {
        let session = Arc::clone(&self.io.session);
        if self.io.stream.set_read_timeout(session.core.silence()).is_err() {
            session.end(CloseReason::TransportError);
        }
        let mut corked = false;
        while session.ended().is_none() {
            let message = match self.next.take() {
                Some(message) => message,
                None => match self.read(Reading::Waits) {
                    Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                        self.io.input = Input::default();
                        return Next::Park(Stage::WebSocket(self));
                    }
                    read => read,
                },
            };
            self.next = if message.is_ok() { self.read_on() } else { None };
            if self.next.is_none() {
                // The last of several, and the others said nothing, as the frames before a binary packet's last one.
                corked = corked && !session.outbox.uncork_empty();
            } else if !corked {
                session.outbox.cork();
                corked = true;
            }
            let bytes = match &message {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => message.len(),
                _ => 0,
            };
            let handled = message.map_err(Fault::from).and_then(|message| self.handle(message));
            self.io.meter.handled(bytes);
            if self.next.is_none() && self.io.meter.wants_renewal() {
                // It would keep room for the largest frame that ever came.
                self.codec = WebSocketContext::new(Role::Server, Some(codec_config(&session.core.config)));
                self.io.meter.renewed();
            }
            if corked && (self.next.is_none() || handled.is_err()) {
                corked = false;
                let uncorked = session.outbox.uncork();
                // Its failure has ended the session by itself.
                let _ = session.settle(uncorked);
            }
            if let Err(fault) = handled {
                // Ended in turn, so that the handlers hear of it on this thread.
                let _turn = session.enter();
                session.end_with(fault.reason, fault.mode);
            }
        }
        self.linger();
        Next::Over
    }

    /// Looks at what has come while this was parked, without waiting. `true`: nothing but signs of life.
    pub(crate) fn visit(&mut self) -> bool {
        let mut looks = 0..VISIT_MAX;
        while looks.next().is_some() {
            match self.read_now(Reading::Looks) {
                None => {
                    self.io.input = Input::default();
                    return true;
                }
                Some(Ok(Message::Text(text))) if is_pong(text.as_str()) && self.takes_free(text.len()) => {
                    self.io.session.heard_packet();
                    self.io.session.heard_pong();
                }
                Some(Ok(Message::Ping(bytes) | Message::Pong(bytes))) if self.takes_free(bytes.len()) => {
                    self.io.session.heard_packet();
                }
                read => {
                    self.next = read;
                    return false;
                }
            }
        }
        false
    }

    /// Notes a sign of life that was taken without its session's turn. `false`: it is so large, or so many have come, that
    /// `byte_rate` must hear of it first.
    fn takes_free(&mut self, bytes: usize) -> bool {
        let unpaid = self.unpaid + bytes + 1;
        let free = unpaid <= UNPAID_MAX;
        if free {
            self.unpaid = unpaid;
        }
        free
    }

    fn handle(&mut self, message: Message) -> Result<(), Fault> {
        let packet = match &message {
            Message::Text(text) if engine::is_plain(&self.io.session) => {
                Packet::Message(Data::Text(text.as_str().into()))
            }
            Message::Text(text) => Packet::decode(text.as_str()).map_err(|error| {
                log::info!("session {}: {error}", self.io.session.name());
                Fault::polite(CloseReason::ParseError)
            })?,
            Message::Binary(bytes) => Packet::Message(Data::Binary(bytes.clone())),
            Message::Close(_) => {
                // Lets the answer to the close out.
                let _ = self.codec.flush(&mut self.io);
                return Err(Fault::abrupt(CloseReason::TransportClose));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                self.io.session.heard_packet();
                let session = &self.io.session;
                session.enter().charge(session, mem::take(&mut self.unpaid) + message.len());
                return Ok(());
            }
        };
        let session = &self.io.session;
        let mut turn = session.enter();
        turn.owe(mem::take(&mut self.unpaid));
        let done = turn.packet(session, packet);
        drop(turn);
        done.map_err(Fault::from)
    }

    /// Keeps reading, and forgetting, until the peer has seen the close; the hub cuts who takes too long.
    fn linger(&mut self) {
        if self.io.over {
            return self.io.session.cut();
        }
        // Not for `park_after` only: what waits for a slow peer still goes out. If this fails, the peer is gone.
        let _ = self.io.stream.set_read_timeout(None);
        let mut sink = [0; 1024];
        while self.io.stream.recv(&mut sink).is_ok_and(|read| read > 0) {}
        self.io.session.cut();
    }

    /// Probes until `deadline`; `true` when the session has moved here.
    fn probe(&mut self, deadline: Instant) -> bool {
        let mut probe = UpgradeProbe::default();
        let mut signs = 0..PROBE_SIGNS_MAX;
        loop {
            let message = match self.read(Reading::Until(deadline)) {
                Ok(Message::Ping(_) | Message::Pong(_)) if signs.next().is_some() => continue,
                Ok(message) => message,
                Err(_) => return false,
            };
            let packet = match &message {
                Message::Text(text) => Packet::decode(text.as_str()),
                Message::Binary(bytes) => Ok(Packet::Message(Data::Binary(bytes.clone()))),
                _ => return false,
            };
            match packet.and_then(|packet| probe.step(&packet)) {
                Ok(ProbeStep::AnswerProbe) => {
                    let answer = Encoded::text("3probe");
                    if self.io.write_all(answer.bytes()).is_err() {
                        return false;
                    }
                    self.io.session.outbox.begin_upgrade(true);
                }
                Ok(ProbeStep::TakeOver) => return self.take_over(),
                Err(error) => {
                    log::info!("session {}: upgrade: {error}", self.io.session.name());
                    return false;
                }
            }
        }
    }

    fn take_over(&mut self) -> bool {
        let session = &self.io.session;
        // A POST that is still being handled comes first: its packets are older.
        let turn = session.enter();
        // Said first: a request that is on its way must not take the session for a polling one, and a GET that the move
        // wakes asks where the session is.
        session.set_websocket();
        let Some(attached) = session.outbox.attach(&self.io.stream) else { return false };
        self.io.bound = true;
        // Its failure has ended the session by itself.
        let _ = session.settle(attached);
        drop(turn);
        true
    }

    /// Closes a WebSocket that no session is on; the connection's thread waits a moment for the peer to see it.
    fn close_unused(&mut self) {
        // The peer may be gone already.
        let _ = self.codec.close(&mut self.io, None);
    }
}

fn is_pong(text: &str) -> bool {
    matches!(Packet::decode(text), Ok(Packet::Pong(_)))
}

pub(crate) fn codec_config(config: &Config) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(CODEC_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(64 << 10)
        .max_message_size(Some(config.max_http_buffer_size))
        .max_frame_size(Some(config.max_http_buffer_size))
}

/// Why the session ends, and how.
struct Fault {
    reason: CloseReason,
    mode: CloseMode,
}

impl Fault {
    fn polite(reason: CloseReason) -> Self {
        Self { reason, mode: CloseMode::Close(None) }
    }

    fn abrupt(reason: CloseReason) -> Self {
        Self { reason, mode: CloseMode::Abort }
    }

    fn coded(reason: CloseReason, code: CloseCode) -> Self {
        Self { reason, mode: CloseMode::Close(Some(code.into())) }
    }
}

impl From<CloseReason> for Fault {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Overloaded => Self::coded(reason, CloseCode::Again),
            reason => Self::polite(reason),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => CloseReason::Overloaded.into(),
            Error::Capacity(_) => Self::coded(CloseReason::MessageTooBig, CloseCode::Size),
            Error::Utf8(_) => Self::coded(CloseReason::TransportError, CloseCode::Invalid),
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::abrupt(CloseReason::TransportClose)
            }
            Error::Protocol(_) => Self::coded(CloseReason::TransportError, CloseCode::Protocol),
            _ => Self::abrupt(CloseReason::TransportError),
        }
    }
}
