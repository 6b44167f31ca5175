//! Every change of the connection's state, each in one function: begin, open, join, fail, end.
//!
//! ```text
//!                    start                    opened
//!   Idle ──────────────────────► Attempting ─────────► Open ──── joined (a success only now)
//!    ▲ ▲ ▲                        ▲      │ failed        │
//!    │ │ └── attempts used up ────┼──────┤               │ ended
//!    │ │                   time   │      ▼               │
//!    │ │                   is up  └─── Waiting ◄─────────┤ lost
//!    │ └─────── disconnect ───────────────┘              │
//!    └────────── disconnected by the server, or by us ───┘
//! ```

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Error,
    backoff::AuthFailure,
    core::{
        Closing, Core, Entry, Membership, Parcel, Phase, Session, Space, SpaceState, State, Target, Upgrade,
    },
    delay::{delay, random},
    events::{Incoming, Item},
    open::Opened,
    recovery::{Recovery, Welcome},
    wake::{Lifeline, from_now},
};
use crate::proto::{
    CloseReason,
    engine::TransportKind,
    socket::{Encoded, Outgoing},
};

/// How long a connection that the server has ended may take to write the rest.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a session ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: CloseReason,
    pub(super) error: Option<Error>,
}

impl Core {
    /// Adds a namespace, or finds it.
    pub(super) fn space(&self, name: &str) -> Arc<Space> {
        let slash = if name.starts_with('/') { "" } else { "/" };
        let name = format!("{slash}{name}");
        let mut state = self.state.lock();
        if let Some(known) = state.spaces.iter().find(|known| *known.space.name == *name) {
            return known.space.clone();
        }
        let long = name.len() > crate::proto::limits::MAX_NAMESPACE;
        let invalid = (long || name.contains(',') || name.contains('?'))
            .then(|| Error::Invalid(format!("{name:?} is no name of a namespace")));
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
        if let Some(Session { upgrade: Upgrade::Probing(lifeline), .. }) = &state.session {
            self.cut(lifeline);
        }
        self.changed.notify_all();
    }

