//! The options of connection state recovery, and the reasons after which a client may be recovered.
//!
//! It may use the protocol only.

use std::time::Duration;

use crate::proto::CloseReason;

/// The options of connection state recovery: the official `connectionStateRecovery`.
///
/// Each event without an acknowledgement then carries its offset as one more last argument, which handlers of the
/// official clients see. A client that says `"recovery": false` in its auth payload gets its events as without
/// recovery, and is not recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStateRecovery {
    /// Official `maxDisconnectionDuration`: how long a client may be away. Default 2 min.
    pub max_disconnection_duration: Duration,
    /// Official `skipMiddlewares`: whether a client that is recovered passes the middlewares unasked. Default true.
    pub skip_middlewares: bool,
    /// Packets that are kept for all clients together. Default 50,000. A client that has missed an older one is not
    /// recovered.
    pub max_packets: usize,
    /// Bytes of memory of the kept packets, with about 400 more for each packet. The records of disconnected clients
    /// may take as many bytes again, and so may the answers to clients with `retries`. Default 8 MiB. A client that
    /// has missed a removed packet is not recovered. Beyond the limit, the oldest record of the address with the
    /// most records is removed, and the least recently used answer.
    pub max_bytes: usize,
}

impl Default for ConnectionStateRecovery {
    fn default() -> Self {
        Self {
            max_disconnection_duration: Duration::from_secs(120),
            skip_middlewares: true,
            max_packets: 50_000,
            max_bytes: 8 << 20,
        }
    }
}

impl ConnectionStateRecovery {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`max_disconnection_duration`](Self::max_disconnection_duration).
    #[must_use]
    pub fn max_disconnection_duration(mut self, duration: Duration) -> Self {
        self.max_disconnection_duration = duration;
        self
    }

    /// Sets [`skip_middlewares`](Self::skip_middlewares).
    #[must_use]
    pub fn skip_middlewares(mut self, skip: bool) -> Self {
        self.skip_middlewares = skip;
        self
    }

    /// Sets [`max_packets`](Self::max_packets).
    #[must_use]
    pub fn max_packets(mut self, packets: usize) -> Self {
        self.max_packets = packets;
        self
    }

    /// Sets [`max_bytes`](Self::max_bytes).
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }
}

/// The reasons after which a client may be recovered: the official list, and those of ours by which the server drops
/// a connection without having been asked to.
pub(crate) fn is_recoverable(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::TransportError
            | CloseReason::TransportClose
            | CloseReason::ForcedClose
            | CloseReason::PingTimeout
            // The official server calls both "forced close" or "transport error".
            | CloseReason::ParseError
            | CloseReason::MessageTooBig
            | CloseReason::ServerShuttingDown
            | CloseReason::ForcedServerClose
            | CloseReason::SlowConsumer
            | CloseReason::Overloaded
    )
}
