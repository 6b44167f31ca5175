//! The acknowledgements that a client waits for.
//!
//! Owns who waits, for what, and until when. Uses [`Error`]. It must not lock, call a callback, or look at the clock:
//! callers give the time, and pass on the callbacks that it returns.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use crossbeam_channel::Sender;

use super::{Error, guard::Guarded};
use crate::proto::socket::OwnedArgs;

/// Acknowledgements that one namespace may wait for at a time. One more is refused with [`Error::TooManyAcks`].
const MAX_ACKS: usize = 10_000;

/// All acknowledgements of one client, by the index of the namespace and the id.
#[derive(Default)]
pub(super) struct Acks {
    /// A list entry for each namespace that ever waited for one.
    pending: Vec<HashMap<u64, PendingAck>>,
    /// Deadlines of callbacks: instant, namespace, id.
    deadlines: BTreeSet<(Instant, usize, u64)>,
}

/// An acknowledgement that is waited for.
pub(super) struct PendingAck {
    /// `None`: an event of `retries` that was emitted without an acknowledgement, or whose caller waits no more.
    pub(super) waiter: Option<Waiter>,
    /// Whether the event was handed to a session: it is then lost with that session.
    pub(super) sent: bool,
    /// Whether the event is in the retry queue, which keeps it over sessions.
    pub(super) retried: bool,
    pub(super) since: Instant,
}

/// Who waits for an acknowledgement.
pub(super) enum Waiter {
    /// A thread, which keeps its own time.
    Thread(Sender<Result<OwnedArgs, Error>>),
    /// A callback, to be called on the `events` thread; with an error once this time has come.
    Callback(Guarded<Callback>, Instant),
}

/// What is called with an acknowledgement.
pub(super) struct Callback {
    /// The event that is acknowledged.
    pub(super) event: String,
    /// The user's closure, with the socket that it gets.
    pub(super) call: Box<dyn FnOnce(Result<OwnedArgs, Error>) + Send>,
}

impl PendingAck {
    fn deadline(&self) -> Option<Instant> {
        match self.waiter {
            Some(Waiter::Callback(_, deadline)) => Some(deadline),
            Some(Waiter::Thread(_)) | None => None,
        }
    }
}

impl Waiter {
    /// Gives the result to a waiting thread, or returns the callback for it.
    pub(super) fn complete(
        self,
        result: Result<OwnedArgs, Error>,
    ) -> Option<(Guarded<Callback>, Result<OwnedArgs, Error>)> {
        match self {
            // The channel has room for one result. The thread may have given up.
            Self::Thread(thread) => {
                let _ = thread.try_send(result);
                None
            }
            Self::Callback(callback, _) => Some((callback, result)),
        }
    }
}

impl Acks {
    /// Whether one more may be waited for in a namespace.
    pub(super) fn check_room(&self, namespace: usize) -> Result<(), Error> {
        match self.pending.get(namespace).map_or(0, HashMap::len) {
            pending if pending >= MAX_ACKS => Err(Error::TooManyAcks { pending }),
            _ => Ok(()),
        }
    }

    /// Adds one. `true`: its deadline is now the earliest.
    pub(super) fn insert(&mut self, namespace: usize, id: u64, pending: PendingAck) -> bool {
        let deadline = pending.deadline();
        self.of(namespace).insert(id, pending);
        let earliest = self.next_deadline();
        deadline.is_some_and(|deadline| {
            self.deadlines.insert((deadline, namespace, id));
            earliest.is_none_or(|earliest| deadline < earliest)
        })
    }

    pub(super) fn contains(&self, namespace: usize, id: u64) -> bool {
        self.pending.get(namespace).is_some_and(|pending| pending.contains_key(&id))
    }

    /// Records whether the event was handed to a session.
    pub(super) fn set_sent(&mut self, namespace: usize, id: Option<u64>, sent: bool) {
        if let Some(pending) = id.and_then(|id| self.of(namespace).get_mut(&id)) {
            pending.sent = sent;
        }
    }

