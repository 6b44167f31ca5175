//! From packets to handlers.
//!
//! ```text
//!   engine::Packet ─► Message ─► Assembler ─► socket::Packet ─┬─ CONNECT ─► middlewares ─► on_connect
//!                                                             ├─ EVENT ───► on_any ─► on(name) | on_unhandled
//!                                                             ├─ ACK ─────► whoever waits
//!                                                             └─ DISCONNECT ─► on_disconnecting ─► on_disconnect
//! ```

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Release},
};

use bytes::Bytes;
use serde_json::{json, value::RawValue};
use smallvec::SmallVec;

use super::{
    config::Config,
    engine::Message,
    error::{AckError, ConnectError},
    handle::Endpoint,
    hub::Command,
    session::{self, Session},
    socket::{Event, Socket},
};
use crate::proto::{
    CloseReason, Error,
    engine::{Data, Packet},
    socket::{Assembler, Body, Outgoing},
};

/// What a session's packets build up: owned by the thread whose turn it is.
#[derive(Debug)]
pub(super) struct Inbound {
    assembler: Assembler,
    sockets: SmallVec<[Socket; 1]>,
}

/// What comes up beside the packets and is done in turn with them.
#[derive(Debug)]
pub(super) enum Todo {
    /// The session has ended: tell the handlers, then the hub.
    End(CloseReason),
    /// The server has removed a socket: tell its handlers.
    Left(Socket, CloseReason),
    /// An acknowledgement is overdue.
    AckTimeout(Socket, u64),
}

thread_local! {
    /// The session whose handler runs on this thread.
    static DISPATCHING: Cell<*const Session> = const { Cell::new(std::ptr::null()) };
}

/// Whether this thread is inside a handler of the session.
pub(super) fn is_dispatching(session: &Arc<Session>) -> bool {
    std::ptr::eq(DISPATCHING.get(), Arc::as_ptr(session))
}

/// Whether this thread is inside any handler.
pub(super) fn is_in_handler() -> bool {
    !DISPATCHING.get().is_null()
}

/// Calls user code: a panic in it costs what it was doing and nothing else.
pub(super) fn guard(socket: &Socket, doing: &str, call: impl FnOnce()) -> bool {
    guard_session(socket.session(), doing, call)
}

pub(super) fn guard_session(session: &Arc<Session>, doing: &str, call: impl FnOnce()) -> bool {
    let outer = DISPATCHING.replace(Arc::as_ptr(session));
    let calm = catch_unwind(AssertUnwindSafe(call)).is_ok();
    DISPATCHING.set(outer);
    if !calm {
        log::error!("session {}: a handler panicked: {doing}", session.id);
    }
    calm
}

