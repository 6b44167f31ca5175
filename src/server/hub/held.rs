//! Packets that are held until the store has committed the changes that they depend on (`Durability::EveryPacket`).
//!
//! ```text
//!   put ──► gathering ── hand_over ──► under way ── committed ──► written to the recipients
//! ```
//! A packet is held if its command has changed something that must be durable, if another command of the same sender
//! is held, or if another packet for its recipient is held. So the order for each recipient, and of each sender, is
//! kept. All other packets are sent at once.
//!
//! A plain type: it writes nothing, and does not know the store.

use std::sync::Arc;

use crate::server::{hub::command::Packet, hub::in_flight::InFlightGuard, hub::session::HubSession};
use crate::sys::channel::Sender;

/// The bytes that a packet takes beside its own, and for each recipient.
const PACKET_COST: usize = 128;
const RECIPIENT_COST: usize = 32;

/// With more bytes than this while the store is busy, the hub takes no more commands.
pub(crate) const HELD_MAX: usize = 2 << 20;

/// The packets that wait for one commit.
#[derive(Default)]
pub(super) struct Portion {
    pub(super) packets: Vec<Packet>,
    /// The recipients, and which packets each of them gets.
    pub(super) recipients: Vec<(Arc<dyn HubSession>, Vec<usize>)>,
    /// Sessions that are closed behind them, and the codes of their close frames.
    pub(super) closing: Vec<(Arc<dyn HubSession>, Option<u16>)>,
    /// The commands that are finished with it.
    pub(super) guards: Vec<InFlightGuard>,
    /// Dropped with it: threads that wait for it.
    waiters: Vec<Sender<()>>,
    /// The bytes of large packets.
    pub(super) large: usize,
    /// The bytes of memory that all this takes, about.
    cost: usize,
}

impl Portion {
    fn is_empty(&self) -> bool {
        self.packets.is_empty() && self.closing.is_empty() && self.guards.is_empty()
    }
}

/// Where the held packets of a session are. The hub keeps this with the session.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct HeldAt {
    /// The number of the last portion that has packets for it.
    portion: u64,
    /// Its index in that portion.
    recipient: usize,
}

#[derive(Default)]
pub(super) struct HeldPackets {
    gathering: Portion,
    under_way: Option<Portion>,
    /// The number of the last portion that was released. The portion under way, or else the gathering one, has the
    /// next number.
    released: u64,
}

impl HeldPackets {
    /// Whether nothing is held.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.gathering.is_empty()
    }

    /// Whether so much has gathered behind the portion under way that no more may.
    pub(super) fn is_full(&self) -> bool {
        self.under_way.is_some() && self.gathering.cost >= HELD_MAX
    }

    /// The number of the gathering portion.
    fn number(&self) -> u64 {
        self.released + 1 + u64::from(self.under_way.is_some())
    }

    /// Whether a packet is held for the session that has `at`.
    pub(super) fn holds(&self, at: HeldAt) -> bool {
        at.portion > self.released
    }

    /// Adds a packet. Its recipients follow.
    pub(super) fn put(&mut self, packet: Packet, large: usize) {
        self.gathering.cost += PACKET_COST + packet.0.bytes().len();
        self.gathering.large += large;
        self.gathering.packets.push(packet);
    }

    /// Adds a recipient of the last packet.
    pub(super) fn add_recipient(&mut self, session: &Arc<dyn HubSession>, at: &mut HeldAt) {
        let (number, packet) = (self.number(), self.gathering.packets.len() - 1);
        self.gathering.cost += RECIPIENT_COST;
        if at.portion != number {
            *at = HeldAt { portion: number, recipient: self.gathering.recipients.len() };
            self.gathering.recipients.push((Arc::clone(session), Vec::new()));
        }
        self.gathering.recipients[at.recipient].1.push(packet);
    }

    /// A command is finished with the gathering portion.
    pub(super) fn finish(&mut self, guard: InFlightGuard) {
        guard.mark_waiting();
        self.gathering.cost += RECIPIENT_COST;
        self.gathering.guards.push(guard);
    }

    /// Drops the sender with the gathering portion.
    pub(super) fn notify(&mut self, done: Sender<()>) {
        self.gathering.waiters.push(done);
    }

    /// Closes a session behind the gathering portion.
    pub(super) fn close(&mut self, session: &Arc<dyn HubSession>, code: Option<u16>) {
        self.gathering.cost += RECIPIENT_COST;
        self.gathering.closing.push((Arc::clone(session), code));
    }

    /// The changes that the gathering portion depends on are handed over to the store.
    pub(super) fn hand_over(&mut self) {
        self.under_way = Some(std::mem::take(&mut self.gathering));
    }

    /// The portion under way may be written. `None`: there is none.
    pub(super) fn committed(&mut self) -> Option<Portion> {
        let portion = self.under_way.take()?;
        self.released += 1;
        Some(portion)
    }

    /// The gathering portion may be written. Only if no portion is under way.
    pub(super) fn release(&mut self) -> Portion {
        self.released += 1;
        std::mem::take(&mut self.gathering)
    }
}
