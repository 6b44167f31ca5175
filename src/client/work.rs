//! What the state of the client has for the `link` thread: packets, deadlines, endings.

use std::{collections::VecDeque, time::Instant};

use super::{
    Error,
    core::{Core, Entry, Session, Upgrade},
    lifecycle::End,
    link::{Frame, PollEnd},
    websocket::WebSocket,
};
use crate::proto::{CloseReason, engine::TransportKind, socket::Encoded};

/// Bytes that are taken from the outbox at a time: enough to fill a socket's buffer, little enough that a pong does
/// not wait long behind it.
const BATCH: usize = 64 << 10;

/// What the state has for the thread.
pub(super) struct Work {
    /// The session is to end, by then.
    pub(super) closing: Option<Instant>,
    /// When to look again.
    pub(super) deadline: Option<Instant>,
    /// What the `poll` thread ended with.
    pub(super) poll_end: Option<PollEnd>,
    /// Whether nothing was taken, so that whoever emits will ring.
    pub(super) idle: bool,
    /// Whether the server is to handle what was written before anything more is.
    pub(super) pause: bool,
    /// Whether more waits in the outbox.
    pub(super) more: bool,
    /// A WebSocket is ready to take over.
    pub(super) upgrading: bool,
    /// Whether a pong was taken.
    pub(super) pong: bool,
    /// The session has failed by itself.
    pub(super) failed: Option<End>,
}

impl Core {
    /// Takes what is to be sent, if `pending` has been, and what else there is to know.
    ///
    /// While `paused`, only pongs are taken.
    pub(super) fn take_work(&self, epoch: u64, pending: &mut VecDeque<Frame>, paused: bool) -> Work {
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        let retry = self.retry(state, now);
        let Some(session) = state.session.as_mut().filter(|session| session.epoch == epoch) else {
            return Work::over();
        };
        let (mut pause, mut pong) = (false, false);
        if pending.is_empty() {
            pong = session.pong.is_some();
            state.stats.sent += session.take(pending, paused);
            pause = !paused && pending.is_empty() && session.take_pause();
        }
        session.link_asleep = pending.is_empty();
        let late = !session.joined && session.join_by <= now;
        let failed = (late && session.closing.is_none()).then_some(End {
            reason: CloseReason::TransportError,
            error: Some(Error::Timeout { what: "answer to CONNECT", after: self.config.timeout }),
        });
        let closing = session.closing.map(|closing| closing.by);
        let join_by = (!session.joined && closing.is_none()).then_some(session.join_by);
        Work {
            closing,
            deadline: [retry, join_by, closing].into_iter().flatten().min(),
            poll_end: session.poll_end.take(),
            idle: session.link_asleep && !pause,
            pause,
            more: !session.outbox.is_empty(),
            upgrading: matches!(session.upgrade, Upgrade::Ready(_)),
            pong,
            failed,
        }
    }

    /// Takes the WebSocket that is ready.
    pub(super) fn take_upgrade(&self, epoch: u64) -> Option<Box<WebSocket>> {
        let mut state = self.lock();
        let session = state.session(epoch)?;
        let Upgrade::Ready(websocket) = std::mem::replace(&mut session.upgrade, Upgrade::Settled) else {
            return None;
        };
        session.transport = TransportKind::Websocket;
        state.upgraded = true;
        state.log(log::Level::Info, format_args!("upgraded to websocket"));
        Some(websocket)
    }
}

impl Session {
    /// Moves a batch from the outbox to `pending`, the pong first, and says how many packets count as sent.
    fn take(&mut self, pending: &mut VecDeque<Frame>, paused: bool) -> u64 {
        if let Some(pong) = self.pong.take() {
            unpack(&pong, pending);
        }
        let (mut taken, mut sent) = (0, 0);
        while taken < BATCH && !paused {
            let Some(Entry::QueuedPacket(packet)) =
                self.outbox.pop_front_if(|entry| matches!(entry, Entry::QueuedPacket(_)))
            else {
                break;
            };
            let bytes = packet.encoded.bytes().len();
            taken += bytes;
            sent += u64::from(packet.counts);
            self.outbox_bytes -= bytes;
            unpack(&packet.encoded, pending);
        }
        sent
    }

    /// Takes the pause that is next, if one is.
    fn take_pause(&mut self) -> bool {
        self.outbox.pop_front_if(|entry| matches!(entry, Entry::Pause)).is_some()
    }
}

fn unpack(encoded: &Encoded, pending: &mut VecDeque<Frame>) {
    let frames = encoded.frames();
    pending.extend(
        frames.map(|frame| Frame { opcode: frame.opcode, data: encoded.bytes().slice_ref(frame.data) }),
    );
}

impl Work {
    /// Nobody knows the session any more.
    fn over() -> Self {
        let failed = Some(End { reason: CloseReason::TransportClose, error: None });
        Self {
            closing: None,
            deadline: None,
            poll_end: None,
            idle: true,
            pause: false,
            more: false,
            upgrading: false,
            pong: false,
            failed,
        }
    }
}
