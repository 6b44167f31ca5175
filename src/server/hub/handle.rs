//! The hub's handle: the only part of the hub that other modules call.
//!
//! A command waits for room in the hub's queue, which is bounded. The hub's own thread and the store's must not wait
//! (see [`threads`]).

use std::sync::{Arc, Weak};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::server::{
    config::Config,
    error::EmitError,
    hub::backpressure::InFlightBytes,
    hub::batch::{self, Added, Batch},
    hub::command::{Command, Query, Selection, Signal},
    hub::in_flight::{caught_up, guard},
    hub::membership::Membership,
    hub::recovery::{Claim, Resume, RetainedData},
    hub::session::HubSession,
    hub::threads::{self, Role},
    lead,
    recovery::store::KeptAnswer,
};
use crate::{
    proto::socket::Encoded,
    sys::{
        channel::{Receiver, RecvTimeoutError, Sender, bounded},
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        time::Instant,
    },
};

/// One signal of each kind, and one more report.
const SIGNALS_MAX: usize = 4;

/// Sends signals to the hub, without waiting for room in its queue.
#[derive(Debug, Clone)]
pub(crate) struct Signaller {
    signals: Sender<Signal>,
    inbox: Sender<Command>,
}

impl Signaller {
    pub(super) fn send(&self, signal: Signal) {
        // Fails after the stop.
        let _ = self.signals.send(signal);
        // A hub with a full queue checks without this command.
        let _ = self.inbox.try_send(Command::CheckSignals);
    }
}

/// The hub's side of the handle.
pub(crate) struct Inbox {
    pub(super) queue: Receiver<Command>,
    pub(super) signals: Receiver<Signal>,
}

/// Cheap to clone. The methods may be called on any thread, also on the hub's own.
#[derive(Debug, Clone)]
pub(crate) struct HubHandle {
    inbox: Sender<Command>,
    signals: Sender<Signal>,
    pub(super) inflight: Arc<InFlightBytes>,
    recovers: bool,
    /// The bytes of the largest packet that may be sent.
    packet_max: usize,
    /// Bytes in the batches of all threads.
    batched: Arc<AtomicUsize>,
}

impl HubHandle {
    /// The handle, and what [`start`](super::start) needs. The thread starts later, because it needs the journal,
    /// which needs the handle.
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

