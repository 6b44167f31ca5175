//! The state and the counters of a client, for the user.

use std::time::Duration;

use super::Error;
use crate::proto::{CloseReason, engine::TransportKind};

/// The state of the connection.
///
/// ```text
///                start, connect                   all namespaces' transport open
///  Disconnected ────────────────► Connecting ─────────────────────────► Connected
///     ▲    ▲                       │      ▲                                │
///     │    └──── attempts used up ─┤      │ delay over, reconnect_now      │ lost
///     │                            ▼      │                                │
///     │                           Reconnecting ◄───────────────────────────┤
///     └── disconnect(), or the server disconnected the last namespace ─────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionState {
    /// No connection, and none is being made.
    Disconnected,
    /// An attempt is under way.
    Connecting,
    /// The Engine.IO session is open. Whether a namespace is joined is
    /// [`Socket::is_connected`](super::Socket::is_connected).
    Connected,
    /// Waiting for the next attempt.
    Reconnecting,
}

/// A client's state at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The state of the connection.
    pub state: ConnectionState,
    /// The transport in use, while connected.
    pub transport: Option<TransportKind>,
    /// Failed attempts since the last success; the number of the attempt that is under way or waited for is one more.
    pub attempts: u32,
    /// Time until the next attempt, while one is waited for.
    pub next_attempt_in: Option<Duration>,
    /// Packets in the offline buffer.
    pub buffered: usize,
    /// Their bytes.
    pub buffered_bytes: usize,
    /// Bytes emitted that wait to be written.
    pub queued_bytes: usize,
    /// Why the last connection ended, if one did.
    pub last_reason: Option<CloseReason>,
    /// The last error of the connection, kept until the client is dropped.
    pub last_error: Option<Error>,
}

/// The counters of a client since it was built. They are never reset.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Connections made, first ones and later ones.
    pub connects: u64,
    /// Of these, the ones made after a loss.
    pub reconnects: u64,
    /// Attempts, failed and successful.
    pub attempts: u64,
    /// Connections that ended, for any reason.
    pub disconnects: u64,
    /// Events and acknowledgements handed to the transport.
    pub sent: u64,
    /// Events and acknowledgements received.
    pub received: u64,
    /// Volatile events that were dropped, and buffered events that expired.
    pub dropped: u64,
    /// Failed attempts, refusals, broken connections, handlers that failed or panicked.
    pub errors: u64,
    /// Time from the last acknowledged emit to its acknowledgement. A ping cannot measure the round trip, because the
    /// server sends the pings.
    pub ack_rtt: Option<Duration>,
    /// How long the last successful attempt took, from its beginning to the first joined namespace.
    pub connect_time: Option<Duration>,
}
