//! A session on WebSocket: the thread of the connection reads, and hands each packet to the session.
//!
//! It owns the codec (tungstenite) and the bytes that were read. It uses the session, its dispatch and its outbox.
//! What the codec writes (pongs, the answer to a close) goes through the outbox too, so that frames of two threads
//! never mix.
//!
//! A client that is silent for `park_after` needs no thread: [`WebSocket::run`] returns the WebSocket, to be parked.
//!
//! **Several messages in one read** are answered with one write. The codec is asked for the next message before this
//! one is handled. While there is one, the outbox is corked. The drain thread sees that nothing waits long in a corked
//! outbox.

mod fault;
mod upgrade;

use std::{
    fmt,
    io::{self, Read, Write},
    mem,
    net::Shutdown,
    sync::Arc,
};

use tungstenite::{
    Error, Message,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use self::fault::Fault;
pub(super) use self::upgrade::upgrade;
use crate::server::{
    http::Connection,
    net::adaptive_wait::AdaptiveWait,
    net::stream::{Stream, WRITE_PATIENCE},
    session,
    session::{Content, Session},
    transport::frame_meter::Meter,
    transport::outbox::Packets,
    transport::websocket_codec::{self, Input},
};
use crate::{
    proto::{
        CloseReason,
        engine::{Data, Packet},
        socket::Encoded,
    },
    sys::time::Instant,
};

/// Signs of life that are read of a parked WebSocket at once. For more of them the connection gets a thread.
const SIGNS_MAX: usize = 4;

/// Bytes of signs of life that a parked WebSocket may send before they are charged: enough for more than an hour.
const UNCHARGED_MAX: usize = 512;

/// Begins a session on WebSocket: sends the response and the open packet. `None`: the client is gone already.
pub(super) fn begin(
    connection: &mut Connection,
    response: Vec<u8>,
    session: &Arc<Session>,
) -> Option<WebSocket> {
    session.set_websocket();
    let stream = Arc::clone(&connection.stream);
    let mut greeting = response;
    if session.content != Content::Plain {
        greeting.extend_from_slice(Encoded::text(&session::open_packet(session).packet()).bytes());
    }
    let greeted = stream.send_all(&greeting, session.core.config.head_timeout);
    let attached = session.outbox.attach(&stream);
    if greeted.is_err() || attached.is_none() {
        session.end(CloseReason::TransportClose);
        return None;
    }
    session::opened(session);
    let mut socket = WebSocket::new(connection, session);
    socket.io.bound = true;
    Some(socket)
}

/// A WebSocket that has a session, or that is upgrading one.
pub(super) struct WebSocket {
    codec: WebSocketContext,
    io: Io,
    /// A message that was read and is not handled yet.
    next: Option<Result<Message, Error>>,
    /// Bytes of signs of life that came while the connection was parked, and are not charged yet.
    uncharged: usize,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("session", &self.io.session.name()).finish_non_exhaustive()
    }
}

/// The stream of the codec.
struct Io {
    stream: Arc<Stream>,
    session: Arc<Session>,
    /// The session is on this stream. Writes go through its outbox.
    bound: bool,
    reading: Reading,
    adaptive_wait: AdaptiveWait,
    input: Input,
    /// The peer has ended the stream, or the stream is broken. There is nothing more to read.
    over: bool,
    meter: Meter,
}

/// Where a read takes its bytes from.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// From the socket. Waits until the read timeout of the stream.
    Blocking,
    /// From the socket. Waits until then.
    Until(Instant),
    /// From the socket. Does not wait.
    Now,
    /// From the bytes that were read before. Tells whether the codec has a message in them.
    Buffered,
}

