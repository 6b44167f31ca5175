//! Every change of a namespace's membership, each in one function: wanted, asked for, joined, refused, left.
//!
//! ```text
//!            wanted            auth's payload         CONNECT answered
//!   Out ─────────────► Joining ──────────────► Asked ──────────────────► Joined
//!    ▲ ▲ ▲                │ auth panicked,       │ │ refused               │ DISCONNECT, ours or theirs;
//!    │ │ └────────────────┘ or is of no use      │ │                       │ CONNECT_ERROR; the session's end
//!    │ └─────────────────────────────────────────┼─┴───────────────────────┘
//!    └────────── answered, then DISCONNECT ── Leaving (left by us before the answer)
//! ```

use std::sync::Arc;

use super::{
    Error,
    backoff::AuthFailure,
    core::{Core, Entry, Membership, QueuedPacket, Session, Space, SpaceState, State, Target, Upgrade},
    delay::{delay, random},
    events::{Incoming, Item},
    recovery::{Recovery, Welcome},
};
use crate::proto::{
    CloseReason,
    engine::TransportKind,
    socket::{Encoded, Outgoing, is_namespace},
};
use crate::sys::real::wait::deadline_in;

impl Core {
    /// Adds a namespace, or finds it.
    pub(super) fn space(&self, name: &str) -> Arc<Space> {
        let slash = if name.starts_with('/') { "" } else { "/" };
        let name = format!("{slash}{name}");
        let mut state = self.lock();
        if let Some(known) = state.spaces.iter().find(|known| *known.space.name == *name) {
            return known.space.clone();
        }
        let invalid =
            (!is_namespace(&name)).then(|| Error::Invalid(format!("{name:?} is no name of a namespace")));
        let space = Arc::new(Space {
            index: state.spaces.len(),
            name: name.into(),
            invalid,
            next_id: Default::default(),
            handlers: Default::default(),
        });
        state.spaces.push(SpaceState::new(space.clone()));
        self.want_joins(&mut state);
        space
    }

    /// Makes the `backoff` thread join what is to be joined.
    fn want_joins(&self, state: &mut State) {
        // It may be busy with an upgrade that does not get anywhere; that can be begun again.
        if let Some(Session { upgrade: Upgrade::Probing(token), .. }) = &state.session {
            self.cancel(token);
        }
        self.changed.notify_all();
    }

    /// Joins one namespace again.
    pub(super) fn rejoin(&self, space: &Space) -> Result<(), Error> {
        if let Some(error) = &space.invalid {
            return Err(error.clone());
        }
        let mut state = self.lock();
        if state.target == Target::Gone {
            return Err(Error::Closed);
        }
        if state.target == Target::Down {
            state.go_up();
        }
        state.spaces[space.index].activate();
        self.want_joins(&mut state);
        Ok(())
    }

