//! The deadlines that the hub looks after, the next one first.

use std::sync::Weak;

use crate::server::hub::{membership::Membership, session::HubSession};
use crate::sys::time::Instant;

/// Fewer deadlines are not worth a sweep.
pub(super) const SWEEP_MIN: usize = 1_024;

/// The deadlines that have no connection's thread.
pub(super) enum Deadline {
    /// A ping is due, or a pong.
    Heartbeat(u32, Weak<dyn HubSession>),
    /// A namespace should have been joined by now.
    Connect(Weak<dyn HubSession>),
    /// The ending should be over by now.
    Cut(Weak<dyn HubSession>),
    Ack(Weak<Membership>),
    /// Recovery may forget something, or its journal is due.
    Recovery,
}

impl Deadline {
    pub(super) fn is_alive(&self) -> bool {
        match self {
            Self::Heartbeat(_, session) | Self::Connect(session) | Self::Cut(session) => {
                session.strong_count() > 0
            }
            Self::Ack(socket) => socket.strong_count() > 0,
            Self::Recovery => true,
        }
    }
}

/// When, and which of those at the same time; the payload does not take part in the order.
pub(super) type Alarm = (Instant, u64, Deadline);

pub(super) struct Due(pub(super) Alarm);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.0, self.0.1).cmp(&(other.0.0, other.0.1))
    }
}
