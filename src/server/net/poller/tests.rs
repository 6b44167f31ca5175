//! The poller alone, with streams of a test.

use std::io::Write;

use super::*;
use crate::server::net::stream::Stream;
use crate::sys::net::UnixStream;

#[derive(Debug)]
struct Waits {
    stream: Arc<Stream>,
    deadline: Option<Instant>,
}

impl Pollable for Waits {
    fn source(&self) -> Arc<dyn Source> {
        Arc::<Stream>::clone(&self.stream)
    }

    fn interest(&self) -> EventFlags {
        EventFlags::IN
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

fn waits(deadline: Option<Instant>) -> (UnixStream, Waits) {
    let (far, near) = UnixStream::pair().expect("descriptors");
    (far, Waits { stream: Arc::new(Stream::unix(near)), deadline })
}

fn poller() -> Arc<Poller<Waits>> {
    Arc::new(Poller::new().expect("an epoll set"))
}

/// Inserts a connection without a deadline. Returns its far end.
fn insert(poller: &Arc<Poller<Waits>>) -> UnixStream {
    let (far, connection) = waits(None);
    assert!(poller.insert(connection).is_none());
    far
}

/// The tokens that have an event or are due now.
fn ready(poller: &Arc<Poller<Waits>>, events: &mut Events) -> Vec<Token> {
    poller.table.lock().next_look = Some(Instant::now());
    assert!(poller.wait(events), "it is not stopped");
    events.iter().map(|(token, _)| token).collect()
}

#[test]
fn a_late_token_does_not_reach_the_next_holder_of_its_entry() {
    let mut table = Table::<()>::new(false);
    let first = table.reserve();
    table.free(first);
    let second = table.reserve();
    assert_eq!(first.index, second.index);
    assert!(table.entry(first).is_none() && table.entry(second).is_some());
    table.free(first);
    assert!(table.entry(second).is_some());
}

#[test]
fn no_token_has_the_number_of_the_waker() {
    let mut table = Table::<()>::new(false);
    let mut token = table.reserve();
    token.generation = u32::MAX - 1;
    table.entries[0].generation = token.generation;
    assert_eq!(Token::from_number(token.number()), token);
    assert_ne!(token.number(), WAKER);
    table.free(token);
    assert_eq!(table.reserve().generation, 0);
}

#[test]
fn what_a_thread_leaves_unread_is_reported_again() {
    let (poller, mut events) = (poller(), Events::new());
    let mut far = insert(&poller);
    far.write_all(b"ab").expect("room");
    for _ in 0..2 {
        let token = ready(&poller, &mut events)[0];
        let (lease, connection) = poller.take(token).expect("it waits");
        assert_eq!(poller.count(|_| true), 0);
        assert!(lease.put_back(connection).is_none());
        assert_eq!(poller.count(|_| true), 1);
    }
}

/// Until the thread returns the connection, its events are not reported, and afterwards they are.
#[test]
fn an_event_of_a_taken_connection_waits_for_its_thread() {
    let (poller, mut events) = (poller(), Events::new());
    let mut far = insert(&poller);
    far.write_all(b"a").expect("room");
    let token = ready(&poller, &mut events)[0];
    let (lease, connection) = poller.take(token).expect("it waits");
    assert_eq!(ready(&poller, &mut events), [token]);
    assert!(poller.take(token).is_none(), "a thread serves it");
    assert_eq!(ready(&poller, &mut events), [], "it would be reported for ever");
    assert!(lease.put_back(connection).is_none());
    assert_eq!(ready(&poller, &mut events), [token]);
}

#[test]
fn a_wake_up_at_any_moment_makes_a_connection_due_once() {
    let (poller, mut events) = (poller(), Events::new());
    let _far = insert(&poller);
    let token = Token { index: 0, generation: 0 };
    // While it waits.
    poller.wake(token);
    poller.wake(token);
    assert_eq!((ready(&poller, &mut events), poller.due()), (vec![], 1));
    let (lease, connection) = poller.take_due().expect("it is due");
    // While a thread serves it.
    poller.wake(token);
    assert!(poller.take_due().is_none());
    assert!(lease.put_back(connection).is_none());
    let (lease, _connection) = poller.take_due().expect("it is due");
    drop(lease);
    // When it has left.
    poller.wake(token);
    assert!(poller.take_due().is_none());
    assert_eq!(poller.count(|_| true), 0);
}

/// It is due, and before the leader comes to that, a thread takes it for an event.
#[test]
fn a_wake_up_is_not_lost_to_a_thread_that_came_for_an_event() {
    let poller = poller();
    let _far = insert(&poller);
    let token = Token { index: 0, generation: 0 };
    poller.wake(token);
    let (lease, connection) = poller.take(token).expect("it waits");
    assert!(poller.take_due().is_none(), "a thread serves it");
    assert!(lease.put_back(connection).is_none());
    assert!(poller.take_due().is_some());
}

#[test]
fn only_the_overdue_are_due_and_the_next_deadline_is_the_next_look() {
    let now = Instant::now();
    let later = now + Duration::from_secs(2);
    let poller = poller();
    let deadlines = [Some(now), None, Some(later), Some(later + Duration::from_secs(1))];
    let streams = deadlines.map(|deadline| {
        let (far, connection) = waits(deadline);
        assert!(poller.insert(connection).is_none());
        far
    });
    let mut table = poller.table.lock();
    assert_eq!(table.next_look, Some(now));
    table.add_overdue(now);
    assert_eq!((table.due.len(), table.next_look), (1, Some(later)));
    drop(table);
    drop(streams);
}

#[test]
fn a_stopped_poller_keeps_nobody() {
    let (poller, mut events) = (poller(), Events::new());
    let (_far, taken) = waits(None);
    let (_other, waiting) = waits(None);
    let stream = Arc::downgrade(&waiting.stream);
    assert!(poller.insert(taken).is_none() && poller.insert(waiting).is_none());
    let (lease, taken) = poller.take(Token { index: 0, generation: 0 }).expect("it waits");
    poller.stop();
    assert!(!poller.wait(&mut events));
    assert_eq!((stream.strong_count(), poller.count(|_| true)), (0, 0));
    assert!(lease.put_back(taken).is_some());
}
