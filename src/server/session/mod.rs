//! One Engine.IO session: the state that its threads share, the turn to run its handlers, and its end.
//!
//! ```text
//!   Polling ──probe, 5──► WebSocket     either ──end(reason)──► ended ──► handlers, hub, outbox ──► slot free
//! ```
//! It owns the outbox, the signs of life for the heartbeat, and the state that handles its packets (see [`turn`]).
//! [`end`] has the steps of its end. Threads of its connections, the hub, the drain thread and every socket share
//! it. It knows nothing of sockets and namespaces.

pub(crate) mod drain;
mod end;
mod for_hub;
mod handshake;
mod open;
mod registry;
mod shared;
mod turn;
pub(crate) mod workers;

use std::{fmt, sync::Arc};

use crate::server::{
    error::EmitError,
    guard::Owner,
    hub::{self, Unfinished},
    transport::outbox::{Outbox, Packets, Pushed},
};
use crate::{
    proto::{
        CloseReason,
        engine::{Heard, TransportKind},
        socket::Encoded,
    },
    sys::{
        sync::{
            Condvar, Mutex, OnceLock,
            atomic::{
                AtomicBool, AtomicU8, AtomicU64,
                Ordering::{Acquire, Relaxed, Release},
            },
        },
        time::Instant,
    },
};

pub(crate) use end::CloseMode;
pub use handshake::Handshake;
pub(crate) use open::{Content, Refused, open, open_packet, opened};
pub(crate) use registry::Registry;
pub(crate) use shared::Shared;
use turn::Gate;
pub(crate) use turn::{Dispatch, Task};

/// Characters of its id that the log calls a session by.
const NAME_LENGTH: usize = 6;

/// One session. Shared by its connections' threads, the hub, the drain thread and every handle to its sockets.
pub(crate) struct Session {
    pub(crate) id: Arc<str>,
    /// The bytes of its name.
    tag: u64,
    /// Its slot in the hub's tables.
    pub(crate) slot: u32,
    pub(crate) shared: Arc<Shared>,
    /// The endpoint that it was opened at.
    pub(crate) endpoint: usize,
    pub(crate) content: Content,
    pub(crate) outbox: Outbox,
    pub(crate) handshake: Handshake,
    /// A POST is being read or handled.
    pub(crate) posting: AtomicBool,
    /// A WebSocket is probing.
    pub(crate) upgrading: AtomicBool,
    /// GETs of the upgrade that were answered with a noop.
    pub(crate) noops: AtomicU8,
    /// A namespace was joined, or the endpoint has none.
    pub(crate) has_joined: AtomicBool,
    /// The number of the binary packet whose attachments are due, 0 for none.
    pub(crate) assembling: AtomicU64,
    websocket: AtomicBool,
    signs: AtomicU8,
    /// When the heartbeat looks next, in microseconds of the server's life.
    next_look: AtomicU64,
    /// The commands of its handlers that the hub has not finished.
    pub(crate) unfinished: Unfinished,
    gate: Mutex<Gate>,
    gate_free: Condvar,
    ended: OnceLock<CloseReason>,
}

/// Bits of `signs`: what was heard since the heartbeat last asked.
const PONG: u8 = 1;
const PACKET: u8 = 2;
const BUSY: u8 = 4;

impl Session {
    fn new(
        shared: &Arc<Shared>,
        id: Arc<str>,
        slot: u32,
        endpoint: usize,
        handshake: Handshake,
        content: Content,
        gate: Gate,
    ) -> Arc<Self> {
        let config = &shared.config;
        let mut name = [0; 8];
        name[..NAME_LENGTH].copy_from_slice(&id.as_bytes()[..NAME_LENGTH]);
        Arc::new(Self {
            id,
            tag: u64::from_le_bytes(name),
            slot,
            shared: Arc::clone(shared),
            endpoint,
            content,
            outbox: Outbox::new(config.outbox_bytes(), Arc::clone(&shared.waiting)),
            handshake,
            posting: AtomicBool::new(false),
            upgrading: AtomicBool::new(false),
            noops: AtomicU8::new(0),
            has_joined: AtomicBool::new(false),
            assembling: AtomicU64::new(0),
            websocket: AtomicBool::new(false),
            signs: AtomicU8::new(0),
            next_look: AtomicU64::new(u64::MAX),
            unfinished: gate.sender.clone(),
            gate: Mutex::new(gate),
            gate_free: Condvar::new(),
            ended: OnceLock::new(),
        })
    }

