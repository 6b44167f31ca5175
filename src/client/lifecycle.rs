//! What each change of the connection means for the namespaces, the handlers and the threads: one function for each.
//!
//! The diagram of the changes is in `connection`. The functions are in its order: the start, an attempt and its result,
//! the end of a session, the next attempt; then the upgrade, the disconnect, and the end of the client. Uses the state,
//! the queue of events and the wakers. It must not read, write, or call a handler.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Error,
    cancel::CancelToken,
    connection::{Phase, Target},
    core::Core,
    delay::next_delay,
    end::End,
    event_queue::Item,
    open::Opened,
    session::{Begin, Session},
    state::State,
    websocket::WebSocket,
};
use crate::{
    proto::{CloseReason, engine::TransportKind},
    sys::real::wait::deadline_in,
};

/// How long writing the rest may take when the server has removed the last namespace.
const CLOSE_TIME: Duration = Duration::from_secs(2);

impl Core {
    /// Connects, unless the client is connected or connects already. Every connection joins the active namespaces.
    ///
    /// Gives the number of attempts that have ended so far.
    pub(super) fn start(&self) -> Result<u64, Error> {
        if self.lock().namespaces.is_empty() {
            self.namespace(&self.dialer.endpoint.namespace);
        }
        let mut state = self.lock();
        let state = &mut *state;
        state.connection.check_alive()?;
        if state.connection.target() == Target::Down {
            if let Some(invalid) = state.namespaces.invalid() {
                return Err(invalid);
            }
            // A connection without a namespace has no use, so all of them are made active.
            if state.namespaces.none_active() {
                state.namespaces.activate_all();
            }
            state.connection.go_up();
        }
        state.connection.skip_wait(Instant::now());
        self.changed.notify_all();
        Ok(state.connection.results())
    }

    /// An attempt begins: it can be cancelled with `token`. Gives the transports to try. `None`: it is not wanted.
    pub(super) fn begin_attempt(&self, token: &Arc<CancelToken>) -> Option<Vec<TransportKind>> {
        let mut state = self.lock();
        if !state.connection.set_token(token) {
            return None;
        }
        state.stats.attempts += 1;
        let mut transports = self.config.transports.clone();
        if self.config.remember_upgrade && state.connection.was_upgraded() {
            transports.sort_by_key(|kind| *kind != TransportKind::Websocket);
        }
        Some(transports)
    }

    /// An attempt has opened a session. Gives its number. `None`: it is not wanted.
    pub(super) fn session_opened(
        &self,
        opened: &Opened,
        token: &Arc<CancelToken>,
        begun: Instant,
    ) -> Option<u64> {
        let mut state = self.lock();
        if state.connection.target() != Target::Up || token.is_cancelled() {
            state.connection.end_attempt();
            return None;
        }
        let transport = opened.transport.kind();
        let upgrade = transport == TransportKind::Polling
            && self.config.upgrade
            && self.config.transports.contains(&TransportKind::Websocket)
            && opened.open.upgrades.iter().any(|name| name == TransportKind::Websocket.as_str());
        let begin = Begin { transport, upgrade, begun, join_by: deadline_in(self.config.timeout) };
        let (epoch, close_token) = state.connection.open(&opened.open, &begin);
        // `link` is needed for the new session.
        if let Some(close_token) = close_token {
            close_token.cancel();
        }
        self.changed.notify_all();
        Some(epoch)
    }

    /// An attempt has failed. A cancelled attempt is no failure: if a connection is wanted again since then, the next
    /// attempt begins at once.
    pub(super) fn attempt_failed(&self, error: &Error, token: Option<&CancelToken>) {
        let mut state = self.lock();
        state.connection.end_attempt();
        if state.connection.target() == Target::Up && !token.is_some_and(CancelToken::is_cancelled) {
            self.report_failure(&mut state, error);
            self.schedule_attempt(&mut state);
        }
        self.changed.notify_all();
    }

