//! WebSocket: tungstenite's handshake and frame codec over our streams and outboxes.
//!
//! The connection's thread reads; what the codec wants to write (pongs, the answer to a close) goes through the session's
//! outbox like everything else, so frames of two threads never mix.
//!
//! **Several messages in one read** are answered with one write: the codec is asked for the next message before this one is
//! handled, and while there is one, the outbox is corked. Nothing waits in it for long: the drain thread watches.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Release},
    },
    time::Instant,
};

use tungstenite::{
    Error, Message,
    error::ProtocolError,
    handshake::server::{create_response, write_response},
    protocol::{Role, WebSocketConfig, WebSocketContext, frame::coding::CloseCode},
};

use super::{
    config::Config,
    engine,
    http::{Connection, Head},
    outbox::Packets,
    session::{Parting, Session},
    stream::{Stream, WRITE_PATIENCE},
};
use crate::proto::{
    CloseReason,
    engine::{Data, Packet, ProbeStep, TransportKind, UpgradeProbe},
    socket::Encoded,
};

/// What is read from the socket at once. The memory is not touched before something of that size arrives.
const READ_BUFFER: usize = 16 << 10;

/// What the codec reads at once, out of our buffer. It clears that much before each read, and keeps it for each
/// connection; tungstenite's default would be 128 KiB.
const CODEC_BUFFER: usize = 512;

/// The answer to an upgrade request. `None`: it is not a good one (RFC 6455 4.2.1).
pub(super) fn accept(head: &Head) -> Option<Vec<u8>> {
    let mut request = http::Request::builder().method(head.method().as_str()).uri("/");
    for (name, value) in head.headers() {
        request = request.header(name, value);
    }
    let response = create_response(&request.body(()).ok()?).ok()?;
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, &response).ok()?;
    Some(bytes)
}

/// A session that begins on WebSocket: says so, then serves it to its end.
pub(super) fn serve(connection: &mut Connection, response: Vec<u8>, session: &Arc<Session>) {
    session.set_websocket();
    let stream = Arc::clone(&connection.stream);
    let mut greeting = response;
    greeting.extend_from_slice(Encoded::text(&engine::open_packet(session).packet()).bytes());
    let greeted = stream.send_all(&greeting, session.core.config.head_timeout);
    let attached = session.outbox.attach(&stream);
    if greeted.is_err() || attached.is_none() {
        return session.end(CloseReason::TransportClose);
    }
    engine::opened(session);
    let mut socket = WebSocket::new(connection, session);
    socket.io.bound = true;
    socket.run();
}

/// A WebSocket that wants to take over a polling session (EIO "Upgrade"). Its failure costs the session nothing.
pub(super) fn upgrade(connection: &mut Connection, response: &[u8], session: &Arc<Session>) {
    // Before the answer is out, because a client that has it may count on this.
    let alone = !session.upgrading.swap(true, AcqRel);
    let upgraded = try_upgrade(connection, response, session, alone);
    if alone {
        session.outbox.begin_upgrade(false);
        session.upgrading.store(false, Release);
    }
    if let Some(mut socket) = upgraded {
        socket.run();
    }
}

/// `None`: the WebSocket is of no use, and closed. `alone`: no other one is upgrading the session.
fn try_upgrade<'s>(
    connection: &mut Connection,
    response: &[u8],
    session: &'s Arc<Session>,
    alone: bool,
) -> Option<WebSocket<'s>> {
    let deadline = Instant::now() + session.core.config.upgrade_timeout;
    connection.stream.send_all(response, session.core.config.head_timeout).ok()?;
    let mut socket = WebSocket::new(connection, session);
    socket.io.deadline = Some(deadline);
    connection.place.set_waiting(true);
    let upgraded =
        alone && !session.core.is_closed() && session.transport() == TransportKind::Polling && socket.probe();
    connection.place.set_waiting(false);
    if upgraded {
        return Some(socket);
    }
    socket.close_unused();
    None
}

struct WebSocket<'s> {
    codec: WebSocketContext,
    io: Io,
    session: &'s Arc<Session>,
}

/// The codec's stream.
struct Io {
    stream: Arc<Stream>,
    session: Arc<Session>,
    /// The session is on this stream: writes go through its outbox.
    bound: bool,
    /// Reads give up then.
    deadline: Option<Instant>,
    /// Reads find what has arrived and nothing more, so that the codec says what it can make of that.
    dry: bool,
    /// What was read from the socket, and how much of it the codec has.
    input: Vec<u8>,
    taken: usize,
}

