//! The opening of a session.

use std::sync::Arc;

use super::{Dispatch, Handshake, Session, Shared, turn::Gate};
use crate::server::limits::refusals::RefusalReason;
use crate::{
    proto::{
        CloseReason,
        engine::{Open, TransportKind},
    },
    random,
};

/// Seconds after which a place may have become free.
const RETRY_AFTER: u64 = 5;

/// Why no session could be opened.
#[derive(Debug)]
pub(crate) enum Refused {
    /// A limit of sessions or their rate is reached, or the server is shutting down: 503. The client may try again
    /// after this number of seconds.
    Busy { reason: RefusalReason, retry_after: u64 },
    /// No randomness: 500.
    NoId(getrandom::Error),
}

/// What a session's messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Socket.IO packets.
    SocketIo,
    /// The application's, in Engine.IO packets.
    Messages,
    /// The application's, without Engine.IO packets around them.
    Plain,
}

/// Makes a session and gives it a slot. Nothing has been sent to it yet.
pub(crate) fn open(
    shared: &Arc<Shared>,
    endpoint: usize,
    handshake: Handshake,
    content: Content,
    dispatch: impl FnOnce() -> Box<dyn Dispatch>,
) -> Result<Arc<Session>, Refused> {
    let id: Arc<str> = random::id().map_err(Refused::NoId)?;
    let busy = |reason| Refused::Busy { reason, retry_after: RETRY_AFTER };
    if shared.is_ending() {
        return Err(busy(RefusalReason::ShuttingDown));
    }
    let share =
        shared.admission.session(handshake.peer()).map_err(|_| busy(RefusalReason::MaxConnectionsPerIp))?;
    shared
        .admission
        .take_turn()
        .map_err(|retry_after| Refused::Busy { reason: RefusalReason::AcceptRate, retry_after })?;
    let slot = shared.sessions.take_slot().ok_or(busy(RefusalReason::MaxConnections))?;
    let session = Session::new(shared, id, slot, endpoint, handshake, content, Gate::new(dispatch(), share));
    shared.sessions.insert(&session);
    shared.hub.open_session(Arc::<Session>::clone(&session));
    Ok(session)
}

/// The session's open packet has been sent: the handlers of an Engine.IO endpoint may send.
pub(crate) fn opened(session: &Arc<Session>) {
    if session.content != Content::SocketIo {
        session.enter().opened(session);
    }
    // A stop that counted the sessions before this one existed must not wait for it.
    if session.shared.is_ending() {
        session.end(CloseReason::ServerShuttingDown);
    }
}

/// What the session's first packet says.
pub(crate) fn open_packet(session: &Arc<Session>) -> Open {
    let config = &session.shared.config;
    let upgradable = session.transport() == TransportKind::Polling
        && config.allow_upgrades
        && config.transports.contains(&TransportKind::Websocket);
    Open {
        sid: session.id.to_string(),
        upgrades: if upgradable { vec![TransportKind::Websocket.as_str().into()] } else { Vec::new() },
        ping_interval: config.ping_interval.as_millis() as u64,
        ping_timeout: config.ping_timeout.as_millis() as u64,
        // Clients in languages of 32-bit integers read it too; without it there is no limit.
        max_payload: i32::try_from(config.max_http_buffer_size).ok().map(|max| max as u64),
    }
}
