//! From packets to recipients: who gets a packet, and one write for each of them.

use std::sync::Arc;

use crate::server::{
    error::EmitError,
    hub::actor::Hub,
    hub::command::{Packet, Selection},
    hub::held::Portion,
    hub::in_flight::InFlightGuard,
    hub::session::{self, HubSession},
    transport::outbox::Packets,
};
use crate::sys::channel::Sender;

/// Packets for one recipient are written as one buffer up to this size.
const GATHER_MAX: usize = 64 << 10;

impl Hub {
    /// Writes what has waited for the store, behind what was due before it.
    pub(super) fn let_go(&mut self, portion: Portion) {
        self.write_due();
        let mut gathered = Gathered::default();
        for (session, packets) in &portion.recipients {
            write(session, packets, &portion.packets, &mut gathered);
        }
        for (session, code) in &portion.endings {
            Arc::clone(session).finish(*code);
        }
        self.inflight.leave(portion.large);
        portion.orders.into_iter().for_each(InFlightGuard::finish);
    }

    /// A command without a packet is applied; it is finished when what it has changed is durable.
    pub(super) fn finish(&mut self, order: Option<InFlightGuard>, before: u64) {
        let Some(order) = order else { return };
        if self.held_back() != before || order.is_behind() {
            self.held.order(order);
        } else {
            self.orders.push(order);
        }
    }

    /// What the same sender sends next comes behind everything that is there, whoever has sent it.
    pub(super) fn fence(&mut self, order: InFlightGuard) {
        if self.held.is_idle() {
            self.orders.push(order);
        } else {
            self.held.order(order);
        }
    }

    /// `done` is dropped when everything of the same sender is finished.
    pub(super) fn finished(&mut self, done: Sender<()>, order: InFlightGuard) {
        if order.is_behind() {
            self.held.order(order);
            self.held.tell(done);
        } else {
            self.orders.push(order);
            self.told.push(done);
        }
    }

    pub(super) fn sent(&mut self, order: InFlightGuard, waits: bool) {
        if waits {
            self.held.order(order);
        } else {
            self.orders.push(order);
        }
    }

    /// A packet for these seats: due at the end of this batch; or when the store has what was changed before, if the packet waits
    /// for that, and for whom something waits already. `large`: how many of its bytes are counted as on their way to the hub.
    /// `true`: some of it waits.
    pub(super) fn share(&mut self, packet: Packet, slots: &[u32], mut large: usize, waits: bool) -> bool {
        let mut some_wait = waits;
        if waits || !self.held.is_idle() {
            let mut is_held = false;
            for &slot in slots {
                let Some(Some(seat)) = self.seats.get_mut(slot as usize) else { continue };
                if !waits && !self.held.holds(seat.place) {
                    continue;
                }
                if !std::mem::replace(&mut is_held, true) {
                    self.held.put(packet.clone(), std::mem::take(&mut large));
                }
                self.held.add_recipient(&seat.session, &mut seat.place);
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
            self.note(slot, index);
        }
        some_wait
    }

    pub(super) fn note(&mut self, slot: u32, packet: usize) {
        if let Some(Some(seat)) = self.seats.get_mut(slot as usize)
            // It was put behind what waits.
            && !self.held.holds(seat.place)
        {
            if seat.due.is_empty() {
                self.dirty.push(slot);
            }
            seat.due.push(packet);
        }
    }

    /// The seats that a selection means, each once.
    pub(super) fn select(&mut self, namespace: usize, to: &Selection) -> Vec<u32> {
        if let Some(only) = &to.only {
            return self.spaces[namespace].by_id.get(only).copied().into_iter().collect();
        }
        self.mark += 1;
        let (mark, marks, space) = (self.mark, &mut self.marks, &self.spaces[namespace]);
        let mut mark_all = |name: &Arc<str>| {
            let own = space.by_id.get(name);
            for &slot in space.rooms.members(name).iter().chain(own) {
                marks[slot as usize] = mark;
            }
        };
        to.except.iter().for_each(&mut mark_all);
        if let Some(&slot) = to.skip.as_ref().and_then(|id| space.by_id.get(id)) {
            marks[slot as usize] = mark;
        }
        let mut selected = Vec::new();
        let mut add = |slot: u32| {
            if std::mem::replace(&mut marks[slot as usize], mark) != mark {
                selected.push(slot);
            }
        };
        if to.rooms.is_empty() {
            space.everybody.iter().copied().for_each(add);
        } else {
            for name in &to.rooms {
                space.rooms.members(name).iter().chain(space.by_id.get(name)).copied().for_each(&mut add);
            }
        }
        selected
    }

    /// Writes each recipient's packets of this batch so far, then says that they are finished.
    pub(super) fn write_due(&mut self) {
        let mut gathered = Gathered::default();
        for slot in std::mem::take(&mut self.dirty) {
            self.flush_into(slot, &mut gathered);
        }
        self.inflight.leave(std::mem::take(&mut self.large));
        self.due.clear();
        self.orders.clear();
        self.told.clear();
    }

    pub(super) fn flush_seat(&mut self, slot: u32) {
        self.flush_into(slot, &mut Gathered::default());
    }

    pub(super) fn flush_into(&mut self, slot: u32, gathered: &mut Gathered) {
        let Some(Some(seat)) = self.seats.get_mut(slot as usize) else { return };
        write(&seat.session, &seat.due, &self.due, gathered);
        seat.due.clear();
        // A seat that once had a large batch keeps no memory for it.
        seat.due.shrink_to(16);
    }
}

/// Writes one recipient's packets.
pub(super) fn write(
    session: &Arc<dyn HubSession>,
    indices: &[usize],
    packets: &[Packet],
    gathered: &mut Gathered,
) {
    let sent = match indices {
        [] => return,
        &[one] => {
            let (packet, volatile) = &packets[one];
            session::send(session, Packets::Shared(packet), *volatile)
        }
        several => match gathered.gather(several, packets) {
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
        log::trace!("session {}: {error}", session.name());
    }
}

/// The packets of one recipient as one buffer, kept for the next recipient if it gets the same ones: for a broadcast, and
/// for any number of them in a row, all recipients do.
#[derive(Default)]
pub(super) struct Gathered {
    packets: Vec<usize>,
    buffer: Vec<u8>,
}

impl Gathered {
    /// `None`: too much to copy, or volatile, which must be decided packet by packet.
    fn gather(&mut self, packets: &[usize], due: &[Packet]) -> Option<&[u8]> {
        if self.packets != packets {
            let bytes: usize = packets.iter().map(|&index| due[index].0.bytes().len()).sum();
            if bytes > GATHER_MAX || packets.iter().any(|&index| due[index].1) {
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
