//! From an emit to the send queue, and from an acknowledgement to its waiter.
//!
//! ```text
//!                 joined ────────────────► send queue ──► link
//!   emit ──┬───── not joined ──► offline buffer ──┘ when joined
//!          ├───── retries ──► retry queue ──► send queue, one at a time, until acknowledged
//!          └───── volatile, not joined or send queue full ──► dropped
//! ```
//!
//! When a session ends, what was not written goes from its send queue back to the offline buffer ([`keep_unwritten`]).
//! When the namespace is joined again, the buffer goes to the send queue of the new session ([`send_buffered`]).
//!
//! [`keep_unwritten`]: Core::keep_unwritten
//! [`send_buffered`]: Core::send_buffered
//!
//! Decides where an event goes, and who gets the error when it fails. Uses the state and the queue of events. It must
//! not write to a transport or call a callback.

use std::{sync::Arc, time::Instant};

use super::{
    Error,
    acks::{PendingAck, Waiter},
    core::Core,
    event_queue::Item,
    namespace::Namespace,
    offline::BufferedPacket,
    send_queue::QueuedPacket,
    session::Session,
    state::State,
};
use crate::{
    proto::{
        CloseReason,
        socket::{Encoded, OwnedArgs},
    },
    sys::real::wait::deadline_in,
};

/// What happened to an emit that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Queued for the open connection.
    Sent,
    /// Kept until the namespace is joined: in the offline buffer, or in the retry queue.
    Buffered,
    /// Volatile, and dropped: there is no connection, or its send queue is full.
    Dropped,
}

/// An event that is being emitted.
pub(super) struct OutgoingEvent {
    pub(super) encoded: Encoded,
    /// The acknowledgement's id; with `retries` also when the caller waits for none.
    pub(super) id: Option<u64>,
    pub(super) waiter: Option<Waiter>,
    pub(super) volatile: bool,
}

impl OutgoingEvent {
    /// Takes a new id if a later one was queued while this event was encoded. The server recognises a retry by its id,
    /// so the ids in the queue must increase.
    fn keep_order(&mut self, namespace: &Namespace, last: Option<u64>) {
        if let Some(overtaken) = self.id.filter(|id| Some(*id) <= last) {
            let id = namespace.take_id();
            self.encoded = self.encoded.renumbered(&namespace.name, overtaken, id);
            self.id = Some(id);
        }
    }
}

impl Core {
    /// Whether an event goes through the retry queue.
    pub(super) fn retries(&self, volatile: bool) -> bool {
        self.config.retries > 0 && !volatile
    }

    /// Sends, buffers, queues or drops an event.
    pub(super) fn post(&self, namespace: &Namespace, event: &mut OutgoingEvent) -> Result<Delivery, Error> {
        if let Some(error) = &namespace.invalid {
            return Err(error.clone());
        }
        let (mut state, index) = (self.lock(), namespace.index);
        let state = &mut *state;
        state.connection.check_alive()?;
        self.drop_expired(state);
        if event.waiter.is_some() {
            if let Some((_, refusal)) = state.namespaces[index].refusal() {
                return Err(refusal.clone());
            }
            state.acks.check_room(index)?;
        }
        if let Some(session) = state.connection.session() {
            session.check_size(&event.encoded)?;
        }
        let retried = self.retries(event.volatile);
        let delivery = if retried {
            let retries = &mut state.namespaces[index].retries;
            event.keep_order(namespace, retries.last_id());
            retries.push(event.encoded.clone(), event.id.unwrap_or_default(), &self.config.offline)?;
            Delivery::Buffered
        } else {
            self.send_or_buffer(state, index, event)?
        };
        if delivery == Delivery::Dropped {
            state.stats.dropped += 1;
            return Ok(delivery);
        }
        self.await_ack(state, index, event, delivery == Delivery::Sent);
        Ok(if retried { self.advance(state, index) } else { delivery })
    }

    fn send_or_buffer(
        &self,
        state: &mut State,
        index: usize,
        event: &OutgoingEvent,
    ) -> Result<Delivery, Error> {
        let (encoded, ack) = (&event.encoded, event.id);
        let joined = state.namespaces[index].is_joined();
        let Some(session) = state.connection.open_session().filter(|_| joined) else {
            if event.volatile {
                return Ok(Delivery::Dropped);
            }
            let since = Instant::now();
            state.offline.push(BufferedPacket { namespace: index, encoded: encoded.clone(), ack, since })?;
            return Ok(Delivery::Buffered);
        };
        match session.queue.check_room(encoded, self.config.queue_bytes) {
            Err(_) if event.volatile => return Ok(Delivery::Dropped),
            room => room?,
        }
        let encoded = encoded.clone();
        session.queue.push(if event.volatile {
            QueuedPacket::of_session(encoded)
        } else {
            QueuedPacket::kept(encoded, index, ack)
        });
        self.wake_link(session);
        Ok(Delivery::Sent)
    }

