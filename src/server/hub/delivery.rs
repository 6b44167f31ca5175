//! Delivery: from packets to recipients, with one write for each recipient.
//!
//! ```text
//!   share(packet, slots) ──► due: packets of this batch ──────── flush ──► one push for each recipient
//!                        └─► held: packets that wait for the store ── release ──► the same
//! ```
//! It may use the sessions' outboxes, and the guards and byte counts of commands. It knows no rooms, and never waits:
//! what a socket does not take stays in the session's outbox.

use std::sync::Arc;

use crate::server::{
    error::EmitError,
    guard,
    hub::backpressure::InFlightBytes,
    hub::command::Packet,
    hub::held::{HeldPackets, Portion},
    hub::in_flight::InFlightGuard,
    hub::recovery::journal::HandedOver,
    hub::session::{self, HubSession},
    hub::slots::Slots,
    transport::outbox::Packets,
};
use crate::sys::channel::Sender;

/// Packets for one recipient are written as one buffer up to this size.
const MERGE_MAX: usize = 64 << 10;

pub(super) struct Delivery {
    pub(super) slots: Slots,
    /// Packets that wait for the store.
    held: HeldPackets,
    /// The packets of this batch.
    due: Vec<Packet>,
    /// The slots that get some of them.
    dirty: Vec<u32>,
    /// The commands that are finished with the next flush.
    guards: Vec<InFlightGuard>,
    /// Dropped with the next flush: threads that wait for it.
    waiters: Vec<Sender<()>>,
    /// The bytes of large packets of this batch.
    large: usize,
    inflight: Arc<InFlightBytes>,
}

impl Delivery {
    pub(super) fn new(inflight: &Arc<InFlightBytes>) -> Self {
        Self {
            slots: Slots::default(),
            held: HeldPackets::default(),
            due: Vec::new(),
            dirty: Vec::new(),
            guards: Vec::new(),
            waiters: Vec::new(),
            large: 0,
            inflight: Arc::clone(inflight),
        }
    }

    /// Whether nothing waits for the store.
    pub(super) fn is_nothing_held(&self) -> bool {
        self.held.is_idle()
    }

    /// Whether so much waits for the store that the hub must take no more commands.
    pub(super) fn is_full(&self) -> bool {
        self.held.is_full()
    }

    /// A command is finished with this batch; or, if it `waits`, when the store has committed.
    pub(super) fn finish(&mut self, guard: InFlightGuard, waits: bool) {
        if waits {
            self.held.finish(guard);
        } else {
            self.guards.push(guard);
        }
    }

    /// The next commands of the same sender come behind every packet that is held, also those of other senders.
    pub(super) fn fence(&mut self, guard: InFlightGuard) {
        let waits = !self.held.is_idle();
        self.finish(guard, waits);
    }

    /// Drops `done` when all earlier commands of the same sender are finished.
    pub(super) fn report_finished(&mut self, done: Sender<()>, guard: InFlightGuard) {
        if guard.is_behind() {
            self.held.finish(guard);
            self.held.notify(done);
        } else {
            self.guards.push(guard);
            self.waiters.push(done);
        }
    }

    /// Sends a packet to a session, if that is still open. It waits for the store if `waits`.
    pub(super) fn send_to(
        &mut self,
        session: &Arc<dyn HubSession>,
        packet: Packet,
        large: usize,
        guard: InFlightGuard,
        waits: bool,
    ) {
        let slot = self.slots.number_of(session);
        let waits = self.share(packet, slot.as_slice(), large, waits || guard.is_behind());
        self.finish(guard, waits);
    }

    /// Sends a packet to these slots with the next flush. For all of them it is held until the store has committed,
    /// if it `waits`; otherwise only for those that have other packets held. `large`: the bytes of it that are
    /// counted as in flight. `true`: it is held for a slot.
    pub(super) fn share(&mut self, packet: Packet, slots: &[u32], mut large: usize, waits: bool) -> bool {
        let mut some_wait = waits;
        if waits || !self.held.is_idle() {
            let mut is_held = false;
            for &slot in slots {
                let Some(slot) = self.slots.get_mut(slot) else { continue };
                if !waits && !self.held.holds(slot.held_at) {
                    continue;
                }
                if !std::mem::replace(&mut is_held, true) {
                    self.held.put(packet.clone(), std::mem::take(&mut large));
                }
                self.held.add_recipient(&slot.session, &mut slot.held_at);
            }
            some_wait |= is_held;
        }
        self.large += large;
        if waits {
            return true;
        }
        let index = self.due.len();
        self.due.push(packet);
        for &slot in slots {
            self.add_due(slot, index);
        }
        some_wait
    }

