//! The end of a session: its steps, and when its slot is free.
//!
//! ```text
//!   end(reason) ─┬─ peer gone or stuck ────────────────────────────────────────────────► abort ─────┐
//!                ├─ or else: close ─► pending packets, close frame ─► peer's end, timeout ─► abort ─┤
//!                └─ and: Task::SessionEnded ─► disconnect handlers ─► hub: forget ─► forgotten ─────┴─► slot free
//! ```
//! | step | who takes it | effect |
//! |---|---|---|
//! | `end` | connection, hub, sending thread, application, stop | the first reason is set |
//! | `close` | hub, behind the packets on their way to it | sends what waits, then the close |
//! | `abort` | `end`; reader at its end; hub after `close_timeout` or 30 s (polling) | empties outbox, removes id |
//! | `SessionEnded` | thread that has the turn, or a worker | `dispatch::perform`: handlers run, rooms are left |
//! | `forget` | hub, behind the handlers' last commands | frees the session's entry in the tables |
//! | slot free | the thread that records the last step | a new session may use the slot |
//!
//! **A WebSocket dies.** If the kernel reports it, the thread that reads (`connection/websocket`) gets an error, or
//! the close frame of the peer, takes the turn, and calls [`Session::end_with`] with "transport close" or "transport
//! error". The mode is [`CloseMode::Abort`]. As it returns the turn, it performs the task. A send that fails shuts the
//! stream down, so the reader gets an error too. If the peer is only silent, the heartbeat (`hub/sessions.rs`) ends
//! the session with "ping timeout", and a worker thread performs the task. With connection state recovery the hub
//! keeps what the client needs to come back (`hub/recovery`).
//!
//! It uses the outbox, the hub's handle and the turn. It calls no handlers, and waits for nothing but room in the
//! hub's queue.

use std::sync::Arc;

use super::{Session, Task, turn::Gate};
use crate::proto::CloseReason;
use crate::server::{guard, transport::outbox::CLOSE_FRAME};

/// How a session is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseMode {
    /// The peer is gone or does not read: drop the pending packets.
    Abort,
    /// Send the pending packets, then close; on WebSocket with this code, if any.
    Close(Option<u16>),
}

impl CloseMode {
    /// The default mode for this reason.
    pub(crate) fn for_reason(reason: CloseReason) -> Self {
        match reason {
            CloseReason::TransportError
            | CloseReason::TransportClose
            | CloseReason::PingTimeout
            | CloseReason::SlowConsumer => Self::Abort,
            _ => Self::Close(None),
        }
    }
}

impl Session {
    /// Ends the session. Every session ends through this function or [`end_with`](Self::end_with). The first reason
    /// counts.
    ///
    /// If the peer can still be reached, the pending packets are sent first, and then the close.
    pub(crate) fn end(self: &Arc<Self>, reason: CloseReason) {
        self.end_with(reason, CloseMode::for_reason(reason));
    }

    /// As [`end`](Self::end), in this mode.
    pub(crate) fn end_with(self: &Arc<Self>, reason: CloseReason, mode: CloseMode) {
        if self.ended.set(reason).is_err() {
            return;
        }
        guard::debug!("session {} ends: {reason}", self.name());
        match mode {
            CloseMode::Abort => self.abort(),
            CloseMode::Close(code) => {
                self.shared.hub.close_session(Arc::<Self>::clone(self), code);
            }
        }
        self.add_task(Task::SessionEnded(reason));
    }

    /// Drops the packets that wait, and shuts the stream down. Each session is aborted in the end, also one that was
    /// closed before.
    pub(crate) fn abort(&self) {
        // The outbox is emptied before the id is removed. Otherwise its bytes still count, and another session is
        // ended for them.
        self.outbox.abort();
        self.shared.sessions.remove(&self.id);
        self.record_step(|gate| gate.is_aborted = true);
    }

    /// Closes the outbox behind the pending packets: with a close frame, or with a close packet for the next GET.
    pub(super) fn close(self: &Arc<Self>, code: Option<u16>) {
        let closed = match code.map(u16::to_be_bytes) {
            None => self.outbox.close(CLOSE_FRAME),
            Some([high, low]) => self.outbox.close(&[0x88, 2, high, low]),
        };
        // It ends already, so there is nobody to tell about a failure.
        let _ = self.complete_push(closed);
    }

    /// The hub has forgotten it, after its handlers have returned.
    pub(super) fn forgotten(&self) {
        self.record_step(|gate| gate.is_forgotten = true);
    }

    /// Records a step. The slot becomes free after the last one: the session was aborted, the hub has forgotten it,
    /// and it is in no queue. So there are never more sessions, in any state, than slots.
    pub(super) fn record_step(&self, step: impl FnOnce(&mut Gate)) {
        let mut gate = self.gate.lock();
        step(&mut gate);
        let is_over = gate.is_forgotten && gate.is_aborted && !gate.is_queued;
        if is_over && !std::mem::replace(&mut gate.is_released, true) {
            let share = gate.share.take();
            drop(gate);
            drop(share);
            self.shared.sessions.free_slot(self.slot);
        }
    }
}
