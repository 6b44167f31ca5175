//! The leader: the worker thread that waits for all connections and serves those that are ready.
//!
//! ```text
//!   wait ─► each ready connection: serve ─► wait …
//!              └─ the lead is lost (a handler waits, or takes long): a successor waits and serves the others
//! ```
//! It also decides when a client gets a thread of its own: while few clients talk, a thread that blocks in `recv` is
//! faster than one that waits for all. It uses the state machine of [`super`], the poller and the worker threads.

use std::{io, sync::Arc, time::Duration};

use super::{Group, Pending, Service, accept, serve};
use crate::server::{
    lead,
    net::poller::{EventFlags, Events, Lease, Token},
};
use crate::sys::{sync::atomic::Ordering::Relaxed, thread, time::Instant};

/// So many WebSockets of a group have a thread of their own while few clients talk. Measured with an echo: with two
/// clients, threads of their own give twice the rate of the leader; with three, the leader is faster and cheaper.
const ALONE_MAX: usize = 2;

/// After so many waits that only brought the same few clients, or other clients, few or many clients talk.
const STREAK: u32 = 32;

/// The longest time of such a series, if its clients talk fast enough for a thread of their own.
const STREAK_TIME: Duration = Duration::from_millis(32);

/// Connections that are due are served, at most so many, before the next look at the events of the others.
const DUE_MAX: usize = 64;

/// Starts the first leader of each group. Each leader starts its successor.
pub(crate) fn start(service: &Arc<Service>) -> io::Result<()> {
    for (number, group) in service.groups.iter().enumerate() {
        let weak = Arc::downgrade(service);
        group.lead.set_successor(move |term| {
            let Some(service) = weak.upgrade() else { return Ok(()) };
            run(&service, number, term)
        });
        run(service, number, 0)?;
    }
    Ok(())
}

fn run(service: &Arc<Service>, group: usize, term: u64) -> io::Result<()> {
    let leader = Arc::clone(service);
    service.shared.workers.run(move || lead(&leader, &leader.groups[group], term))
}

/// If this thread panics outside of a guard, another one takes the lead.
struct Abdication;

impl Drop for Abdication {
    fn drop(&mut self) {
        if thread::panicking() {
            lead::before_wait();
        }
    }
}

/// Takes the lead in this term, and serves connections until it is lost or the server stops.
fn lead(service: &Arc<Service>, group: &Group, term: u64) {
    if !group.lead.take(term) {
        return;
    }
    let _abdication = Abdication;
    let mut events = Events::new();
    let mut talkers = Talkers::new();
    while group.poller.wait(&mut events) {
        // The poller may have logged an error, which is work.
        if !lead::end_work() {
            return;
        }
        let is_alone = match talkers.note(events.iter().map(|(token, _)| token)) {
            None => false,
            Some(few) => {
                // With one more than have a thread, many talk.
                let is_alone = few && group.alone.load(Relaxed) < ALONE_MAX;
                group.is_crowded.store(!is_alone, Relaxed);
                is_alone
            }
        };
        for (token, ready) in events.iter() {
            if let Some((lease, pending)) = group.poller.take(token) {
                serve_pending(service, group, lease, pending, ready, is_alone);
            }
            if !lead::end_work() {
                return;
            }
        }
        for _ in 0..group.poller.due().min(DUE_MAX) {
            let Some((lease, pending)) = group.poller.take_due() else { break };
            serve_pending(service, group, lease, pending, EventFlags::empty(), false);
            if !lead::end_work() {
                return;
            }
        }
    }
    lead::resign();
}

/// Serves what the leader has taken. `ready`: its events, none if it is only due.
fn serve_pending(
    service: &Arc<Service>,
    group: &Group,
    lease: Lease<'_, Pending>,
    pending: Pending,
    ready: EventFlags,
    is_alone: bool,
) {
    match pending {
        Pending::Connection(work) => {
            // Input may mean a handler, and its last one was slow.
            if work.slow > 0 && !ready.is_empty() {
                lead::before_wait();
            }
            serve(service, group, lease, work, ready, is_alone);
        }
        Pending::Listener(acceptor) => accept::serve(service, lease, acceptor),
    }
}

/// Recognizes whether few or many clients talk, by who is ready after a wait.
struct Talkers {
    recent: [Option<Token>; ALONE_MAX],
    next: usize,
    /// Waits that only brought recent clients, without one that did not; and the opposite.
    known: u32,
    unknown: u32,
    since: Instant,
}

impl Talkers {
    fn new() -> Self {
        Self { recent: [None; ALONE_MAX], next: 0, known: 0, unknown: 0, since: Instant::now() }
    }

    /// These clients are ready after a wait. `Some(true)`: a few clients talk fast. `Some(false)`: many talk.
    fn note(&mut self, ready: impl Iterator<Item = Token>) -> Option<bool> {
        let (mut all, mut unknown) = (0, false);
        for token in ready {
            all += 1;
            if !self.recent.contains(&Some(token)) {
                unknown = true;
                self.recent[self.next] = Some(token);
                self.next = (self.next + 1) % ALONE_MAX;
            }
        }
        if all == 0 {
            return None;
        }
        if unknown {
            self.known = 0;
            self.unknown = (self.unknown + 1).min(STREAK);
            return (self.unknown == STREAK).then_some(false);
        }
        self.unknown = 0;
        if self.known == 0 {
            self.since = Instant::now();
        }
        self.known += 1;
        if self.known < STREAK {
            return None;
        }
        self.known = 0;
        (self.since.elapsed() <= STREAK_TIME).then_some(true)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use rstest::rstest;

    use super::*;

    /// What is said of so many waits, each of which brings `at_once` of `clients` in turn.
    fn said(clients: u32, at_once: u32, waits: u32) -> Vec<bool> {
        let mut talkers = Talkers::new();
        let ready = |wait: u32| (0..at_once).map(move |n| Token::numbered((wait * at_once + n) % clients));
        (0..waits).filter_map(|wait| talkers.note(ready(wait))).collect()
    }

    #[rstest]
    #[case::one(1, 1)]
    #[case::as_many_as_there_are_threads(ALONE_MAX as u32, 1)]
    #[case::all_of_them_at_once(ALONE_MAX as u32, ALONE_MAX as u32)]
    fn few(#[case] clients: u32, #[case] at_once: u32) {
        assert_eq!(said(clients, at_once, 3 * STREAK), [true; 2], "the first series is longer");
    }

    #[rstest]
    #[case::one_more(ALONE_MAX as u32 + 1, 1)]
    #[case::many(512, 64)]
    fn many(#[case] clients: u32, #[case] at_once: u32) {
        assert!(said(clients, at_once, 3 * STREAK).iter().all(|few| !few));
        assert!(!said(clients, at_once, 3 * STREAK).is_empty());
    }

    #[test]
    fn a_wait_that_brings_nobody_says_nothing() {
        let mut talkers = Talkers::new();
        for _ in 0..3 * STREAK {
            assert_eq!(talkers.note(std::iter::empty()), None);
        }
    }

    #[test]
    fn few_that_talk_slowly_are_not_worth_a_thread() {
        let mut talkers = Talkers::new();
        let one = || std::iter::once(Token::numbered(0));
        for _ in 0..STREAK {
            assert_eq!(talkers.note(one()), None);
        }
        talkers.since -= STREAK_TIME + Duration::from_secs(1);
        assert_eq!(talkers.note(one()), None);
    }
}
