//! The namespaces of one client, and whether each is joined.
//!
//! ```text
//!            wanted            auth's payload         CONNECT answered
//!   Out ─────────────► Joining ──────────────► Asked ──────────────────► Joined
//!    ▲ ▲ ▲                │ auth panicked,       │ │ refused               │ DISCONNECT, ours or theirs;
//!    │ │ └────────────────┘ or is of no use      │ │                       │ CONNECT_ERROR; the session's end
//!    │ └─────────────────────────────────────────┼─┴───────────────────────┘
//!    └────────── answered, then DISCONNECT ── Leaving (left by us before the answer)
//! ```
//!
//! Owns the list of namespaces, their membership, their recovery and their retry queues. Uses those two and
//! [`Error`]. It must not lock, log, or know the session: `membership` does what a transition means for it.

use std::{
    ops::{Index, IndexMut, Range},
    sync::Arc,
    time::Instant,
};

use super::{
    Error,
    event_queue::Incoming,
    namespace::Namespace,
    recovery::{ConnectAnswer, Recovery},
    retry_queue::RetryQueue,
};

/// All namespaces that were ever asked for. Each has an index, which never changes.
#[derive(Default)]
pub(super) struct Namespaces(Vec<NamespaceState>);

/// One namespace: what changes.
pub(super) struct NamespaceState {
    pub(super) recovery: Recovery<Incoming>,
    pub(super) retries: RetryQueue,
    namespace: Arc<Namespace>,
    /// Whether it is to be joined in every session. Not after it was left, refused, or removed by the server.
    active: bool,
    membership: Membership,
    /// Why it was refused, until it is asked for again; and the number of that result.
    refusal: Option<(u64, Error)>,
    /// It is not to be joined before then, because its auth function has panicked.
    join_after: Option<Instant>,
    /// The session in which it was left. Another CONNECT in that session waits until the server has handled DISCONNECT.
    left_in: u64,
}

/// Whether a namespace is joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Membership {
    Out,
    /// The auth function is called.
    Joining,
    /// CONNECT is sent.
    Asked,
    /// It was left after CONNECT was sent. DISCONNECT follows the server's answer.
    Leaving,
    /// Joined, with this id.
    Joined(String),
}

impl Namespaces {
    /// Finds a namespace, or adds it. `true`: it is new.
    pub(super) fn find_or_add(&mut self, name: &str) -> (Arc<Namespace>, bool) {
        let slash = if name.starts_with('/') { "" } else { "/" };
        let name = format!("{slash}{name}");
        if let Some(known) = self.find(&name) {
            return (known.namespace.clone(), false);
        }
        let namespace = Arc::new(Namespace::new(self.0.len(), name));
        self.0.push(NamespaceState::new(namespace.clone()));
        (namespace, true)
    }

    /// The namespace of this name, if the client has it.
    pub(super) fn find(&self, name: &str) -> Option<&NamespaceState> {
        self.0.iter().find(|state| *state.namespace.name == *name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn indices(&self) -> Range<usize> {
        0..self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &NamespaceState> {
        self.0.iter()
    }

    /// Whether no namespace is to be joined.
    pub(super) fn none_active(&self) -> bool {
        self.0.iter().all(|state| !state.active)
    }

    /// Makes all namespaces active.
    pub(super) fn activate_all(&mut self) {
        self.0.iter_mut().for_each(NamespaceState::activate);
    }

    /// The error of a namespace that can never be joined.
    pub(super) fn invalid(&self) -> Option<Error> {
        self.0.iter().find_map(|state| state.namespace.invalid.clone())
    }

    /// The namespaces that are to be joined now. From here on they are being joined.
    pub(super) fn begin_joins(&mut self, now: Instant) -> Vec<Arc<Namespace>> {
        let is_due = |state: &&mut NamespaceState| {
            state.is_to_join() && state.join_after.is_none_or(|after| after <= now)
        };
        let begin = |state: &mut NamespaceState| {
            state.membership = Membership::Joining;
            state.namespace.clone()
        };
        self.0.iter_mut().filter(is_due).map(begin).collect()
    }

    /// When the next delayed namespace is to be joined.
    pub(super) fn next_join(&self) -> Option<Instant> {
        self.0.iter().filter(|state| state.is_to_join()).filter_map(|state| state.join_after).min()
    }

    /// The packets and bytes in all retry queues.
    pub(super) fn retried(&self) -> (usize, usize) {
        let sizes = self.0.iter().map(|state| (state.retries.len(), state.retries.bytes()));
        sizes.fold((0, 0), |(packets, bytes), (more, their)| (packets + more, bytes + their))
    }

    /// When the next try of a retry queue fails.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.0.iter().filter_map(|state| state.retries.deadline()).min()
    }
}

impl Index<usize> for Namespaces {
    type Output = NamespaceState;
    fn index(&self, index: usize) -> &NamespaceState {
        &self.0[index]
    }
}

impl IndexMut<usize> for Namespaces {
    fn index_mut(&mut self, index: usize) -> &mut NamespaceState {
        &mut self.0[index]
    }
}

impl NamespaceState {
    fn new(namespace: Arc<Namespace>) -> Self {
        Self {
            recovery: Recovery::default(),
            retries: RetryQueue::default(),
            active: namespace.invalid.is_none(),
            namespace,
            membership: Membership::Out,
            refusal: None,
            join_after: None,
            left_in: 0,
        }
    }

    pub(super) fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self.membership, Membership::Joined(_))
    }