    /// Connects, unless it does so already, with every namespace.
    ///
    /// Gives the number of attempts decided so far.
    pub(super) fn start(&self) -> Result<u64, Error> {
        if self.state.lock().spaces.is_empty() {
            self.space(&self.dialer.endpoint.namespace);
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        match state.target {
            Target::Gone => return Err(Error::Closed),
            Target::Up => {}
            Target::Down => {
                if let Some(invalid) = state.spaces.iter().find_map(|of| of.space.invalid.clone()) {
                    return Err(invalid);
                }
                // A connection without a namespace has no use: when none is active, all are asked for again.
                if state.is_deserted() {
                    state.spaces.iter_mut().for_each(SpaceState::activate);
                }
                state.go_up();
            }
        }
        if let Phase::Waiting(until) = &mut state.phase {
            *until = Instant::now();
        }
        self.changed.notify_all();
        Ok(state.verdicts)
    }

    /// Joins one namespace again.
    pub(super) fn rejoin(&self, space: &Space) -> Result<(), Error> {
        if let Some(error) = &space.invalid {
            return Err(error.clone());
        }
        let mut state = self.state.lock();
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

    /// An attempt succeeded. `None`: nobody wants the session any more.
    pub(super) fn opened(&self, opened: &Opened, lifeline: &Arc<Lifeline>, begun: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.target != Target::Up || lifeline.is_cut() {
            state.phase = Phase::Idle;
            state.lifeline = None;
            return None;
        }
        // `link` is needed for this session.
        if let Some(farewell) = state.farewell.take() {
            farewell.cut();
        }
        let websocket = self.config.transports.contains(&TransportKind::Websocket);
        let upgradable = opened.transport.kind() == TransportKind::Polling
            && self.config.upgrade
            && websocket
            && opened.open.upgrades.iter().any(|name| name == TransportKind::Websocket.as_str());
        state.epoch += 1;
        state.phase = Phase::Open;
        state.session = Some(Session {
            epoch: state.epoch,
            sid: opened.open.sid.clone(),
            transport: opened.transport.kind(),
            max_payload: opened.open.max_payload.and_then(|max| max.try_into().ok()),
            pong: None,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            link_asleep: false,
            joined: false,
            join_by: from_now(self.config.timeout),
            begun,
            closing: None,
            upgrade: if upgradable { Upgrade::Wanted { after: None, retries: 0 } } else { Upgrade::Settled },
            poll_end: None,
        });
        self.changed.notify_all();
        Some(state.epoch)
    }

    /// An attempt failed. One that [`disconnect`](Self::disconnect) has cut is no failure: whoever has begun to connect
    /// again since then gets an attempt at once.
    pub(super) fn failed(&self, error: &Error, lifeline: Option<&Lifeline>) {
        let mut state = self.state.lock();
        state.phase = Phase::Idle;
        state.lifeline = None;
        if state.target == Target::Up && !lifeline.is_some_and(Lifeline::is_cut) {
            self.verdict(&mut state, error);
            self.schedule(&mut state);
        }
        self.changed.notify_all();
    }

    fn verdict(&self, state: &mut State, error: &Error) {
        log::info!("no connection: {error}");
        state.note(error);
        state.verdicts += 1;
        state.verdict = Some(error.clone());
        for space in state.spaces.iter().filter(|space| space.active) {
            self.events.push(Item::ConnectError(space.space.clone(), error.clone()));
        }
        if state.attempts > 0 {
            self.events.push(Item::ReconnectError(error.clone()));
        }
    }

    /// What follows a loss or a failure: a delay, or nothing more.
    fn schedule(&self, state: &mut State) {
        let config = &self.config;
        let used_up = config.attempts.is_some_and(|max| state.attempts >= max);
        if !config.reconnection || used_up {
            if used_up {
                self.events.push(Item::ReconnectFailed);
            }
            state.target = Target::Down;
            state.phase = Phase::Idle;
            return;
        }
        let delay = delay(config.delay, config.delay_max, config.randomization, state.attempts, random());
        state.phase = Phase::Waiting(from_now(delay));
        log::debug!("attempt {} in {delay:?}", state.attempts + 1);
        self.events.push(Item::Scheduled(state.attempts + 1, delay));
    }

    /// The CONNECT of a namespace goes out, with the auth payload or the error that it gave.
    pub(super) fn join(&self, epoch: u64, index: usize, connect: Result<Encoded, AuthFailure>) {
        let mut state = self.state.lock();
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
                session.push(Parcel::of_session(connect));
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
        of.join_after = Some(from_now(delay));
        self.events.push(Item::ConnectError(of.space.clone(), error.clone()));
        state.note(&error);
        state.verdicts += 1;
        state.verdict = Some(error);
        self.changed.notify_all();
    }

    /// The server has let us in: after our CONNECT, or once more, with a new id.
    pub(super) fn joined(&self, state: &mut State, index: usize, welcome: Welcome) {
        match state.spaces[index].membership {
            Membership::Asked | Membership::Joined(_) => {}
            Membership::Leaving => return self.left(state, index),
            Membership::Out | Membership::Joining => return,
        }
        let of = &mut state.spaces[index];
        let early = of.recovery.connected(&welcome);
        of.membership = Membership::Joined(welcome.sid);
        let how = if of.recovery.recovered { "recovered" } else { "joined" };
        log::info!("{how} {}", of.space.name);
        let space = of.space.clone();
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
        self.events.push(Item::Connect(space));
        self.release(state, index);
        self.changed.notify_all();
    }

    /// A CONNECT without an id: servers of Socket.IO v2 send it, unasked.
    pub(super) fn welcomed_without_id(&self, state: &mut State, index: usize) {
        let space = state.spaces[index].space.clone();
        let transport = state.session.as_ref().map_or(TransportKind::Websocket, |session| session.transport);
        let detail = "CONNECT without an id: a server of Socket.IO v2?".into();
        let error = Error::Handshake { transport, status: None, detail };
        log::warn!("{}: {error}", space.name);
        state.note(&error);
        if !state.spaces[index].is_joined() {
            state.verdicts += 1;
            state.verdict = Some(error.clone());
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
        log::warn!("{}: {error}", state.spaces[index].space.name);
        self.leave(state, index, CloseReason::IoServerDisconnect);
        state.verdicts += 1;
        state.verdict = Some(error.clone());
        let of = &mut state.spaces[index];
        of.active = false;
        of.refusal = Some((state.verdicts, error.clone()));
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
    fn leave(&self, state: &mut State, index: usize, reason: CloseReason) {
        let of = &mut state.spaces[index];
        let was = std::mem::replace(&mut of.membership, Membership::Out);
        of.recovery.forget_early();
        of.join_after = None;
        if reason == CloseReason::IoClientDisconnect {
            self.forget_events(of);
        }
        if matches!(was, Membership::Joined(_)) {
            self.events.push(Item::Disconnect(of.space.clone(), reason));
        }
        self.fail_acks(state, index, reason);
    }

    /// Who disconnects wants no more events, as with the official client: those that wait for their handlers are thrown
    /// away.
    fn forget_events(&self, of: &mut SpaceState) {
        let (forgotten, wake) = self.events.forget(&of.space);
        if wake {
            self.link_bell.ring();
        }
        if forgotten > 0 {
            log::debug!("{forgotten} events of {} are thrown away after the disconnect", of.space.name);
            // They count as received: a session that went on behind them would lack them.
            of.recovery = Recovery::default();
        }
    }

    /// Without a namespace there is no use for a connection: as the official client.
    fn close_if_deserted(&self, state: &mut State, reason: CloseReason) {
        if state.is_deserted() && state.target == Target::Up {
            state.target = Target::Down;
            state.last_reason = Some(reason);
            self.close(state, reason, Instant::now() + GOODBYE);
        }
    }

    /// Ends the session in good order, by `by`.
    fn close(&self, state: &mut State, reason: CloseReason, by: Instant) {
        if let Some(session) = &mut state.session {
            session.closing.get_or_insert(Closing { by, reason, flushed: false });
            if let Upgrade::Probing(lifeline) = &session.upgrade {
                self.cut(lifeline);
            }
            self.link_bell.ring();
        }
    }

    /// Leaves one namespace.
    pub(super) fn part(&self, space: &Space) -> bool {
        let mut state = self.state.lock();
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
    fn say_goodbye(&self, state: &mut State, index: usize) {
        let (of, Some(session)) = (&mut state.spaces[index], &mut state.session) else { return };
        // A namespace's name is always encodable.
        if let Ok(goodbye) = Outgoing::disconnect(&of.space.name).encode(&()) {
            of.left_in = session.epoch;
            session.push(Parcel::of_session(goodbye));
            self.wake_link(session);
        }
    }

    /// Ends everything, and waits until what was emitted is written, for at most `timeout`.
    pub(super) fn disconnect(&self, timeout: Duration) -> Result<(), Error> {
        let by = from_now(timeout);
        let Some(epoch) = self.go_down(by)? else { return Ok(()) };
        let unwritten = Err(Error::Timeout { what: "end of the writing", after: timeout });
        let over = self.wait_for(Some(by), |state| match state.session(epoch) {
            None => Some(state.unfinished == Some(epoch)),
            Some(_) => None,
        });
        if let Some(unfinished) = over {
            return if unfinished { unwritten } else { Ok(()) };
        }
        let mut state = self.state.lock();
        let flushed =
            state.session(epoch).is_none_or(|session| session.closing.is_some_and(|closing| closing.flushed));
        if let Some(lifeline) = &state.lifeline {
            self.cut(lifeline);
        }
        if flushed { Ok(()) } else { unwritten }
    }

    /// Begins to end everything; gives the session that is ending.
    fn go_down(&self, by: Instant) -> Result<Option<u64>, Error> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.target == Target::Gone {
            return Err(Error::Closed);
        }
        if state.target == Target::Up || state.last_reason.is_none() {
            state.last_reason = Some(CloseReason::IoClientDisconnect);
        }
        state.target = Target::Down;
        state.attempts = 0;
        self.changed.notify_all();
        match state.phase {
            Phase::Idle => Ok(None),
            Phase::Waiting(_) => {
                state.phase = Phase::Idle;
                Ok(None)
            }
            Phase::Attempting(_) => {
                if let Some(lifeline) = &state.lifeline {
                    self.cut(lifeline);
                }
                Ok(None)
            }
            Phase::Open => {
                if let Some(session) = state.session.as_mut().filter(|session| session.closing.is_none()) {
                    session.outbox.push_back(Entry::Pause);
                }
                for index in 0..state.spaces.len() {
                    if state.spaces[index].is_joined() {
                        self.say_goodbye(state, index);
                    }
                    self.leave(state, index, CloseReason::IoClientDisconnect);
                }
                self.close(state, CloseReason::IoClientDisconnect, by);
                Ok(state.session.as_ref().map(|session| session.epoch))
            }
        }
    }

    /// The session has ended: told by `link`, which has let go of the transport.
    ///
    /// `farewell` cuts what it tells the server afterwards.
    pub(super) fn ended(&self, epoch: u64, end: End, farewell: Option<Arc<Lifeline>>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(mut session) = state.session.take_if(|session| session.epoch == epoch) else { return };
        let closing = session.closing;
        if closing.is_some_and(|closing| !closing.flushed) {
            state.unfinished = Some(epoch);
        }
        let reason = closing.map_or(end.reason, |closing| closing.reason);
        log::info!("connection ended: {reason}");
        if let Upgrade::Probing(lifeline) = &session.upgrade {
            self.cut(lifeline);
        }
        state.lifeline = None;
        state.farewell = farewell;
        state.phase = Phase::Idle;
        state.stats.disconnects += u64::from(session.joined);
        state.last_reason = Some(reason);
        if let Some(error) = end.error.as_ref().filter(|_| closing.is_none() && session.joined) {
            state.note(error);
        }
        self.salvage(state, &mut session);
        for index in 0..state.spaces.len() {
            self.leave(state, index, reason);
        }
        if closing.is_none() && state.target == Target::Up {
            if !session.joined {
                let error = end.error.unwrap_or(Error::Disconnected(reason));
                self.verdict(state, &error);
            }
            self.schedule(state);
        }
        self.changed.notify_all();
    }

    /// Everything that was emitted before the disconnect is written.
    pub(super) fn flushed(&self, epoch: u64) {
        if let Some(closing) = self.state.lock().session(epoch).and_then(|session| session.closing.as_mut()) {
            closing.flushed = true;
        }
    }

    /// Ends the threads: after what is under way, with nothing more to come.
    pub(super) fn go(&self) {
        let mut state = self.state.lock();
        state.target = Target::Gone;
        for index in 0..state.spaces.len() {
            self.leave(&mut state, index, CloseReason::IoClientDisconnect);
            // Also those whose events were never sent.
            let waiting: Vec<_> = state.spaces[index].acks.keys().copied().collect();
            for id in waiting {
                self.fail_ack(&mut state, index, Some(id), &Error::Closed);
            }
        }
        if let Some(lifeline) = &state.lifeline {
            self.cut(lifeline);
        }
        if let Some(Session { upgrade: Upgrade::Probing(lifeline), .. }) = &state.session {
            self.cut(lifeline);
        }
        if let Some(farewell) = &state.farewell {
            farewell.cut();
        }
        self.events.close();
        self.link_bell.ring();
        self.changed.notify_all();
    }
}
