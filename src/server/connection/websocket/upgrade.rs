//! The upgrade of a polling session to WebSocket: probe, answer, take over.
//!
//! A failed upgrade leaves the session as it was.

use std::{io::Write, sync::Arc};

use tungstenite::Message;

use super::{Reading, WebSocket};
use crate::server::{guard, http::Connection, lead, session::Session};
use crate::{
    proto::{
        engine::{Data, Packet, ProbeStep, TransportKind, UpgradeProbe},
        socket::Encoded,
    },
    sys::{
        sync::atomic::Ordering::{AcqRel, Release},
        time::Instant,
    },
};

/// Pings and pongs that a WebSocket may send during an upgrade.
const PROBE_SIGNS_MAX: usize = 16;

/// A WebSocket that is about to take over a polling session (EIO "Upgrade").
#[derive(Debug)]
pub(crate) struct Upgrade {
    socket: Box<WebSocket>,
    probe: UpgradeProbe,
    /// Pings and pongs that it has sent.
    signs: usize,
    pub(crate) deadline: Instant,
    _mark: UpgradeMark,
}

/// Marks the session as upgrading, until it is dropped.
#[derive(Debug)]
struct UpgradeMark(Arc<Session>);

impl UpgradeMark {
    /// `None`: another WebSocket is upgrading the session.
    fn new(session: &Arc<Session>) -> Option<Self> {
        (!session.upgrading.swap(true, AcqRel)).then(|| Self(Arc::clone(session)))
    }
}

impl Drop for UpgradeMark {
    fn drop(&mut self) {
        self.0.outbox.set_upgrading(false);
        self.0.noops.store(0, Release);
        self.0.upgrading.store(false, Release);
    }
}

/// What follows a step of an upgrade.
pub(crate) enum Step {
    /// The next packet of the client has not come yet.
    Wait(Box<Upgrade>),
    /// The session is on the WebSocket now.
    Done(Box<WebSocket>),
    /// The upgrade has failed, and the WebSocket is closed. The session stays on polling.
    Failed,
}

/// Begins to move a polling session to a WebSocket. `None`: the upgrade has failed already, and the WebSocket is
/// closed.
pub(crate) fn upgrade(
    connection: &mut Connection,
    response: &[u8],
    session: Arc<Session>,
) -> Option<Upgrade> {
    // Set before the response is sent: a client that has the response may send a GET at once.
    let mark = UpgradeMark::new(&session);
    let deadline = Instant::now() + session.shared.config.upgrade_timeout;
    connection.stream.send_all(response, session.shared.config.head_timeout).ok()?;
    let mut socket = Box::new(WebSocket::new(connection, &session));
    connection.permit.set_waiting(true);
    let may_upgrade = !session.shared.is_closed() && session.transport() == TransportKind::Polling;
    match mark {
        Some(mark) if may_upgrade => {
            Some(Upgrade { socket, probe: UpgradeProbe::default(), signs: 0, deadline, _mark: mark })
        }
        _ => {
            connection.permit.set_waiting(false);
            socket.close_unused();
            None
        }
    }
}

impl Upgrade {
    /// Reads what the client has sent, without waiting.
    pub(crate) fn step(mut self: Box<Self>, connection: &Connection) -> Step {
        let upgraded = match self.probe() {
            None if Instant::now() < self.deadline => return Step::Wait(self),
            None => false,
            Some(upgraded) => upgraded,
        };
        connection.permit.set_waiting(false);
        let mut socket = self.socket;
        if upgraded {
            return Step::Done(socket);
        }
        socket.close_unused();
        Step::Failed
    }

    /// `true`: the session is on this WebSocket now. `false`: the upgrade has failed. `None`: the client's next
    /// packet has not come.
    fn probe(&mut self) -> Option<bool> {
        loop {
            let message = match self.socket.read_now(Reading::Now)? {
                Ok(Message::Ping(_) | Message::Pong(_)) if self.signs < PROBE_SIGNS_MAX => {
                    self.signs += 1;
                    continue;
                }
                Ok(message) => message,
                Err(_) => return Some(false),
            };
            let packet = match &message {
                Message::Text(text) => Packet::decode(text.as_str()),
                Message::Binary(bytes) => Ok(Packet::Message(Data::Binary(bytes.clone()))),
                _ => return Some(false),
            };
            match packet.and_then(|packet| self.probe.step(&packet)) {
                Ok(ProbeStep::AnswerProbe) => {
                    let answer = Encoded::text("3probe");
                    if self.socket.io.write_all(answer.bytes()).is_err() {
                        return Some(false);
                    }
                    self.socket.io.session.outbox.set_upgrading(true);
                }
                Ok(ProbeStep::TakeOver) => return Some(self.socket.take_over()),
                Err(error) => {
                    guard::info!("session {}: upgrade: {error}", self.socket.io.session.name());
                    return Some(false);
                }
            }
        }
    }
}

impl WebSocket {
    fn take_over(&mut self) -> bool {
        let session = &self.io.session;
        lead::begin_work();
        // Waits for a POST that is being handled: its packets are older.
        let turn = session.enter();
        // Before `attach`: a request that comes now must not find a polling session, and `attach` wakes the held GET,
        // which reads this too.
        session.set_websocket();
        let Some(attached) = session.outbox.attach(&self.io.stream) else { return false };
        self.io.bound = true;
        // A failure has ended the session already.
        let _ = session.complete_push(attached);
        drop(turn);
        true
    }

    /// Closes a WebSocket that has no session. The peer gets a moment to read the close.
    fn close_unused(&mut self) {
        // The peer may be gone already.
        let _ = self.codec.close(&mut self.io, None);
    }
}
