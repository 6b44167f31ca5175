//! The upgrade of a polling session to WebSocket: probe, answer, take over.
//!
//! A failed upgrade leaves the session as it was.

use std::{io::Write, sync::Arc};

use tungstenite::Message;

use super::{Reading, WebSocket};
use crate::server::{http::Connection, session::Session};
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

/// Moves a polling session to a WebSocket (EIO "Upgrade"). `None`: the upgrade has failed and the WebSocket is closed.
/// The session stays on polling.
pub(crate) fn upgrade(
    connection: &mut Connection,
    response: &[u8],
    session: &Arc<Session>,
) -> Option<WebSocket> {
    // Set before the response is sent: a client that has the response may send a GET at once.
    let alone = !session.upgrading.swap(true, AcqRel);
    let upgraded = try_upgrade(connection, response, session, alone);
    if alone {
        session.outbox.begin_upgrade(false);
        session.noops.store(0, Release);
        session.upgrading.store(false, Release);
    }
    upgraded
}

/// `alone`: no other WebSocket is upgrading the session.
fn try_upgrade(
    connection: &mut Connection,
    response: &[u8],
    session: &Arc<Session>,
    alone: bool,
) -> Option<WebSocket> {
    let deadline = Instant::now() + session.core.config.upgrade_timeout;
    connection.stream.send_all(response, session.core.config.head_timeout).ok()?;
    let mut socket = WebSocket::new(connection, session);
    connection.permit.set_waiting(true);
    let upgraded = alone
        && !session.core.is_closed()
        && session.transport() == TransportKind::Polling
        && socket.probe(deadline);
    connection.permit.set_waiting(false);
    if upgraded {
        return Some(socket);
    }
    socket.close_unused();
    None
}

impl WebSocket {
    /// Reads the steps of the upgrade until `deadline`. `true`: the session is on this WebSocket now.
    fn probe(&mut self, deadline: Instant) -> bool {
        let mut probe = UpgradeProbe::default();
        let mut signs = 0..PROBE_SIGNS_MAX;
        loop {
            let message = match self.read(Reading::Until(deadline)) {
                Ok(Message::Ping(_) | Message::Pong(_)) if signs.next().is_some() => continue,
                Ok(message) => message,
                Err(_) => return false,
            };
            let packet = match &message {
                Message::Text(text) => Packet::decode(text.as_str()),
                Message::Binary(bytes) => Ok(Packet::Message(Data::Binary(bytes.clone()))),
                _ => return false,
            };
            match packet.and_then(|packet| probe.step(&packet)) {
                Ok(ProbeStep::AnswerProbe) => {
                    let answer = Encoded::text("3probe");
                    if self.io.write_all(answer.bytes()).is_err() {
                        return false;
                    }
                    self.io.session.outbox.begin_upgrade(true);
                }
                Ok(ProbeStep::TakeOver) => return self.take_over(),
                Err(error) => {
                    log::info!("session {}: upgrade: {error}", self.io.session.name());
                    return false;
                }
            }
        }
    }

    fn take_over(&mut self) -> bool {
        let session = &self.io.session;
        // Waits for a POST that is being handled: its packets are older.
        let turn = session.enter();
        // Before `attach`: a request that comes now must not find a polling session, and `attach` wakes the held GET,
        // which reads this too.
        session.set_websocket();
        let Some(attached) = session.outbox.attach(&self.io.stream) else { return false };
        self.io.bound = true;
        // A failure has ended the session already.
        let _ = session.settle(attached);
        drop(turn);
        true
    }

    /// Closes a WebSocket that has no session. The thread of the connection waits a moment for the peer to read the
    /// close.
    fn close_unused(&mut self) {
        // The peer may be gone already.
        let _ = self.codec.close(&mut self.io, None);
    }
}
