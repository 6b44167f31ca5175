//! The connection of one client: what is wanted, what is being done for it, and how the last attempts ended.
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
//!
//! Owns the phase, the session and the cancel tokens. Uses [`Session`] and [`CancelToken`]. It must not lock, log, or
//! know the namespaces: `lifecycle` does what a transition means for them, in `start`, `session_opened`,
//! `attempt_failed`, `session_ended` (lost or ended) and `disconnect`.

use std::{sync::Arc, time::Instant};

use super::{
    ConnectionState, Error,
    cancel::CancelToken,
    session::{Begin, Session},
    websocket::WebSocket,
};
use crate::proto::{CloseReason, engine::Open};

/// The connection. At most one session is open at a time.
#[derive(Default)]
pub(super) struct Connection {
    target: Target,
    phase: Phase,
    /// The number of the current session, or of the last one.
    epoch: u64,
    /// Cancels the attempt or the session that is under way.
    token: Option<Arc<CancelToken>>,
    /// Cancels the request that closes a failed polling session on the server.
    close_token: Option<Arc<CancelToken>>,
    session: Option<Session>,
    /// Reconnection attempts since the last success, with the one that is under way.
    attempts: u32,
    /// How many attempts have ended since the client was built. [`Handle::connect`](super::Handle::connect) waits for
    /// the next.
    results: u64,
    /// That number when the client last began to connect: earlier refusals are of no interest.
    results_before: u64,
    /// The error of the last attempt that failed.
    attempt_result: Option<Error>,
    /// Whether a session was ever upgraded to WebSocket: what `remember_upgrade` remembers.
    upgraded: bool,
    /// The session that ended before everything that was emitted in it was written.
    unfinished: Option<u64>,
    last_reason: Option<CloseReason>,
    last_error: Option<Error>,
}

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Target {
    /// No connection.
    #[default]
    Down,
    /// A connection, again and again.
    Up,
    /// The client is dropped: every thread ends.
    Gone,
}

/// What the `backoff` thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Nothing. With [`Target::Up`], it begins an attempt at once.
    #[default]
    Idle,
    /// It waits for the next attempt.
    Waiting(Instant),
    /// It makes an attempt.
    Attempting,
    /// A session is open, and the `link` thread has it.
    Open,
}

