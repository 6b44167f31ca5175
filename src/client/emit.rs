//! From an emit to the outbox: sizes, acknowledgements, the offline buffer, and the queue of `retries`.
//!
//! ```text
//!                 joined ───────────────► outbox ──► link
//!   emit ──┬───── not joined ──► offline buffer ──┘ when joined
//!          ├───── retries ──► queue ──► outbox, one at a time, until acknowledged
//!          └───── volatile, not joined or outbox full ──► dropped
//! ```

use std::{sync::Arc, time::Instant};

use super::{
    Delivery, Error,
    config::Config,
    core::{
        Core, Entry, MAX_ACKS, Membership, PendingAck, Queued, QueuedPacket, Session, Space, SpaceState,
        State, Target, Waiter,
    },
    events::Item,
    offline::BufferedPacket,
};
use crate::proto::{
    CloseReason,
    engine::TransportKind,
    socket::{Encoded, Opcode, OwnedArgs},
};
use crate::sys::real::wait::deadline_in;

/// An event on its way out.
pub(super) struct OutgoingEvent {
    pub(super) encoded: Encoded,
    /// The acknowledgement's id; with `retries` also when nobody waits for it.
    pub(super) id: Option<u64>,
    pub(super) waiter: Option<Waiter>,
    /// When the waiter gives up, if somebody else has to keep its time.
    pub(super) deadline: Option<Instant>,
    pub(super) volatile: bool,
}

impl OutgoingEvent {
    /// Takes a new id when an event with a later one has been queued while this one was encoded: the server knows a
    /// retry by its id, so the ids of the queue count up.
    fn keep_order(&mut self, space: &Space, last: Option<u64>) {
        if let Some(overtaken) = self.id.filter(|id| Some(*id) <= last) {
            let id = space.take_id();
            self.encoded = self.encoded.renumbered(&space.name, overtaken, id);
            self.id = Some(id);
        }
    }
}

impl Core {
    /// Whether an event goes through the queue of `retries`.
    pub(super) fn retries(&self, volatile: bool) -> bool {
        self.config.retries > 0 && !volatile
    }

    /// Sends, keeps, queues or drops an event.
    pub(super) fn post(&self, space: &Space, event: &mut OutgoingEvent) -> Result<Delivery, Error> {
        if let Some(error) = &space.invalid {
            return Err(error.clone());
        }
        let mut state = self.lock();
        let state = &mut *state;
        if state.target == Target::Gone {
            return Err(Error::Closed);
        }
        self.forget_expired(state);
        let of = &mut state.spaces[space.index];
        if event.waiter.is_some()
            && let Some((_, refusal)) = &of.refusal
        {
            return Err(refusal.clone());
        }
        if event.waiter.is_some() && of.acks.len() >= MAX_ACKS {
            return Err(Error::TooManyAcks { pending: of.acks.len() });
        }
        if let Some(session) = &state.session {
            session.check_size(&event.encoded)?;
        }
        let queued = self.retries(event.volatile);
        if queued {
            event.keep_order(space, of.last_queued);
        }
        let delivery =
            match state.session.as_mut().filter(|session| of.is_joined() && session.closing.is_none()) {
                _ if queued => of.enqueue(event, &self.config)?,
                None if event.volatile => Delivery::Dropped,
                None => {
                    let kept = BufferedPacket {
                        space: space.index,
                        encoded: event.encoded.clone(),
                        ack: event.id,
                        since: Instant::now(),
                    };
                    state.offline.push(kept)?;
                    Delivery::Buffered
                }
                Some(session) => match session.admit(&event.encoded, self.config.queue_bytes) {
                    Ok(()) => {
                        let keep = (!event.volatile).then_some((space.index, event.id));
                        session.push(QueuedPacket { encoded: event.encoded.clone(), keep, counts: true });
                        self.wake_link(session);
                        Delivery::Sent
                    }
                    Err(_) if event.volatile => Delivery::Dropped,
                    Err(error) => return Err(error),
                },
            };
        if delivery == Delivery::Dropped {
            state.stats.dropped += 1;
            return Ok(delivery);
        }
        self.await_ack(state, space.index, event, delivery == Delivery::Sent);
        Ok(if queued { self.advance(state, space.index) } else { delivery })
    }