impl Inbound {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            assembler: Assembler::new(config.max_attachments, config.packet_size()),
            sockets: SmallVec::new(),
        }
    }

    /// Takes one packet of the session.
    ///
    /// # Errors
    /// Why the session must end.
    pub(super) fn packet(&mut self, session: &Arc<Session>, packet: Packet<'_>) -> Result<(), CloseReason> {
        if session.ended().is_some() {
            // What follows a close in the same payload or read is nobody's any more.
            return Ok(());
        }
        session.heard_packet();
        match packet {
            Packet::Message(data) => self.message(session, data).map_err(|error| {
                log::info!("session {}: {error}", session.id);
                CloseReason::ParseError
            }),
            Packet::Pong(_) => {
                session.heard_pong();
                Ok(())
            }
            // EIO "Heartbeat": only the server asks.
            Packet::Ping(_) => {
                log::info!("session {}: {}", session.id, Error::HeartbeatDirection);
                Err(CloseReason::TransportError)
            }
            Packet::Close => Err(CloseReason::TransportClose),
            // Of no meaning from a client; the official server ignores them too.
            Packet::Open(_) | Packet::Upgrade | Packet::Noop => Ok(()),
        }
    }

    fn message(&mut self, session: &Arc<Session>, data: Data<'_>) -> Result<(), Error> {
        let core = Arc::clone(&session.core);
        match (core.endpoint(session.endpoint), data) {
            (Endpoint::Engine(handlers), data) => {
                let message = match data {
                    Data::Text(text) => Message::Text(text),
                    Data::Binary(bytes) => Message::Binary(bytes),
                };
                handlers.message(session, message);
                Ok(())
            }
            (Endpoint::SocketIo, Data::Text(text)) => self.text(session, &text),
            (Endpoint::SocketIo, Data::Binary(bytes)) => self.binary(session, bytes),
        }
    }

    fn text(&mut self, session: &Arc<Session>, text: &str) -> Result<(), Error> {
        match self.assembler.text(text)? {
            Some(packet) => self.on_packet(session, packet.namespace, packet.body),
            // Stricter than the official server: nobody announces attachments before a namespace is joined.
            None if self.sockets.is_empty() => Err(Error::NotConnected),
            None => Ok(()),
        }
    }

    fn binary(&mut self, session: &Arc<Session>, bytes: Bytes) -> Result<(), Error> {
        match self.assembler.binary(bytes)? {
            Some(complete) => {
                let packet = complete.packet()?;
                self.on_packet(session, packet.namespace, packet.body)
            }
            None => Ok(()),
        }
    }

    fn on_packet(&mut self, session: &Arc<Session>, namespace: &str, body: Body<'_>) -> Result<(), Error> {
        let socket = self.sockets.iter().position(|socket| socket.namespace().name() == namespace);
        match (body, socket) {
            (Body::Connect(_), Some(_)) => Err(Error::AlreadyConnected),
            (Body::Connect(auth), None) => {
                self.connect(session, namespace, auth);
                Ok(())
            }
            (Body::ConnectError(_), _) => Err(Error::WrongSide),
            (_, None) => Err(Error::NotConnected),
            (Body::Disconnect, Some(index)) => {
                let socket = self.sockets.swap_remove(index);
                if socket.set_disconnected() {
                    leave(&socket, CloseReason::ClientNamespaceDisconnect);
                }
                Ok(())
            }
            (Body::Event { name, args, id }, Some(index)) => {
                // The handler gets the socket itself, not a place in a list that a todo may change.
                let socket = &self.sockets[index];
                event(socket, Event::new(socket, name, args, id));
                Ok(())
            }
            (Body::Ack { id, args }, Some(index)) => {
                self.sockets[index].settle_ack(id, || Ok(args.to_owned()));
                Ok(())
            }
        }
    }

    /// A CONNECT for a namespace that this session is not in.
    fn connect(&mut self, session: &Arc<Session>, name: &str, auth: Option<&RawValue>) {
        let Some(namespace) = session.core.namespace(name) else {
            return refuse(session, name, &json!({ "message": "Invalid namespace" }));
        };
        let id = match session::new_id() {
            Ok(id) => id,
            Err(error) => {
                log::error!("no randomness for a socket id: {error}");
                return refuse(session, name, &json!({ "message": "Internal server error" }));
            }
        };
        let socket = Socket::new(id, namespace.clone(), session, auth);
        if let Err(refusal) = admit(&socket) {
            log::debug!("session {}: {name} refused: {refusal}", session.id);
            return refuse(session, name, &serde_json::to_value(refusal).unwrap_or_default());
        }
        session.settled.store(true, Release);
        socket.set_connected();
        self.sockets.push(socket.clone());
        // A string always encodes.
        if let Ok(consent) = Outgoing::connect(name).encode(&json!({ "sid": socket.id() })) {
            namespace.0.hub.enter(socket.clone(), consent);
        }
        if let Some(handler) = &namespace.0.handlers.connect {
            guard(&socket, "on_connect", || handler(&socket));
        }
    }

    /// Does what was left at the gate.
    pub(super) fn work_off(&mut self, session: &Arc<Session>, todo: Todo) {
        match todo {
            Todo::AckTimeout(socket, id) => socket.settle_ack(id, || Err(AckError::Timeout)),
            Todo::Left(socket, reason) => {
                self.sockets.retain(|other| !other.is_same(&socket));
                leave(&socket, reason);
            }
            Todo::End(reason) => {
                for socket in std::mem::take(&mut self.sockets) {
                    if socket.set_disconnected() {
                        leave(&socket, reason);
                    }
                }
                if let Endpoint::Engine(handlers) = session.core.endpoint(session.endpoint) {
                    handlers.closed(session, reason);
                }
                session.core.hub.send(Command::Gone(Arc::clone(session)));
            }
        }
    }
}

/// Asks the middlewares in their order.
fn admit(socket: &Socket) -> Result<(), ConnectError> {
    for check in &socket.namespace().0.handlers.middlewares {
        let mut verdict = Err(ConnectError::new("Internal server error"));
        guard(socket, "middleware", || verdict = check(socket));
        verdict?;
    }
    Ok(())
}

fn refuse(session: &Arc<Session>, namespace: &str, refusal: &serde_json::Value) {
    if let Ok(packet) = Outgoing::connect_error(namespace).encode(refusal) {
        // A failed send means that the session has ended, and then there is nobody to refuse.
        let _ = session.send_ordered(packet);
    }
}

fn event(socket: &Socket, event: Event<'_>) {
    if !socket.is_connected() {
        return;
    }
    let handlers = &socket.namespace().0.handlers;
    if let Some(any) = &handlers.any {
        guard(socket, "on_any", || any(socket, &event));
    }
    if let Some(handler) = handlers.events.get(event.name()).or(handlers.unhandled.as_ref()) {
        guard(socket, "event", || handler(socket, event));
    }
}

/// Tells the handlers, and takes the socket out of its rooms in between.
fn leave(socket: &Socket, reason: CloseReason) {
    let handlers = &socket.namespace().0.handlers;
    socket.fail_acks();
    if let Some(handler) = &handlers.disconnecting {
        guard(socket, "on_disconnecting", || handler(socket, reason));
    }
    socket.namespace().0.hub.send(Command::Exit(socket.clone()));
    if let Some(handler) = &handlers.disconnect {
        guard(socket, "on_disconnect", || handler(socket, reason));
    }
}