    /// The id that the server gave, while joined.
    pub(super) fn id(&self) -> Option<&str> {
        if let Membership::Joined(id) = &self.membership { Some(id) } else { None }
    }

    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    fn is_to_join(&self) -> bool {
        self.active && self.membership == Membership::Out
    }

    /// Why it was refused, and the number of that result.
    pub(super) fn refusal(&self) -> Option<&(u64, Error)> {
        self.refusal.as_ref()
    }

    /// It is to be joined, whatever happened before.
    pub(super) fn activate(&mut self) {
        (self.active, self.refusal, self.join_after) = (true, None, None);
    }

    /// It is not to be joined again.
    pub(super) fn deactivate(&mut self) {
        self.active = false;
    }

    /// CONNECT is sent. `true`: it was left in this session, so the server must handle that first.
    pub(super) fn asked(&mut self, epoch: u64) -> bool {
        self.membership = Membership::Asked;
        self.left_in == epoch
    }

    /// The auth function has panicked. It is called again after that time.
    pub(super) fn join_later(&mut self, after: Instant) {
        self.membership = Membership::Out;
        self.join_after = Some(after);
    }

    /// The server has answered CONNECT. Gives the events that came before the answer.
    pub(super) fn joined(&mut self, answer: ConnectAnswer) -> Vec<Incoming> {
        let early = self.recovery.connected(&answer);
        self.membership = Membership::Joined(answer.sid);
        early
    }

    /// It is refused for good.
    pub(super) fn refused(&mut self, result: u64, error: Error) {
        self.active = false;
        self.refusal = Some((result, error));
    }

    /// It is left. `true`: it was joined.
    pub(super) fn leave(&mut self) -> bool {
        self.recovery.forget_early();
        self.join_after = None;
        let before = std::mem::replace(&mut self.membership, Membership::Out);
        matches!(before, Membership::Joined(_))
    }

    /// It was left before the server has answered CONNECT.
    pub(super) fn set_leaving(&mut self) {
        self.membership = Membership::Leaving;
    }

    /// DISCONNECT is sent in this session.
    pub(super) fn disconnect_sent(&mut self, epoch: u64) {
        self.left_in = epoch;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(sid: &str) -> ConnectAnswer {
        serde_json::from_value(serde_json::json!({ "sid": sid })).unwrap()
    }

    fn joins(namespaces: &mut Namespaces, now: Instant) -> Vec<usize> {
        namespaces.begin_joins(now).iter().map(|namespace| namespace.index).collect()
    }

    #[test]
    fn each_name_is_added_once() {
        let mut namespaces = Namespaces::default();
        assert!(namespaces.is_empty());
        let (chat, new) = namespaces.find_or_add("chat");
        assert_eq!((&*chat.name, chat.index, new), ("/chat", 0, true));
        assert!(!namespaces.find_or_add("/chat").1);
        assert!(namespaces.invalid().is_none());
        let (bad, _) = namespaces.find_or_add("/a,b");
        assert!(bad.invalid.is_some() && namespaces.invalid().is_some());
        assert!(!namespaces[bad.index].is_active(), "it can never be joined");
        assert_eq!((chat.take_id(), chat.take_id()), (0, 1));
    }

    #[test]
    fn a_namespace_is_joined_once_a_session() {
        let (mut namespaces, now) = (Namespaces::default(), Instant::now());
        namespaces.find_or_add("/");
        assert_eq!(joins(&mut namespaces, now), [0]);
        assert!(joins(&mut namespaces, now).is_empty());
        assert!(!namespaces[0].asked(1));
        namespaces[0].joined(answer("a"));
        assert_eq!(namespaces[0].id(), Some("a"));
        namespaces[0].disconnect_sent(1);
        assert!(namespaces[0].leave() && !namespaces[0].leave());
        assert_eq!(joins(&mut namespaces, now), [0]);
        assert!(namespaces[0].asked(1), "the server must handle the DISCONNECT first");
    }

    #[test]
    fn a_refused_namespace_is_not_joined_until_it_is_asked_for() {
        let (mut namespaces, now) = (Namespaces::default(), Instant::now());
        namespaces.find_or_add("/");
        joins(&mut namespaces, now);
        namespaces[0].leave();
        namespaces[0].refused(3, Error::NotConnected);
        assert!(namespaces.none_active() && joins(&mut namespaces, now).is_empty());
        assert_eq!(namespaces[0].refusal().map(|(result, _)| *result), Some(3));
        namespaces.activate_all();
        assert!(namespaces[0].refusal().is_none());
        assert_eq!(joins(&mut namespaces, now), [0]);
    }

    #[test]
    fn a_panic_of_the_auth_function_delays_the_next_join() {
        let (mut namespaces, now) = (Namespaces::default(), Instant::now());
        namespaces.find_or_add("/");
        joins(&mut namespaces, now);
        let later = now + Duration::from_secs(1);
        namespaces[0].join_later(later);
        assert!(joins(&mut namespaces, now).is_empty());
        assert_eq!(namespaces.next_join(), Some(later));
        assert_eq!(joins(&mut namespaces, later), [0]);
    }
}
