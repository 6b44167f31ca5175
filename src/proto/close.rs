//! Why a session, or a socket in it, ended.

use std::fmt;

/// The reason why a session or socket ended, for logs, handlers and the wire.
///
/// The texts of [`as_str`](Self::as_str) are the official ones. The last four are ours, for ends that the
/// official server does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The transport failed: reset, broken frame, a polling rule violated.
    TransportError,
    /// The peer closed the transport.
    TransportClose,
    /// The session was closed on this side before Socket.IO: no namespace was joined in time.
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
    /// The peer does not read: its outbox exceeded its limit. Ours.
    SlowConsumer,
    /// One message was larger than the configured size. Ours; the official server says "transport error".
    MessageTooBig,
    /// The memory for receiving from all clients is used up, and this client needed more. Ours.
    Overloaded,
    /// The peer exceeded its rate limit too often. Ours.
    RateLimited,
}

impl CloseReason {
    /// The official text, or ours where there is none.
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