    /// The CONNECT of a namespace goes out, with the auth payload or the error that it gave.
    pub(super) fn join(&self, epoch: u64, index: usize, connect: Result<Encoded, AuthFailure>) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(session) = state.session.as_mut().filter(|session| session.epoch == epoch) else { return };
        let of = &mut state.spaces[index];
        if of.membership != Membership::Joining || session.closing.is_some() {
            return;
        }
        match connect {
            Ok(connect) => {
                of.membership = Membership::Asked;
                // Read together with the DISCONNECT before it, the official server takes it for a second CONNECT.
                if of.left_in == epoch {
                    session.outbox.push_back(Entry::Pause);
                }
                session.push(QueuedPacket::of_session(connect));
                self.wake_link(session);
            }
            Err(AuthFailure::Panicked(error)) if self.config.reconnection => {
                self.join_later(state, index, error);
            }
            Err(AuthFailure::Panicked(error) | AuthFailure::Useless(error)) => {
                self.refused(state, index, error);
            }
        }
    }

    /// The auth function has panicked, which may be better the next time.
    fn join_later(&self, state: &mut State, index: usize, error: Error) {
        let config = &self.config;
        let delay = delay(config.delay, config.delay_max, config.randomization, 0, random());
        let of = &mut state.spaces[index];
        of.membership = Membership::Out;
        of.join_after = Some(deadline_in(delay));
        self.events.push(Item::ConnectError(of.space.clone(), error.clone()));
        state.note(&error);
        state.results += 1;
        state.attempt_result = Some(error);
        self.changed.notify_all();
    }

    /// The server has let us in: after our CONNECT, or once more, with a new id.
    pub(super) fn joined(&self, state: &mut State, index: usize, welcome: Welcome) {
        let again = match state.spaces[index].membership {
            Membership::Asked => false,
            Membership::Joined(_) => true,
            Membership::Leaving => return self.left(state, index),
            Membership::Out | Membership::Joining => return,
        };
        let of = &mut state.spaces[index];
        let early = of.recovery.connected(&welcome);
        of.membership = Membership::Joined(welcome.sid);
        let how = if of.recovery.recovered { "recovered" } else { "joined" };
        let space = of.space.clone();
        state.log(log::Level::Info, format_args!("{how} {}", space.name));
        let first = state.session.as_mut().filter(|session| !session.joined).map(|session| {
            session.joined = true;
            session.begun
        });
        if let Some(begun) = first {
            let stats = &mut state.stats;
            stats.reconnects += u64::from(stats.connects > 0);
            stats.connects += 1;
            stats.connect_time = Some(begun.elapsed());
            if state.attempts > 0 {
                self.events.push(Item::Reconnect(state.attempts));
            }
            state.attempts = 0;
        }
        // What was missed goes first, as in the official client.
        self.take_early(early);
        // A server may repeat its CONNECT without end.
        if !again || !self.events.is_crowded() {
            self.events.push(Item::Connect(space));
        }
        self.release(state, index);
        self.changed.notify_all();
    }

    /// A CONNECT without an id: servers of Socket.IO v2 send it, unasked.
    pub(super) fn welcomed_without_id(&self, state: &mut State, index: usize) {
        match state.spaces[index].membership {
            Membership::Asked | Membership::Joined(_) => {}
            Membership::Leaving => return self.refused_after_leaving(state, index),
            Membership::Out | Membership::Joining => return,
        }
        let space = state.spaces[index].space.clone();
        let transport = state.session.as_ref().map_or(TransportKind::Websocket, |session| session.transport);
        let detail = "CONNECT without an id: a server of Socket.IO v2?".into();
        let error = Error::Handshake { transport, status: None, detail };
        state.log(log::Level::Debug, format_args!("{}: {error}", space.name));
        state.note(&error);
        if !state.spaces[index].is_joined() {
            state.results += 1;
            state.attempt_result = Some(error.clone());
        }
        self.events.push(Item::ConnectError(space, error));
        self.changed.notify_all();
    }

    /// Hands on events that came ahead of the answer to CONNECT.
    pub(super) fn take_early(&self, events: Vec<Incoming>) {
        events.into_iter().for_each(|event| self.events.push(Item::Event(Box::new(event))));
    }

    /// The server has let us into a namespace that was left meanwhile.
    fn left(&self, state: &mut State, index: usize) {
        state.spaces[index].membership = Membership::Out;
        self.say_goodbye(state, index);
        // It may be wanted again.
        self.want_joins(state);
    }

    /// The server refuses a namespace that was left meanwhile.
    pub(super) fn refused_after_leaving(&self, state: &mut State, index: usize) {
        state.spaces[index].membership = Membership::Out;
        self.want_joins(state);
    }

    /// A namespace cannot be joined, or no longer, and is not tried again.
    pub(super) fn refused(&self, state: &mut State, index: usize, error: Error) {
        state.note(&error);
        let name = state.spaces[index].space.name.clone();
        state.log(log::Level::Warn, format_args!("{name}: {error}"));
        self.leave(state, index, CloseReason::IoServerDisconnect);
        state.results += 1;
        state.attempt_result = Some(error.clone());
        let of = &mut state.spaces[index];
        of.active = false;
        of.refusal = Some((state.results, error.clone()));
        self.events.push(Item::ConnectError(of.space.clone(), error.clone()));
        self.refuse_acks(state, index, &error);
        self.close_if_deserted(state, CloseReason::IoServerDisconnect);
        self.changed.notify_all();
    }

    /// The server has removed us.
    pub(super) fn removed(&self, state: &mut State, index: usize) {
        self.leave(state, index, CloseReason::IoServerDisconnect);
        state.spaces[index].active = false;
        self.close_if_deserted(state, CloseReason::IoServerDisconnect);
        self.changed.notify_all();
    }

    /// A namespace is left, whoever wanted it.
    pub(super) fn leave(&self, state: &mut State, index: usize, reason: CloseReason) {
        let of = &mut state.spaces[index];
        let was = std::mem::replace(&mut of.membership, Membership::Out);
        of.recovery.forget_early();
        of.join_after = None;
        if reason == CloseReason::IoClientDisconnect {
            self.forget_events(state, index);
        }
        if matches!(was, Membership::Joined(_)) {
            self.events.push(Item::Disconnect(state.spaces[index].space.clone(), reason));
        }
        self.fail_acks(state, index, reason);
    }

    /// Who disconnects wants no more events, as with the official client: those that wait for their handlers are thrown
    /// away.
    fn forget_events(&self, state: &mut State, index: usize) {
        let of = &mut state.spaces[index];
        let (forgotten, wake) = self.events.forget(&of.space);
        if wake {
            self.link_waker.wake();
        }
        if forgotten > 0 {
            // They count as received: a session that went on behind them would lack them.
            of.recovery = Recovery::default();
            let name = of.space.name.clone();
            let note = format_args!("{name}: {forgotten} events are thrown away after the disconnect");
            state.log(log::Level::Debug, note);
        }
    }

    /// Leaves one namespace.
    pub(super) fn part(&self, space: &Space) -> bool {
        let mut state = self.lock();
        let state = &mut *state;
        state.spaces[space.index].active = false;
        if state.is_deserted() {
            return true;
        }
        if let Some(session) = &mut state.session {
            session.outbox.push_back(Entry::Pause);
        }
        let of = &state.spaces[space.index];
        // Of a namespace that is being joined the official server knows nothing yet: a DISCONNECT ahead of its answer
        // would cost the whole connection.
        let asked = matches!(of.membership, Membership::Asked | Membership::Leaving);
        if of.is_joined() {
            self.say_goodbye(state, space.index);
        }
        self.leave(state, space.index, CloseReason::IoClientDisconnect);
        if asked && state.session.is_some() {
            state.spaces[space.index].membership = Membership::Leaving;
        }
        self.changed.notify_all();
        false
    }

    /// Puts the DISCONNECT of a namespace into the outbox.
    pub(super) fn say_goodbye(&self, state: &mut State, index: usize) {
        let (of, Some(session)) = (&mut state.spaces[index], &mut state.session) else { return };
        // A namespace's name is always encodable.
        if let Ok(goodbye) = Outgoing::disconnect(&of.space.name).encode(&()) {
            of.left_in = session.epoch;
            session.push(QueuedPacket::of_session(goodbye));
            self.wake_link(session);
        }
    }
}