    /// Records who waits for the acknowledgement of `event`.
    fn await_ack(&self, state: &mut State, index: usize, event: &mut OutgoingEvent, sent: bool) {
        let Some(id) = event.id else { return };
        let pending = PendingAck {
            waiter: event.waiter.take(),
            sent,
            retried: self.retries(event.volatile),
            since: Instant::now(),
        };
        if state.acks.insert(index, id, pending) {
            self.events.nudge();
        }
    }

    /// Acknowledges an event of the server, in the session that brought it.
    pub(super) fn answer(&self, namespace: &Namespace, epoch: u64, encoded: Encoded) -> Result<(), Error> {
        let mut state = self.lock();
        let state = &mut *state;
        state.connection.check_alive()?;
        let joined = state.namespaces[namespace.index].is_joined();
        let session = state.connection.open_session_of(epoch).filter(|_| joined);
        let session = session.ok_or(Error::NotConnected)?;
        session.check_size(&encoded)?;
        session.queue.check_room(&encoded, self.config.queue_bytes)?;
        session.queue.push(QueuedPacket::of_session(encoded));
        self.wake_link(session);
        Ok(())
    }

    /// The session has ended: its unwritten events go back to the offline buffer.
    pub(super) fn keep_unwritten(&self, state: &mut State, session: Session) {
        let mut unwritten = Vec::new();
        for packet in session.queue.into_unwritten(Instant::now()) {
            // An event whose waiter has given up is not sent.
            if packet.ack.is_none_or(|id| state.acks.contains(packet.namespace, id)) {
                state.acks.set_sent(packet.namespace, packet.ack, false);
                unwritten.push(packet);
            }
        }
        for packet in state.offline.restore(unwritten) {
            state.stats.dropped += 1;
            let error = state.offline.full();
            self.fail_ack(state, packet.namespace, packet.ack, &error);
        }
    }

    /// A namespace is joined: sends what was buffered for it, in order.
    pub(super) fn send_buffered(&self, state: &mut State, index: usize) {
        self.drop_expired(state);
        for packet in state.offline.drain(index) {
            let Some(session) = state.connection.session_mut() else { return };
            if let Err(error) = session.check_size(&packet.encoded) {
                state.log(log::Level::Warn, format_args!("a buffered event is thrown away: {error}"));
                state.stats.dropped += 1;
                self.fail_ack(state, index, packet.ack, &error);
                continue;
            }
            session.queue.push(QueuedPacket::kept(packet.encoded, index, packet.ack));
            state.acks.set_sent(index, packet.ack, true);
        }
        self.advance(state, index);
        if let Some(session) = state.connection.session_mut() {
            self.wake_link(session);
        }
    }

    /// Sends the first event of the retry queue, unless it is being tried.
    fn advance(&self, state: &mut State, index: usize) -> Delivery {
        loop {
            let of = &mut state.namespaces[index];
            let joined = of.is_joined();
            let Some(session) = state.connection.open_session().filter(|_| joined) else {
                return Delivery::Buffered;
            };
            let Some(encoded) = of.retries.due() else { return Delivery::Buffered };
            // The limit was not known when the event was queued. The server would close every session for it.
            if let Err(error) = session.check_size(encoded) {
                let note = format_args!("an event in the queue of retries is thrown away: {error}");
                state.log(log::Level::Warn, note);
                self.give_up(state, index, &error);
                continue;
            }
            session.queue.push(QueuedPacket::of_session(encoded.clone()));
            of.retries.begin_try(deadline_in(self.config.ack_timeout));
            // `link` also keeps the deadline of the try.
            self.wake_link(session);
            return if of.retries.len() == 1 { Delivery::Sent } else { Delivery::Buffered };
        }
    }

    /// Drops the first event of the retry queue.
    fn give_up(&self, state: &mut State, index: usize, error: &Error) {
        if let Some(id) = state.namespaces[index].retries.pop() {
            state.stats.dropped += 1;
            self.fail_ack(state, index, Some(id), error);
        }
    }

