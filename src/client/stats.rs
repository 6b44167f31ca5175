//! The state and the counters of a client, for the user.

use std::time::Duration;

use super::Error;
use crate::proto::{CloseReason, engine::TransportKind};

/// The state of the connection.
///
/// ```text
///                start, connect                   a namespace is joined
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
    /// An attempt is under way, or its session waits for the first namespace.
    Connecting,
    /// The session is open, and a namespace was joined in it. Whether a certain namespace is joined now is
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
    /// The transport of the open session.
    pub transport: Option<TransportKind>,
    /// Reconnection attempts since the last success, with the one that is under way. The first attempt after
    /// [`Handle::start`](super::Handle::start) or [`Handle::connect`](super::Handle::connect) is not counted.
    pub attempts: u32,
    /// Time until the next attempt, while one is waited for.
    pub next_attempt_in: Option<Duration>,
    /// Packets in the offline buffer and in the queues of [`Builder::retries`](super::Builder::retries).
    pub buffered: usize,
    /// Their bytes.
    pub buffered_bytes: usize,
    /// Bytes that were emitted in the open session and wait to be written.
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
    /// Connections in which a namespace was joined.
    pub connects: u64,
    /// Of these, all but the first one.
    pub reconnects: u64,
    /// Attempts that have begun, whatever their result.
    pub attempts: u64,
    /// Connections that ended, for any reason, of those in `connects`.
    pub disconnects: u64,
    /// Events and acknowledgements handed to the transport.
    pub sent: u64,
    /// Events and acknowledgements received.
    pub received: u64,
    /// Events that were given up after an emit that did not fail: volatile ones without a connection or room; buffered
    /// ones that expired, are larger than the server's `maxPayload`, or have no room in the offline buffer when the
    /// connection is lost; and those whose [retries](super::Builder::retries) are used up.
    pub dropped: u64,
    /// Failed attempts, refusals, broken connections, answers to CONNECT without an id, and auth functions and handlers
    /// that failed or panicked.
    pub errors: u64,
    /// Time from the last acknowledged emit to its acknowledgement. A ping cannot measure the round trip, because the
    /// server sends the pings.
    pub ack_rtt: Option<Duration>,
    /// How long the last successful attempt took, from its beginning to the first joined namespace.
    pub connect_time: Option<Duration>,
}
