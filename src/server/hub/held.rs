//! What waits until the store has the changes that it depends on (`Durability::EveryPacket`).
//!
//! ```text
//!   put ──► gathering ──hand over──► under way ──committed──► written to the recipients
//! ```
//! A packet waits if its command has changed what is to be durable; if the thread that sent it has something else that waits;
//! or if something waits for its recipient. So the order for each recipient, and of each thread, is kept, and everything else
//! leaves at once.

use std::sync::Arc;

use crate::server::{hub::command::Packet, hub::in_flight::InFlightGuard, hub::session::HubSession};
use crate::sys::channel::Sender;

/// What a packet takes beside its bytes, and what it takes for each recipient.
const PACKET_COST: usize = 128;
const RECIPIENT_COST: usize = 32;

/// With so many bytes gathered while the store is busy, the hub takes no more commands.
pub(crate) const HELD_MAX: usize = 2 << 20;

/// What waits for one commit.
#[derive(Default)]
pub(crate) struct Portion {
    pub(crate) packets: Vec<Packet>,
    /// Who gets which of them.
    pub(crate) recipients: Vec<(Arc<dyn HubSession>, Vec<usize>)>,
    /// Sessions that end behind them, and the codes of their close frames.
    pub(crate) endings: Vec<(Arc<dyn HubSession>, Option<u16>)>,
    /// What is finished with it.
    pub(crate) orders: Vec<InFlightGuard>,
    /// Who is told of that.
    told: Vec<Sender<()>>,
    /// Bytes of large packets.
    pub(crate) large: usize,
    /// Bytes of memory, about.
    cost: usize,
}

impl Portion {
    fn is_empty(&self) -> bool {
        self.packets.is_empty() && self.endings.is_empty() && self.orders.is_empty()
    }
}

/// Where what waits for a session is, as the hub keeps it with the session.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Place {
    /// The number of the last portion that has something for it.
    portion: u64,
    /// Its index in that portion.
    recipient: usize,
}

#[derive(Default)]
pub(crate) struct Held {
    gathering: Portion,
    under_way: Option<Portion>,
    /// Portions that were let go, or handed over without anything in them. The next one under way, or else gathered, is
    /// one more.
    let_go: u64,
}

impl Held {
    /// Whether nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.gathering.is_empty()
    }

    /// Whether so much has gathered behind what is under way that no more may.
    pub(crate) fn is_full(&self) -> bool {
        self.under_way.is_some() && self.gathering.cost >= HELD_MAX
    }

    /// The number of the portion that gathers.
    fn number(&self) -> u64 {
        self.let_go + 1 + u64::from(self.under_way.is_some())
    }

    /// Whether something waits for the session of this place.
    pub(crate) fn holds(&self, place: Place) -> bool {
        place.portion > self.let_go
    }

    /// A packet that waits; who gets it follows.
    pub(crate) fn put(&mut self, packet: Packet, large: usize) {
        self.gathering.cost += PACKET_COST + packet.0.bytes().len();
        self.gathering.large += large;
        self.gathering.packets.push(packet);
    }

    /// The last packet is for this session too.
    pub(crate) fn add_recipient(&mut self, session: &Arc<dyn HubSession>, place: &mut Place) {
        let (number, packet) = (self.number(), self.gathering.packets.len() - 1);
        self.gathering.cost += RECIPIENT_COST;
        if place.portion != number {
            *place = Place { portion: number, recipient: self.gathering.recipients.len() };
            self.gathering.recipients.push((Arc::clone(session), Vec::new()));
        }
        self.gathering.recipients[place.recipient].1.push(packet);
    }

    /// Something is finished with what gathers.
    pub(crate) fn order(&mut self, order: InFlightGuard) {
        order.wait();
        self.gathering.cost += RECIPIENT_COST;
        self.gathering.orders.push(order);
    }

    /// The senders are dropped with what gathers.
    pub(crate) fn tell(&mut self, done: Sender<()>) {
        self.gathering.told.push(done);
    }

    pub(crate) fn end(&mut self, session: &Arc<dyn HubSession>, code: Option<u16>) {
        self.gathering.cost += RECIPIENT_COST;
        self.gathering.endings.push((Arc::clone(session), code));
    }

    /// What has gathered is on its way to the store.
    pub(crate) fn hand_over(&mut self) {
        self.under_way = Some(std::mem::take(&mut self.gathering));
    }

    /// What was on its way is durable. `None`: nothing was.
    pub(crate) fn committed(&mut self) -> Option<Portion> {
        let portion = self.under_way.take()?;
        self.let_go += 1;
        Some(portion)
    }

    /// What has gathered waits for nothing more. Only when nothing is under way.
    pub(crate) fn let_go(&mut self) -> Portion {
        self.let_go += 1;
        std::mem::take(&mut self.gathering)
    }
}
