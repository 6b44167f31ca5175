//! Why a session, or a socket in it, came to its end.

use std::fmt;

/// The reason of an ending: one vocabulary for logs, handlers and the wire.
///
/// The texts of [`as_str`](Self::as_str) are the official ones; the last four are ours, for endings that the official server
/// does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The transport failed: reset, broken frame, a polling rule violated.
    TransportError,
    /// The peer closed the transport.
    TransportClose,
    /// The session was closed from this side below Socket.IO: nobody connected to a namespace in time.
    ForcedClose,
    /// No pong (server) or no ping (client) within the deadline.
    PingTimeout,
    /// A packet that breaks the protocol.
    ParseError,
    /// The server is shutting down.
    ServerShuttingDown,
    /// The server closed the whole connection: `socket.disconnect(close: true)`.
    ForcedServerClose,
    /// The client left this namespace.
    ClientNamespaceDisconnect,
    /// The server removed the socket from this namespace.
    ServerNamespaceDisconnect,
    /// Client side: the server disconnected the socket. The official client does not reconnect after it.
    IoServerDisconnect,
    /// Client side: `disconnect` was called.
    IoClientDisconnect,
    /// The peer does not read: its outbox passed its bound. Ours.
    SlowConsumer,
    /// The peer sent more than the configured size in one message. Ours; the official server says
    /// "transport error".
    MessageTooBig,
    /// What all clients send at the moment is too much, and this one wanted room for more. Ours.
    Overloaded,
    /// The peer broke its rate limit again and again. Ours.
    RateLimited,
}

impl CloseReason {
    /// The text that the official implementations use, or ours where they have none.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TransportError => "transport error",
            Self::TransportClose => "transport close",
            Self::ForcedClose => "forced close",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ServerShuttingDown => "server shutting down",
            Self::ForcedServerClose => "forced server close",
            Self::ClientNamespaceDisconnect => "client namespace disconnect",
            Self::ServerNamespaceDisconnect => "server namespace disconnect",
            Self::IoServerDisconnect => "io server disconnect",
            Self::IoClientDisconnect => "io client disconnect",
            Self::SlowConsumer => "slow consumer",
            Self::MessageTooBig => "message too big",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate limited",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