    /// Removes one. `None`: the id is unknown, or was given up.
    pub(super) fn remove(&mut self, namespace: usize, id: u64) -> Option<PendingAck> {
        let pending = self.of(namespace).remove(&id)?;
        self.forget_deadline(namespace, id, pending.deadline());
        Some(pending)
    }

    /// Removes all of a namespace.
    pub(super) fn remove_all(&mut self, namespace: usize) -> Vec<Waiter> {
        self.extract(namespace, |_| true)
    }

    /// Removes those whose events went out in the session that is over, and are not retried.
    pub(super) fn remove_lost(&mut self, namespace: usize) -> Vec<Waiter> {
        self.extract(namespace, |pending| pending.sent && !pending.retried)
    }

    fn extract(&mut self, namespace: usize, lost: impl Fn(&PendingAck) -> bool) -> Vec<Waiter> {
        let lost: Vec<_> = self.of(namespace).extract_if(|_, pending| lost(pending)).collect();
        let remove = |(id, pending): (u64, PendingAck)| {
            self.forget_deadline(namespace, id, pending.deadline());
            pending.waiter
        };
        lost.into_iter().filter_map(remove).collect()
    }

    /// The ids of all in a namespace.
    pub(super) fn ids(&self, namespace: usize) -> Vec<u64> {
        self.pending.get(namespace).map_or_else(Vec::new, |pending| pending.keys().copied().collect())
    }

    /// Takes the waiter out, which waits no more. A retried event stays, without a waiter. `None`: the id is unknown.
    pub(super) fn abandon(&mut self, namespace: usize, id: u64) -> Option<PendingAck> {
        let pending = self.of(namespace).get_mut(&id)?;
        let abandoned = PendingAck { waiter: pending.waiter.take(), ..*pending };
        if !abandoned.retried {
            self.of(namespace).remove(&id);
        }
        self.forget_deadline(namespace, id, abandoned.deadline());
        Some(abandoned)
    }

