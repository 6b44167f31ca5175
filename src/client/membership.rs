//! What each change of a namespace's membership means for the session, the handlers and the acknowledgements: one
//! function for each.
//!
//! The diagram of the changes is in `namespaces`. Uses the state, the queue of events and the wakers. It must not read,
//! write, or call a handler.

use std::sync::Arc;

use super::{
    Error,
    connection::Target,
    core::Core,
    delay::next_delay,
    event_queue::{Incoming, Item},
    namespace::Namespace,
    namespaces::Membership,
    recovery::{ConnectAnswer, Recovery},
    send_queue::QueuedPacket,
    session::Session,
    state::State,
};
use crate::{
    proto::{
        CloseReason,
        engine::TransportKind,
        socket::{Encoded, Outgoing},
    },
    sys::real::wait::deadline_in,
};

/// Why there is no payload for a CONNECT.
pub(super) enum AuthFailure {
    /// The auth function has panicked. It is called again later.
    Panicked(Error),
    /// Its value cannot be a payload.
    Invalid(Error),
}

impl Core {
    /// Finds a namespace, or adds it.
    pub(super) fn namespace(&self, name: &str) -> Arc<Namespace> {
        let mut state = self.lock();
        let (namespace, new) = state.namespaces.find_or_add(name);
        if new {
            self.begin_joins(&state);
        }
        namespace
    }

    /// Makes the `backoff` thread join what is to be joined.
    fn begin_joins(&self, state: &State) {
        // The thread may be in a probe that makes no progress. The probe is repeated afterwards.
        if let Some(token) = state.connection.probe() {
            self.cancel(token);
        }
        self.changed.notify_all();
    }

    /// Joins one namespace again.
    pub(super) fn rejoin(&self, namespace: &Namespace) -> Result<(), Error> {
        if let Some(error) = &namespace.invalid {
            return Err(error.clone());
        }
        let mut state = self.lock();
        state.connection.check_alive()?;
        if state.connection.target() == Target::Down {
            state.connection.go_up();
        }
        state.namespaces[namespace.index].activate();
        self.begin_joins(&state);
        Ok(())
    }