    fn add_due(&mut self, number: u32, packet: usize) {
        if let Some(slot) = self.slots.get_mut(number)
            // Otherwise the packet is held.
            && !self.held.holds(slot.held_at)
        {
            if slot.due.is_empty() {
                self.dirty.push(number);
            }
            slot.due.push(packet);
        }
    }

    /// Writes the packets of this batch. Then its commands are finished.
    pub(super) fn flush(&mut self) {
        let mut merged = Merged::default();
        for slot in std::mem::take(&mut self.dirty) {
            self.flush_slot(slot, &mut merged);
        }
        self.inflight.leave(std::mem::take(&mut self.large));
        self.due.clear();
        self.guards.clear();
        self.waiters.clear();
    }

    fn flush_slot(&mut self, slot: u32, merged: &mut Merged) {
        let Some(slot) = self.slots.get_mut(slot) else { return };
        write(&slot.session, &slot.due, &self.due, merged);
        slot.due.clear();
        // One large batch does not keep its memory.
        slot.due.shrink_to(16);
    }

    /// Closes the session behind all packets that were sent to it, in this batch too.
    pub(super) fn close(&mut self, session: &Arc<dyn HubSession>, code: Option<u16>, guard: InFlightGuard) {
        let held_at = self.slots.of(session).map(|slot| slot.held_at);
        if held_at.is_some() {
            self.flush_slot(session.slot(), &mut Merged::default());
        }
        if guard.is_behind() || held_at.is_some_and(|at| self.held.holds(at)) {
            self.held.close(session, code);
            self.held.finish(guard);
        } else {
            drop(guard);
            Arc::clone(session).close(code);
        }
    }

    /// Forgets the session. Its slot may be used again.
    pub(super) fn forget(&mut self, session: &Arc<dyn HubSession>) {
        if let Some(slot) = self.slots.number_of(session) {
            self.flush_slot(slot, &mut Merged::default());
            self.dirty.retain(|&other| other != slot);
            self.slots.remove(slot);
            session.forgotten();
        }
    }

    /// The changes were handed over to the store, or need not be.
    pub(super) fn handed_over(&mut self, handed_over: &HandedOver) {
        if self.held.is_idle() {
            return;
        }
        match handed_over {
            HandedOver::NotYet => {}
            HandedOver::All => self.held.hand_over(),
            HandedOver::Nothing => self.release_rest(),
        }
    }

    /// The store has committed the changes that were handed over last, or has failed to.
    pub(super) fn committed(&mut self) {
        if let Some(portion) = self.held.committed() {
            self.release(portion);
        }
    }

    /// Writes the packets that do not wait for anything more.
    pub(super) fn release_rest(&mut self) {
        let portion = self.held.release();
        self.release(portion);
    }

    /// Writes packets that were held, behind those that were due before them.
    fn release(&mut self, portion: Portion) {
        self.flush();
        let mut merged = Merged::default();
        for (session, packets) in &portion.recipients {
            write(session, packets, &portion.packets, &mut merged);
        }
        for (session, code) in &portion.closing {
            Arc::clone(session).close(*code);
        }
        self.inflight.leave(portion.large);
        portion.guards.into_iter().for_each(InFlightGuard::finish_waiting);
    }
}

/// Writes the packets of one recipient.
fn write(session: &Arc<dyn HubSession>, indices: &[usize], packets: &[Packet], merged: &mut Merged) {
    let sent = match indices {
        [] => return,
        &[one] => {
            let (packet, volatile) = &packets[one];
            session::send(session, Packets::Shared(packet), *volatile)
        }
        several => match merged.merge(several, packets) {
            Some(buffer) => session::send(session, Packets::Borrowed(buffer), false),
            None => several.iter().try_for_each(|&index| {
                let (packet, volatile) = &packets[index];
                match session::send(session, Packets::Shared(packet), *volatile) {
                    Err(EmitError::Dropped) => Ok(()),
                    sent => sent,
                }
            }),
        },
    };
    if let Err(error) = sent {
        guard::trace!("session {}: {error}", session.name());
    }
}

