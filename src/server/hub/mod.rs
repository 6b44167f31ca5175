//! The hub: one thread that owns who is where, and every deadline that belongs to no connection.
//!
//! ```text
//!   handles ──commands──► inbox ──► apply … apply ──► flush: one send a recipient ──► deadlines ──► wait
//!              (bounded)            (what is there already, at most BATCH_MAX)
//! ```
//! It works in batches: it blocks for one command, takes what has gathered behind it, notes for each recipient
//! which packets are due, and then writes each recipient's packets with one call. It waits for nobody: a full socket is
//! the drain thread's affair, and no handler runs here.
//!
//! **Order.** A sender that has emitted to a room must not overtake itself with a direct emit, because on the official server
//! it could not. A sender is the handlers of one session, on whichever threads they run, or a thread of the application. Each
//! counts what the hub has not yet finished of its own ([`caught_up`]), and while that is not zero its direct emits take the way
//! through the hub too.

pub(crate) mod held;
pub(crate) mod membership;
pub(crate) mod rooms;

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::server::{
    config::Config,
    dispatch::Todo,
    error::EmitError,
    hub::held::{Held, Place, Portion},
    hub::membership::Membership,
    hub::rooms::Rooms,
    recovery::journal::{HandedOver, Report},
    recovery::store::{Change, KeptAnswer},
    recovery::{Claim, Recovery, Resume},
    session::Session,
    transport::outbox::Packets,
    workers::HubData,
};
use crate::{
    proto::{
        CloseReason,
        engine::{Beat, Heartbeat, TransportKind},
        socket::Encoded,
    },
    sys::{
        channel::{Receiver, RecvTimeoutError, Sender, bounded},
        sync::{
            Condvar, Mutex,
            atomic::{
                AtomicUsize,
                Ordering::{Acquire, Relaxed, Release},
            },
        },
        thread::{self, JoinHandle},
        thread_local,
        time::Instant,
    },
};

/// Commands of one batch. A larger batch means fewer writes and a longer wait for the first packet in it.
pub(crate) const BATCH_MAX: usize = 256;

/// A batch with more than this for clients who have come back is at its end.
pub(crate) const REPLAY_MAX: usize = 4 << 20;

/// Packets for one recipient are written as one buffer up to this size.
const GATHER_MAX: usize = 64 << 10;

/// Fewer deadlines are not worth a sweep.
const SWEEP_MIN: usize = 1_024;

/// Bytes of packets that may be on their way to the hub; emitting threads wait while there are more.
pub(crate) const INFLIGHT_MAX: usize = 16 << 20;

/// Smaller packets are bounded well enough by the number of commands.
pub(crate) const INFLIGHT_MIN: usize = 4 << 10;

/// How much sooner than promised a heartbeat begins. The official server's timers count whole milliseconds from the start of
/// its loop's turn and are early too, and clients ask right at the deadline whether a session has timed out.
const HEARTBEAT_EARLY: Duration = Duration::from_millis(3);

/// How long a closed polling session may be asked for its last packets: the official close timeout.
const POLLING_CLOSE: Duration = Duration::from_secs(30);

/// Which sockets of a namespace a broadcast is for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// This socket, by its id, and nobody else.
    pub(crate) only: Option<Arc<str>>,
    /// Any of these rooms, or of these socket ids; none: everybody.
    pub(crate) rooms: SmallVec<[Arc<str>; 2]>,
    /// Nobody who is in one of these.
    pub(crate) except: SmallVec<[Arc<str>; 1]>,
    /// Not this socket, by its id: the sender.
    pub(crate) skip: Option<Arc<str>>,
}

pub(crate) enum Command {
    /// A session began then: its heartbeat and its connect deadline run.
    Open(Arc<Session>, Instant),
    /// A session ends in peace: close it behind what is due, cut it when that takes too long.
    Ending(Arc<Session>, Option<u16>, Order),
    /// The last that is heard of a session; its seat is free again.
    Gone(Arc<Session>),
    /// A socket is connected, and this tells its client so. Together, so that whoever hears of the socket finds it in the
    /// namespace, and no broadcast comes before the consent.
    Enter {
        socket: Arc<Membership>,
        consent: Encoded,
        /// Whose place it takes.
        resume: Option<Box<Resume>>,
        order: Order,
    },
    /// It has left; `lost`: and may come back, and then finds this data again.
    Exit {
        socket: Arc<Membership>,
        lost: Option<HubData>,
    },
    /// The handlers of one that was lost have been told.
    Left(Arc<Membership>),
    Join(Arc<Membership>, SmallVec<[Arc<str>; 1]>, Option<Order>),
    Leave(Arc<Membership>, Arc<str>, Option<Order>),
    Emit {
        namespace: usize,
        to: Arc<Selection>,
        packet: Encoded,
        volatile: bool,
        order: Order,
    },
    Direct {
        session: Arc<Session>,
        packet: Encoded,
        volatile: bool,
        order: Order,
    },
    /// Nothing, but what the sending thread emits afterwards comes after everything that is in the queue.
    Fence(Order),
    /// The deadlines that are due are looked at now; dropping the sender says that they were.
    Ring(Sender<()>),
    /// A question about rooms; the answer goes to the asking thread.
    Ask {
        namespace: usize,
        question: Question,
    },
    /// A client that has asked for the place of one that was lost does not take it.
    Release(Box<Resume>),
    /// The application's data of a socket, as the store keeps it.
    Data(Arc<Membership>, Option<Bytes>, Option<Order>),
    /// What a client was answered, for its retries.
    Remember(Box<KeptAnswer>, Order),
    /// A client's retries are over.
    ForgetAnswer(Arc<str>, usize),
    /// What belongs together: the store gets all of it or nothing.
    Together(Vec<Self>),
    /// Some acknowledgement is awaited until then.
    AckDeadline(Weak<Membership>, Instant),
    /// Nothing; dropping the sender says that what the sending thread has sent before is finished.
    Finished(Sender<()>, Order),
    /// There is a signal.
    Look,
}

