//! Refused connections and handshakes: counted by reason, and logged at a limited rate.
//!
//! It owns the counters and the times of the last log lines. It decides nothing.

use std::{array, fmt, time::Duration};

use crate::server::{guard, peer::Peer};
use crate::sys::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// A reason is logged at most once in this time. The line has the number of refusals that were not logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Why a connection or a handshake was refused. The names are those of the options where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The server has [`max_connections`](crate::server::Config::max_connections) sessions: 503.
    MaxConnections,
    /// The server has [`max_tcp_connections`](crate::server::Config::max_tcp_connections) connections: 503.
    MaxTcpConnections,
    /// The address has [`max_connections_per_ip`](crate::server::Config::max_connections_per_ip) sessions, or the TCP
    /// connections that go with them: 503.
    MaxConnectionsPerIp,
    /// Sessions are opened faster than [`accept_rate`](crate::server::Config::accept_rate): 503.
    AcceptRate,
    /// [`allow_request`](crate::server::Config::allow_request) has refused it: 403, or 400 on WebSocket.
    AllowRequest,
    /// [`cors`](crate::server::Config::cors) does not allow the origin of the page: 403, or 400 on WebSocket.
    Cors,
    /// The request breaks a rule of HTTP or of the Engine.IO handshake: 400 or another 4xx.
    BadRequest,
    /// The request names a session that does not exist, or does not exist any more: 400. Clients do so after a restart
    /// of the server.
    UnknownSession,
    /// The server is shutting down: 503.
    ShuttingDown,
    /// The system has no thread or no descriptor (503), or no randomness (500).
    System,
}

impl RefusalReason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::MaxConnections,
        Self::MaxTcpConnections,
        Self::MaxConnectionsPerIp,
        Self::AcceptRate,
        Self::AllowRequest,
        Self::Cors,
        Self::BadRequest,
        Self::UnknownSession,
        Self::ShuttingDown,
        Self::System,
    ];

    /// The reason's name, as a label for metrics: `max_connections`, `bad_request`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxConnections => "max_connections",
            Self::MaxTcpConnections => "max_tcp_connections",
            Self::MaxConnectionsPerIp => "max_connections_per_ip",
            Self::AcceptRate => "accept_rate",
            Self::AllowRequest => "allow_request",
            Self::Cors => "cors",
            Self::BadRequest => "bad_request",
            Self::UnknownSession => "unknown_session",
            Self::ShuttingDown => "shutting_down",
            Self::System => "system",
        }
    }

    /// The message of a response with status 503.
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::MaxConnections => "Server is full",
            Self::MaxConnectionsPerIp => "Too many sessions of this address",
            Self::AcceptRate => "Too many sessions at once",
            Self::ShuttingDown => "Server is shutting down",
            _ => "Service unavailable",
        }
    }

    /// A reason that the operator can do something about is a warning. One that the client has caused is not.
    const fn level(self) -> log::Level {
        match self {
            Self::AllowRequest
            | Self::Cors
            | Self::BadRequest
            | Self::UnknownSession
            | Self::ShuttingDown => log::Level::Info,
            _ => log::Level::Warn,
        }
    }
}

/// How many connections and handshakes a server has refused since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RefusalCounts([u64; RefusalReason::ALL.len()]);

impl RefusalCounts {
    /// The number of refusals for this reason.
    #[must_use]
    pub const fn of(&self, reason: RefusalReason) -> u64 {
        self.0[reason as usize]
    }

    /// The number of all refusals.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// The counters, and the state of the log for each.
#[derive(Debug)]
pub(crate) struct Refusals([Refused; RefusalReason::ALL.len()]);

#[derive(Debug, Default)]
struct Refused {
    count: AtomicU64,
    log: Mutex<Log>,
}

/// When the reason was logged last, and the counter at that time.
#[derive(Debug, Default)]
struct Log {
    last: Option<Instant>,
    logged: u64,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        Self(array::from_fn(|_| Refused::default()))
    }

    /// Counts a refusal. Logs it unless the reason was logged within [`LOG_INTERVAL`].
    pub(crate) fn add(&self, reason: RefusalReason, peer: Peer, why: &dyn fmt::Display) {
        let refused = &self.0[reason as usize];
        let count = refused.count.fetch_add(1, Relaxed) + 1;
        let Some(more) = refused.log.lock().more(count, Instant::now()) else { return };
        let name = reason.as_str();
        if more == 0 {
            guard::log!(reason.level(), "refused {peer}: {why} ({name})");
        } else {
            guard::log!(
                reason.level(),
                "refused {peer}: {why} ({name}; {more} more since the last such line)"
            );
        }
    }

    pub(crate) fn counts(&self) -> RefusalCounts {
        RefusalCounts(array::from_fn(|index| self.0[index].count.load(Relaxed)))
    }
}

impl Log {
    /// The number of refusals that were not logged, beside this one. `None`: this one is not logged either.
    fn more(&mut self, count: u64, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < LOG_INTERVAL) {
            return None;
        }
        self.last = Some(now);
        // Two threads may come here in another order than that of their counts.
        let more = count.saturating_sub(self.logged + 1);
        self.logged = self.logged.max(count);
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_place() {
        for (index, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.as_str());
        }
    }

    #[test]
    fn a_reason_is_logged_once_in_a_while_with_the_number_of_those_that_were_not() {
        let (mut log, begin) = (Log::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(log.more(1, at(0)), Some(0));
        assert_eq!(log.more(2, at(1)), None);
        assert_eq!(log.more(3, at(9)), None);
        assert_eq!(log.more(4, at(10)), Some(2));
        assert_eq!(log.more(5, at(19)), None);
        assert_eq!(log.more(6, at(40)), Some(1));
    }

    #[test]
    fn reasons_are_counted_apart() {
        let refusals = Refusals::new();
        for reason in [RefusalReason::Cors, RefusalReason::Cors, RefusalReason::AcceptRate] {
            refusals.add(reason, Peer::Unix, &"a test");
        }
        let counts = refusals.counts();
        let of = |reason| counts.of(reason);
        assert_eq!([of(RefusalReason::Cors), of(RefusalReason::AcceptRate), counts.total()], [2, 1, 3]);
    }
}
