//! From packets to handlers.
//!
//! ```text
//!   engine::Packet ─► Message ─► Assembler ─► socket::Packet ─┬─ CONNECT ─► middlewares ─► on_connect
//!                                                             ├─ EVENT ───► on_any ─► on(name) | on_unhandled
//!                                                             ├─ ACK ─────► the thread or callback that waits
//!                                                             └─ DISCONNECT ─► on_disconnecting ─► on_disconnect
//! ```
//! It owns the state that the packets of a session change: incomplete packets, sockets, rates. It uses sockets,
//! namespaces and the turn of the session, and knows no connections. It must send only through the session or the
//! hub.

pub(crate) mod connect;
pub(crate) mod core;
mod handlers;

use std::{cell::Cell, sync::Arc};

use bytes::Bytes;
use serde::Serialize;
use serde_json::{json, value::RawValue};
use smallvec::SmallVec;

use crate::server::{
    dispatch::core::{Core, Endpoint},
    engine::Message,
    guard,
    limits::budget::Charge,
    limits::rate::{Kind, Pace, Verdict},
    session::{Dispatch, Session, Task},
    socket::{Event, Socket},
};
use crate::{
    proto::{
        CloseReason, Error,
        engine::{Data, Packet, TransportKind},
        socket::{Assembler, Body, Outgoing},
    },
    sys::{
        sync::atomic::Ordering::{Acquire, Relaxed, Release},
        time::Instant,
    },
};

/// The state that the packets of a session change. The thread that has the session's turn owns it.
#[derive(Debug)]
pub(crate) struct Inbound {
    core: Arc<Core>,
    assembler: Assembler,
    /// The number of binary packets that have begun. By this number the heartbeat finds one that stays incomplete.
    assembled: u64,
    sockets: SmallVec<[Socket; 1]>,
    /// The indices of namespaces that the server has removed the client from, until it joins them again.
    removed_from: SmallVec<[usize; 2]>,
    /// `None`: it may send as fast as it likes.
    pace: Option<Pace>,
    /// Bytes that no packet has been charged with yet.
    uncharged: usize,
    /// It has sent faster than it may for too long, and is being disconnected.
    too_fast: bool,
    /// Bytes of the packet whose attachments are due, and what they are charged to.
    pending: usize,
    charge: Charge,
}