/// What reaches the hub beside its queue, which may be full.
pub(crate) enum Signal {
    Store(Report),
    /// The server stops: the store has until then.
    Stop(Instant),
}

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

/// A packet, and whether it is volatile.
pub(crate) type Packet = (Encoded, bool);

/// The hub's queue has its slots in memory from the start.
const _: () = assert!(size_of::<Command>() <= 64);

pub(crate) enum Question {
    /// The rooms of a socket, its own id not among them.
    RoomsOf(Arc<Membership>, Sender<Vec<Arc<str>>>),
    /// How many are in the room.
    Count(Arc<str>, Sender<usize>),
    /// The sockets selected.
    Sockets(Arc<Selection>, Sender<Vec<Arc<Membership>>>),
    /// Whether the client that was known by this pid, and has this offset, can go on where it was.
    Claim(Arc<str>, Option<Arc<str>>, Sender<Claim>),
}

/// A token that one command of a sender is under way; dropping it says that the command is finished.
pub(crate) struct Order(Arc<Tally>);

/// What the hub has not finished of one sender's.
#[derive(Debug, Default)]
struct Tally {
    unfinished: AtomicUsize,
    /// How many of those wait for the store. Only the hub changes it.
    waiting: AtomicUsize,
}

impl Order {
    /// Whether something of the same sender waits for the store.
    fn is_behind(&self) -> bool {
        self.0.waiting.load(Relaxed) > 0
    }

    /// It waits for the store.
    pub(crate) fn wait(&self) {
        self.0.waiting.fetch_add(1, Relaxed);
    }

