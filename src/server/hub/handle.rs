//! What other threads ask of the hub.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::Arc,
};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::server::{
    config::Config,
    error::EmitError,
    hub::backpressure::Inflight,
    hub::batch::{self, Added, Batch},
    hub::command::{Command, Question, Selection, Signal},
    hub::in_flight::{caught_up, order},
    hub::membership::Membership,
    hub::session::HubSession,
    recovery::Resume,
    recovery::store::KeptAnswer,
};
use crate::{
    proto::socket::Encoded,
    sys::{
        channel::{Receiver, RecvTimeoutError, Sender, bounded},
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        thread_local,
        time::Instant,
    },
};

/// One of each kind, and one more report.
const SIGNALS_MAX: usize = 4;

/// Signals the hub, without waiting for room in its queue.
#[derive(Debug, Clone)]
pub(crate) struct Signaller {
    signals: Sender<Signal>,
    inbox: Sender<Command>,
}

impl Signaller {
    pub(crate) fn tell(&self, signal: Signal) {
        // Fails after the stop.
        let _ = self.signals.send(signal);
        // A hub whose queue is full looks by itself.
        let _ = self.inbox.try_send(Command::Look);
    }
}

thread_local! {
    /// What the hub's own thread wants from itself; it must not wait for room in its own inbox.
    static OWN: RefCell<VecDeque<Command>> = RefCell::default();
    static IS_HUB: Cell<bool> = const { Cell::new(false) };
    static IS_STORE: Cell<bool> = const { Cell::new(false) };
}

/// This thread is the hub's.
pub(super) fn mark_hub_thread() {
    IS_HUB.set(true);
}

pub(super) fn is_hub_thread() -> bool {
    IS_HUB.get()
}

/// The next command that the hub's own thread has sent.
pub(super) fn next_own_command() -> Option<Command> {
    OWN.with_borrow_mut(VecDeque::pop_front)
}

/// This thread runs the store's methods. It must not wait for the hub, which may wait for it.
pub(crate) fn mark_store_thread() {
    IS_STORE.set(true);
}

/// What the hub's thread works with.
pub(crate) struct Inbox {
    pub(super) queue: Receiver<Command>,
    pub(super) signals: Receiver<Signal>,
}

/// The verbs that other threads have for the hub.
#[derive(Debug, Clone)]
pub(crate) struct HubHandle {
    inbox: Sender<Command>,
    signals: Sender<Signal>,
    pub(super) inflight: Arc<Inflight>,
    recovers: bool,
    /// Bytes of the largest packet that may be sent.
    packet_max: usize,
    /// Bytes in the batches of all threads.
    batched: Arc<AtomicUsize>,
}

impl HubHandle {
    /// The handle and the way to start the thread, apart because the thread needs what the handle is part of.
    pub(crate) fn new(config: &Config) -> (Self, Inbox) {
        let (inbox, queue) = bounded(config.hub_commands());
        let recovers = config.connection_state_recovery.is_some();
        let (signals, signalled) = bounded(SIGNALS_MAX);
        let handle = Self {
            inbox,
            signals,
            inflight: Arc::default(),
            recovers,
            packet_max: config.outbox_bytes(),
            batched: Arc::default(),
        };
        (handle, Inbox { queue, signals: signalled })
    }

    pub(crate) fn signaller(&self) -> Signaller {
        Signaller { signals: self.signals.clone(), inbox: self.inbox.clone() }
    }