    /// Notes who waits for the acknowledgement of `event`.
    fn await_ack(&self, state: &mut State, index: usize, event: &mut OutgoingEvent, sent: bool) {
        let Some(id) = event.id else { return };
        let queued = self.retries(event.volatile);
        let pending = PendingAck {
            waiter: event.waiter.take(),
            deadline: event.deadline,
            sent,
            queued,
            since: Instant::now(),
        };
        state.spaces[index].acks.insert(id, pending);
        if let Some(deadline) = event.deadline {
            let earliest = state.timers.first().is_none_or(|(first, ..)| deadline < *first);
            state.timers.insert((deadline, index, id));
            if earliest {
                self.events.nudge();
            }
        }
    }

    /// Answers an event of the server's, in the session that brought it.
    pub(super) fn answer(&self, space: &Space, epoch: u64, encoded: Encoded) -> Result<(), Error> {
        let mut state = self.lock();
        if state.target == Target::Gone {
            return Err(Error::Closed);
        }
        let joined = state.spaces[space.index].is_joined();
        let session = state.session(epoch).filter(|session| joined && session.closing.is_none());
        let session = session.ok_or(Error::NotConnected)?;
        session.check_size(&encoded)?;
        session.admit(&encoded, self.config.queue_bytes)?;
        session.push(QueuedPacket { encoded, keep: None, counts: true });
        self.wake_link(session);
        Ok(())
    }

    /// A namespace is joined: what waited for it goes out, in order.
    pub(super) fn release(&self, state: &mut State, index: usize) {
        self.forget_expired(state);
        for kept in state.offline.drain(index) {
            let Some(session) = &mut state.session else { return };
            if let Err(error) = session.check_size(&kept.encoded) {
                state.log(log::Level::Warn, format_args!("a buffered event is thrown away: {error}"));
                state.stats.dropped += 1;
                self.fail_ack(state, index, kept.ack, &error);
                continue;
            }
            session.push(QueuedPacket { encoded: kept.encoded, keep: Some((index, kept.ack)), counts: true });
            if let Some(pending) = kept.ack.and_then(|id| state.spaces[index].acks.get_mut(&id)) {
                pending.sent = true;
            }
        }
        self.advance(state, index);
        if let Some(session) = &mut state.session {
            self.wake_link(session);
        }
    }

    /// Sends the first of the queue of `retries`, if nothing of it is on its way.
    pub(super) fn advance(&self, state: &mut State, index: usize) -> Delivery {
        loop {
            let of = &mut state.spaces[index];
            let joined = of.is_joined();
            let Some(session) = state.session.as_mut().filter(|session| joined && session.closing.is_none())
            else {
                return Delivery::Buffered;
            };
            let Some(first) = of.queue.front_mut().filter(|first| first.expires.is_none()) else {
                return Delivery::Buffered;
            };
            // Queued when this was not known. The server would end the session for it, and the next one, again and
            // again.
            if let Err(error) = session.check_size(&first.encoded) {
                let note = format_args!("an event in the queue of retries is thrown away: {error}");
                state.log(log::Level::Warn, note);
                self.give_up(state, index, &error);
                continue;
            }
            first.tries = first.tries.saturating_add(1);
            first.expires = Some(deadline_in(self.config.ack_timeout));
            session.push(QueuedPacket { encoded: first.encoded.clone(), keep: None, counts: true });
            // Also for its deadline, which `link` keeps.
            self.wake_link(session);
            return if of.queue.len() == 1 { Delivery::Sent } else { Delivery::Buffered };
        }
    }

    /// Throws the first of the queue of `retries` away.
    fn give_up(&self, state: &mut State, index: usize, error: &Error) {
        let Some(first) = state.spaces[index].dequeue() else { return };
        state.stats.dropped += 1;
        self.fail_ack(state, index, Some(first.id), error);
    }

    /// Looks after the queues of `retries`: what has expired is tried again or given up. Gives the next deadline.
    pub(super) fn retry(&self, state: &mut State, now: Instant) -> Option<Instant> {
        if self.config.retries == 0 {
            return None;
        }
        for index in 0..state.spaces.len() {
            let first = state.spaces[index].queue.front();
            if first.and_then(|first| first.expires).is_some_and(|expires| expires <= now) {
                let error = Error::Timeout { what: "acknowledgement", after: self.config.ack_timeout };
                self.try_failed(state, index, &error);
                self.advance(state, index);
            }
        }
        state.spaces.iter().filter_map(|space| space.queue.front()?.expires).min()
    }