    /// It has waited.
    fn finish(self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// What a thread has gathered for the hub.
#[derive(Default)]
struct Together {
    commands: Vec<Command>,
    bytes: usize,
}

/// A thread that gathers more bytes sends them in parts.
const TOGETHER_MAX: usize = 1 << 20;

/// Bytes that all threads together may gather; beyond it they send what they have.
pub(crate) const TOGETHER_TOTAL: usize = 8 << 20;

/// What a command takes beside its packet.
const COMMAND_COST: usize = 256;

/// What became of a command of a thread that may be gathering.
enum Gathering {
    Off(Command),
    Kept,
    /// What was gathered goes first.
    Full(Command),
}

fn gather(command: Command, total: &AtomicUsize) -> Gathering {
    TOGETHER.with_borrow_mut(|together| {
        let Some(together) = together else { return Gathering::Off(command) };
        let bytes = COMMAND_COST
            + match &command {
                Command::Emit { packet, .. } | Command::Direct { packet, .. } => packet.bytes().len(),
                Command::Remember(answer, _) => answer.frames.len(),
                Command::Data(_, data, _) => data.as_ref().map_or(0, Bytes::len),
                Command::Join(..) | Command::Leave(..) | Command::AckDeadline(..) => 0,
                _ => return Gathering::Full(command),
            };
        if together.bytes + bytes > TOGETHER_MAX || total.load(Relaxed) + bytes > TOGETHER_TOTAL {
            return Gathering::Full(command);
        }
        total.fetch_add(bytes, Relaxed);
        together.bytes += bytes;
        together.commands.push(command);
        Gathering::Kept
    })
}

impl Command {
    /// Bytes of large packets in it.
    fn large_bytes(&self) -> usize {
        match self {
            Self::Emit { packet, .. } | Self::Direct { packet, .. } => large(packet),
            Self::Together(commands) => commands.iter().map(Self::large_bytes).sum(),
            _ => 0,
        }
    }
}

/// The bytes of a packet, if it is large.
fn large(packet: &Encoded) -> usize {
    let bytes = packet.bytes().len();
    if bytes >= INFLIGHT_MIN { bytes } else { 0 }
}

impl Drop for Order {
    fn drop(&mut self) {
        self.0.unfinished.fetch_sub(1, Release);
    }
}

thread_local! {
    /// The sender in whose name this thread sends: the session whose handlers it runs, or else the thread itself.
    static SENDER: RefCell<Unfinished> = RefCell::default();
    /// What the hub's own thread wants from itself; it must not wait for room in its own inbox.
    static OWN: RefCell<VecDeque<Command>> = RefCell::default();
    static IS_HUB: Cell<bool> = const { Cell::new(false) };
    static IS_STORE: Cell<bool> = const { Cell::new(false) };
    /// What this thread gathers.
    static TOGETHER: RefCell<Option<Together>> = const { RefCell::new(None) };
}

/// The count of a sender's commands that carry packets and that the hub has not finished.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unfinished(Arc<Tally>);

impl Unfinished {
    fn is_none(&self) -> bool {
        self.0.unfinished.load(Acquire) == 0
    }

    /// Whether there still are some, and of another sender than this thread's.
    pub(crate) fn is_of_another(&self) -> bool {
        !self.is_none() && SENDER.with_borrow(|own| !Arc::ptr_eq(&own.0, &self.0))
    }

    /// From now on this thread sends in the name of this sender. Returns the sender before it.
    pub(crate) fn make_current(self) -> Self {
        SENDER.replace(self)
    }

    fn order(&self) -> Order {
        self.0.unfinished.fetch_add(1, Relaxed);
        Order(Arc::clone(&self.0))
    }
}

/// Whether the hub has finished everything that this thread's sender has asked it to send.
pub(crate) fn caught_up() -> bool {
    SENDER.with_borrow(Unfinished::is_none)
}

/// What the hub has not finished of this thread's sender. `None`: nothing.
pub(crate) fn unfinished() -> Option<Unfinished> {
    SENDER.with_borrow(|sender| (!sender.is_none()).then(|| sender.clone()))
}

fn order() -> Order {
    SENDER.with_borrow(Unfinished::order)
}

/// This thread runs the store's methods. It must not wait for the hub, which may wait for it.
pub(crate) fn mark_store_thread() {
    IS_STORE.set(true);
}

/// What the hub's thread works with.
pub(crate) struct Inbox {
    queue: Receiver<Command>,
    signals: Receiver<Signal>,
}

/// The verbs that other threads have for the hub.
#[derive(Debug, Clone)]
pub(crate) struct HubHandle {
    inbox: Sender<Command>,
    signals: Sender<Signal>,
    inflight: Arc<Inflight>,
    recovers: bool,
    /// Bytes of the largest packet that may be sent.
    packet_max: usize,
    /// Bytes that threads have gathered.
    gathered: Arc<AtomicUsize>,
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
            gathered: Arc::default(),
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
        let command = match gather(command, &self.gathered) {
            Gathering::Kept => return Ok(()),
            Gathering::Off(command) => command,
            Gathering::Full(command) => {
                self.send_gathered()?;
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

    /// Until [`part`](Self::part), what this thread wants reaches the hub as one, unless it is very much, or waits for an answer.
    pub(crate) fn gather(&self) {
        TOGETHER.with_borrow_mut(|together| *together = Some(Together::default()));
    }

    /// Whether this thread gathers.
    pub(crate) fn is_gathering(&self) -> bool {
        TOGETHER.with_borrow_mut(|together| together.is_some())
    }

    /// Sends what was gathered, and gathers no more.
    pub(crate) fn part(&self) {
        // Fails after the stop, when nothing is sent any more.
        let _ = self.send_gathered();
        TOGETHER.with_borrow_mut(|together| *together = None);
    }

    /// Sends what was gathered: somebody is about to wait for what it does.
    pub(crate) fn send_gathered(&self) -> Result<(), EmitError> {
        let gathered = TOGETHER.with_borrow_mut(|together| together.as_mut().map(std::mem::take));
        let Together { commands, bytes } = gathered.unwrap_or_default();
        if commands.is_empty() {
            return Ok(());
        }
        self.gathered.fetch_sub(bytes, Relaxed);
        let together = Command::Together(commands);
        self.inflight.enter(together.large_bytes());
        self.inbox.send(together).map_err(|_| EmitError::ServerGone)
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
        session: Arc<Session>,
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

    /// At once, whatever this thread gathers.
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
    pub(crate) fn ending(&self, session: &Arc<Session>, code: Option<u16>) {
        if caught_up() && session.unfinished.is_none() {
            session.finish(code);
        }
        self.send(Command::Ending(Arc::clone(session), code, session.unfinished.order()));
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

/// The bytes of large packets between an emit and its flush.
#[derive(Debug, Default)]
struct Inflight {
    state: Mutex<InflightState>,
    less: Condvar,
}

#[derive(Debug, Default)]
struct InflightState {
    bytes: usize,
    /// The hub has stopped, and nothing will get less any more.
    stopped: bool,
}

impl Inflight {
    fn enter(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state.lock();
        // One packet is always let in, however large; and the hub itself never waits.
        while !IS_HUB.get() && state.bytes > 0 && state.bytes + bytes > INFLIGHT_MAX && !state.stopped {
            self.less.wait(&mut state);
        }
        state.bytes += bytes;
    }

    /// For the thread that must not wait.
    fn entered(&self, command: Command) -> Command {
        self.state.lock().bytes += command.large_bytes();
        command
    }

    fn leave(&self, bytes: usize) {
        if bytes > 0 {
            self.state.lock().bytes -= bytes;
            self.less.notify_all();
        }
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.less.notify_all();
    }
}

/// Starts the thread.
pub(crate) fn start(
    inbox: Inbox,
    handle: &HubHandle,
    config: &Config,
    namespaces: usize,
    recovery: Option<Recovery>,
) -> io::Result<JoinHandle<bool>> {
    let hub = Hub {
        queue: inbox.queue,
        signals: inbox.signals,
        held: Held::default(),
        told: Vec::new(),
        stopping: None,
        inflight: Arc::clone(&handle.inflight),
        config: config.clone(),
        seats: Vec::new(),
        spaces: (0..namespaces).map(|_| Space::default()).collect(),
        deadlines: BinaryHeap::new(),
        serial: 0,
        sweep_at: SWEEP_MIN,
        due: Vec::new(),
        dirty: Vec::new(),
        orders: Vec::new(),
        marks: Vec::new(),
        mark: 0,
        large: 0,
        replayed: 0,
        recovery,
        recovery_alarm: None,
    };
    thread::Builder::new().name("hub".into()).stack_size(256 << 10).spawn(|| hub.run())
}

/// A session as the hub sees it.
struct Seat {
    session: Arc<Session>,
    heartbeat: Heartbeat,
    /// Which of the batch's packets it gets.
    due: Vec<usize>,
    /// Where what waits for the store is.
    place: Place,
    /// The binary packet that was incomplete when the heartbeat last looked, and since when.
    assembling: (u64, Instant),
}

/// Lets go of the threads that wait for the hub when it goes, even if it goes by a bug of ours.
struct Farewell(Arc<Inflight>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.stop();
        if thread::panicking() {
            log::error!("the hub has failed; the server delivers nothing more and must be restarted");
        }
    }
}

/// A namespace's members.
#[derive(Default)]
struct Space {
    sockets: HashMap<u32, Arc<Membership>>,
    by_id: HashMap<Arc<str>, u32>,
    everybody: Vec<u32>,
    /// Where in `everybody` each is, so that a crowd that leaves costs no search each.
    places: HashMap<u32, usize>,
    rooms: Rooms,
}

/// The deadlines that have no connection's thread.
enum Deadline {
    /// A ping is due, or a pong.
    Heartbeat(u32, Weak<Session>),
    /// A namespace should have been joined by now.
    Connect(Weak<Session>),
    /// The ending should be over by now.
    Cut(Weak<Session>),
    Ack(Weak<Membership>),
    /// Recovery may forget something, or its journal is due.
    Recovery,
}

impl Deadline {
    fn is_alive(&self) -> bool {
        match self {
            Self::Heartbeat(_, session) | Self::Connect(session) | Self::Cut(session) => {
                session.strong_count() > 0
            }
            Self::Ack(socket) => socket.strong_count() > 0,
            Self::Recovery => true,
        }
    }
}

/// When, and which of those at the same time; the payload does not take part in the order.
type Alarm = (Instant, u64, Deadline);

struct Due(Alarm);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.0, self.0.1).cmp(&(other.0.0, other.0.1))
    }
}

struct Hub {
    queue: Receiver<Command>,
    signals: Receiver<Signal>,
    /// What waits for the store.
    held: Held,
    /// Who is told that this batch is finished.
    told: Vec<Sender<()>>,
    /// The server stops; the store has until then.
    stopping: Option<Instant>,
    inflight: Arc<Inflight>,
    config: Config,
    seats: Vec<Option<Seat>>,
    spaces: Vec<Space>,
    deadlines: BinaryHeap<Reverse<Due>>,
    serial: u64,
    /// At so many deadlines, those of sessions that are gone are swept out.
    sweep_at: usize,
    /// The packets of this batch, and whether each is volatile.
    due: Vec<Packet>,
    /// The seats that get some of them.
    dirty: Vec<u32>,
    /// What is finished with the next flush.
    orders: Vec<Order>,
    /// The last selection that visited a seat, so that nobody in two rooms gets a packet twice.
    marks: Vec<u64>,
    mark: u64,
    /// Bytes of large packets of this batch.
    large: usize,
    /// Bytes that clients who have come back get in this batch.
    replayed: usize,
    recovery: Option<Recovery>,
    /// The next look at what recovery may forget, and its journal wants.
    recovery_alarm: Option<Instant>,
}

impl Hub {
    /// `false`: the store was not finished in time.
    fn run(mut self) -> bool {
        IS_HUB.set(true);
        let _farewell = Farewell(Arc::clone(&self.inflight));
        while let Some(first) = self.next() {
            let mut next = first;
            let mut left = BATCH_MAX;
            while let Some(command) = next {
                self.apply(command);
                left -= 1;
                next = if left == 0 || self.is_full() {
                    None
                } else {
                    OWN.with_borrow_mut(VecDeque::pop_front).or_else(|| self.queue.try_recv().ok())
                };
            }
            self.look_at_signals();
            self.flush();
            if let Some(deadline) = self.stopping {
                return self.stop(deadline);
            }
            self.ring(Instant::now());
        }
        true
    }

    /// `Some(None)`: no command, but a deadline or a signal. `None`: nobody is left to send any.
    #[allow(clippy::option_option, reason = "the three outcomes of waiting are just these")]
    fn next(&mut self) -> Option<Option<Command>> {
        if let Some(own) = OWN.with_borrow_mut(VecDeque::pop_front) {
            return Some(Some(own));
        }
        let at = self.deadlines.peek().map(|Reverse(Due((at, ..)))| *at);
        if self.is_full() {
            // Nothing is taken out of the queue, and whoever sends waits, until the store has reported.
            if let Ok(signal) = recv_by(&self.signals, at) {
                self.look_at(signal);
            }
            return Some(None);
        }
        match recv_by(&self.queue, at) {
            Ok(command) => Some(Some(command)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Whether so much waits for the store that nothing more is taken.
    fn is_full(&self) -> bool {
        self.held.is_full() || self.recovery.as_ref().is_some_and(Recovery::is_full)
    }

    fn look_at_signals(&mut self) {
        while let Ok(signal) = self.signals.try_recv() {
            self.look_at(signal);
        }
    }

    fn look_at(&mut self, signal: Signal) {
        match signal {
            Signal::Store(report) => {
                if let Some(recovery) = &mut self.recovery {
                    recovery.store_reported(&report);
                }
                if matches!(report, Report::Reopened(_)) {
                    return;
                }
                if let Some(portion) = self.held.committed() {
                    self.let_go(portion);
                }
                if matches!(report, Report::Failed) {
                    let rest = self.held.let_go();
                    self.let_go(rest);
                }
            }
            Signal::Stop(deadline) => self.stopping = Some(deadline),
        }
    }

    /// Gives the store what has changed, and writes what waits for nothing more. `all`: whatever its time.
    fn hand_over(&mut self, all: bool) {
        let Some(recovery) = &mut self.recovery else { return };
        let handed_over = recovery.hand_over(Instant::now(), all);
        if self.held.is_idle() {
            return;
        }
        match handed_over {
            HandedOver::NotYet => {}
            HandedOver::All => self.held.hand_over(),
            HandedOver::Nothing => {
                let portion = self.held.let_go();
                self.let_go(portion);
            }
        }
    }

    /// Writes what has waited for the store, behind what was due before it.
    fn let_go(&mut self, portion: Portion) {
        self.write_due();
        let mut gathered = Gathered::default();
        for (session, packets) in &portion.recipients {
            write(session, packets, &portion.packets, &mut gathered);
        }
        for (session, code) in &portion.endings {
            session.finish(*code);
        }
        self.inflight.leave(portion.large);
        portion.orders.into_iter().for_each(Order::finish);
    }

    fn apply(&mut self, command: Command) {
        let before = self.held_back();
        match command {
            Command::Open(session, since) => self.open(session, since),
            Command::Ending(session, code, order) => self.ending(&session, code, order),
            Command::Gone(session) => self.gone(&session),
            Command::Enter { socket, consent, resume, order } => self.enter(socket, consent, resume, order),
            Command::Exit { socket, lost } => self.exit(&socket, lost),
            Command::Join(socket, names, order) => {
                self.join(&socket, &names);
                self.finish(order, before);
            }
            Command::Leave(socket, name, order) => {
                if self.spaces[socket.namespace_index()].leave(&socket, &name)
                    && let Some(recovery) = &mut self.recovery
                {
                    recovery.leave(&socket, &name);
                }
                self.finish(order, before);
            }
            Command::Emit { namespace, to, packet, volatile, order } => {
                self.emit(namespace, &to, packet, volatile, order);
            }
            Command::Direct { session, packet, volatile, order } => {
                let waits = order.is_behind();
                let large = large(&packet);
                let slot = self.sits(&session).then_some(session.slot);
                let waits = self.share((packet, volatile), slot.as_slice(), large, waits);
                self.sent(order, waits);
            }
            Command::Fence(order) => self.fence(order),
            Command::Finished(done, order) => self.finished(done, order),
            Command::Ring(done) => {
                self.ring(Instant::now());
                drop(done);
            }
            Command::Ask { namespace, question } => self.answer(namespace, question),
            Command::AckDeadline(socket, at) => self.alarm(at, Deadline::Ack(socket)),
            Command::Together(commands) => commands.into_iter().for_each(|command| self.apply(command)),
            Command::Remember(answer, order) => {
                self.keep(|recovery| recovery.note(Change::Answer(*answer)));
                self.finish(Some(order), before);
            }
            Command::ForgetAnswer(client, namespace) => {
                self.keep(|recovery| recovery.forget_answer(client, namespace));
            }
            Command::Data(socket, data, order) => {
                self.keep(|recovery| recovery.keep_data(&socket, data));
                self.finish(order, before);
            }
            Command::Release(resume) => self.keep(|recovery| recovery.release(&resume)),
            Command::Left(socket) => self.keep(|recovery| recovery.left(&socket)),
            Command::Look => {}
        }
    }

    /// A number that changes with each change that must be durable before anybody hears of it.
    fn held_back(&self) -> u64 {
        self.recovery.as_ref().map_or(0, Recovery::held_back)
    }

    /// A command without a packet is applied; it is finished when what it has changed is durable.
    fn finish(&mut self, order: Option<Order>, before: u64) {
        let Some(order) = order else { return };
        if self.held_back() != before || order.is_behind() {
            self.held.order(order);
        } else {
            self.orders.push(order);
        }
    }

    /// What the same sender sends next comes behind everything that is there, whoever has sent it.
    fn fence(&mut self, order: Order) {
        if self.held.is_idle() {
            self.orders.push(order);
        } else {
            self.held.order(order);
        }
    }

    /// `done` is dropped when everything of the same sender is finished.
    fn finished(&mut self, done: Sender<()>, order: Order) {
        if order.is_behind() {
            self.held.order(order);
            self.held.tell(done);
        } else {
            self.orders.push(order);
            self.told.push(done);
        }
    }

    fn keep(&mut self, how: impl FnOnce(&mut Recovery)) {
        if let Some(recovery) = &mut self.recovery {
            how(recovery);
        }
    }

    /// Finishes what is in the queue, and waits for the store.
    fn stop(&mut self, deadline: Instant) -> bool {
        for _ in 0..self.config.hub_commands() {
            let Ok(command) = self.queue.try_recv() else { break };
            self.apply(command);
        }
        self.flush();
        loop {
            self.hand_over(true);
            if self.held.is_idle() && self.recovery.as_ref().is_none_or(Recovery::is_done) {
                break;
            }
            let Ok(signal) = self.signals.recv_deadline(deadline) else { break };
            self.look_at(signal);
        }
        self.recovery.as_mut().is_none_or(|recovery| recovery.close(deadline))
    }

    fn enter(
        &mut self,
        socket: Arc<Membership>,
        mut consent: Encoded,
        resume: Option<Box<Resume>>,
        order: Order,
    ) {
        let (namespace, session) = (socket.namespace_index(), Arc::clone(socket.session()));
        let before = self.held_back();
        let Some(recovery) = &mut self.recovery else {
            self.spaces[namespace].enter(socket);
            return self.consent(&session, consent, order, before);
        };
        let Some(resume) = resume else {
            if socket.pid().is_some() {
                consent.set_offset(recovery.last());
                recovery.enter(&socket);
            }
            self.spaces[namespace].enter(socket);
            return self.consent(&session, consent, order, before);
        };
        let left = self.room_bytes_left();
        let Some(recovery) = &mut self.recovery else { return };
        let (space, max) = (&self.spaces[namespace], self.config.max_rooms);
        let Some(restored) = recovery.restore(&socket, &resume, |rooms| space.fits(rooms, max, left)) else {
            // Something has left the log meanwhile, or its rooms have no room. It comes again, and is told.
            log::info!("session {}: it cannot be recovered any more", session.name());
            return session.end(CloseReason::TransportClose);
        };
        consent.set_offset(resume.offset);
        self.spaces[namespace].enter(socket.clone());
        self.spaces[namespace].join(&socket, &restored.rooms, max, left, |_| ());
        self.consent(&session, consent, order, before);
        let waits = self.held_back() != before;
        for packets in restored.missed {
            self.replayed += packets.bytes().len();
            self.share((packets, false), &[session.slot], 0, waits);
        }
        if self.replayed > REPLAY_MAX {
            self.flush();
        }
    }

    fn exit(&mut self, socket: &Arc<Membership>, lost: Option<HubData>) {
        self.spaces[socket.namespace_index()].exit(socket);
        self.keep(|recovery| recovery.exit(socket, lost, Instant::now()));
    }

    fn room_bytes_left(&self) -> usize {
        let taken: usize = self.spaces.iter().map(|space| space.rooms.bytes()).sum();
        self.config.room_bytes_total.saturating_sub(taken)
    }

    fn join(&mut self, socket: &Arc<Membership>, names: &[Arc<str>]) {
        let left = self.room_bytes_left();
        let recovery = &mut self.recovery;
        let space = &mut self.spaces[socket.namespace_index()];
        space.join(socket, names, self.config.max_rooms, left, |name| {
            if let Some(recovery) = recovery {
                recovery.join(socket, name);
            }
        });
    }

    fn open(&mut self, session: Arc<Session>, since: Instant) {
        let slot = session.slot as usize;
        if self.seats.len() <= slot {
            self.seats.resize_with(slot + 1, || None);
            self.marks.resize(slot + 1, 0);
        }
        let early = HEARTBEAT_EARLY.min(self.config.ping_interval / 20);
        let begun = since.checked_sub(early).unwrap_or(since);
        let first_look = begun + self.config.ping_interval;
        session.set_next_look(first_look);
        let weak = Arc::downgrade(&session);
        self.alarm(first_look, Deadline::Heartbeat(session.slot, Weak::clone(&weak)));
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

    fn ending(&mut self, session: &Arc<Session>, code: Option<u16>, order: Order) {
        // What is due to it, in this batch too, goes out before the close.
        if self.sits(session) {
            self.flush_seat(session.slot);
        }
        if order.is_behind() || self.waits_for(session) {
            self.held.end(session, code);
            self.held.order(order);
        } else {
            drop(order);
            session.finish(code);
        }
        let patience = match session.transport() {
            TransportKind::Polling => POLLING_CLOSE.max(self.config.close_timeout),
            TransportKind::Websocket => self.config.close_timeout,
        };
        self.alarm(Instant::now() + patience, Deadline::Cut(Arc::downgrade(session)));
    }

    /// Whether something for the session waits for the store.
    fn waits_for(&self, session: &Arc<Session>) -> bool {
        let seat = self.seats.get(session.slot as usize).and_then(Option::as_ref);
        seat.is_some_and(|seat| Arc::ptr_eq(&seat.session, session) && self.held.holds(seat.place))
    }

    fn gone(&mut self, session: &Arc<Session>) {
        if self.sits(session) {
            self.flush_seat(session.slot);
            self.dirty.retain(|&slot| slot != session.slot);
            self.seats[session.slot as usize] = None;
            session.gone();
        }
    }

    /// Whether the session's seat is still its own: a command may come later than its sender's end.
    fn sits(&self, session: &Arc<Session>) -> bool {
        matches!(self.seats.get(session.slot as usize), Some(Some(seat)) if Arc::ptr_eq(&seat.session, session))
    }

    /// The answer to a CONNECT. It waits for the store if something has changed since `before`.
    fn consent(&mut self, session: &Arc<Session>, consent: Encoded, order: Order, before: u64) {
        let waits = self.held_back() != before || order.is_behind();
        let slot = self.sits(session).then_some(session.slot);
        let waits = self.share((consent, false), slot.as_slice(), 0, waits);
        self.sent(order, waits);
    }

    fn emit(
        &mut self,
        namespace: usize,
        to: &Arc<Selection>,
        mut packet: Encoded,
        volatile: bool,
        order: Order,
    ) {
        let before = self.held_back();
        let mut selected = self.select(namespace, to);
        let mut strangers = Vec::new();
        if let Some(recovery) = &mut self.recovery {
            strangers = recovery.take_strangers(namespace, &mut selected);
            // What is for one client that declined is nobody's to ask for later.
            if to.only.is_none() || strangers.is_empty() {
                recovery.stamp(namespace, to, &mut packet, volatile, &selected);
            }
        }
        // A volatile one carries the offset of the last packet that is kept, which may not be durable yet.
        let is_ahead = volatile && !selected.is_empty() && !self.held.is_idle();
        let mut waits = self.held_back() != before || order.is_behind() || is_ahead;
        if !strangers.is_empty() {
            waits |= self.share((packet.without_offset(), volatile), &strangers, 0, waits);
        }
        let large = large(&packet);
        waits |= self.share((packet, volatile), &selected, large, waits);
        self.sent(order, waits);
    }

    fn sent(&mut self, order: Order, waits: bool) {
        if waits {
            self.held.order(order);
        } else {
            self.orders.push(order);
        }
    }

    /// A packet for these seats: due at the end of this batch; or when the store has what was changed before, if the packet waits
    /// for that, and for whom something waits already. `large`: how many of its bytes are counted as on their way to the hub.
    /// `true`: some of it waits.
    fn share(&mut self, packet: Packet, slots: &[u32], mut large: usize, waits: bool) -> bool {
        let mut some_wait = waits;
        if waits || !self.held.is_idle() {
            let mut is_held = false;
            for &slot in slots {
                let Some(Some(seat)) = self.seats.get_mut(slot as usize) else { continue };
                if !waits && !self.held.holds(seat.place) {
                    continue;
                }
                if !std::mem::replace(&mut is_held, true) {
                    self.held.put(packet.clone(), std::mem::take(&mut large));
                }
                self.held.add_recipient(&seat.session, &mut seat.place);
            }
            some_wait |= is_held;
        }
        self.large += large;
        if waits {
            return true;
        }
        let index = self.due.len();
        self.due.push(packet);
        for &slot in slots {
            self.note(slot, index);
        }
        some_wait
    }

    fn note(&mut self, slot: u32, packet: usize) {
        if let Some(Some(seat)) = self.seats.get_mut(slot as usize)
            // It was put behind what waits.
            && !self.held.holds(seat.place)
        {
            if seat.due.is_empty() {
                self.dirty.push(slot);
            }
            seat.due.push(packet);
        }
    }

    /// The seats that a selection means, each once.
    fn select(&mut self, namespace: usize, to: &Selection) -> Vec<u32> {
        if let Some(only) = &to.only {
            return self.spaces[namespace].by_id.get(only).copied().into_iter().collect();
        }
        self.mark += 1;
        let (mark, marks, space) = (self.mark, &mut self.marks, &self.spaces[namespace]);
        let mut mark_all = |name: &Arc<str>| {
            let own = space.by_id.get(name);
            for &slot in space.rooms.members(name).iter().chain(own) {
                marks[slot as usize] = mark;
            }
        };
        to.except.iter().for_each(&mut mark_all);
        if let Some(&slot) = to.skip.as_ref().and_then(|id| space.by_id.get(id)) {
            marks[slot as usize] = mark;
        }
        let mut selected = Vec::new();
        let mut add = |slot: u32| {
            if std::mem::replace(&mut marks[slot as usize], mark) != mark {
                selected.push(slot);
            }
        };
        if to.rooms.is_empty() {
            space.everybody.iter().copied().for_each(add);
        } else {
            for name in &to.rooms {
                space.rooms.members(name).iter().chain(space.by_id.get(name)).copied().for_each(&mut add);
            }
        }
        selected
    }

    fn answer(&mut self, namespace: usize, question: Question) {
        // An asker that is gone needs no answer.
        let _ = match question {
            Question::RoomsOf(socket, reply) => reply.send(self.spaces[namespace].rooms_of(&socket)).is_ok(),
            Question::Count(name, reply) => reply.send(self.spaces[namespace].count(&name)).is_ok(),
            Question::Sockets(selection, reply) => {
                let selected = self.select(namespace, &selection);
                let sockets = &self.spaces[namespace].sockets;
                let sockets = selected.iter().filter_map(|slot| sockets.get(slot));
                // Whoever was disconnected stays in its rooms until its handlers have been told.
                reply.send(sockets.filter(|socket| socket.is_connected()).cloned().collect()).is_ok()
            }
            Question::Claim(pid, offset, reply) => {
                let claim = |recovery: &mut Recovery| recovery.claim(namespace, &pid, offset.as_deref());
                reply.send(self.recovery.as_mut().map_or(Claim::Unknown, claim)).is_ok()
            }
        };
    }

    /// Finishes the batch, and gives the store what it has changed.
    fn flush(&mut self) {
        self.write_due();
        self.replayed = 0;
        self.hand_over(false);
        self.look_again();
    }

    /// Writes each recipient's packets of this batch so far, then says that they are finished.
    fn write_due(&mut self) {
        let mut gathered = Gathered::default();
        for slot in std::mem::take(&mut self.dirty) {
            self.flush_into(slot, &mut gathered);
        }
        self.inflight.leave(std::mem::take(&mut self.large));
        self.due.clear();
        self.orders.clear();
        self.told.clear();
    }

    /// Sets the alarm for what recovery has to do later.
    fn look_again(&mut self) {
        let Some(recovery) = &self.recovery else { return };
        let wanted = recovery.deadline().into_iter().chain(recovery.journal_deadline()).min();
        if let Some(at) = wanted
            && self.recovery_alarm.is_none_or(|alarm| at < alarm)
        {
            self.recovery_alarm = Some(at);
            self.alarm(at, Deadline::Recovery);
        }
    }

    fn flush_seat(&mut self, slot: u32) {
        self.flush_into(slot, &mut Gathered::default());
    }

    fn flush_into(&mut self, slot: u32, gathered: &mut Gathered) {
        let Some(Some(seat)) = self.seats.get_mut(slot as usize) else { return };
        write(&seat.session, &seat.due, &self.due, gathered);
        seat.due.clear();
        // A seat that once had a large batch keeps no memory for it.
        seat.due.shrink_to(16);
    }

    /// Does what is due by `now`.
    fn ring(&mut self, now: Instant) {
        while self.deadlines.peek().is_some_and(|Reverse(Due((at, ..)))| *at <= now) {
            let Some(Reverse(Due((due, _, deadline)))) = self.deadlines.pop() else { return };
            match deadline {
                Deadline::Heartbeat(slot, session) => {
                    // As of the time that was due, so that a busy machine does not make every deadline later; but when that
                    // is long past, peers are left most of their time.
                    let late = now.checked_sub(self.config.ping_timeout / 4).unwrap_or(now);
                    self.beat(due.max(late), due < late, slot, &session);
                }
                Deadline::Connect(session) => {
                    if let Some(session) = session.upgrade()
                        && !session.settled.load(Acquire)
                    {
                        session.end(CloseReason::ForcedClose);
                    }
                }
                Deadline::Cut(session) => {
                    if let Some(session) = session.upgrade() {
                        session.cut();
                    }
                }
                Deadline::Recovery => {
                    self.recovery_alarm = None;
                    self.keep(|recovery| recovery.expire(now));
                    self.hand_over(false);
                    self.look_again();
                }
                Deadline::Ack(socket) => {
                    // The end of a session answers what is still awaited in it.
                    if let Some(socket) = socket.upgrade()
                        && socket.session().ended().is_none()
                    {
                        let session = Arc::clone(socket.session());
                        session.leave_todo(Todo::AckTimeout(socket));
                    }
                }
            }
        }
    }

    /// `slept`: so much later than was due that this process, or the machine, may have been asleep.
    fn beat(&mut self, now: Instant, slept: bool, slot: u32, session: &Weak<Session>) {
        const PING: &[u8] = &[0x81, 1, b'2'];
        let Some(Some(seat)) = self.seats.get_mut(slot as usize) else { return };
        let session = Weak::clone(session);
        // The seat may be another session's by now, with an alarm of its own.
        if !std::ptr::eq(session.as_ptr(), Arc::as_ptr(&seat.session)) || seat.session.ended().is_some() {
            return;
        }
        let assembling = seat.session.assembling.load(Relaxed);
        if assembling != seat.assembling.0 {
            seat.assembling = (assembling, now);
        } else if assembling != 0 && now > seat.assembling.1 + self.config.body_timeout {
            log::info!("session {}: the attachments of a packet are overdue", seat.session.name());
            return seat.session.end(CloseReason::ParseError);
        }
        let mut heard = seat.session.take_signs();
        // The readers have slept too: the pong may be there, and not be read.
        heard.busy |= slept;
        let next = match seat.heartbeat.check(now, heard) {
            Beat::Wait(at) => at,
            Beat::Ping(at) => {
                // A failure has ended the session by itself.
                let _ = seat.session.send(Packets::Borrowed(PING), false);
                at
            }
            Beat::Expired => return seat.session.end(CloseReason::PingTimeout),
        };
        seat.session.set_next_look(next);
        self.alarm(next, Deadline::Heartbeat(slot, session));
    }

    fn alarm(&mut self, at: Instant, deadline: Deadline) {
        if self.deadlines.len() >= self.sweep_at {
            // A session that is gone leaves its alarms behind; they must not pile up.
            self.deadlines.retain(|Reverse(Due((.., deadline)))| deadline.is_alive());
            self.sweep_at = 2 * self.deadlines.len() + SWEEP_MIN;
        }
        self.serial += 1;
        self.deadlines.push(Reverse(Due((at, self.serial, deadline))));
    }
}

impl Space {
    /// Whether the socket is a member: its seat may be another's by now.
    fn has(&self, socket: &Arc<Membership>) -> bool {
        self.sockets.get(&socket.slot()).is_some_and(|member| member.is_same(socket))
    }

    fn rooms_of(&self, socket: &Arc<Membership>) -> Vec<Arc<str>> {
        if self.has(socket) { self.rooms.of(socket.slot()).cloned().collect() } else { Vec::new() }
    }

    /// How many a broadcast to the room reaches: its members, and the socket with this id.
    fn count(&self, name: &str) -> usize {
        let members = self.rooms.members(name);
        let own = self.by_id.get(name).filter(|slot| !members.contains(slot));
        members.len() + usize::from(own.is_some())
    }

    /// `false`: it was not there.
    fn leave(&mut self, socket: &Arc<Membership>, name: &str) -> bool {
        self.has(socket) && self.rooms.leave(socket.slot(), name)
    }

    fn enter(&mut self, socket: Arc<Membership>) {
        let slot = socket.slot();
        self.by_id.insert(socket.shared_id(), slot);
        self.places.insert(slot, self.everybody.len());
        self.everybody.push(slot);
        self.sockets.insert(slot, socket);
    }

    fn exit(&mut self, socket: &Arc<Membership>) {
        let slot = socket.slot();
        if !self.has(socket) {
            return;
        }
        self.sockets.remove(&slot);
        self.by_id.remove(socket.id());
        self.rooms.leave_all(slot);
        if let Some(at) = self.places.remove(&slot) {
            self.everybody.swap_remove(at);
            if let Some(&moved) = self.everybody.get(at) {
                self.places.insert(moved, at);
            }
        }
    }

    /// Whether there is room for a newcomer in all of these.
    fn fits(&self, names: &[Arc<str>], max: usize, left: usize) -> bool {
        names.len() <= max && names.iter().map(|name| self.rooms.cost(name)).sum::<usize>() <= left
    }

    /// `joined`: hears of each room that it was not in before.
    fn join(
        &mut self,
        socket: &Arc<Membership>,
        names: &[Arc<str>],
        max: usize,
        mut left: usize,
        mut joined: impl FnMut(&Arc<str>),
    ) {
        if !self.has(socket) {
            return;
        }
        for name in names {
            if self.rooms.count(socket.slot()) >= max {
                log::warn!("socket {}: refused to join a room beyond max_rooms = {max}", socket.id());
                return;
            }
            let cost = self.rooms.cost(name);
            if cost > left {
                log::warn!("socket {}: refused to join a room: room_bytes_total is used up", socket.id());
                return;
            }
            if self.rooms.join(socket.slot(), name) {
                left -= cost;
                joined(name);
            }
        }
    }
}

fn recv_by<T>(queue: &Receiver<T>, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
    match deadline {
        Some(at) => queue.recv_deadline(at),
        None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

/// Writes one recipient's packets.
fn write(session: &Arc<Session>, indices: &[usize], packets: &[Packet], gathered: &mut Gathered) {
    let sent = match indices {
        [] => return,
        &[one] => {
            let (packet, volatile) = &packets[one];
            session.send(Packets::Shared(packet), *volatile)
        }
        several => match gathered.gather(several, packets) {
            Some(buffer) => session.send(Packets::Borrowed(buffer), false),
            None => several.iter().try_for_each(|&index| {
                let (packet, volatile) = &packets[index];
                match session.send(Packets::Shared(packet), *volatile) {
                    Err(EmitError::Dropped) => Ok(()),
                    sent => sent,
                }
            }),
        },
    };
    if let Err(error) = sent {
        log::trace!("session {}: {error}", session.name());
    }
}

/// The packets of one recipient as one buffer, kept for the next recipient if it gets the same ones: for a broadcast, and
/// for any number of them in a row, all recipients do.
#[derive(Default)]
struct Gathered {
    packets: Vec<usize>,
    buffer: Vec<u8>,
}

impl Gathered {
    /// `None`: too much to copy, or volatile, which must be decided packet by packet.
    fn gather(&mut self, packets: &[usize], due: &[Packet]) -> Option<&[u8]> {
        if self.packets != packets {
            let bytes: usize = packets.iter().map(|&index| due[index].0.bytes().len()).sum();
            if bytes > GATHER_MAX || packets.iter().any(|&index| due[index].1) {
                return None;
            }
            self.packets.clear();
            self.packets.extend_from_slice(packets);
            self.buffer.clear();
            for &index in packets {
                self.buffer.extend_from_slice(due[index].0.bytes());
            }
        }
        Some(&self.buffer)
    }
}
