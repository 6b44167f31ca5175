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
    cancel::CancelToken,
    core::{Closing, Core, Entry, Phase, Session, SpaceState, State, Target, Upgrade},
    delay::{delay, random},
    events::Item,
    open::Opened,
};
use crate::proto::{CloseReason, engine::TransportKind};
use crate::sys::real::wait::deadline_in;

/// How long a connection that the server has ended may take to write the rest.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a session ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: CloseReason,
    pub(super) error: Option<Error>,
}

impl Core {
    /// Connects, unless it does so already. Every connection joins the namespaces that are active.
    ///
    /// Gives the number of attempts decided so far.
    pub(super) fn start(&self) -> Result<u64, Error> {
        if self.lock().spaces.is_empty() {
            self.space(&self.dialer.endpoint.namespace);
        }
        let mut state = self.lock();
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
        Ok(state.results)
    }

    /// An attempt succeeded. `None`: nobody wants the session any more.
    pub(super) fn opened(&self, opened: &Opened, token: &Arc<CancelToken>, begun: Instant) -> Option<u64> {
        let mut state = self.lock();
        if state.target != Target::Up || token.is_cancelled() {
            state.phase = Phase::Idle;
            state.token = None;
            return None;
        }
        // `link` is needed for this session.
        if let Some(close_token) = state.close_token.take() {
            close_token.cancel();
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
            join_by: deadline_in(self.config.timeout),
            begun,
            closing: None,
            upgrade: if upgradable { Upgrade::Wanted { after: None, retries: 0 } } else { Upgrade::Settled },
            poll_end: None,
        });
        self.changed.notify_all();
        Some(state.epoch)
    }

    /// An attempt failed. One that [`disconnect`](Self::disconnect) has cancelled is no failure: whoever has begun to connect
    /// again since then gets an attempt at once.
    pub(super) fn failed(&self, error: &Error, token: Option<&CancelToken>) {
        let mut state = self.lock();
        state.phase = Phase::Idle;
        state.token = None;
        if state.target == Target::Up && !token.is_some_and(CancelToken::is_cancelled) {
            self.attempt_failed(&mut state, error);
            self.schedule(&mut state);
        }
        self.changed.notify_all();
    }

    fn attempt_failed(&self, state: &mut State, error: &Error) {
        state.log(log::Level::Info, format_args!("no connection: {error}"));
        state.note(error);
        state.results += 1;
        state.attempt_result = Some(error.clone());
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
        state.phase = Phase::Waiting(deadline_in(delay));
        let attempt = state.attempts + 1;
        state.log(log::Level::Debug, format_args!("attempt {attempt} in {delay:?}"));
        self.events.push(Item::Scheduled(state.attempts + 1, delay));
    }

    /// Without a namespace there is no use for a connection: as the official client.
    pub(super) fn close_if_deserted(&self, state: &mut State, reason: CloseReason) {
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
            if let Upgrade::Probing(token) = &session.upgrade {
                self.cancel(token);
            }
            self.link_waker.wake();
        }
    }

    /// Ends everything, and waits until what was emitted is written, for at most `timeout`.
    pub(super) fn disconnect(&self, timeout: Duration) -> Result<(), Error> {
        let by = deadline_in(timeout);
        let Some(epoch) = self.go_down(by)? else { return Ok(()) };
        let unwritten = Err(Error::Timeout { what: "end of the writing", after: timeout });
        let over = self.wait_for(Some(by), |state| match state.session(epoch) {
            None => Some(state.unfinished == Some(epoch)),
            Some(_) => None,
        });
        if let Some(unfinished) = over {
            return if unfinished { unwritten } else { Ok(()) };
        }
        let mut state = self.lock();
        let flushed =
            state.session(epoch).is_none_or(|session| session.closing.is_some_and(|closing| closing.flushed));
        if let Some(token) = &state.token {
            self.cancel(token);
        }
        if flushed { Ok(()) } else { unwritten }
    }

    /// Begins to end everything; gives the session that is ending.
    fn go_down(&self, by: Instant) -> Result<Option<u64>, Error> {
        let mut state = self.lock();
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
                if let Some(token) = &state.token {
                    self.cancel(token);
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
    /// `close_token` cancels the request that closes it on the server.
    pub(super) fn ended(&self, epoch: u64, end: End, close_token: Option<Arc<CancelToken>>) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(mut session) = state.session.take_if(|session| session.epoch == epoch) else { return };
        let closing = session.closing;
        if closing.is_some_and(|closing| !closing.flushed) {
            state.unfinished = Some(epoch);
        }
        let reason = closing.map_or(end.reason, |closing| closing.reason);
        state.log(log::Level::Info, format_args!("connection ended: {reason}"));
        if let Upgrade::Probing(token) = &session.upgrade {
            self.cancel(token);
        }
        state.token = None;
        state.close_token = close_token;
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
                self.attempt_failed(state, &error);
            }
            self.schedule(state);
        }
        self.changed.notify_all();
    }

    /// Everything that was emitted before the disconnect is written.
    pub(super) fn flushed(&self, epoch: u64) {
        if let Some(closing) = self.lock().session(epoch).and_then(|session| session.closing.as_mut()) {
            closing.flushed = true;
        }
    }

    /// Ends the threads: after what is under way, with nothing more to come.
    pub(super) fn go(&self) {
        let mut state = self.lock();
        state.target = Target::Gone;
        for index in 0..state.spaces.len() {
            self.leave(&mut state, index, CloseReason::IoClientDisconnect);
            // Also those whose events were never sent.
            let waiting: Vec<_> = state.spaces[index].acks.keys().copied().collect();
            for id in waiting {
                self.fail_ack(&mut state, index, Some(id), &Error::Closed);
            }
        }
        if let Some(token) = &state.token {
            self.cancel(token);
        }
        if let Some(Session { upgrade: Upgrade::Probing(token), .. }) = &state.session {
            self.cancel(token);
        }
        if let Some(close_token) = &state.close_token {
            close_token.cancel();
        }
        self.events.close();
        self.link_waker.wake();
        self.changed.notify_all();
    }
}
