//! A session on WebSocket: a thread reads, and hands each packet to the session.
//!
//! It owns the codec (tungstenite) and the bytes that were read. It uses the session, its dispatch and its outbox.
//! What the codec writes (pongs, the answer to a close) goes through the outbox too, so that frames of two threads
//! never mix.
//!
//! [`WebSocket::serve`] reads once and does not wait; [`WebSocket::serve_alone`] keeps the thread for one client.
//!
//! **Several messages in one read** are answered with one write. The codec is asked for the next message before this
//! one is handled. While there is one, the outbox is corked. The drain thread sees that nothing waits long in a corked
//! outbox.

mod fault;
mod upgrade;

use std::{
    cell::Cell,
    fmt,
    io::{self, Read, Write},
    mem,
    net::Shutdown,
    sync::Arc,
    time::Duration,
};

use tungstenite::{
    Error, Message,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use self::fault::Fault;
pub(super) use self::upgrade::{Step, Upgrade, upgrade};
use crate::server::{
    guard,
    http::Connection,
    lead,
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
    sys::thread_local,
};

thread_local! {
    /// The read buffer of this thread, for the WebSockets that it serves one after the other.
    static INPUT: Cell<Input> = const { Cell::new(Input::EMPTY) };
}

/// So many pings and pongs in one read are handled before the watchdog looks how long the rest takes.
const MESSAGES_UNWATCHED: u32 = 64;

/// What follows when a WebSocket was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It waits for its client.
    Wait,
    /// The session has ended, and the peer has not closed its side yet.
    Linger,
    /// The session has ended, and the stream is over.
    Over,
}

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
    let greeted = stream.send_all(&greeting, session.shared.config.head_timeout);
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
    /// From the socket, once. Does not wait.
    Now,
    /// From the bytes that were read before. Tells whether the codec has a message in them.
    Buffered,
}

impl Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_spent() {
            let received = match self.reading {
                Reading::Blocking => self.adaptive_wait.recv_into(&self.stream, self.input.room()),
                Reading::Now => {
                    // Once: the codec asks again as long as there is no whole message.
                    self.reading = Reading::Buffered;
                    self.stream.recv_now(self.input.room())
                }
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
            meter: Meter::new(&session.shared.receiving),
        };
        Self { codec, io }
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

    /// Handles the messages that have come. Reads once, and does not wait for more.
    pub(super) fn serve(&mut self) -> After {
        if self.io.input.is_spent() {
            self.io.input = INPUT.replace(Input::EMPTY);
            self.io.input.reserve();
        }
        let session = Arc::clone(&self.io.session);
        let mut corked = false;
        let mut message = self.read_now(Reading::Now);
        let mut handled = 0;
        while let Some(read) = message.take()
            && session.ended().is_none()
        {
            handled += 1;
            if handled == MESSAGES_UNWATCHED {
                lead::begin_work();
            }
            message = self.handle_one(&session, read, &mut corked);
        }
        if self.io.input.is_spent() {
            INPUT.set(mem::take(&mut self.io.input));
        }
        self.after(&session)
    }

    /// Serves this client until it or the stream ends, or until the client was silent for `silence`. Waits for each
    /// message. `may_go_on`: asked between two messages.
    pub(super) fn serve_alone(&mut self, silence: Option<Duration>, may_go_on: impl Fn() -> bool) -> After {
        let session = Arc::clone(&self.io.session);
        if self.io.stream.set_read_timeout(silence).is_err() {
            session.end(CloseReason::TransportError);
        }
        let mut corked = false;
        let mut message = None;
        while session.ended().is_none() {
            let read = match message.take() {
                Some(read) => read,
                None if !may_go_on() => break,
                None => match self.read(Reading::Blocking) {
                    Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => break,
                    read => read,
                },
            };
            message = self.handle_one(&session, read, &mut corked);
        }
        if self.io.input.is_spent() {
            self.io.input = Input::EMPTY;
        }
        self.after(&session)
    }

    fn after(&self, session: &Session) -> After {
        if session.ended().is_none() {
            return After::Wait;
        }
        if self.io.over {
            session.abort();
            return After::Over;
        }
        After::Linger
    }

    /// Handles a message. Returns the next one, if it was read already.
    fn handle_one(
        &mut self,
        session: &Arc<Session>,
        message: Result<Message, Error>,
        corked: &mut bool,
    ) -> Option<Result<Message, Error>> {
        let next = if message.is_ok() { self.read_on() } else { None };
        if next.is_none() {
            // The last of several messages. The others had no answer, as the frames of a binary packet before its
            // last one.
            *corked = *corked && !session.outbox.uncork_empty();
        } else if !*corked {
            session.outbox.cork();
            *corked = true;
        }
        let bytes = match &message {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => message.len(),
            _ => 0,
        };
        let handled = message.map_err(Fault::from).and_then(|message| self.handle(message));
        self.io.meter.handled(bytes);
        if next.is_none() && self.io.meter.wants_renewal() {
            // The old codec would keep a buffer for the largest frame that has come.
            self.codec = WebSocketContext::new(Role::Server, Some(codec_config(session)));
            self.io.meter.renewed();
        }
        if *corked && (next.is_none() || handled.is_err()) {
            *corked = false;
            let uncorked = session.outbox.uncork();
            // A failure has ended the session already.
            let _ = session.complete_push(uncorked);
        }
        if let Err(fault) = handled {
            lead::begin_work();
            // With the turn of the session, so that the handlers run on this thread.
            let _turn = session.enter();
            session.end_with(fault.reason, fault.mode);
        }
        next
    }

    fn handle(&mut self, message: Message) -> Result<(), Fault> {
        let packet = match &message {
            Message::Text(text) if self.io.session.content == Content::Plain => {
                Packet::Message(Data::Text(text.as_str().into()))
            }
            Message::Text(text) => Packet::decode(text.as_str()).map_err(|error| {
                guard::info!("session {}: {error}", self.io.session.name());
                Fault::polite(CloseReason::ParseError)
            })?,
            Message::Binary(bytes) => Packet::Message(Data::Binary(bytes.clone())),
            Message::Close(_) => {
                // Sends the answer to the close.
                let _ = self.codec.flush(&mut self.io);
                return Err(Fault::abrupt(CloseReason::TransportClose));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                // The answer to a ping. The codec would send it with the next read.
                let _ = self.codec.flush(&mut self.io);
                let session = &self.io.session;
                session.heard_packet();
                session.enter().charge(session, message.len());
                return Ok(());
            }
        };
        let session = &self.io.session;
        if !matches!(packet, Packet::Pong(_)) {
            lead::begin_work();
        }
        let mut turn = session.enter();
        let done = turn.packet(session, packet);
        drop(turn);
        done.map_err(Fault::from)
    }
}

fn codec_config(session: &Session) -> WebSocketConfig {
    websocket_codec::config(session.shared.config.max_http_buffer_size)
}
