//! A WebSocket to the server: its handshake, then messages without blocking.
//!
//! Owns the stream and the frame codec (tungstenite). Uses `dial` and `stream`. It must not know sessions or
//! namespaces.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags};
use tungstenite::{
    Message,
    client::IntoClientRequest,
    error::{CapacityError, Error as Fault, ProtocolError},
    http::{HeaderName, HeaderValue, Uri},
    protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
};

use super::{
    Error, Step, answer,
    cancel::CancelToken,
    config::Config,
    dial::Dialer,
    end::End,
    send_queue::Frame,
    stream::{Blocking, Stream},
};
use crate::proto::{CloseReason, engine::TransportKind, socket::Opcode};
use crate::sys::real::wait::wait;

/// Bytes of the read buffer, and of the frames that are collected before a write. The default is 128 KiB each, too much
/// for a small box.
const BUFFER: usize = 8 << 10;

/// Text of a message.
pub(super) use tungstenite::Utf8Bytes as Text;

/// An open WebSocket that never blocks.
#[derive(Debug)]
pub(super) struct WebSocket(tungstenite::WebSocket<Stream>);

/// What the server sent.
#[derive(Debug)]
pub(super) enum Incoming {
    Text(Text),
    Binary(Bytes),
    /// A ping of the WebSocket itself, which is answered already.
    Ping,
    /// The answer to a ping of the client.
    Pong,
    /// The server has closed the WebSocket normally.
    Closed,
}

impl WebSocket {
    /// Opens one. With `sid`, it is to take over that session.
    pub(super) fn open(
        dialer: &Dialer,
        config: &Config,
        sid: Option<&str>,
        token: &Arc<CancelToken>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let target = dialer.endpoint.target(TransportKind::Websocket, sid);
        let invalid = |error: &dyn std::fmt::Display| Error::Invalid(error.to_string());
        let uri: Uri = dialer.endpoint.url("ws", &target).parse().map_err(|error| invalid(&error))?;
        let mut request = uri.into_client_request().map_err(|error| invalid(&error))?;
        for (name, value) in &config.headers {
            let name: HeaderName = name.parse().map_err(|error| invalid(&error))?;
            request
                .headers_mut()
                .append(name, HeaderValue::from_str(value).map_err(|error| invalid(&error))?);
        }
        let stream =
            dialer.dial(token, deadline).map_err(|failure| unreachable(failure.step, failure.detail))?;
        let limits = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            // It holds one frame at most, because nothing is written while it is not empty. The send queue is the
            // limit.
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(config.max_message))
            .max_frame_size(Some(config.max_message));
        match tungstenite::client::client_with_config(request, stream, Some(limits)) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::HandshakeError::Failure(fault)) => Err(refused(fault)),
            Err(tungstenite::HandshakeError::Interrupted(_)) => {
                Err(unreachable(Step::Http, "interrupted".into()))
            }
        }
    }

    /// Waits for the next message, until the stream's deadline.
    ///
    /// # Errors
    /// Also when the server closes.
    pub(super) fn wait_text(&mut self) -> Result<Text, Error> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(text),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(_) => return Err(handshake("the connection was closed before the handshake")),
                Err(fault) => return Err(refused(fault)),
            }
        }
    }

    /// Sends text, until the stream's deadline.
    pub(super) fn send_text(&mut self, text: &'static str) -> Result<(), Error> {
        self.0.send(Message::text(text)).map_err(refused)
    }

    /// From now on nothing blocks, and `token` cancels the stream.
    pub(super) fn go_nonblocking(&mut self, token: &Arc<CancelToken>) {
        self.0.get_mut().set_blocking(Blocking::Never);
        self.0.get_mut().set_token(token.clone());
    }

    /// The next message; `None` when there is none yet.
    pub(super) fn read(&mut self) -> Result<Option<Incoming>, End> {
        match self.0.read() {
            Ok(Message::Text(text)) => Ok(Some(Incoming::Text(text))),
            Ok(Message::Binary(bytes)) => Ok(Some(Incoming::Binary(bytes))),
            Ok(Message::Ping(_) | Message::Frame(_)) => Ok(Some(Incoming::Ping)),
            Ok(Message::Pong(_)) => Ok(Some(Incoming::Pong)),
            Ok(Message::Close(_)) => {
                // Sends the answer that tungstenite has prepared, if it can be sent at once.
                let _ = self.0.flush();
                Ok(Some(Incoming::Closed))
            }
            Err(Fault::ConnectionClosed | Fault::AlreadyClosed) => Ok(Some(Incoming::Closed)),
            Err(Fault::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(fault) => Err(end(&fault)),
        }
    }

    /// Takes a frame. `false`: it is taken, but the socket takes no more for now; [`flush`](Self::flush) until it
    /// does, before the next frame.
    pub(super) fn write(&mut self, frame: &Frame) -> Result<bool, End> {
        let message = match frame.opcode {
            Opcode::Binary => Message::Binary(frame.data.clone()),
            _ => Message::Text(
                Text::try_from(frame.data.clone())
                    .map_err(|error| End::failed(CloseReason::ParseError, error.to_string()))?,
            ),
        };
        done(self.0.write(message))
    }

    /// Whether everything is written.
    pub(super) fn flush(&mut self) -> Result<bool, End> {
        done(self.0.flush())
    }

    /// Queues a ping: its answer tells that everything before it was handled (RFC 6455 5.5.2). [`flush`](Self::flush)
    /// sends it.
    pub(super) fn ping(&mut self) -> Result<(), End> {
        done(self.0.write(Message::Ping(Bytes::new()))).map(drop)
    }

    /// Queues the close frame. [`flush`](Self::flush) sends it.
    pub(super) fn close(&mut self) {
        let _ = self.0.close(Some(CloseFrame { code: CloseCode::Normal, reason: Text::default() }));
    }

    /// Whether the server has closed its side. There may still be messages to read.
    pub(super) fn is_closed_by_peer(&self) -> bool {
        let mut fds = [PollFd::new(self, PollFlags::RDHUP)];
        // A deadline in the past: this does not wait.
        wait(&mut fds, Some(Instant::now())).is_ok() && !fds[0].revents().is_empty()
    }

    /// Closes the write side.
    pub(super) fn shutdown_write(&mut self) {
        self.0.get_mut().shutdown_write();
    }
}

