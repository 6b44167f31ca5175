//! The turn of a session: the right to handle its packets.
//!
//! The handlers of one session run one at a time and in order, on any thread. A thread that has a packet waits for
//! the [`Turn`], takes the [`Dispatch`] state out of the session, and puts it back afterwards. It holds no lock
//! meanwhile. Other threads add work that needs the turn (an end, an expired acknowledgement) as a [`Task`]. The
//! thread that has the turn performs the tasks before it returns the turn. If no thread has it, a worker thread
//! performs them.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::{BUSY, Session};
use crate::server::{
    hub::{
        Unfinished,
        membership::{Membership, SocketState},
    },
    lead,
    limits::admission::Share,
};
use crate::{
    proto::{CloseReason, engine::Packet},
    sys::sync::atomic::Ordering::Relaxed,
};

/// What handles the packets of a session.
pub(crate) trait Dispatch: Send + fmt::Debug {
    /// The session's open packet was sent.
    fn opened(&mut self, session: &Arc<Session>);

    /// Handles one packet.
    ///
    /// # Errors
    /// Why the session must end.
    fn packet(&mut self, session: &Arc<Session>, packet: Packet<'_>) -> Result<(), CloseReason>;

    /// Charges a packet that has no other effect.
    fn charge(&mut self, session: &Arc<Session>, bytes: usize);

    fn perform(&mut self, session: &Arc<Session>, task: Task);
}

/// What is done in turn with the packets.
#[derive(Debug)]
pub(crate) enum Task {
    /// The session has ended: call the handlers, then tell the hub.
    SessionEnded(CloseReason),
    /// The server has removed a socket: call its handlers.
    SocketRemoved(Arc<SocketState>, CloseReason),
    /// The server disconnects the client: first all sockets, then the session, for this reason. The first value is
    /// the sender that has requested it, if the hub has not finished all commands of that sender.
    Disconnect(Option<Unfinished>, CloseReason),
    /// The deadline of an acknowledgement is over.
    AckExpired(Arc<Membership>),
}

/// The turn, the tasks that wait for it, and the steps that are left until the slot is free.
pub(super) struct Gate {
    /// `None` while a thread has the turn.
    dispatch: Option<Box<dyn Dispatch>>,
    /// The sender that the handlers are. While a thread has the turn: the sender that this thread was before.
    pub(super) sender: Unfinished,
    tasks: Vec<Task>,
    /// The session is in the queue of the worker threads.
    pub(super) is_queued: bool,
    /// The hub has forgotten it.
    pub(super) is_forgotten: bool,
    /// Requests do not find it any more, and nothing waits for it.
    pub(super) is_aborted: bool,
    /// Its slot is free, or another session's.
    pub(super) is_released: bool,
    /// What is given back to its address with the slot.
    pub(super) share: Option<Share>,
}

impl Gate {
    pub(super) fn new(dispatch: Box<dyn Dispatch>, share: Option<Share>) -> Self {
        Self {
            dispatch: Some(dispatch),
            sender: Unfinished::default(),
            tasks: Vec::new(),
            is_queued: false,
            is_forgotten: false,
            is_aborted: false,
            is_released: false,
            share,
        }
    }
}

impl Session {
    /// Waits for the turn. Tasks that were added before are done when this returns: a packet may depend on them.
    pub(crate) fn enter(self: &Arc<Self>) -> Turn<'_> {
        let mut gate = self.gate.lock();
        if gate.dispatch.is_none() {
            drop(gate);
            lead::before_wait();
            gate = self.gate.lock();
        }
        loop {
            if let Some(mut turn) = self.take_turn(&mut gate) {
                let tasks = std::mem::take(&mut gate.tasks);
                drop(gate);
                turn.perform_all(tasks);
                return turn;
            }
            self.gate_free.wait(&mut gate);
        }
    }

    fn take_turn(self: &Arc<Self>, gate: &mut Gate) -> Option<Turn<'_>> {
        let dispatch = gate.dispatch.take()?;
        self.signs.fetch_or(BUSY, Relaxed);
        gate.sender.swap_with_current();
        Some(Turn { session: self, dispatch: Some(dispatch) })
    }

    /// A worker thread has taken the session out of its queue: it performs the tasks.
    pub(super) fn serve_queued(self: &Arc<Self>) {
        self.record_step(|gate| gate.is_queued = false);
        let mut gate = self.gate.lock();
        // A thread that has the turn performs them.
        let Some(turn) = self.take_turn(&mut gate) else { return };
        drop(gate);
        drop(turn);
    }

    /// Adds a task for the thread that has the turn, or for a worker thread.
    pub(crate) fn add_task(self: &Arc<Self>, task: Task) {
        let mut gate = self.gate.lock();
        if gate.is_released {
            return;
        }
        gate.tasks.push(task);
        if gate.dispatch.is_some() && !std::mem::replace(&mut gate.is_queued, true) {
            drop(gate);
            self.shared.workers.queue(Arc::clone(self));
        }
    }
}

/// The right to handle packets of a session. Dropping it performs the tasks that were added meanwhile.
pub(crate) struct Turn<'s> {
    session: &'s Arc<Session>,
    dispatch: Option<Box<dyn Dispatch>>,
}

impl Turn<'_> {
    fn perform_all(&mut self, tasks: Vec<Task>) {
        let session = self.session;
        for task in tasks {
            self.perform(session, task);
        }
    }
}

impl<'s> Deref for Turn<'s> {
    type Target = dyn Dispatch + 's;
    fn deref(&self) -> &Self::Target {
        self.dispatch.as_deref().expect("only drop takes it")
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.dispatch.as_deref_mut().expect("only drop takes it")
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        loop {
            let mut gate = self.session.gate.lock();
            if gate.tasks.is_empty() {
                gate.dispatch = self.dispatch.take();
                gate.sender.swap_with_current();
                self.session.signs.fetch_and(!BUSY, Relaxed);
                drop(gate);
                self.session.gate_free.notify_one();
                return;
            }
            let tasks = std::mem::take(&mut gate.tasks);
            drop(gate);
            self.perform_all(tasks);
        }
    }
}