impl Inbound {
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        let config = &core.shared.config;
        Self {
            core: Arc::clone(core),
            assembler: Assembler::new(config.max_attachments, config.packet_size())
                .with_max_depth(config.max_depth),
            assembled: 0,
            sockets: SmallVec::new(),
            removed_from: SmallVec::new(),
            pace: Pace::new(Instant::now(), config.event_rate, config.byte_rate),
            uncharged: 0,
            too_fast: false,
            pending: 0,
            charge: Charge::new(&core.shared.receiving),
        }
    }

    /// Bytes have come that are charged with the next packet.
    fn owe(&mut self, bytes: usize) {
        if self.pace.is_some() {
            self.uncharged += bytes;
        }
    }

    /// A message, accounted for as long as it is a part of an incomplete packet.
    fn kept_message(&mut self, session: &Arc<Session>, data: Data<'_>) -> Result<(), CloseReason> {
        let bytes = match &data {
            Data::Text(text) => text.len(),
            Data::Binary(bytes) => bytes.len(),
        };
        self.owe(bytes);
        if self.assembler.is_waiting() {
            self.keep(session, self.pending + bytes)?;
        }
        let done = self.message(session, data).map_err(|error| {
            guard::info!("session {}: {error}", session.name());
            CloseReason::ParseError
        });
        let pending = if self.assembler.is_waiting() { self.pending.max(bytes) } else { 0 };
        self.keep(session, pending)?;
        done
    }

    fn keep(&mut self, session: &Arc<Session>, bytes: usize) -> Result<(), CloseReason> {
        self.pending = bytes;
        self.charge.hold(bytes).map_err(|_| {
            guard::info!(
                "session {}: no room for its attachments: receive_bytes_total is used up",
                session.name()
            );
            CloseReason::Overloaded
        })
    }

    fn message(&mut self, session: &Arc<Session>, data: Data<'_>) -> Result<(), Error> {
        match (self.core.endpoint(session.endpoint), data) {
            (Endpoint::SocketIo, Data::Text(text)) => self.text(session, &text),
            (Endpoint::SocketIo, Data::Binary(bytes)) => self.binary(session, bytes),
            (Endpoint::Engine(_), Data::Text(text)) => {
                self.engine_message(session, Message::Text(text));
                Ok(())
            }
            (Endpoint::Engine(_), Data::Binary(bytes)) => {
                self.engine_message(session, Message::Binary(bytes));
                Ok(())
            }
        }
    }

    fn engine_message(&mut self, session: &Arc<Session>, message: Message<'_>) {
        let verdict = self.pace(Kind::Event);
        if verdict != Verdict::Pass {
            disconnect_if_too_fast(session, verdict);
        } else if let Endpoint::Engine(handlers) = self.core.endpoint(session.endpoint) {
            handlers.message(session, message);
        }
    }

    fn text(&mut self, session: &Arc<Session>, text: &str) -> Result<(), Error> {
        match self.assembler.text(text)? {
            Some(packet) => self.on_packet(session, packet.namespace, packet.body),
            // Stricter than the official server: nobody announces attachments before a namespace is joined.
            None if self.sockets.is_empty() && self.removed_from.is_empty() => Err(Error::NotConnected),
            None => {
                self.assembled += 1;
                session.assembling.store(self.assembled, Relaxed);
                Ok(())
            }
        }
    }

    fn binary(&mut self, session: &Arc<Session>, bytes: Bytes) -> Result<(), Error> {
        match self.assembler.binary(bytes)? {
            Some(complete) => {
                session.assembling.store(0, Relaxed);
                let packet = complete.packet()?;
                self.on_packet(session, packet.namespace, packet.body)
            }
            None => Ok(()),
        }
    }

    fn on_packet(&mut self, session: &Arc<Session>, namespace: &str, body: Body<'_>) -> Result<(), Error> {
        let socket = self.sockets.iter().position(|socket| socket.namespace().name() == namespace);
        let verdict = match body {
            Body::Event { .. } => self.pace(Kind::Event),
            Body::Connect(_) => self.pace(Kind::Connect),
            Body::Ack { id, .. } => self.pace(self.kind_of_ack(socket, id)),
            Body::Disconnect | Body::ConnectError(_) => self.pace(Kind::Other),
        };
        match (body, socket) {
            (Body::Connect(_), None) if verdict != Verdict::Pass => {
                refuse(session, namespace, &json!({ "message": "Rate limit exceeded" }));
                disconnect_if_too_fast(session, verdict);
                Ok(())
            }
            (Body::Event { name, args, id }, Some(index)) if verdict != Verdict::Pass => {
                let socket = &self.sockets[index];
                handlers::too_fast(socket, Event::new(socket, &name, &args, &Cell::new(id)));
                if verdict == Verdict::Disconnect {
                    socket.disconnect_client(CloseReason::RateLimited, CloseReason::RateLimited);
                }
                Ok(())
            }
            (Body::Connect(_), Some(_)) => Err(Error::AlreadyConnected),
            (Body::Connect(auth), None) => {
                self.connect(session, namespace, auth);
                Ok(())
            }
            (Body::ConnectError(_), _) => Err(Error::WrongSide),
            (_, None) if self.is_removed_from(namespace) => {
                disconnect_if_too_fast(session, verdict);
                Ok(())
            }
            (_, None) => Err(Error::NotConnected),
            (Body::Ack { .. }, Some(_)) if verdict != Verdict::Pass => {
                disconnect_if_too_fast(session, verdict);
                Ok(())
            }
            (Body::Disconnect, Some(index)) => {
                let socket = self.sockets.swap_remove(index);
                if socket.set_disconnected(CloseReason::ClientNamespaceDisconnect) {
                    handlers::leave(&socket, CloseReason::ClientNamespaceDisconnect);
                }
                Ok(())
            }
            (Body::Event { name, args, id }, Some(index)) => {
                // The handler gets the socket itself, because a task may change the list.
                let socket = &self.sockets[index];
                handlers::event(socket, Event::new(socket, &name, &args, &Cell::new(id)));
                Ok(())
            }
            (Body::Ack { id, args }, Some(index)) => {
                self.sockets[index].complete_ack(id, || Ok(args.to_owned()));
                Ok(())
            }
        }
    }

    /// Whether the server has removed the client from this namespace: what the client has sent before it knew is
    /// passed over. The official server closes the connection.
    fn is_removed_from(&self, name: &str) -> bool {
        let namespace = self.core.namespace(name);
        namespace.is_some_and(|namespace| self.removed_from.contains(&namespace.0.index))
    }

    /// An awaited acknowledgement is charged for its bytes only. Any other acknowledgement counts as an event too.
    fn kind_of_ack(&self, socket: Option<usize>, id: u64) -> Kind {
        let awaited = self.pace.is_some() && socket.is_some_and(|index| self.sockets[index].awaits(id));
        if awaited { Kind::Other } else { Kind::Event }
    }

    /// Whether the client may send what has come.
    fn pace(&mut self, kind: Kind) -> Verdict {
        let bytes = std::mem::take(&mut self.uncharged);
        let Some(pace) = &mut self.pace else { return Verdict::Pass };
        let verdict = pace.take(Instant::now(), kind, bytes);
        self.too_fast |= verdict == Verdict::Disconnect;
        verdict
    }

    /// A CONNECT for a namespace that this session is not in.
    fn connect(&mut self, session: &Arc<Session>, name: &str, auth: Option<&RawValue>) {
        let Some(namespace) = self.core.namespace(name) else {
            return refuse(session, name, &json!({ "message": "Invalid namespace" }));
        };
        let config = &session.shared.config;
        let refusal = if auth.is_some_and(|auth| auth.get().len() > config.max_auth_size) {
            Some("Auth payload too large")
        } else if self.sockets.len() >= config.max_namespaces {
            Some("Too many namespaces")
        } else {
            None
        };
        if let Some(message) = refusal {
            return refuse(session, name, &json!({ "message": message }));
        }
        let (socket, resume) = match connect::begin(session, namespace, auth) {
            Ok(begun) => begun,
            Err(error) => {
                guard::error!("no randomness for a socket id: {error}");
                return refuse(session, name, &json!({ "message": "Internal server error" }));
            }
        };
        if !connect::skips_middlewares(&socket)
            && let Err(refusal) = handlers::admit(&socket)
        {
            guard::debug!("session {}: {name} refused: {refusal}", session.name());
            connect::release(&socket, resume);
            return refuse(session, name, &refusal);
        }
        session.has_joined.store(true, Release);
        socket.set_connected();
        self.removed_from.retain(|index| *index != namespace.0.index);
        self.sockets.push(socket.clone());
        // Strings always encode.
        if let Ok(consent) = Outgoing::connect(name).encode(&connect::ConnectAnswer::of(&socket)) {
            socket.enter(consent, resume);
        }
        socket.keep_data();
        handlers::connected(&socket);
    }
}