    /// Whether a packet of so many bytes may be sent: an outbox that is empty must take it.
    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), EmitError> {
        let max = self.packet_max;
        if bytes <= max { Ok(()) } else { Err(EmitError::TooLarge { bytes, max }) }
    }

    /// Whether events go through the hub, which gives them their offsets: each must have room for one.
    pub(crate) fn recovers(&self) -> bool {
        self.recovers
    }

    /// Waits for room in the inbox. After the stop the command is dropped.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.try_send(command);
    }

    fn try_send(&self, command: Command) -> Result<(), EmitError> {
        if IS_HUB.get() {
            self.inflight.enter(command.large_bytes());
            OWN.with_borrow_mut(|own| own.push_back(command));
            return Ok(());
        }
        let command = match batch::add(command, &self.batched) {
            Added::Batched => return Ok(()),
            Added::NoBatch(command) => command,
            Added::Full(command) => {
                self.send_batch()?;
                command
            }
        };
        if IS_STORE.get() {
            return self.inbox.try_send(self.inflight.entered(command)).map_err(|refused| {
                self.inflight.leave(refused.into_inner().large_bytes());
                EmitError::Dropped
            });
        }
        self.inflight.enter(command.large_bytes());
        self.inbox.send(command).map_err(|_| EmitError::ServerGone)
    }

    /// Opens a batch: until [`commit_batch`](Self::commit_batch), the commands of this thread reach the hub as one command.
    /// A batch is sent early when it is large, or when a command in it needs an answer.
    pub(crate) fn begin_batch(&self) {
        batch::begin();
    }

    /// Whether this thread has an open batch.
    pub(crate) fn is_batching(&self) -> bool {
        batch::is_open()
    }

    /// Sends this thread's batch and closes it.
    pub(crate) fn commit_batch(&self) {
        // Fails after the stop, when nothing is sent any more.
        let _ = self.send_batch();
        batch::end();
    }

    /// Sends the commands that are in this thread's batch. Necessary before the thread waits for their effect.
    pub(crate) fn send_batch(&self) -> Result<(), EmitError> {
        let Batch { commands, bytes } = batch::take();
        if commands.is_empty() {
            return Ok(());
        }
        self.batched.fetch_sub(bytes, Relaxed);
        let batch = Command::Batch(commands);
        self.inflight.enter(batch.large_bytes());
        self.inbox.send(batch).map_err(|_| EmitError::ServerGone)
    }

    pub(crate) fn emit(
        &self,
        namespace: usize,
        to: Arc<Selection>,
        packet: Encoded,
        volatile: bool,
    ) -> Result<(), EmitError> {
        self.check_size(packet.bytes().len())?;
        self.try_send(Command::Emit { namespace, to, packet, volatile, order: order() })
    }

    pub(crate) fn direct(
        &self,
        session: Arc<dyn HubSession>,
        packet: Encoded,
        volatile: bool,
    ) -> Result<(), EmitError> {
        self.check_size(packet.bytes().len())?;
        self.try_send(Command::Direct { session, packet, volatile, order: order() })
    }

    pub(crate) fn enter(&self, socket: Arc<Membership>, consent: Encoded, resume: Option<Box<Resume>>) {
        self.send(Command::Enter { socket, consent, resume, order: order() });
    }

    /// Keeps an answer, before it is given.
    pub(crate) fn remember(&self, answer: KeptAnswer) {
        self.send(Command::Remember(Box::new(answer), order()));
    }

    /// In effect for whatever this thread emits later; with recovery, kept before that goes out.
    pub(crate) fn join(&self, socket: Arc<Membership>, rooms: SmallVec<[Arc<str>; 1]>) {
        self.send(Command::Join(socket, rooms, self.recovers.then(order)));
    }

    pub(crate) fn leave(&self, socket: Arc<Membership>, room: Arc<str>) {
        self.send(Command::Leave(socket, room, self.recovers.then(order)));
    }

    pub(crate) fn keep_data(&self, socket: Arc<Membership>, data: Option<Bytes>) {
        self.send(Command::Data(socket, data, self.recovers.then(order)));
    }

    /// Sent at once, also if this thread has an open batch.
    pub(crate) fn forget_answer(&self, client: Arc<str>, namespace: usize) {
        // Fails after the stop, when nothing is kept any more.
        let _ = self.inbox.send(Command::ForgetAnswer(client, namespace));
    }

    pub(crate) fn fence(&self) {
        self.send(Command::Fence(order()));
    }

    /// Waits until the hub has looked at every deadline that is due.
    pub(crate) fn ring(&self) {
        if IS_HUB.get() || IS_STORE.get() {
            // It cannot wait for itself.
            return;
        }
        let (done, answer) = bounded(0);
        self.send(Command::Ring(done));
        // Nothing is ever sent.
        let _ = answer.recv();
    }

    /// Waits until everything is finished that this thread's sender has asked for. `false`: it is not by the deadline.
    pub(crate) fn wait_until_caught_up(&self, deadline: Instant) -> bool {
        if caught_up() || IS_HUB.get() || IS_STORE.get() {
            return true;
        }
        let (done, finished) = bounded(0);
        self.send(Command::Finished(done, order()));
        // Nothing is ever sent.
        finished.recv_deadline(deadline) != Err(RecvTimeoutError::Timeout)
    }

    /// Ends the session behind what its handlers and this thread have emitted.
    pub(crate) fn ending(&self, session: Arc<dyn HubSession>, code: Option<u16>) {
        if caught_up() && session.unfinished().is_none() {
            Arc::clone(&session).finish(code);
        }
        let order = session.unfinished().order();
        self.send(Command::Ending(session, code, order));
    }

    /// Asks and waits for the answer. `None` after the stop.
    pub(crate) fn ask<T>(&self, namespace: usize, question: impl FnOnce(Sender<T>) -> Question) -> Option<T> {
        if IS_HUB.get() || IS_STORE.get() {
            // It cannot wait for itself.
            return None;
        }
        let (reply, answer) = bounded(1);
        self.try_send(Command::Ask { namespace, question: question(reply) }).ok()?;
        answer.recv().ok()
    }

    /// Stops the hub behind what is in its queue. The store has until the deadline.
    pub(crate) fn stop(&self, deadline: Instant) {
        self.signaller().tell(Signal::Stop(deadline));
    }
}