    /// Queues the CONNECT of a namespace, or handles the failure of its auth function.
    pub(super) fn join(&self, epoch: u64, index: usize, connect: Result<Encoded, AuthFailure>) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(session) = state.connection.open_session_of(epoch) else { return };
        let of = &mut state.namespaces[index];
        if *of.membership() != Membership::Joining {
            return;
        }
        match connect {
            Ok(connect) => {
                // The official server takes a CONNECT that it reads together with the DISCONNECT before it for a second
                // CONNECT.
                if of.asked(epoch) {
                    session.queue.push_pause();
                }
                session.queue.push(QueuedPacket::control(connect));
                self.wake_link(session);
            }
            Err(AuthFailure::Panicked(error)) if self.config.reconnection => {
                self.join_later(state, index, &error);
            }
            Err(AuthFailure::Panicked(error) | AuthFailure::Invalid(error)) => {
                self.refused(state, index, &error);
            }
        }
    }

    /// The auth function has panicked. It is called again after a delay.
    fn join_later(&self, state: &mut State, index: usize, error: &Error) {
        state.namespaces[index].join_later(deadline_in(next_delay(&self.config, 0)));
        self.events.push(Item::ConnectError(state.namespaces[index].namespace().clone(), error.clone()));
        state.set_error(error);
        state.connection.set_result(error);
        self.changed.notify_all();
    }

    /// The server has answered CONNECT. It may repeat the answer, with a new id.
    pub(super) fn joined(&self, state: &mut State, index: usize, answer: ConnectAnswer) {
        let again = match state.namespaces[index].membership() {
            Membership::Asked => false,
            Membership::Joined(_) => true,
            Membership::Leaving => return self.left(state, index),
            Membership::Out | Membership::Joining => return,
        };
        let of = &mut state.namespaces[index];
        let early = of.joined(answer);
        let how = if of.recovery.recovered { "recovered" } else { "joined" };
        let namespace = of.namespace().clone();
        state.log(log::Level::Info, format_args!("{how} {}", namespace.name));
        if let Some(begun) = state.connection.session_mut().and_then(Session::joined) {
            let stats = &mut state.stats;
            stats.reconnects += u64::from(stats.connects > 0);
            stats.connects += 1;
            stats.connect_time = Some(begun.elapsed());
            if let Some(attempt) = state.connection.succeeded() {
                self.events.push(Item::Reconnect(attempt));
            }
        }
        // Missed events come before the handlers of `connect`, as in the official client.
        self.deliver_early(early);
        // A server may repeat its answer without end.
        if !again || !self.events.is_crowded() {
            self.events.push(Item::Connect(namespace));
        }
        self.send_buffered(state, index);
        self.changed.notify_all();
    }

    /// The server has sent CONNECT without an id. Servers of Socket.IO v2 send it unasked.
    pub(super) fn joined_without_id(&self, state: &mut State, index: usize) {
        match state.namespaces[index].membership() {
            Membership::Asked | Membership::Joined(_) => {}
            Membership::Leaving => return self.refused_after_leaving(state, index),
            Membership::Out | Membership::Joining => return,
        }
        let namespace = state.namespaces[index].namespace().clone();
        let transport = state.connection.session().map_or(TransportKind::Websocket, Session::transport);
        let error = Error::handshake(transport, None, "CONNECT without an id: a server of Socket.IO v2?");
        state.log(log::Level::Debug, format_args!("{}: {error}", namespace.name));
        state.set_error(&error);
        if !state.namespaces[index].is_joined() {
            state.connection.set_result(&error);
        }
        self.events.push(Item::ConnectError(namespace, error));
        self.changed.notify_all();
    }

    /// Queues events that came before the answer to CONNECT.
    pub(super) fn deliver_early(&self, events: Vec<Incoming>) {
        events.into_iter().for_each(|event| self.events.push(Item::Event(Box::new(event))));
    }

    /// The server has answered CONNECT, and the namespace was left meanwhile.
    fn left(&self, state: &mut State, index: usize) {
        state.namespaces[index].leave();
        self.send_disconnect(state, index);
        // It may be wanted again.
        self.begin_joins(state);
    }

    /// The server refuses a namespace that was left meanwhile.
    pub(super) fn refused_after_leaving(&self, state: &mut State, index: usize) {
        state.namespaces[index].leave();
        self.begin_joins(state);
    }

    /// The server refuses a namespace, or its auth function has failed. It is not tried again.
    pub(super) fn refused(&self, state: &mut State, index: usize, error: &Error) {
        state.set_error(error);
        let namespace = state.namespaces[index].namespace().clone();
        state.log(log::Level::Warn, format_args!("{}: {error}", namespace.name));
        self.leave(state, index, CloseReason::IoServerDisconnect);
        let result = state.connection.set_result(error);
        state.namespaces[index].refused(result, error.clone());
        self.events.push(Item::ConnectError(namespace, error.clone()));
        self.refuse_acks(state, index, error);
        self.close_if_deserted(state, CloseReason::IoServerDisconnect);
        self.changed.notify_all();
    }

    /// The server has removed the client from a namespace.
    pub(super) fn removed(&self, state: &mut State, index: usize) {
        self.leave(state, index, CloseReason::IoServerDisconnect);
        state.namespaces[index].deactivate();
        self.close_if_deserted(state, CloseReason::IoServerDisconnect);
        self.changed.notify_all();
    }

    /// A namespace is left, for whatever reason.
    pub(super) fn leave(&self, state: &mut State, index: usize, reason: CloseReason) {
        let was_joined = state.namespaces[index].leave();
        if reason == CloseReason::IoClientDisconnect {
            self.forget_events(state, index);
        }
        if was_joined {
            self.events.push(Item::Disconnect(state.namespaces[index].namespace().clone(), reason));
        }
        self.lose_acks(state, index, reason);
    }

    /// Discards the events that wait for their handlers: the user has disconnected. The official client does the same.
    fn forget_events(&self, state: &mut State, index: usize) {
        let of = &mut state.namespaces[index];
        let forgotten = self.events.forget(of.namespace());
        if forgotten > 0 {
            // They count as received, so a recovered session would lack them.
            of.recovery = Recovery::default();
            let name = of.namespace().name.clone();
            let note = format_args!("{name}: {forgotten} events are thrown away after the disconnect");
            state.log(log::Level::Debug, note);
        }
    }

    /// The user leaves one namespace. `true`: it was the last one, so the connection is to be closed.
    pub(super) fn disconnect_namespace(&self, namespace: &Namespace) -> bool {
        let (mut state, index) = (self.lock(), namespace.index);
        let state = &mut *state;
        state.namespaces[index].deactivate();
        if state.namespaces.none_active() {
            return true;
        }
        if let Some(session) = state.connection.session_mut() {
            session.queue.push_pause();
        }
        // The official server does not know a namespace that is being joined. A DISCONNECT before its answer would end
        // the whole connection.
        let asked = matches!(state.namespaces[index].membership(), Membership::Asked | Membership::Leaving);
        if state.namespaces[index].is_joined() {
            self.send_disconnect(state, index);
        }
        self.leave(state, index, CloseReason::IoClientDisconnect);
        if asked && state.connection.session().is_some() {
            state.namespaces[index].set_leaving();
        }
        self.changed.notify_all();
        false
    }

    /// Queues the DISCONNECT of a namespace.
    pub(super) fn send_disconnect(&self, state: &mut State, index: usize) {
        let of = &mut state.namespaces[index];
        let Some(session) = state.connection.session_mut() else { return };
        // The name of a namespace can always be encoded.
        if let Ok(disconnect) = Outgoing::disconnect(&of.namespace().name).encode(&()) {
            of.disconnect_sent(session.epoch());
            session.queue.push(QueuedPacket::control(disconnect));
            self.wake_link(session);
        }
    }
}