    /// Repeats or gives up the tries that have timed out. Gives the next deadline.
    pub(super) fn expire_tries(&self, state: &mut State, now: Instant) -> Option<Instant> {
        if self.config.retries == 0 {
            return None;
        }
        for index in state.namespaces.indices() {
            if state.namespaces[index].retries.deadline().is_some_and(|deadline| deadline <= now) {
                let error = Error::Timeout { what: "acknowledgement", after: self.config.ack_timeout };
                self.try_failed(state, index, &error);
                self.advance(state, index);
            }
        }
        state.namespaces.next_retry()
    }

    fn try_failed(&self, state: &mut State, index: usize, error: &Error) {
        if state.namespaces[index].retries.try_failed(self.config.retries) {
            self.give_up(state, index, error);
        }
    }

    /// The server has acknowledged an event.
    pub(super) fn acknowledged(&self, state: &mut State, index: usize, id: u64, args: OwnedArgs) {
        // An acknowledgement with an unknown id has timed out.
        let Some(pending) = state.acks.remove(index, id) else { return };
        state.stats.ack_rtt = Some(pending.since.elapsed());
        let of = &mut state.namespaces[index];
        if pending.retried {
            of.retries.acknowledged(id);
        }
        if let Some(waiter) = pending.waiter {
            self.complete(of.namespace(), waiter, Ok(args));
        }
        if pending.retried {
            self.advance(state, index);
        }
    }

    /// Fails one acknowledgement.
    fn fail_ack(&self, state: &mut State, index: usize, id: Option<u64>, error: &Error) {
        let pending = id.and_then(|id| state.acks.remove(index, id));
        if let Some(waiter) = pending.and_then(|pending| pending.waiter) {
            self.complete(state.namespaces[index].namespace(), waiter, Err(error.clone()));
        }
    }

    /// The namespace is refused: fails everything that waits for an acknowledgement. Events without an acknowledgement,
    /// and those of `retries`, stay until the namespace is joined after all.
    pub(super) fn refuse_acks(&self, state: &mut State, index: usize, error: &Error) {
        for id in state.acks.ids(index) {
            if let Some(refused) = state.acks.abandon(index, id) {
                self.abandoned(state, (index, id), refused, error.clone());
            }
        }
    }

    /// The namespace is left: what was sent in it will not be acknowledged.
    pub(super) fn lose_acks(&self, state: &mut State, index: usize, reason: CloseReason) {
        let error = Error::Disconnected(reason);
        for waiter in state.acks.remove_lost(index) {
            self.complete(state.namespaces[index].namespace(), waiter, Err(error.clone()));
        }
        self.try_failed(state, index, &error);
    }

    /// Gives a result to the thread that waits for it, or queues the callback.
    pub(super) fn complete(
        &self,
        namespace: &Arc<Namespace>,
        waiter: Waiter,
        result: Result<OwnedArgs, Error>,
    ) {
        if let Some((callback, result)) = waiter.complete(result) {
            self.events.push(Item::Ack(namespace.clone(), callback, result));
        }
    }

    /// A thread has stopped waiting. As in the official client, the event is then not sent any more.
    pub(super) fn give_up_ack(&self, index: usize, id: u64) {
        let mut state = self.lock();
        if state.acks.abandon(index, id).is_none_or(|given_up| !given_up.retried) {
            state.offline.forget(index, id);
        }
    }

    /// When the `events` thread has to look at the acknowledgements.
    pub(super) fn next_ack_deadline(&self) -> Option<Instant> {
        self.lock().acks.next_deadline()
    }

    /// Fails the callbacks whose deadline has passed.
    pub(super) fn expire_acks(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        while let Some((index, id, expired)) = state.acks.pop_expired(now) {
            let error = Error::Timeout { what: "acknowledgement", after: now - expired.since };
            self.abandoned(state, (index, id), expired, error);
        }
    }

    /// Fails the waiter of an event, which is not sent any more unless it is retried.
    fn abandoned(&self, state: &mut State, (index, id): (usize, u64), ack: PendingAck, error: Error) {
        if !ack.retried {
            state.offline.forget(index, id);
        }
        if let Some(waiter) = ack.waiter {
            self.complete(state.namespaces[index].namespace(), waiter, Err(error));
        }
    }

    /// Drops buffered events that are too old.
    fn drop_expired(&self, state: &mut State) {
        for packet in state.offline.expired(Instant::now()) {
            state.stats.dropped += 1;
            self.fail_ack(state, packet.namespace, packet.ack, &Error::Expired);
        }
    }
}