    /// One try of the first of a queue has failed.
    pub(super) fn try_failed(&self, state: &mut State, index: usize, error: &Error) {
        let of = &mut state.spaces[index];
        let Some(first) = of.queue.front_mut() else { return };
        let on_its_way = first.expires.take().is_some();
        // Never more than `u32::MAX`, which is therefore without end.
        if on_its_way && first.tries > self.config.retries {
            self.give_up(state, index, error);
        }
    }

    /// The server has acknowledged.
    pub(super) fn acknowledged(&self, state: &mut State, index: usize, id: u64, args: OwnedArgs) {
        let of = &mut state.spaces[index];
        // An unknown id is one that has timed out.
        let Some(pending) = of.acks.remove(&id) else { return };
        state.stats.ack_rtt = Some(pending.since.elapsed());
        let queued = pending.queued;
        if queued && of.queue.front().is_some_and(|first| first.id == id) {
            of.dequeue();
        }
        self.settle(state, index, id, pending, Ok(args));
        if queued {
            self.advance(state, index);
        }
    }

    /// Fails one acknowledgement.
    pub(super) fn fail_ack(&self, state: &mut State, index: usize, id: Option<u64>, error: &Error) {
        let Some(id) = id else { return };
        if let Some(pending) = state.spaces[index].acks.remove(&id) {
            self.settle(state, index, id, pending, Err(error.clone()));
        }
    }

    /// The namespace is refused: nobody waits any longer for what it would have acknowledged. What is kept for it
    /// without an acknowledgement, or by `retries`, stays until it is joined after all.
    pub(super) fn refuse_acks(&self, state: &mut State, index: usize, error: &Error) {
        let waiting: Vec<_> = state.spaces[index].acks.keys().copied().collect();
        for id in waiting {
            let queued = state.spaces[index].acks.get_mut(&id).filter(|pending| pending.queued);
            let Some(pending) = queued else {
                state.offline.forget(index, id);
                self.fail_ack(state, index, Some(id), error);
                continue;
            };
            let (waiter, deadline) = (pending.waiter.take(), pending.deadline.take());
            let waiting = PendingAck { waiter, deadline, sent: false, queued: true, since: pending.since };
            self.settle(state, index, id, waiting, Err(error.clone()));
        }
    }

    /// The namespace is left: what was sent in it will not be acknowledged any more.
    pub(super) fn fail_acks(&self, state: &mut State, index: usize, reason: CloseReason) {
        let error = Error::Disconnected(reason);
        let lost = state.spaces[index]
            .acks
            .extract_if(|_, pending| pending.sent && !pending.queued)
            .collect::<Vec<_>>();
        for (id, pending) in lost {
            self.settle(state, index, id, pending, Err(error.clone()));
        }
        self.try_failed(state, index, &error);
    }

    /// Tells who waits.
    fn settle(
        &self,
        state: &mut State,
        index: usize,
        id: u64,
        pending: PendingAck,
        result: Result<OwnedArgs, Error>,
    ) {
        if let Some(deadline) = pending.deadline {
            state.timers.remove(&(deadline, index, id));
        }
        match pending.waiter {
            None => {}
            // Its room for one is free, and a thread that has gone wants nothing.
            Some(Waiter::Thread(waiter)) => drop(waiter.try_send(result)),
            Some(Waiter::Callback(callback)) => {
                self.events.push(Item::Ack(state.spaces[index].space.clone(), callback, result));
            }
        }
    }

    /// A thread has stopped waiting.
    pub(super) fn give_up_ack(&self, index: usize, id: u64) {
        let mut state = self.lock();
        let of = &mut state.spaces[index];
        match of.acks.get_mut(&id) {
            // Its tries go on.
            Some(pending) if pending.queued => pending.waiter = None,
            _ => {
                of.acks.remove(&id);
                // As in the official client, what nobody waits for any more is not sent any more.
                state.offline.forget(index, id);
            }
        }
    }

    /// When the `events` thread has to look at the acknowledgements.
    pub(super) fn next_ack_deadline(&self) -> Option<Instant> {
        self.lock().timers.first().map(|(deadline, ..)| *deadline)
    }