impl Connection {
    pub(super) fn target(&self) -> Target {
        self.target
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// # Errors
    /// When the client is dropped.
    pub(super) fn check_alive(&self) -> Result<(), Error> {
        if self.target == Target::Gone { Err(Error::Closed) } else { Ok(()) }
    }

    pub(super) fn state(&self) -> ConnectionState {
        match (self.target, self.phase) {
            (Target::Down | Target::Gone, _) => ConnectionState::Disconnected,
            (Target::Up, Phase::Waiting(_)) => ConnectionState::Reconnecting,
            (Target::Up, Phase::Open) if self.session.as_ref().is_some_and(Session::is_joined) => {
                ConnectionState::Connected
            }
            (Target::Up, _) => ConnectionState::Connecting,
        }
    }

    /// The session, also while it is being closed.
    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// The session, if it has this number.
    pub(super) fn session_of(&mut self, epoch: u64) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.epoch() == epoch)
    }

    /// The session, if it accepts new packets.
    pub(super) fn open_session(&mut self) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.closing().is_none())
    }

    /// The session, if it has this number and accepts new packets.
    pub(super) fn open_session_of(&mut self, epoch: u64) -> Option<&mut Session> {
        self.open_session().filter(|session| session.epoch() == epoch)
    }

    /// The token of the attempt or session that is under way.
    pub(super) fn token(&self) -> Option<&Arc<CancelToken>> {
        self.token.as_ref()
    }

    /// The token of the probe that is under way.
    pub(super) fn probe(&self) -> Option<&CancelToken> {
        self.session.as_ref()?.probe()
    }

    /// The token of the request that closes a failed polling session.
    pub(super) fn close_token(&self) -> Option<&CancelToken> {
        self.close_token.as_deref()
    }

    /// Begins to connect, with the first attempt at once.
    pub(super) fn go_up(&mut self) {
        self.target = Target::Up;
        self.attempts = 0;
        self.results_before = self.results;
    }

    /// Wants no connection any more, because the user has disconnected.
    pub(super) fn go_down(&mut self) {
        if self.target == Target::Up || self.last_reason.is_none() {
            self.last_reason = Some(CloseReason::IoClientDisconnect);
        }
        self.target = Target::Down;
        self.attempts = 0;
        if let Phase::Waiting(_) = self.phase {
            self.phase = Phase::Idle;
        }
    }

    /// Wants no connection any more, because no namespace is left.
    pub(super) fn desert(&mut self, reason: CloseReason) {
        self.target = Target::Down;
        self.last_reason = Some(reason);
    }

    /// Wants no connection any more, because no reconnection is to be made.
    pub(super) fn give_up(&mut self) {
        self.target = Target::Down;
        self.phase = Phase::Idle;
    }

    /// The client is dropped.
    pub(super) fn shut_down(&mut self) {
        self.target = Target::Gone;
    }

    /// Waits for the next attempt until then.
    pub(super) fn wait_until(&mut self, until: Instant) {
        self.phase = Phase::Waiting(until);
    }

    /// Ends the wait for the next attempt.
    pub(super) fn skip_wait(&mut self, now: Instant) {
        if let Phase::Waiting(until) = &mut self.phase {
            *until = now;
        }
    }

    /// Begins an attempt, if one is to be made now. For a reconnection, gives its number.
    pub(super) fn begin_attempt(&mut self, now: Instant) -> Option<Option<u32>> {
        let reconnection = match (self.target, self.phase) {
            (Target::Up, Phase::Idle) => None,
            (Target::Up, Phase::Waiting(until)) if until <= now => {
                self.attempts = self.attempts.saturating_add(1);
                Some(self.attempts)
            }
            _ => return None,
        };
        self.phase = Phase::Attempting;
        Some(reconnection)
    }

    /// Gives the attempt its token. `false`: it is not wanted any more.
    pub(super) fn set_token(&mut self, token: &Arc<CancelToken>) -> bool {
        if self.target == Target::Up {
            self.token = Some(token.clone());
        } else {
            self.phase = Phase::Idle;
        }
        self.target == Target::Up
    }

    /// The attempt has ended without a session.
    pub(super) fn end_attempt(&mut self) {
        self.phase = Phase::Idle;
        self.token = None;
    }

    /// The attempt has opened a session. Gives its number, and the token of the request that closes the last one, if
    /// it still runs.
    pub(super) fn open(&mut self, open: &Open, begin: &Begin) -> (u64, Option<Arc<CancelToken>>) {
        self.epoch += 1;
        self.phase = Phase::Open;
        self.session = Some(Session::new(self.epoch, open, begin));
        (self.epoch, self.close_token.take())
    }

    /// The session has ended. `close_token` cancels the request that closes it on the server.
    pub(super) fn end_session(
        &mut self,
        epoch: u64,
        reason: CloseReason,
        close_token: Option<Arc<CancelToken>>,
    ) -> Option<(Session, CloseReason)> {
        let session = self.session.take_if(|session| session.epoch() == epoch)?;
        if session.closing().is_some_and(|closing| !closing.flushed) {
            self.unfinished = Some(epoch);
        }
        let reason = session.closing().map_or(reason, |closing| closing.reason);
        self.token = None;
        self.close_token = close_token;
        self.phase = Phase::Idle;
        self.last_reason = Some(reason);
        Some((session, reason))
    }

    /// Whether everything that was emitted in a session was written. `None`: it has not ended.
    pub(super) fn was_finished(&self, epoch: u64) -> Option<bool> {
        let is_open = self.session.as_ref().is_some_and(|session| session.epoch() == epoch);
        (!is_open).then_some(self.unfinished != Some(epoch))
    }

    /// Reconnection attempts since the last success.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The attempt was a success. Gives the number of the reconnection, if it was one.
    pub(super) fn succeeded(&mut self) -> Option<u32> {
        Some(std::mem::take(&mut self.attempts)).filter(|attempts| *attempts > 0)
    }

    /// An attempt has failed, or a namespace was refused in it. Gives the number of this result.
    pub(super) fn set_result(&mut self, error: &Error) -> u64 {
        self.results += 1;
        self.attempt_result = Some(error.clone());
        self.results
    }

    /// How many attempts have ended.
    pub(super) fn results(&self) -> u64 {
        self.results
    }

    /// Whether a refusal of this number came since the client last began to connect.
    pub(super) fn is_recent(&self, result: u64) -> bool {
        result > self.results_before
    }

    /// The error of the last attempt that failed.
    pub(super) fn attempt_result(&self) -> Error {
        let reason = self.last_reason.unwrap_or(CloseReason::IoClientDisconnect);
        self.attempt_result.clone().unwrap_or(Error::Disconnected(reason))
    }

    pub(super) fn set_last_error(&mut self, error: &Error) {
        self.last_error = Some(error.clone());
    }

    pub(super) fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    pub(super) fn last_reason(&self) -> Option<CloseReason> {
        self.last_reason
    }

    /// Moves the session to the WebSocket that is ready.
    pub(super) fn take_upgrade(&mut self, epoch: u64) -> Option<Box<WebSocket>> {
        let websocket = self.session_of(epoch)?.take_upgrade()?;
        self.upgraded = true;
        Some(websocket)
    }

    /// Whether a session was ever upgraded.
    pub(super) fn was_upgraded(&self) -> bool {
        self.upgraded
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::engine::TransportKind;

    fn open(connection: &mut Connection) -> u64 {
        let open: Open = serde_json::from_value(serde_json::json!({
            "sid": "s", "upgrades": [], "pingInterval": 1, "pingTimeout": 1
        }))
        .unwrap();
        let now = Instant::now();
        let transport = TransportKind::Polling;
        let begin = Begin { transport, upgrade: false, begun: now, join_by: now };
        connection.open(&open, &begin).0
    }

    #[test]
    fn a_lost_connection_is_made_again() {
        let (mut connection, now) = (Connection::default(), Instant::now());
        assert_eq!(connection.begin_attempt(now), None, "no connection is wanted");
        connection.go_up();
        assert_eq!(connection.begin_attempt(now), Some(None), "the first attempt is no reconnection");
        assert_eq!(connection.begin_attempt(now), None, "one at a time");
        let epoch = open(&mut connection);
        assert_eq!(connection.state(), ConnectionState::Connecting);
        connection.session_mut().unwrap().joined();
        assert_eq!((connection.state(), connection.succeeded()), (ConnectionState::Connected, None));
        assert!(connection.end_session(epoch + 1, CloseReason::TransportClose, None).is_none());
        assert!(connection.end_session(epoch, CloseReason::TransportClose, None).is_some());
        connection.wait_until(now + Duration::from_secs(1));
        assert_eq!(connection.state(), ConnectionState::Reconnecting);
        assert_eq!(connection.begin_attempt(now), None);
        connection.skip_wait(now);
        assert_eq!(connection.begin_attempt(now), Some(Some(1)));
        assert_eq!(open(&mut connection), epoch + 1);
        assert_eq!(connection.succeeded(), Some(1));
    }

    #[test]
    fn an_unwanted_attempt_gets_no_token() {
        let (mut connection, now) = (Connection::default(), Instant::now());
        let token = Arc::new(CancelToken::new().unwrap());
        connection.go_up();
        connection.begin_attempt(now);
        connection.go_down();
        assert!(!connection.set_token(&token) && connection.token().is_none());
        assert_eq!((connection.phase(), connection.state()), (Phase::Idle, ConnectionState::Disconnected));
        assert_eq!(connection.last_reason(), Some(CloseReason::IoClientDisconnect));
    }

    #[test]
    fn a_session_is_unfinished_until_it_is_flushed() {
        let mut connection = Connection::default();
        for flushed in [true, false] {
            let epoch = open(&mut connection);
            assert_eq!(connection.was_finished(epoch), None);
            let session = connection.session_mut().unwrap();
            session.close(CloseReason::IoClientDisconnect, Instant::now());
            if flushed {
                session.flushed();
            }
            assert!(connection.open_session().is_none());
            let (_, reason) = connection.end_session(epoch, CloseReason::TransportClose, None).unwrap();
            assert_eq!(reason, CloseReason::IoClientDisconnect);
            assert_eq!(connection.was_finished(epoch), Some(flushed));
        }
    }

    #[test]
    fn results_before_the_last_start_are_of_no_interest() {
        let mut connection = Connection::default();
        let old = connection.set_result(&Error::Closed);
        connection.go_up();
        let new = connection.set_result(&Error::NotConnected);
        assert!(!connection.is_recent(old) && connection.is_recent(new));
        assert!(matches!(connection.attempt_result(), Error::NotConnected));
        connection.shut_down();
        assert!(connection.check_alive().is_err());
    }
}