/// The packets of one recipient as one buffer. It is kept for the next recipients, because after a broadcast, or any
/// number of them, all recipients get the same packets.
#[derive(Default)]
struct Merged {
    packets: Vec<usize>,
    buffer: Vec<u8>,
}

impl Merged {
    /// `None`: the packets are too large to be copied, or one of them is volatile. Volatile packets are dropped one
    /// by one.
    fn merge(&mut self, packets: &[usize], due: &[Packet]) -> Option<&[u8]> {
        if self.packets != packets {
            let bytes: usize = packets.iter().map(|&index| due[index].0.bytes().len()).sum();
            if bytes > MERGE_MAX || packets.iter().any(|&index| due[index].1) {
                return None;
            }
            self.packets.clear();
            self.packets.extend_from_slice(packets);
            self.buffer.clear();
            for &index in packets {
                self.buffer.extend_from_slice(due[index].0.bytes());
            }
        }
        Some(&self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proto::{engine::Heartbeat, socket::Encoded};
    use crate::server::hub::{in_flight, session::tests::FakeSession, slots::Slot};
    use crate::sys::time::Instant;

    fn delivery(sessions: u32) -> (Delivery, Vec<Arc<FakeSession>>) {
        let mut delivery = Delivery::new(&Arc::default());
        let sessions: Vec<_> = (0..sessions).map(FakeSession::new).collect();
        let now = Instant::now();
        for session in &sessions {
            let heartbeat = Heartbeat::new(now, std::time::Duration::MAX / 4, std::time::Duration::MAX / 4);
            delivery.slots.insert(Slot::new(Arc::<FakeSession>::clone(session), heartbeat, now));
        }
        (delivery, sessions)
    }

    fn packet(text: &'static str) -> Packet {
        (Encoded::from_bytes(Bytes::from_static(text.as_bytes())), false)
    }

    #[track_caller]
    fn assert_sent(session: &FakeSession, expected: &[&str]) {
        assert_eq!(*session.sent.lock(), expected);
    }

    #[test]
    fn packets_of_a_batch_are_one_write_for_each_recipient() {
        let (mut delivery, sessions) = delivery(3);
        delivery.share(packet("a"), &[0, 1], 0, false);
        delivery.share(packet("b"), &[1, 0], 0, false);
        delivery.share(packet("c"), &[1], 0, false);
        assert_sent(&sessions[0], &[]);
        delivery.flush();
        assert_sent(&sessions[0], &["ab"]);
        assert_sent(&sessions[1], &["abc"]);
        assert_sent(&sessions[2], &[]);
    }

    #[test]
    fn a_packet_that_waits_for_the_store_holds_the_later_ones_of_its_recipient() {
        let (mut delivery, sessions) = delivery(2);
        assert!(delivery.share(packet("a"), &[0], 0, true));
        assert!(delivery.share(packet("b"), &[0, 1], 0, false));
        delivery.flush();
        assert_sent(&sessions[0], &[]);
        assert_sent(&sessions[1], &["b"]);
        delivery.handed_over(&HandedOver::All);
        assert!(!delivery.is_nothing_held());
        delivery.committed();
        assert_sent(&sessions[0], &["ab"]);
        assert!(delivery.is_nothing_held());
    }

    #[test]
    fn a_session_is_closed_behind_its_packets() {
        let (mut delivery, sessions) = delivery(1);
        let session: Arc<dyn HubSession> = Arc::<FakeSession>::clone(&sessions[0]);
        delivery.share(packet("a"), &[0], 0, false);
        delivery.share(packet("b"), &[0], 0, true);
        delivery.close(&session, None, in_flight::guard());
        assert_sent(&sessions[0], &["a"]);
        delivery.handed_over(&HandedOver::Nothing);
        assert_sent(&sessions[0], &["a", "b", "close"]);
    }

    #[test]
    fn a_closed_session_gets_nothing() {
        let (mut delivery, sessions) = delivery(1);
        let session: Arc<dyn HubSession> = Arc::<FakeSession>::clone(&sessions[0]);
        delivery.forget(&session);
        delivery.send_to(&session, packet("a"), 0, in_flight::guard(), false);
        delivery.flush();
        assert_sent(&sessions[0], &[]);
    }
}
