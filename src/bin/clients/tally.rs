//! What a session has counted.

use std::collections::BTreeSet;

use super::figures::Times;

/// Counters of a session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// `message_received` events.
    pub(crate) confirmed: u64,
    /// Sent and acknowledged.
    pub(crate) acknowledged: u64,
    /// Sent, but the connection ended before the acknowledgement.
    pub(crate) unconfirmed: u64,
    /// `error` events of the server.
    pub(crate) refused: u64,
    pub(crate) errors: u64,
    pub(crate) last_error: Option<String>,
    /// Each error text once.
    pub(crate) distinct_errors: BTreeSet<String>,
    /// Time from each emit to its acknowledgement.
    pub(crate) round_trips: Times,
}

impl Tally {
    pub(super) fn note(&mut self, error: String) {
        self.errors += 1;
        self.distinct_errors.insert(error.clone());
        self.last_error = Some(error);
    }
}