    /// Whether a packet of this size may be sent: an empty outbox must have room for it.
    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), EmitError> {
        let max = self.packet_max;
        if bytes <= max { Ok(()) } else { Err(EmitError::TooLarge { bytes, max }) }
    }

    /// Whether all events go through the hub, which writes their offsets into them.
    pub(crate) fn recovers(&self) -> bool {
        self.recovers
    }

    /// Waits for room in the inbox. After the stop the command is dropped.
    fn send(&self, command: Command) {
        let _ = self.try_send(command);
    }

    fn try_send(&self, command: Command) -> Result<(), EmitError> {
        match threads::role() {
            Role::Hub => {
                self.inflight.enter(command.large_bytes());
                threads::push_own(command);
                Ok(())
            }
            Role::Store => self.inbox.try_send(self.inflight.entered(command)).map_err(|refused| {
                self.inflight.leave(refused.into_inner().large_bytes());
                EmitError::Dropped
            }),
            Role::Other => match batch::add(command, &self.batched) {
                Added::Batched => Ok(()),
                Added::NoBatch(command) => self.enqueue(command),
                Added::Full(command) => {
                    self.send_batch()?;
                    self.enqueue(command)
                }
            },
        }
    }

    /// Waits for room in the inbox.
    fn enqueue(&self, command: Command) -> Result<(), EmitError> {
        self.inflight.enter(command.large_bytes());
        if self.inbox.is_full() {
            lead::before_wait();
        }
        self.inbox.send(command).map_err(|_| EmitError::ServerGone)
    }

    /// Opens a batch: until [`commit_batch`](Self::commit_batch), the commands of this thread reach the hub as one
    /// command. A batch is sent early when it is large, or when a command in it needs an answer.
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
        self.enqueue(Command::Batch(commands))
    }

    pub(crate) fn emit(
        &self,
        namespace: usize,
        to: Arc<Selection>,
        packet: Encoded,
        volatile: bool,
    ) -> Result<(), EmitError> {
        self.check_size(packet.bytes().len())?;
        self.try_send(Command::Emit { namespace, to, packet, volatile, guard: guard() })
    }

    pub(crate) fn direct(
        &self,
        session: Arc<dyn HubSession>,
        packet: Encoded,
        volatile: bool,
    ) -> Result<(), EmitError> {
        self.check_size(packet.bytes().len())?;
        self.try_send(Command::Direct { session, packet, volatile, guard: guard() })
    }

    /// The session is open. Its heartbeat begins.
    pub(crate) fn open_session(&self, session: Arc<dyn HubSession>) {
        self.send(Command::OpenSession(session, Instant::now()));
    }

    /// Closes the session behind the packets that its handlers and this thread have emitted.
    pub(crate) fn close_session(&self, session: Arc<dyn HubSession>, code: Option<u16>) {
        if caught_up() && session.unfinished().is_none() {
            Arc::clone(&session).close(code);
        }
        let guard = session.unfinished().guard();
        self.send(Command::CloseSession(session, code, guard));
    }

    /// The session has ended, and its handlers have returned.
    pub(crate) fn forget_session(&self, session: Arc<dyn HubSession>) {
        self.send(Command::ForgetSession(session));
    }

    /// Adds the socket to its namespace, and sends its client the answer to the CONNECT.
    pub(crate) fn connect_socket(
        &self,
        socket: Arc<Membership>,
        connect_ack: Encoded,
        resume: Option<Box<Resume>>,
    ) {
        self.send(Command::ConnectSocket { socket, connect_ack, resume, guard: guard() });
    }

    /// Removes the socket from its namespace. `lost`: its client may be recovered, and then finds this data again.
    pub(crate) fn disconnect_socket(&self, socket: Arc<Membership>, lost: Option<RetainedData>) {
        self.send(Command::DisconnectSocket { socket, lost });
    }

    /// The disconnect handlers of a socket whose client may be recovered have returned.
    pub(crate) fn handlers_done(&self, socket: Arc<Membership>) {
        self.send(Command::HandlersDone(socket));
    }

    /// The claim of a disconnected client's place is given up.
    pub(crate) fn release_claim(&self, resume: Box<Resume>) {
        self.send(Command::ReleaseClaim(resume));
    }

    /// Sets a timer in the hub. After this deadline the overdue acknowledgements of the socket fail.
    pub(crate) fn ack_deadline(&self, socket: Weak<Membership>, at: Instant) {
        self.send(Command::AckDeadline(socket, at));
    }

    /// Stores an answer before it is sent.
    pub(crate) fn store_answer(&self, answer: KeptAnswer) {
        self.send(Command::StoreAnswer(Box::new(answer), guard()));
    }

    /// It has an effect on all later emits of this thread. With recovery, it is stored before they are sent.
    pub(crate) fn join(&self, socket: Arc<Membership>, rooms: SmallVec<[Arc<str>; 1]>) {
        self.send(Command::Join(socket, rooms, self.recovers.then(guard)));
    }

    pub(crate) fn leave(&self, socket: Arc<Membership>, room: Arc<str>) {
        self.send(Command::Leave(socket, room, self.recovers.then(guard)));
    }

    pub(crate) fn store_data(&self, socket: Arc<Membership>, data: Option<Bytes>) {
        self.send(Command::StoreData(socket, data, self.recovers.then(guard)));
    }

    /// Sent at once, also if this thread has an open batch.
    pub(crate) fn forget_answer(&self, client: Arc<str>, namespace: usize) {
        // Fails after the stop, when nothing is stored any more.
        let _ = self.inbox.send(Command::ForgetAnswer(client, namespace));
    }

    /// All later emits of this thread come behind every command that is in the queue.
    pub(crate) fn fence(&self) {
        self.send(Command::Fence(guard()));
    }

    /// Waits until the hub has run the timers that are due.
    pub(crate) fn run_timers(&self) {
        if !threads::may_wait() {
            return;
        }
        let (done, answer) = bounded(0);
        self.send(Command::RunTimers(done));
        lead::before_wait();
        // Nothing is ever sent.
        let _ = answer.recv();
    }

    /// Waits until all commands of this thread's sender are finished. `false`: they are not by the deadline.
    pub(crate) fn wait_until_caught_up(&self, deadline: Instant) -> bool {
        if caught_up() || !threads::may_wait() {
            return true;
        }
        let (done, finished) = bounded(0);
        self.send(Command::ReportFinished(done, guard()));
        lead::before_wait();
        // Nothing is ever sent.
        finished.recv_deadline(deadline) != Err(RecvTimeoutError::Timeout)
    }

    /// The rooms of a socket, without the one that has its id.
    pub(crate) fn rooms_of(&self, socket: Arc<Membership>) -> Vec<Arc<str>> {
        let namespace = socket.namespace_index();
        self.query(namespace, |reply| Query::RoomsOf(socket, reply)).unwrap_or_default()
    }

    /// The number of sockets in a room.
    pub(crate) fn count(&self, namespace: usize, room: Arc<str>) -> usize {
        self.query(namespace, |reply| Query::Count(room, reply)).unwrap_or(0)
    }

    /// The selected sockets that are connected.
    pub(crate) fn sockets(&self, namespace: usize, to: Arc<Selection>) -> Vec<Arc<Membership>> {
        self.query(namespace, |reply| Query::Sockets(to, reply)).unwrap_or_default()
    }

    /// Claims the place of the disconnected client with this pid, which has received up to `offset`. `None` after the
    /// stop.
    pub(crate) fn claim(&self, namespace: usize, pid: Arc<str>, offset: Option<Arc<str>>) -> Option<Claim> {
        self.query(namespace, |reply| Query::Claim(pid, offset, reply))
    }

    /// Asks and waits for the answer. `None` after the stop.
    fn query<T>(&self, namespace: usize, query: impl FnOnce(Sender<T>) -> Query) -> Option<T> {
        if !threads::may_wait() {
            return None;
        }
        let (reply, answer) = bounded(1);
        self.try_send(Command::Query { namespace, query: query(reply) }).ok()?;
        lead::before_wait();
        answer.recv().ok()
    }

    /// Stops the hub behind what is in its queue. The store has until the deadline.
    pub(crate) fn stop(&self, deadline: Instant) {
        self.signaller().send(Signal::Stop(deadline));
    }
}