    /// When the next callback expires.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// [Abandons](Self::abandon) the next callback that has expired by `now`. Gives its namespace and id, too.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<(usize, u64, PendingAck)> {
        let (_, namespace, id) = *self.deadlines.first().filter(|(deadline, ..)| *deadline <= now)?;
        self.deadlines.pop_first();
        Some((namespace, id, self.abandon(namespace, id)?))
    }

    fn of(&mut self, namespace: usize) -> &mut HashMap<u64, PendingAck> {
        if self.pending.len() <= namespace {
            self.pending.resize_with(namespace + 1, HashMap::new);
        }
        &mut self.pending[namespace]
    }

    fn forget_deadline(&mut self, namespace: usize, id: u64, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, namespace, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{Receiver, bounded};

    use super::*;

    type Answer = Receiver<Result<OwnedArgs, Error>>;

    /// A callback with so much time, or a thread.
    fn pending(now: Instant, seconds: Option<u64>, retried: bool) -> (PendingAck, Answer) {
        let (thread, answer) = bounded(1);
        let waiter = match seconds {
            Some(seconds) => {
                let callback = Callback { event: "e".into(), call: Box::new(|_| ()) };
                Waiter::Callback(Guarded::new(callback), now + Duration::from_secs(seconds))
            }
            None => Waiter::Thread(thread),
        };
        (PendingAck { waiter: Some(waiter), sent: false, retried, since: now }, answer)
    }

    #[test]
    fn deadlines_expire_in_order() {
        let (mut acks, now) = (Acks::default(), Instant::now());
        for (id, seconds, earliest) in [(1, 5, true), (2, 9, false), (3, 1, true)] {
            assert_eq!(acks.insert(0, id, pending(now, Some(seconds), false).0), earliest, "{id}");
        }
        assert!(!acks.insert(0, 4, pending(now, None, false).0), "a thread keeps its own time");
        assert!(acks.pop_expired(now).is_none());
        assert_eq!(acks.next_deadline(), Some(now + Duration::from_secs(1)));
        let at = now + Duration::from_secs(6);
        let expired: Vec<_> = std::iter::from_fn(|| acks.pop_expired(at)).map(|(_, id, _)| id).collect();
        assert_eq!(expired, [3, 1]);
        assert!(acks.remove(0, 2).is_some());
        assert_eq!(acks.next_deadline(), None);
        assert!(!acks.contains(0, 1) && acks.contains(0, 4));
    }

    #[test]
    fn a_retried_event_outlives_its_deadline_and_its_session() {
        let (mut acks, now) = (Acks::default(), Instant::now());
        acks.insert(2, 1, pending(now, Some(1), true).0);
        acks.set_sent(2, Some(1), true);
        assert!(acks.remove_lost(2).is_empty());
        let (_, _, expired) = acks.pop_expired(now + Duration::from_secs(1)).unwrap();
        assert!(expired.retried && expired.waiter.is_some());
        assert!(acks.remove(2, 1).unwrap().waiter.is_none(), "the waiter has its result");
    }

    #[test]
    fn a_session_takes_what_was_sent_with_it() {
        let (mut acks, now) = (Acks::default(), Instant::now());
        acks.insert(0, 1, pending(now, Some(1), false).0);
        acks.insert(0, 2, pending(now, Some(2), false).0);
        acks.insert(1, 1, pending(now, None, false).0);
        acks.set_sent(0, Some(1), true);
        assert_eq!(acks.remove_lost(0).len(), 1);
        assert!(!acks.contains(0, 1) && acks.contains(0, 2) && acks.contains(1, 1));
        assert_eq!(acks.next_deadline(), Some(now + Duration::from_secs(2)));
        assert_eq!(acks.remove_all(0).len(), 1);
        assert_eq!(acks.next_deadline(), None);
    }

    #[test]
    fn a_refusal_leaves_what_is_retried() {
        let (mut acks, now) = (Acks::default(), Instant::now());
        acks.insert(0, 1, pending(now, Some(1), false).0);
        acks.insert(0, 2, pending(now, Some(2), true).0);
        let mut ids = acks.ids(0);
        ids.sort_unstable();
        let refused: Vec<_> = ids.into_iter().map(|id| (id, acks.abandon(0, id).unwrap())).collect();
        let removed: Vec<_> = refused.iter().filter(|(_, ack)| !ack.retried).map(|(id, _)| *id).collect();
        let waiters = refused.iter().filter(|(_, ack)| ack.waiter.is_some()).count();
        assert_eq!((removed, waiters, acks.next_deadline()), (vec![1], 2, None));
        assert!(!acks.contains(0, 1) && acks.contains(0, 2));
    }

    #[test]
    fn a_thread_gets_its_result_unless_it_gave_up() {
        let (mut acks, now) = (Acks::default(), Instant::now());
        let (first, answer) = pending(now, None, false);
        acks.insert(0, 1, first);
        let waiter = acks.remove(0, 1).unwrap().waiter.unwrap();
        assert!(waiter.complete(Err(Error::Closed)).is_none());
        assert!(matches!(answer.try_recv(), Ok(Err(Error::Closed))));
        acks.insert(0, 2, pending(now, None, false).0);
        acks.insert(0, 3, pending(now, None, true).0);
        assert!(!acks.abandon(0, 2).unwrap().retried && acks.abandon(0, 3).unwrap().retried);
        assert!(acks.abandon(0, 2).is_none());
        assert!(!acks.contains(0, 2) && acks.contains(0, 3));
    }

    #[test]
    fn one_namespace_may_wait_for_so_many() {
        let (mut acks, now) = (Acks::default(), Instant::now());
        for id in 0..MAX_ACKS as u64 {
            assert!(acks.check_room(1).is_ok());
            acks.insert(1, id, pending(now, None, false).0);
        }
        assert!(matches!(acks.check_room(1), Err(Error::TooManyAcks { pending: MAX_ACKS })));
        assert!(acks.check_room(0).is_ok());
    }
}