    /// Fails the callbacks whose time is over.
    pub(super) fn expire_acks(self: &Arc<Self>) {
        let now = Instant::now();
        let mut state = self.lock();
        while let Some(&(deadline, index, id)) = state.timers.first() {
            if deadline > now {
                return;
            }
            state.timers.pop_first();
            let of = &mut state.spaces[index];
            let Some(pending) = of.acks.get_mut(&id) else { continue };
            let (waiter, queued) = (pending.waiter.take(), pending.queued);
            let error = Error::Timeout { what: "acknowledgement", after: now - pending.since };
            let space = of.space.clone();
            if !queued {
                of.acks.remove(&id);
                state.offline.forget(index, id);
            }
            if let Some(Waiter::Callback(callback)) = waiter {
                self.events.push(Item::Ack(space, callback, Err(error)));
            }
        }
    }

    fn forget_expired(&self, state: &mut State) {
        for kept in state.offline.expired(Instant::now()) {
            state.stats.dropped += 1;
            self.fail_ack(state, kept.space, kept.ack, &Error::Expired);
        }
    }

    /// The session is over: what it did not write goes back to the offline buffer.
    pub(super) fn salvage(&self, state: &mut State, session: &mut Session) {
        let now = Instant::now();
        let unwritten = session.outbox.drain(..).filter_map(|entry| {
            let Entry::QueuedPacket(packet) = entry else { return None };
            let (space, ack) = packet.keep?;
            // Whoever waited for its acknowledgement has given up.
            if ack.is_some_and(|id| !state.spaces[space].acks.contains_key(&id)) {
                return None;
            }
            Some(BufferedPacket { space, encoded: packet.encoded, ack, since: now })
        });
        let unwritten: Vec<_> = unwritten.collect();
        for kept in &unwritten {
            if let Some(pending) = kept.ack.and_then(|id| state.spaces[kept.space].acks.get_mut(&id)) {
                pending.sent = false;
            }
        }
        for kept in state.offline.restore(unwritten) {
            state.stats.dropped += 1;
            let error = if state.offline.is_off() {
                Error::NotConnected
            } else {
                Error::BufferFull { packets: state.offline.len(), bytes: state.offline.bytes() }
            };
            self.fail_ack(state, kept.space, kept.ack, &error);
        }
    }
}

impl SpaceState {
    /// Appends to the queue of `retries`, which has the bounds of the offline buffer.
    fn enqueue(&mut self, event: &OutgoingEvent, config: &Config) -> Result<Delivery, Error> {
        let bytes = self.queue_bytes + event.encoded.bytes().len();
        if self.queue.len() >= config.offline.packets || bytes > config.offline.bytes {
            return Err(Error::BufferFull { packets: self.queue.len(), bytes: self.queue_bytes });
        }
        self.queue_bytes = bytes;
        self.last_queued = event.id;
        self.queue.push_back(Queued {
            encoded: event.encoded.clone(),
            id: event.id.unwrap_or_default(),
            tries: 0,
            expires: None,
        });
        Ok(Delivery::Buffered)
    }

    fn dequeue(&mut self) -> Option<Queued> {
        let first = self.queue.pop_front()?;
        self.queue_bytes -= first.encoded.bytes().len();
        Some(first)
    }
}

impl Session {
    /// Whether the server takes messages of this size.
    fn check_size(&self, encoded: &Encoded) -> Result<(), Error> {
        let Some(max) = self.max_payload else { return Ok(()) };
        let on_wire = |frame: crate::proto::socket::Frame<'_>| match (self.transport, frame.opcode) {
            (TransportKind::Polling, Opcode::Binary) => 1 + frame.data.len().div_ceil(3) * 4,
            _ => frame.data.len(),
        };
        match encoded.frames().map(on_wire).max() {
            Some(size) if size > max => Err(Error::TooLarge { size, max }),
            _ => Ok(()),
        }
    }

    /// Whether there is room in the outbox. An empty one has room for anything.
    fn admit(&self, encoded: &Encoded, limit: usize) -> Result<(), Error> {
        if self.outbox_bytes > 0 && self.outbox_bytes + encoded.bytes().len() > limit {
            return Err(Error::QueueFull { bytes: self.outbox_bytes });
        }
        Ok(())
    }
}

impl Membership {
    /// The id, while joined.
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::Joined(id) => Some(id),
            _ => None,
        }
    }
}