impl Dispatch for Inbound {
    fn opened(&mut self, session: &Arc<Session>) {
        if let Endpoint::Engine(handlers) = self.core.endpoint(session.endpoint) {
            session.has_joined.store(true, Release);
            handlers.opened(session);
        }
    }

    fn packet(&mut self, session: &Arc<Session>, packet: Packet<'_>) -> Result<(), CloseReason> {
        if session.ended().is_some() || self.too_fast {
            // The session has ended, or has exceeded its rate too often. Its further packets are ignored.
            return Ok(());
        }
        session.heard_packet();
        match packet {
            Packet::Message(data) => self.kept_message(session, data),
            Packet::Pong(data) => {
                // The pong that answers a ping is not charged: it must not disconnect a client that has exceeded its
                // rate.
                if !(session.heard_pong() && data.is_empty()) {
                    self.charge(session, data.len());
                }
                Ok(())
            }
            // EIO "Heartbeat": only the server asks.
            Packet::Ping(_) => {
                guard::info!("session {}: {}", session.name(), Error::HeartbeatDirection);
                Err(CloseReason::TransportError)
            }
            // A WebSocket says it with a close frame; there the official server ignores the packet.
            Packet::Close if session.transport() == TransportKind::Polling => {
                Err(CloseReason::TransportClose)
            }
            // Of no meaning from a client; the official server ignores them too.
            Packet::Open(data) => {
                self.charge(session, data.len());
                Ok(())
            }
            Packet::Close | Packet::Upgrade | Packet::Noop => {
                self.charge(session, 0);
                Ok(())
            }
        }
    }

    fn charge(&mut self, session: &Arc<Session>, bytes: usize) {
        self.owe(bytes + 1);
        disconnect_if_too_fast(session, self.pace(Kind::Other));
    }

    fn perform(&mut self, session: &Arc<Session>, task: Task) {
        match task {
            Task::AckExpired(socket) => {
                if let Some(socket) = Socket::of(&socket) {
                    socket.fail_overdue_acks();
                }
            }
            Task::SocketRemoved(state, reason) => {
                let Some(socket) = Socket::of_state(state) else { return };
                self.sockets.retain(|other| !other.is_same(&socket));
                let index = socket.namespace_index();
                if !self.removed_from.contains(&index) {
                    self.removed_from.push(index);
                }
                handlers::leave(&socket, reason);
            }
            Task::Disconnect(unfinished, reason) => {
                if unfinished.is_some_and(|unfinished| unfinished.is_of_another()) {
                    session.shared.hub.fence();
                }
                let of_sockets = match reason {
                    CloseReason::ForcedServerClose => CloseReason::ServerNamespaceDisconnect,
                    reason => reason,
                };
                for socket in std::mem::take(&mut self.sockets) {
                    if socket.set_disconnected(of_sockets) {
                        socket.send_disconnect();
                        handlers::leave(&socket, of_sockets);
                    }
                }
                session.end(reason);
            }
            Task::SessionEnded(reason) => {
                for socket in std::mem::take(&mut self.sockets) {
                    if socket.set_disconnected(reason) {
                        handlers::leave(&socket, reason);
                    }
                }
                // `on_close` is called only if `on_open` was.
                if let Endpoint::Engine(handlers) = self.core.endpoint(session.endpoint)
                    && session.has_joined.load(Acquire)
                {
                    handlers.closed(session, reason);
                }
                session.shared.hub.forget_session(Arc::<Session>::clone(session));
            }
        }
    }
}

/// Ends the session of a client that has exceeded its rate too often.
fn disconnect_if_too_fast(session: &Arc<Session>, verdict: Verdict) {
    if verdict == Verdict::Disconnect {
        session.add_task(Task::Disconnect(None, CloseReason::RateLimited));
    }
}

fn refuse(session: &Arc<Session>, namespace: &str, refusal: &impl Serialize) {
    if let Ok(packet) = Outgoing::connect_error(namespace).encode(refusal) {
        // A failed send means that the session has ended, and then there is nobody to refuse.
        let _ = session.send_ordered(packet);
    }
}