impl Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_spent() {
            let received = match self.reading {
                Reading::Blocking => self.adaptive_wait.recv_into(&self.stream, self.input.room()),
                Reading::Until(deadline) => self.stream.recv_into(self.input.room(), Some(deadline)),
                Reading::Now => self.stream.recv_now(self.input.room()),
                Reading::Buffered => return Err(io::ErrorKind::WouldBlock.into()),
            };
            let later = |error: &io::Error| {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
            };
            self.over = received.as_ref().map_or_else(|error| !later(error), |()| self.input.is_spent());
            received?;
        }
        let count = self.input.take(buffer);
        // The codec returns the error as it is.
        self.meter.feed(&buffer[..count]).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(count)
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.bound {
            let sent = self.stream.send_all(bytes, WRITE_PATIENCE);
            if sent.is_err() {
                // A part of the frame may have been sent. The peer could not read what follows.
                self.stream.shutdown(Shutdown::Write);
            }
            return sent.map(|()| bytes.len());
        }
        // The codec writes whole frames. The next read reports that the session has ended.
        let _ = self.session.send(Packets::Borrowed(bytes), false);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WebSocket {
    fn new(connection: &mut Connection, session: &Arc<Session>) -> Self {
        let codec = WebSocketContext::new(Role::Server, Some(codec_config(session)));
        let io = Io {
            stream: Arc::clone(&connection.stream),
            session: Arc::clone(session),
            bound: false,
            reading: Reading::Blocking,
            adaptive_wait: AdaptiveWait::default(),
            // A client may send its first frames right behind the request.
            input: Input::new(connection.take_input()),
            over: false,
            meter: Meter::new(&session.core.receiving),
        };
        Self { codec, io, next: None, uncharged: 0 }
    }

    pub(super) fn session(&self) -> &Arc<Session> {
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

    /// The next message in the bytes that were read before. `None`: there is none. Often the meter knows it without
    /// the codec.
    fn read_on(&mut self) -> Option<Result<Message, Error>> {
        let more = !self.io.input.is_spent() || self.io.meter.has_ready();
        more.then(|| self.read_now(Reading::Buffered)).flatten()
    }

    /// The next message, without waiting. `None`: there is none.
    fn read_now(&mut self, reading: Reading) -> Option<Result<Message, Error>> {
        match self.read(reading) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            read => Some(read),
        }
    }

    /// Serves the session until it or the stream ends. `Some`: its client has been silent for `park_after`.
    pub(super) fn run(mut self: Box<Self>) -> Option<Box<Self>> {
        let session = Arc::clone(&self.io.session);
        if self.io.stream.set_read_timeout(session.core.silence()).is_err() {
            session.end(CloseReason::TransportError);
        }
        let mut corked = false;
        while session.ended().is_none() {
            let message = match self.next.take() {
                Some(message) => message,
                None => match self.read(Reading::Blocking) {
                    Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                        self.io.input = Input::default();
                        return Some(self);
                    }
                    read => read,
                },
            };
            self.next = if message.is_ok() { self.read_on() } else { None };
            if self.next.is_none() {
                // The last of several messages. The others had no answer, as the frames of a binary packet before its
                // last one.
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
                // The old codec would keep a buffer for the largest frame that has come.
                self.codec = WebSocketContext::new(Role::Server, Some(codec_config(&session)));
                self.io.meter.renewed();
            }
            if corked && (self.next.is_none() || handled.is_err()) {
                corked = false;
                let uncorked = session.outbox.uncork();
                // A failure has ended the session already.
                let _ = session.settle(uncorked);
            }
            if let Err(fault) = handled {
                // With the turn of the session, so that the handlers run on this thread.
                let _turn = session.enter();
                session.end_with(fault.reason, fault.mode);
            }
        }
        self.linger();
        None
    }

    /// Reads what has come while the connection was parked, without waiting. `true`: only signs of life have come, and
    /// the connection stays parked.
    pub(super) fn read_signs_of_life(&mut self) -> bool {
        for _ in 0..SIGNS_MAX {
            match self.read_now(Reading::Now) {
                None => {
                    self.io.input = Input::default();
                    return true;
                }
                Some(Ok(Message::Text(text)))
                    if is_pong(text.as_str()) && self.takes_uncharged(text.len()) =>
                {
                    self.io.session.heard_packet();
                    self.io.session.heard_pong();
                }
                Some(Ok(Message::Ping(bytes) | Message::Pong(bytes)))
                    if self.takes_uncharged(bytes.len()) =>
                {
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

    /// Counts a sign of life that is charged later. `false`: it must be charged to `byte_rate` now, because it is too
    /// large, or too many have come.
    fn takes_uncharged(&mut self, bytes: usize) -> bool {
        let uncharged = self.uncharged + bytes + 1;
        let fits = uncharged <= UNCHARGED_MAX;
        if fits {
            self.uncharged = uncharged;
        }
        fits
    }

    fn handle(&mut self, message: Message) -> Result<(), Fault> {
        let packet = match &message {
            Message::Text(text) if self.io.session.content == Content::Plain => {
                Packet::Message(Data::Text(text.as_str().into()))
            }
            Message::Text(text) => Packet::decode(text.as_str()).map_err(|error| {
                log::info!("session {}: {error}", self.io.session.name());
                Fault::polite(CloseReason::ParseError)
            })?,
            Message::Binary(bytes) => Packet::Message(Data::Binary(bytes.clone())),
            Message::Close(_) => {
                // Sends the answer to the close.
                let _ = self.codec.flush(&mut self.io);
                return Err(Fault::abrupt(CloseReason::TransportClose));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                self.io.session.heard_packet();
                let session = &self.io.session;
                session.enter().charge(session, mem::take(&mut self.uncharged) + message.len());
                return Ok(());
            }
        };
        let session = &self.io.session;
        let mut turn = session.enter();
        turn.owe(mem::take(&mut self.uncharged));
        let done = turn.packet(session, packet);
        drop(turn);
        done.map_err(Fault::from)
    }

    /// Reads and drops bytes until the peer has closed its side. The hub aborts a session whose peer takes too long.
    fn linger(&mut self) {
        if self.io.over {
            return self.io.session.abort();
        }
        // Longer than `park_after`, because pending packets are still sent to a slow peer. If this fails, the peer is
        // gone.
        let _ = self.io.stream.set_read_timeout(None);
        let mut sink = [0; 1024];
        while self.io.stream.recv(&mut sink).is_ok_and(|read| read > 0) {}
        self.io.session.abort();
    }
}

fn is_pong(text: &str) -> bool {
    matches!(Packet::decode(text), Ok(Packet::Pong(_)))
}

fn codec_config(session: &Session) -> WebSocketConfig {
    websocket_codec::config(session.core.config.max_http_buffer_size)
}
