//! Engine.IO endpoints without Socket.IO: handlers and sessions, as the application sees them.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;

use crate::proto::{CloseReason, engine::TransportKind, socket::Encoded};
use crate::server::{
    error::EmitError,
    guard::{self, Callee},
    session::{Content, Handshake, Session},
    transport::outbox::Packets,
};

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
    pub(crate) plain: bool,
}

impl EngineHandlers {
    /// Switches Engine.IO off for WebSockets of this endpoint: messages have no packet types, and there is no open
    /// packet and no heartbeat. Not for applications. The conformance suite for WebSocket (`harness/ws_echo.rs`),
    /// which does not speak Engine.IO, needs it to test the server's reader, codec and outbox.
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
    /// The session's id. It is secret: anybody who has it can send and receive as this client.
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
            Message::Text(text) if self.0.content == Content::Plain => Encoded::text(text),
            Message::Text(text) => Encoded::text(&format!("4{text}")),
            Message::Binary(bytes) => Encoded::binary(bytes),
        };
        self.0.shared.hub.check_size(packet.bytes().len())?;
        self.0.send(Packets::Shared(&packet), false)
    }

    /// Ends the session behind what was sent.
    pub fn close(&self) {
        self.0.end(CloseReason::ForcedServerClose);
    }
}
