//! What the state has for the `link` thread: frames to write, deadlines, and the end of the session.

use std::{collections::VecDeque, time::Instant};

use super::{core::Core, end::End, send_queue::Frame};

/// What the state has for the thread.
#[derive(Default)]
pub(super) struct Work {
    /// The session is to be closed, by then.
    pub(super) closing: Option<Instant>,
    /// When to look again.
    pub(super) deadline: Option<Instant>,
    /// Whether nothing was taken, so that the next emit wakes the thread.
    pub(super) idle: bool,
    /// Whether the server is to handle what was written before anything more is written.
    pub(super) pause: bool,
    /// Whether more waits in the send queue.
    pub(super) more: bool,
    /// Whether a WebSocket is ready to take over.
    pub(super) upgrading: bool,
    /// Whether a pong was taken.
    pub(super) pong: bool,
    /// The session has failed.
    pub(super) failed: Option<End>,
}

impl Core {
    /// Takes what is to be written, if `pending` was written, and everything else that the thread has to know.
    ///
    /// While `paused`, only pongs are taken.
    pub(super) fn take_work(&self, epoch: u64, pending: &mut VecDeque<Frame>, paused: bool) -> Work {
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        let retry = self.expire_tries(state, now);
        let Some(session) = state.connection.session_of(epoch) else {
            return Work { failed: Some(End::closed()), ..Work::default() };
        };
        let taken = session.queue.take(pending, paused);
        state.stats.sent += taken.sent;
        let join_by = session.join_deadline();
        let failed = join_by.filter(|by| *by <= now).map(|_| End::no_answer(self.config.timeout));
        let closing = session.closing().map(|closing| closing.by);
        Work {
            closing,
            deadline: [retry, join_by, closing].into_iter().flatten().min(),
            idle: pending.is_empty() && !taken.pause,
            pause: taken.pause,
            more: !session.queue.is_empty(),
            upgrading: session.is_upgrading(),
            pong: taken.pong,
            failed,
        }
    }
}
