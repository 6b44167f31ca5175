//! The sessions that the hub knows: their slots, their heartbeats and their ends.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use crate::server::{
    hub::actor::Hub,
    hub::held::Place,
    hub::in_flight::InFlightGuard,
    hub::session::{self, HubSession},
    hub::timers::Deadline,
    transport::outbox::Packets,
};
use crate::{
    proto::{
        CloseReason,
        engine::{Beat, Heartbeat, TransportKind},
    },
    sys::time::Instant,
};

/// How much sooner than promised a heartbeat begins. The official server's timers count whole milliseconds from the start of
/// its loop's turn and are early too, and clients ask right at the deadline whether a session has timed out.
const HEARTBEAT_EARLY: Duration = Duration::from_millis(3);

/// How long a closed polling session may be asked for its last packets: the official close timeout.
const POLLING_CLOSE: Duration = Duration::from_secs(30);

/// A session as the hub sees it.
pub(super) struct Seat {
    pub(super) session: Arc<dyn HubSession>,
    pub(super) heartbeat: Heartbeat,
    /// Which of the batch's packets it gets.
    pub(super) due: Vec<usize>,
    /// Where what waits for the store is.
    pub(super) place: Place,
    /// The binary packet that was incomplete when the heartbeat last looked, and since when.
    pub(super) assembling: (u64, Instant),
}

impl Hub {
    pub(super) fn open(&mut self, session: Arc<dyn HubSession>, since: Instant) {
        let slot = session.slot() as usize;
        if self.seats.len() <= slot {
            self.seats.resize_with(slot + 1, || None);
            self.marks.resize(slot + 1, 0);
        }
        let early = HEARTBEAT_EARLY.min(self.config.ping_interval / 20);
        let begun = since.checked_sub(early).unwrap_or(since);
        let first_look = begun + self.config.ping_interval;
        session.set_next_look(first_look);
        let weak = Arc::downgrade(&session);
        self.alarm(first_look, Deadline::Heartbeat(session.slot(), Weak::clone(&weak)));
        self.alarm(since + self.config.connect_timeout, Deadline::Connect(weak));
        let heartbeat = Heartbeat::new(begun, self.config.ping_interval, self.config.ping_timeout);
        self.seats[slot] = Some(Seat {
            session,
            heartbeat,
            due: Vec::new(),
            place: Place::default(),
            assembling: (0, since),
        });
    }

    pub(super) fn ending(&mut self, session: &Arc<dyn HubSession>, code: Option<u16>, order: InFlightGuard) {
        // What is due to it, in this batch too, goes out before the close.
        if self.sits(session) {
            self.flush_seat(session.slot());
        }
        if order.is_behind() || self.waits_for(session) {
            self.held.end(session, code);
            self.held.order(order);
        } else {
            drop(order);
            Arc::clone(session).finish(code);
        }
        let patience = match session.transport() {
            TransportKind::Polling => POLLING_CLOSE.max(self.config.close_timeout),
            TransportKind::Websocket => self.config.close_timeout,
        };
        self.alarm(Instant::now() + patience, Deadline::Cut(Arc::downgrade(session)));
    }

    /// Whether something for the session waits for the store.
    pub(super) fn waits_for(&self, session: &Arc<dyn HubSession>) -> bool {
        let seat = self.seats.get(session.slot() as usize).and_then(Option::as_ref);
        seat.is_some_and(|seat| Arc::ptr_eq(&seat.session, session) && self.held.holds(seat.place))
    }

    pub(super) fn gone(&mut self, session: &Arc<dyn HubSession>) {
        if self.sits(session) {
            self.flush_seat(session.slot());
            self.dirty.retain(|&slot| slot != session.slot());
            self.seats[session.slot() as usize] = None;
            session.gone();
        }
    }

    /// Whether the session's seat is still its own: a command may come later than its sender's end.
    pub(super) fn sits(&self, session: &Arc<dyn HubSession>) -> bool {
        matches!(self.seats.get(session.slot() as usize), Some(Some(seat)) if Arc::ptr_eq(&seat.session, session))
    }

    /// `slept`: so much later than was due that this process, or the machine, may have been asleep.
    pub(super) fn beat(&mut self, now: Instant, slept: bool, slot: u32, session: &Weak<dyn HubSession>) {
        const PING: &[u8] = &[0x81, 1, b'2'];
        let Some(Some(seat)) = self.seats.get_mut(slot as usize) else { return };
        let session = Weak::clone(session);
        // The seat may be another session's by now, with an alarm of its own.
        if !std::ptr::addr_eq(session.as_ptr(), Arc::as_ptr(&seat.session)) || seat.session.has_ended() {
            return;
        }
        let assembling = seat.session.assembling();
        if assembling != seat.assembling.0 {
            seat.assembling = (assembling, now);
        } else if assembling != 0 && now > seat.assembling.1 + self.config.body_timeout {
            log::info!("session {}: the attachments of a packet are overdue", seat.session.name());
            return Arc::clone(&seat.session).end(CloseReason::ParseError);
        }
        let mut heard = seat.session.take_signs();
        // The readers have slept too: the pong may be there, and not be read.
        heard.busy |= slept;
        let next = match seat.heartbeat.check(now, heard) {
            Beat::Wait(at) => at,
            Beat::Ping(at) => {
                // A failure has ended the session by itself.
                let _ = session::send(&seat.session, Packets::Borrowed(PING), false);
                at
            }
            Beat::Expired => return Arc::clone(&seat.session).end(CloseReason::PingTimeout),
        };
        seat.session.set_next_look(next);
        self.alarm(next, Deadline::Heartbeat(slot, session));
    }
}
