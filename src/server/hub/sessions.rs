//! The hub and the sessions: their slots, their deadlines and their ends.
//!
//! It may use what a session offers the hub ([`HubSession`]), and no socket.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use crate::server::{
    guard,
    hub::actor::Hub,
    hub::in_flight::InFlightGuard,
    hub::membership::Membership,
    hub::session::{self, HubSession},
    hub::slots::Slot,
    transport::outbox::Packets,
};
use crate::{
    proto::{
        CloseReason,
        engine::{Beat, Heartbeat, TransportKind},
    },
    sys::time::Instant,
};

/// The first ping is sent this much before `ping_interval` has passed, and later checks are early as well. The
/// timers of the official server count whole milliseconds from the start of a turn of its event loop, and are early
/// too. Its clients check right at the deadline whether a session has timed out.
const HEARTBEAT_EARLY: Duration = Duration::from_millis(3);

/// Heartbeats that are due within this part of the shorter of `ping_interval` and `ping_timeout` are checked together,
/// so that the hub's thread wakes up once for the pings of many idle clients: within 20 ms by default.
const HEARTBEATS_TOGETHER: u32 = 1_024;

/// How long the last packets of a closed polling session may be fetched: the official close timeout.
const POLLING_CLOSE: Duration = Duration::from_secs(30);

/// The deadlines that the hub looks after, because no connection's thread does.
pub(super) enum Deadline {
    /// A ping or a pong is due in the session of this slot.
    Heartbeat(u32, Weak<dyn HubSession>),
    /// The session must have joined a namespace.
    Connect(Weak<dyn HubSession>),
    /// The session must be closed.
    Close(Weak<dyn HubSession>),
    /// An acknowledgement must have come.
    Ack(Weak<Membership>),
    /// Recovery may forget something, or its journal is to be handed over.
    Recovery,
}

impl Deadline {
    fn is_alive(&self) -> bool {
        match self {
            Self::Heartbeat(_, session) | Self::Connect(session) | Self::Close(session) => {
                session.strong_count() > 0
            }
            Self::Ack(socket) => socket.strong_count() > 0,
            Self::Recovery => true,
        }
    }
}

impl Hub {
    pub(super) fn open_session(&mut self, session: Arc<dyn HubSession>, since: Instant) {
        self.marks.grow(session.slot());
        let early = HEARTBEAT_EARLY.min(self.config.ping_interval / 20);
        let begun = since.checked_sub(early).unwrap_or(since);
        let first_look = begun + self.config.ping_interval;
        session.set_next_look(first_look);
        let weak = Arc::downgrade(&session);
        self.add_timer(first_look, Deadline::Heartbeat(session.slot(), Weak::clone(&weak)));
        self.add_timer(since + self.config.connect_timeout, Deadline::Connect(weak));
        let heartbeat = Heartbeat::new(begun, self.config.ping_interval, self.config.ping_timeout);
        self.delivery.slots.insert(Slot::new(session, heartbeat, since));
    }

    pub(super) fn close_session(
        &mut self,
        session: &Arc<dyn HubSession>,
        code: Option<u16>,
        guard: InFlightGuard,
    ) {
        self.delivery.close(session, code, guard);
        let timeout = match session.transport() {
            TransportKind::Polling => POLLING_CLOSE.max(self.config.close_timeout),
            TransportKind::Websocket => self.config.close_timeout,
        };
        self.add_timer(Instant::now() + timeout, Deadline::Close(Arc::downgrade(session)));
    }

    pub(super) fn add_timer(&mut self, at: Instant, deadline: Deadline) {
        self.timers.add(at, deadline, Deadline::is_alive);
    }

    /// Does what is due.
    pub(super) fn run_timers(&mut self, now: Instant) {
        // Until then heartbeats are due: a little longer, once one of them is.
        let mut heartbeats_until = now;
        while let Some((due, deadline)) = self.timers.pop_if(|at, deadline| {
            at <= if matches!(deadline, Deadline::Heartbeat(..)) { heartbeats_until } else { now }
        }) {
            match deadline {
                Deadline::Heartbeat(slot, session) => {
                    let interval = self.config.ping_interval.min(self.config.ping_timeout);
                    heartbeats_until = now + interval / HEARTBEATS_TOGETHER;
                    // Counted from the deadline, so that a busy machine does not make every later one later. But if the
                    // deadline is long past, the peers get most of their time.
                    let late = now.checked_sub(self.config.ping_timeout / 4).unwrap_or(now);
                    self.heartbeat(due.max(late), due < late, slot, &session);
                }
                Deadline::Connect(session) => {
                    if let Some(session) = session.upgrade()
                        && !session.has_joined()
                    {
                        session.end(CloseReason::ForcedClose);
                    }
                }
                Deadline::Close(session) => {
                    if let Some(session) = session.upgrade() {
                        session.abort();
                    }
                }
                Deadline::Recovery => self.expire_recovery(now),
                Deadline::Ack(socket) => {
                    // The end of a session fails its acknowledgements.
                    if let Some(socket) = socket.upgrade()
                        && !socket.session().has_ended()
                    {
                        Arc::clone(socket.session()).ack_expired(socket);
                    }
                }
            }
        }
    }

    /// `slept`: so much later than was due that this process, or the machine, may have been suspended.
    fn heartbeat(&mut self, now: Instant, slept: bool, number: u32, session: &Weak<dyn HubSession>) {
        const PING: &[u8] = &[0x81, 1, b'2'];
        let Some(slot) = self.delivery.slots.get_mut(number) else { return };
        // The slot may be another session's already, which has a timer of its own.
        if !std::ptr::addr_eq(session.as_ptr(), Arc::as_ptr(&slot.session)) || slot.session.has_ended() {
            return;
        }
        if slot.is_packet_overdue(now, self.config.body_timeout) {
            guard::info!("session {}: the attachments of a packet are overdue", slot.session.name());
            return Arc::clone(&slot.session).end(CloseReason::ParseError);
        }
        let mut heard = slot.session.take_signs();
        // The readers were suspended too: the pong may have come, and not be read yet.
        heard.busy |= slept;
        let next = match slot.heartbeat.check(now, heard) {
            Beat::Wait(at) => at,
            Beat::Ping(at) => {
                // If it fails, the session ends.
                let _ = session::send(&slot.session, Packets::Borrowed(PING), false);
                at
            }
            Beat::Expired => return Arc::clone(&slot.session).end(CloseReason::PingTimeout),
        };
        slot.session.set_next_look(next);
        self.add_timer(next, Deadline::Heartbeat(number, Weak::clone(session)));
    }
}