impl Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.input.len() {
            if self.dry {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.taken = 0;
            self.stream.recv_into(&mut self.input, self.deadline)?;
        }
        let rest = &self.input[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.bound {
            return self.stream.send_all(bytes, WRITE_PATIENCE).map(|()| bytes.len());
        }
        // The codec hands over whole frames. That the session has ended, it learns by reading.
        let _ = self.session.send(Packets::Borrowed(bytes), false);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'s> WebSocket<'s> {
    fn new(connection: &mut Connection, session: &'s Arc<Session>) -> Self {
        let codec = WebSocketContext::new(Role::Server, Some(codec_config(&session.core.config)));
        // The first frames of a hasty client came with the request.
        let mut input = connection.take_input();
        input.reserve_exact(READ_BUFFER.saturating_sub(input.len()));
        let io = Io {
            stream: Arc::clone(&connection.stream),
            session: Arc::clone(session),
            bound: false,
            deadline: None,
            dry: false,
            input,
            taken: 0,
        };
        Self { codec, io, session }
    }

    /// Waits for a message.
    fn read(&mut self) -> Result<Message, Error> {
        self.io.dry = false;
        self.codec.read(&mut self.io)
    }

    /// A message that has arrived already.
    fn read_buffered(&mut self) -> Option<Result<Message, Error>> {
        self.io.dry = true;
        match self.codec.read(&mut self.io) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            read => Some(read),
        }
    }

    /// Serves the session until it, or the stream, is over.
    fn run(&mut self) {
        if self.io.stream.set_read_timeout(None).is_err() {
            return self.session.end(CloseReason::TransportError);
        }
        self.io.deadline = None;
        let mut next = None;
        let mut corked = false;
        while self.session.ended().is_none() {
            let message = next.take().unwrap_or_else(|| self.read());
            next = if message.is_ok() { self.read_buffered() } else { None };
            if next.is_some() && !corked {
                self.session.outbox.cork();
                corked = true;
            }
            let handled = message.map_err(Fault::from).and_then(|message| self.handle(message));
            if corked && (next.is_none() || handled.is_err()) {
                corked = false;
                let uncorked = self.session.outbox.uncork();
                // Its failure has ended the session by itself.
                let _ = self.session.settle(uncorked);
            }
            if let Err(fault) = handled {
                // Ended in turn, so that the handlers hear of it on this thread.
                let _turn = self.session.enter();
                self.session.end_with(fault.reason, fault.parting);
            }
        }
        self.linger();
    }

    fn handle(&mut self, message: Message) -> Result<(), Fault> {
        let packet = match &message {
            Message::Text(text) => Packet::decode(text.as_str()).map_err(|error| {
                log::info!("session {}: {error}", self.session.id);
                Fault::polite(CloseReason::ParseError)
            })?,
            Message::Binary(bytes) => Packet::Message(Data::Binary(bytes.clone())),
            Message::Close(_) => {
                // Lets the answer to the close out.
                let _ = self.codec.flush(&mut self.io);
                return Err(Fault::abrupt(CloseReason::TransportClose));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                self.session.heard_packet();
                return Ok(());
            }
        };
        let done = self.session.enter().packet(self.session, packet);
        done.map_err(Fault::polite)
    }

    /// Keeps reading, and forgetting, until the peer has seen the close; the hub cuts who takes too long.
    fn linger(&mut self) {
        let mut sink = [0; 1024];
        while self.io.stream.recv(&mut sink).is_ok_and(|read| read > 0) {}
        self.session.cut();
    }

    /// Probes; `true` when the session has moved here.
    fn probe(&mut self) -> bool {
        let mut probe = UpgradeProbe::default();
        loop {
            let message = match self.read() {
                Ok(Message::Ping(_) | Message::Pong(_)) => continue,
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
                    self.session.outbox.begin_upgrade(true);
                }
                Ok(ProbeStep::TakeOver) => return self.take_over(),
                Err(error) => {
                    log::info!("session {}: upgrade: {error}", self.session.id);
                    return false;
                }
            }
        }
    }

    fn take_over(&mut self) -> bool {
        // A POST that is still being handled comes first: its packets are older.
        let turn = self.session.enter();
        // Said first: a request that is on its way must not take the session for a polling one, and a GET that the move
        // wakes asks where the session is.
        self.session.set_websocket();
        let Some(attached) = self.session.outbox.attach(&self.io.stream) else { return false };
        self.io.bound = true;
        // Its failure has ended the session by itself.
        let _ = self.session.settle(attached);
        drop(turn);
        true
    }

    /// Closes a WebSocket that no session is on; the connection's thread waits a moment for the peer to see it.
    fn close_unused(&mut self) {
        // The peer may be gone already.
        let _ = self.codec.close(&mut self.io, None);
    }
}

fn codec_config(config: &Config) -> WebSocketConfig {
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
    parting: Parting,
}

impl Fault {
    fn polite(reason: CloseReason) -> Self {
        Self { reason, parting: Parting::Close(None) }
    }

    fn abrupt(reason: CloseReason) -> Self {
        Self { reason, parting: Parting::Cut }
    }

    fn coded(reason: CloseReason, code: CloseCode) -> Self {
        Self { reason, parting: Parting::Close(Some(code.into())) }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
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