    /// The session has ended, and `link` has closed its transport. `close_token` cancels the request that closes it on
    /// the server.
    pub(super) fn session_ended(&self, epoch: u64, end: End, close_token: Option<Arc<CancelToken>>) {
        let mut state = self.lock();
        let state = &mut *state;
        let ended = state.connection.end_session(epoch, end.reason, close_token);
        let Some((session, reason)) = ended else { return };
        state.log(log::Level::Info, format_args!("connection ended: {reason}"));
        if let Some(token) = session.probe() {
            self.cancel(token);
        }
        let (was_closing, was_joined) = (session.closing().is_some(), session.is_joined());
        state.stats.disconnects += u64::from(was_joined);
        let error = end.into_error(session.transport());
        if let Some(error) = error.as_ref().filter(|_| !was_closing && was_joined) {
            state.set_error(error);
        }
        self.keep_unwritten(state, session);
        for index in state.namespaces.indices() {
            self.leave(state, index, reason);
        }
        if !was_closing && state.connection.target() == Target::Up {
            if !was_joined {
                let error = error.unwrap_or(Error::Disconnected(reason));
                self.report_failure(state, &error);
            }
            self.schedule_attempt(state);
        }
        self.changed.notify_all();
    }

    /// Tells the handlers of a failed attempt.
    fn report_failure(&self, state: &mut State, error: &Error) {
        state.log(log::Level::Info, format_args!("no connection: {error}"));
        state.set_error(error);
        state.connection.set_result(error);
        for namespace in state.namespaces.iter().filter(|namespace| namespace.is_active()) {
            self.events.push(Item::ConnectError(namespace.namespace().clone(), error.clone()));
        }
        if state.connection.attempts() > 0 {
            self.events.push(Item::ReconnectError(error.clone()));
        }
    }

    /// After a loss or a failure: waits for the next attempt, or gives up.
    fn schedule_attempt(&self, state: &mut State) {
        let attempts = state.connection.attempts();
        let used_up = self.config.attempts.is_some_and(|max| attempts >= max);
        if !self.config.reconnection || used_up {
            if used_up {
                self.events.push(Item::ReconnectFailed);
            }
            state.connection.give_up();
            return;
        }
        let delay = next_delay(&self.config, attempts);
        state.connection.wait_until(deadline_in(delay));
        let attempt = attempts + 1;
        state.log(log::Level::Debug, format_args!("attempt {attempt} in {delay:?}"));
        self.events.push(Item::Scheduled(attempt, delay));
    }

    /// Begins a probe. Gives the session's id, and how often the probe may be repeated.
    pub(super) fn begin_probe(&self, epoch: u64, token: &Arc<CancelToken>) -> Option<(String, u32)> {
        let mut state = self.lock();
        let session = state.connection.open_session_of(epoch)?;
        let retries = session.begin_probe(token);
        Some((session.sid().to_owned(), retries))
    }

    /// The probe was cancelled for another task, or has failed after that: it is repeated. A server may refuse a second
    /// WebSocket until it has noticed the end of the first one.
    pub(super) fn probe_again(&self, epoch: u64, delay: Option<Duration>, retries: u32) {
        if let Some(session) = self.lock().connection.session_of(epoch) {
            session.repeat_probe(delay.map(deadline_in), retries);
        }
    }

    /// The probe has ended: `link` takes the WebSocket, or stays on polling.
    pub(super) fn probed(&self, epoch: u64, websocket: Option<WebSocket>) {
        let mut state = self.lock();
        let Some(token) = state.connection.token().cloned() else { return };
        let Some(session) = state.connection.session_of(epoch) else { return };
        let websocket = websocket.map(|mut websocket| {
            websocket.go_nonblocking(&token);
            token.upgrade();
            // The `poll` thread may wait for room in the queue of events.
            self.events.wake_reader();
            Box::new(websocket)
        });
        session.end_probe(websocket);
        self.link_waker.wake();
    }

    /// Takes the WebSocket that is ready.
    pub(super) fn take_upgrade(&self, epoch: u64) -> Option<Box<WebSocket>> {
        let mut state = self.lock();
        let websocket = state.connection.take_upgrade(epoch)?;
        state.log(log::Level::Info, format_args!("upgraded to websocket"));
        Some(websocket)
    }