    /// The name of the session in the log: the first characters of its id. They identify the session, but do not
    /// reveal its id, which is secret.
    pub(crate) fn name(&self) -> &str {
        &self.id[..NAME_LENGTH]
    }

    /// The transport it is on.
    pub(crate) fn transport(&self) -> TransportKind {
        if self.websocket.load(Acquire) { TransportKind::Websocket } else { TransportKind::Polling }
    }

    pub(crate) fn set_websocket(&self) {
        self.websocket.store(true, Release);
    }

    /// Why it ended, once it has.
    pub(crate) fn ended(&self) -> Option<CloseReason> {
        self.ended.get().copied()
    }

    /// Sends to this session, or queues behind what waits for it.
    pub(crate) fn send(self: &Arc<Self>, packets: Packets<'_>, volatile: bool) -> Result<(), EmitError> {
        let pushed = self.outbox.push(packets, volatile);
        self.complete_push(pushed)
    }

    /// Completes a push, without the lock of the outbox: informs the drain thread, or ends the session.
    pub(crate) fn complete_push(self: &Arc<Self>, pushed: Pushed) -> Result<(), EmitError> {
        let completed = self.complete_own_push(pushed);
        if self.shared.waiting.is_exceeded() {
            self.shared.end_largest_backlogs();
            if completed.is_ok() && self.ended() == Some(CloseReason::SlowConsumer) {
                return Err(EmitError::SlowConsumer);
            }
        }
        completed
    }

    fn complete_own_push(self: &Arc<Self>, pushed: Pushed) -> Result<(), EmitError> {
        match pushed {
            Pushed::Done => Ok(()),
            Pushed::Drain => {
                self.shared.drain.drain(Arc::clone(self));
                Ok(())
            }
            Pushed::Watch => {
                self.shared.drain.watch(Arc::clone(self));
                Ok(())
            }
            Pushed::Dropped => Err(EmitError::Dropped),
            Pushed::Overflow => {
                self.end(CloseReason::SlowConsumer);
                Err(EmitError::SlowConsumer)
            }
            Pushed::Closed => Err(EmitError::Disconnected),
        }
    }

    /// Waits until there is room for more, as [`Socket::emit_timeout`](crate::server::Socket::emit_timeout) promises.
    pub(crate) fn wait_for_room(&self, bytes: usize, deadline: Instant) -> Result<(), EmitError> {
        // Packets of this thread that are still in the hub will go into the same outbox.
        if !self.shared.hub.wait_until_caught_up(deadline) {
            return Err(EmitError::Timeout);
        }
        match self.outbox.wait_for_room(bytes, deadline) {
            Some(true) => Ok(()),
            Some(false) => Err(EmitError::Disconnected),
            None => Err(EmitError::Timeout),
        }
    }

    /// Sends a packet in the order of everything that this thread has emitted before: at once, or through the hub
    /// while the hub still has something of this thread's.
    pub(crate) fn send_ordered(self: &Arc<Self>, packet: Encoded) -> Result<(), EmitError> {
        if hub::caught_up() {
            return self.send(Packets::Shared(&packet), false);
        }
        self.shared.hub.direct(Arc::<Self>::clone(self), packet, false)
    }

    /// `true`: the first one since the heartbeat has asked.
    pub(crate) fn heard_pong(&self) -> bool {
        self.signs.fetch_or(PONG, Relaxed) & PONG == 0
    }

    pub(crate) fn heard_packet(&self) {
        // Read first: under load the bit is nearly always set, and a shared read costs less than a write.
        if self.signs.load(Relaxed) & PACKET == 0 {
            self.signs.fetch_or(PACKET, Relaxed);
        }
    }

    pub(crate) fn set_next_look(&self, at: Instant) {
        self.next_look.store(self.shared.micros_at(at), Relaxed);
    }

    /// Whether a check of the heartbeat is overdue. If so, the hub is late, and may not have noticed that the client is
    /// gone.
    pub(crate) fn is_overdue(&self) -> bool {
        self.shared.micros_at(Instant::now()) >= self.next_look.load(Relaxed)
    }

    /// What was heard since the heartbeat asked last.
    pub(crate) fn take_signs(&self) -> Heard {
        let signs = self.signs.fetch_and(BUSY, Relaxed);
        Heard { pong: signs & PONG != 0, packet: signs & PACKET != 0, busy: signs & BUSY != 0 }
    }
}

impl Owner for Session {
    fn log_name(&self) -> String {
        format!("session {}", self.name())
    }

    fn session_tag(&self) -> u64 {
        self.tag
    }

    fn session_address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("name", &self.name()).finish_non_exhaustive()
    }
}