impl AsFd for WebSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

fn done(written: Result<(), Fault>) -> Result<bool, End> {
    match written {
        Ok(()) => Ok(true),
        Err(Fault::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        // Nothing can be written after the server's close frame.
        Err(
            Fault::ConnectionClosed | Fault::AlreadyClosed | Fault::Protocol(ProtocolError::SendAfterClosing),
        ) => Err(End::closed_by_server()),
        Err(fault) => Err(end(&fault)),
    }
}

fn end(fault: &Fault) -> End {
    let reason = match fault {
        Fault::Protocol(ProtocolError::ResetWithoutClosingHandshake) => CloseReason::TransportClose,
        Fault::Capacity(CapacityError::MessageTooLong { .. }) => CloseReason::MessageTooBig,
        _ => CloseReason::TransportError,
    };
    End::failed(reason, fault.to_string())
}

/// A failed handshake as the client's error.
fn refused(fault: Fault) -> Error {
    match fault {
        Fault::Http(response) => {
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let body = response.body().as_deref().unwrap_or_default();
            answer::unexpected(TransportKind::Websocket, response.status().as_u16(), location, body)
        }
        Fault::Io(error) => unreachable(Step::Http, error.to_string()),
        fault => handshake(&format!("no WebSocket handshake: {fault}")),
    }
}

fn handshake(detail: &str) -> Error {
    Error::handshake(TransportKind::Websocket, None, detail)
}

fn unreachable(step: Step, detail: String) -> Error {
    Error::unreachable(TransportKind::Websocket, step, detail)
}