    /// The `poll` thread has ended its work for a session.
    pub(super) fn poll_ended(&self, epoch: u64, failed: bool) {
        let mut state = self.lock();
        let is_open = state.connection.open_session_of(epoch).is_some();
        // A POST that is under way ends too. But the last POST of a session may end after the last GET.
        if failed
            && is_open
            && let Some(token) = state.connection.token()
        {
            self.cancel(token);
        }
        self.link_waker.wake();
    }

    /// Closes the connection when no namespace is left, as the official client does.
    pub(super) fn close_if_deserted(&self, state: &mut State, reason: CloseReason) {
        if state.namespaces.none_active() && state.connection.target() == Target::Up {
            state.connection.desert(reason);
            self.close(state, reason, Instant::now() + CLOSE_TIME);
        }
    }

    /// Closes the session. What was emitted before is written first, until `by`.
    fn close(&self, state: &mut State, reason: CloseReason, by: Instant) {
        if let Some(session) = state.connection.session_mut() {
            session.close(reason, by);
            if let Some(token) = session.probe() {
                self.cancel(token);
            }
            self.link_waker.wake();
        }
    }

    /// Closes the connection, and waits until what was emitted is written, for at most `timeout`.
    pub(super) fn disconnect(&self, timeout: Duration) -> Result<(), Error> {
        let by = deadline_in(timeout);
        let Some(epoch) = self.begin_disconnect(by)? else { return Ok(()) };
        let unwritten = Err(Error::Timeout { what: "end of the writing", after: timeout });
        if let Some(finished) = self.wait_for(Some(by), |state| state.connection.was_finished(epoch)) {
            return if finished { Ok(()) } else { unwritten };
        }
        let mut state = self.lock();
        let session = state.connection.session_of(epoch);
        let flushed = session.is_none_or(|session| session.closing().is_some_and(|closing| closing.flushed));
        if let Some(token) = state.connection.token() {
            self.cancel(token);
        }
        if flushed { Ok(()) } else { unwritten }
    }

    /// Begins to close everything. Gives the session that is being closed.
    fn begin_disconnect(&self, by: Instant) -> Result<Option<u64>, Error> {
        let mut state = self.lock();
        let state = &mut *state;
        state.connection.check_alive()?;
        state.connection.go_down();
        self.changed.notify_all();
        match state.connection.phase() {
            Phase::Idle | Phase::Waiting(_) => Ok(None),
            Phase::Attempting => {
                if let Some(token) = state.connection.token() {
                    self.cancel(token);
                }
                Ok(None)
            }
            Phase::Open => {
                if let Some(session) = state.connection.open_session() {
                    session.queue.push_pause();
                }
                for index in state.namespaces.indices() {
                    if state.namespaces[index].is_joined() {
                        self.send_disconnect(state, index);
                    }
                    self.leave(state, index, CloseReason::IoClientDisconnect);
                }
                self.close(state, CloseReason::IoClientDisconnect, by);
                Ok(state.connection.session().map(Session::epoch))
            }
        }
    }

    /// Everything that was emitted before the disconnect is written.
    pub(super) fn flushed(&self, epoch: u64) {
        if let Some(session) = self.lock().connection.session_of(epoch) {
            session.flushed();
        }
    }

    /// Ends the threads, when the client is dropped.
    pub(super) fn shut_down(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        state.connection.shut_down();
        for index in state.namespaces.indices() {
            self.leave(state, index, CloseReason::IoClientDisconnect);
            // Also those whose events were never sent.
            for waiter in state.acks.remove_all(index) {
                self.complete(state.namespaces[index].namespace(), waiter, Err(Error::Closed));
            }
        }
        if let Some(token) = state.connection.token() {
            self.cancel(token);
        }
        if let Some(token) = state.connection.probe() {
            self.cancel(token);
        }
        if let Some(token) = state.connection.close_token() {
            token.cancel();
        }
        self.events.close();
        self.link_waker.wake();
        self.changed.notify_all();
    }
}
