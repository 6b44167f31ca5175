//! Engine.IO sessions from their opening on, and the entry for those who want no Socket.IO above them.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;

use crate::proto::{
    CloseReason,
    engine::{Open, TransportKind},
    socket::Encoded,
};
use crate::server::{
    core::{Core, Endpoint},
    dispatch::Inbound,
    error::EmitError,
    guard::{self, Callee},
    limits::refusals::RefusalReason,
    session::{self, Handshake, Session},
    transport::outbox::Packets,
};

/// Seconds after which a place may have become free.
const RETRY_AFTER: u64 = 5;

/// Why no session could be opened.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Too many are there or come at once, or the server is shutting down: 503, and after so many seconds there is a chance.
    Busy { reason: RefusalReason, retry_after: u64 },
    /// No randomness: 500.
    NoId(getrandom::Error),
}

/// Makes a session and gives it a seat; nothing has been sent to it yet.
pub(crate) fn open(core: &Arc<Core>, endpoint: usize, handshake: Handshake) -> Result<Arc<Session>, Refused> {
    let id = session::new_id().map_err(Refused::NoId)?;
    let busy = |reason| Refused::Busy { reason, retry_after: RETRY_AFTER };
    if core.is_ending() {
        return Err(busy(RefusalReason::ShuttingDown));
    }
    let share =
        core.admission.session(handshake.peer()).map_err(|_| busy(RefusalReason::MaxConnectionsPerIp))?;
    core.admission
        .take_turn()
        .map_err(|retry_after| Refused::Busy { reason: RefusalReason::AcceptRate, retry_after })?;
    let slot = core.sessions.take_slot().ok_or(busy(RefusalReason::MaxConnections))?;
    let session = Session::new(core, id, slot, endpoint, handshake, share, Box::new(Inbound::new(core)));
    core.sessions.insert(&session);
    core.hub.session_opened(Arc::<Session>::clone(&session));
    Ok(session)
}

/// The session's open packet is on its way: the layer above may speak.
pub(crate) fn opened(session: &Arc<Session>) {
    let core = Arc::clone(&session.core);
    session.enter().opened(session);
    // A stop that counted the sessions before this one was there must not wait for it.
    if core.is_ending() {
        session.end(CloseReason::ServerShuttingDown);
    }
}

/// What the session's first packet says.
pub(crate) fn open_packet(session: &Arc<Session>) -> Open {
    let config = &session.core.config;
    let upgradable = session.transport() == TransportKind::Polling
        && config.allow_upgrades
        && config.transports.contains(&TransportKind::Websocket);
    Open {
        sid: session.id.clone(),
        upgrades: if upgradable { vec![TransportKind::Websocket.as_str().into()] } else { Vec::new() },
        ping_interval: config.ping_interval.as_millis() as u64,
        ping_timeout: config.ping_timeout.as_millis() as u64,
        // Clients in languages of 32-bit integers read it too; without it there is no limit.
        max_payload: i32::try_from(config.max_http_buffer_size).ok().map(|max| max as u64),
    }
}

/// Whether the session's endpoint is a [`plain_websocket`](EngineHandlers::plain_websocket).
pub(crate) fn is_plain(session: &Session) -> bool {
    matches!(session.core.endpoint(session.endpoint), Endpoint::Engine(handlers) if handlers.plain)
}

/// A message of a bare Engine.IO session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Binary(Bytes),
}

type OpenHandler = Box<dyn Fn(&EngineSession) + Send + Sync>;
type MessageHandler = Box<dyn Fn(&EngineSession, Message<'_>) + Send + Sync>;
type EndHandler = Box<dyn Fn(&EngineSession, CloseReason) + Send + Sync>;

/// The handlers of a bare Engine.IO endpoint, set before the server starts. They are called as those of a
/// [`Namespace`](crate::server::Namespace) are.
#[derive(Default)]
pub struct EngineHandlers {
    open: Option<OpenHandler>,
    message: Option<MessageHandler>,
    close: Option<EndHandler>,
    plain: bool,
}

impl EngineHandlers {
    /// Leaves Engine.IO out: what comes and goes on a WebSocket of this endpoint is the application's, without an open packet
    /// and without packet types. Not for applications, because a session has no heartbeat then: it is how the conformance
    /// suite for WebSocket, which knows no Engine.IO, reaches the very reader, codec and outbox that sessions have
    /// (`examples/ws_echo.rs`).
    #[doc(hidden)]
    pub fn plain_websocket(&mut self) -> &mut Self {
        self.plain = true;
        self
    }

    /// A session has begun.
    pub fn on_open(&mut self, handler: impl Fn(&EngineSession) + Send + Sync + 'static) -> &mut Self {
        self.open = Some(Box::new(handler));
        self
    }

    /// A message has come.
    pub fn on_message(
        &mut self,
        handler: impl Fn(&EngineSession, Message<'_>) + Send + Sync + 'static,
    ) -> &mut Self {
        self.message = Some(Box::new(handler));
        self
    }

    /// The session is over.
    pub fn on_close(
        &mut self,
        handler: impl Fn(&EngineSession, CloseReason) + Send + Sync + 'static,
    ) -> &mut Self {
        self.close = Some(Box::new(handler));
        self
    }

    pub(crate) fn opened(&self, session: &Arc<Session>) {
        self.call(session, "on_open", self.open.as_ref(), |handler, session| handler(session));
    }

    pub(crate) fn message(&self, session: &Arc<Session>, message: Message<'_>) {
        self.call(session, "on_message", self.message.as_ref(), |handler, session| handler(session, message));
    }

    pub(crate) fn closed(&self, session: &Arc<Session>, reason: CloseReason) {
        self.call(session, "on_close", self.close.as_ref(), |handler, session| handler(session, reason));
    }

    fn call<H>(
        &self,
        session: &Arc<Session>,
        doing: &str,
        handler: Option<&H>,
        call: impl FnOnce(&H, &EngineSession),
    ) {
        if let Some(handler) = handler {
            let handle = EngineSession(Arc::clone(session));
            guard::call_for(&**session, Callee::ENGINE, format_args!("{doing}"), || call(handler, &handle));
        }
    }
}

impl fmt::Debug for EngineHandlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineHandlers").finish_non_exhaustive()
    }
}

/// A bare Engine.IO session. Cheap to clone; every method may be called from any thread and any handler.
#[derive(Debug, Clone)]
pub struct EngineSession(Arc<Session>);

impl EngineSession {
    /// The session's id. Secret: who knows it can speak for the session.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// What its first request said.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.0.handshake
    }

    /// The transport it is on now.
    #[must_use]
    pub fn transport(&self) -> TransportKind {
        self.0.transport()
    }

    /// Sends a message, at once unless earlier ones wait.
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn send(&self, message: &Message<'_>) -> Result<(), EmitError> {
        let packet = match message {
            Message::Text(text) if is_plain(&self.0) => Encoded::text(text),
            Message::Text(text) => Encoded::text(&format!("4{text}")),
            Message::Binary(bytes) => Encoded::binary(bytes),
        };
        self.0.core.hub.check_size(packet.bytes().len())?;
        self.0.send(Packets::Shared(&packet), false)
    }

    /// Ends the session behind what was sent.
    pub fn close(&self) {
        self.0.end(CloseReason::ForcedServerClose);
    }
}
