//! What the threads of a client share: one lock over its state, one condition, the queue of events.
//!
//! ```text
//!   lock order     state ─► handlers' queue          (the handlers' tables are locked alone)
//!   never locked   while a handler, the auth function or a logger runs, or while anything is read, written or waited for
//! ```

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, OnceLock, atomic::Ordering},
    thread::ThreadId,
    time::Instant,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use super::{
    ConnectionState, Error, Handle, Socket, Stats, Status,
    cancel::CancelToken,
    config::Config,
    dial::Dialer,
    events::{Hooks, Queue},
    guard::Guarded,
    link::{Job, PollEnd},
    locked::Locked,
    offline::Offline,
    recovery::Recovery,
    space::Handlers,
    websocket::WebSocket,
};
use crate::sys::real::wait::Waker;
use crate::{
    proto::{
        CloseReason,
        engine::TransportKind,
        socket::{Encoded, OwnedArgs},
    },
    wide::AtomicU64,
};

/// Acknowledgements that one namespace may wait for at a time. One more is refused with [`Error::TooManyAcks`].
pub(super) const MAX_ACKS: usize = 10_000;

/// Everything that the threads and the handles of one client share.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) dialer: Dialer,
    /// With `retries`: by what the server knows this client in every session, so that it can tell a retry.
    pub(super) rid: Option<String>,
    /// Locked by [`Core::lock`] only.
    state: Mutex<State>,
    /// Something in the state is not what it was that somebody may wait for: phase, target, membership, threads.
    pub(super) changed: Condvar,
    /// Wakes the `link` thread out of `poll(2)`.
    pub(super) link_waker: Waker,
    pub(super) events: Queue,
    pub(super) hooks: Mutex<Hooks>,
    pub(super) events_thread: OnceLock<ThreadId>,
}

/// What is, and what is wanted.
pub(super) struct State {
    pub(super) target: Target,
    pub(super) phase: Phase,
    /// Number of the current session, or of the last one.
    pub(super) epoch: u64,
    /// Cuts the attempt or the session that is under way.
    pub(super) token: Option<Arc<CancelToken>>,
    pub(super) session: Option<Session>,
    /// Cuts the close packet of a polling session that has failed.
    pub(super) close_token: Option<Arc<CancelToken>>,
    pub(super) spaces: Vec<SpaceState>,
    pub(super) offline: Offline,
    /// Deadlines of the acknowledgements that are brought to callbacks: instant, namespace, id.
    pub(super) timers: BTreeSet<(Instant, usize, u64)>,
    /// Reconnections tried since the last success, the one under way included.
    pub(super) attempts: u32,
    /// Attempts decided since the client was built; [`Handle::connect`] waits for the next.
    pub(super) results: u64,
    /// How many there were when the client last began to connect: a refusal before that is no news.
    pub(super) results_before: u64,
    /// The error of the last attempt that failed.
    pub(super) attempt_result: Option<Error>,
    /// Whether a session was upgraded to WebSocket: what `remember_upgrade` remembers.
    pub(super) upgraded: bool,
    /// The session that ended before everything that had been emitted was written.
    pub(super) unfinished: Option<u64>,
    pub(super) last_reason: Option<CloseReason>,
    pub(super) last_error: Option<Error>,
    pub(super) stats: Stats,
    /// Threads that have not ended yet.
    pub(super) threads: usize,
    /// What is to be logged once the state is unlocked.
    pub(super) notes: Vec<(log::Level, String)>,
}

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// No connection.
    Down,
    /// A connection, again and again.
    Up,
    /// The client is dropped: every thread ends.
    Gone,
}

/// What the `backoff` thread is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing, or with target [`Target::Up`]: to begin at once.
    Idle,
    /// Waiting for the next attempt.
    Waiting(Instant),
    /// In an attempt, since then.
    Attempting(Instant),
    /// A session is open, and the `link` thread has it.
    Open,
}

/// An open Engine.IO session.
pub(super) struct Session {
    pub(super) epoch: u64,
    pub(super) sid: String,
    pub(super) transport: TransportKind,
    pub(super) max_payload: Option<usize>,
    /// The answer to the last ping: it overtakes what waits in the outbox.
    pub(super) pong: Option<Encoded>,
    pub(super) outbox: VecDeque<Entry>,
    pub(super) outbox_bytes: usize,
    /// Whether `link` has to be woken to see what is put into the outbox.
    pub(super) link_asleep: bool,
    /// Whether a namespace was ever joined in this session: only then does it count as a success.
    pub(super) joined: bool,
    /// By when one has to be.
    pub(super) join_by: Instant,
    /// When the attempt began that made it.
    pub(super) begun: Instant,
    pub(super) closing: Option<Closing>,
    pub(super) upgrade: Upgrade,
    /// What the `poll` thread ended with.
    pub(super) poll_end: Option<PollEnd>,
}

/// A session in its last moments: nothing new goes out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    /// When the patience with what is not written yet ends.
    pub(super) by: Instant,
    pub(super) reason: CloseReason,
    /// Whether everything was written.
    pub(super) flushed: bool,
}

/// Where a polling session stands on its way to WebSocket.
pub(super) enum Upgrade {
    /// Not possible, not wanted, failed, or done.
    Settled,
    /// The `backoff` thread is to open a WebSocket and probe it: not before `after`, and when that fails, so many times
    /// again.
    Wanted { after: Option<Instant>, retries: u32 },
    /// It is doing so; the token cancels the attempt, not the session.
    Probing(Arc<CancelToken>),
    /// The WebSocket is probed: polling ends with its next answer, and `link` moves over.
    Ready(Box<WebSocket>),
}

/// What waits in the outbox.
pub(super) enum Entry {
    QueuedPacket(QueuedPacket),
    /// What follows goes out once the server has handled what precedes. The official server throws away the events
    /// that it reads together with the DISCONNECT behind them.
    Pause,
}

/// A packet in the outbox.
pub(super) struct QueuedPacket {
    pub(super) encoded: Encoded,
    /// Index of the namespace, and the acknowledgement waited for, when the packet is an event that outlives its
    /// session.
    pub(super) keep: Option<(usize, Option<u64>)>,
    /// Whether it counts as sent.
    pub(super) counts: bool,
}

/// One namespace: what never changes, and its handlers.
pub(super) struct Space {
    pub(super) index: usize,
    pub(super) name: Arc<str>,
    /// Why it can never be connected, when its name is none.
    pub(super) invalid: Option<Error>,
    pub(super) next_id: AtomicU64,
    pub(super) handlers: Mutex<Handlers>,
}

impl Space {
    pub(super) fn take_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// One namespace: what changes.
pub(super) struct SpaceState {
    pub(super) space: Arc<Space>,
    /// Whether it is to be joined in every session: not after it was left, removed or refused.
    pub(super) active: bool,
    pub(super) membership: Membership,
    /// Why it was refused, until it is asked for again; and the number of that result.
    pub(super) refusal: Option<(u64, Error)>,
    /// Not to be joined before then, because its auth function has panicked.
    pub(super) join_after: Option<Instant>,
    /// The session in which it was left: another CONNECT in the same one waits until the server has handled that.
    pub(super) left_in: u64,
    pub(super) acks: HashMap<u64, PendingAck>,
    pub(super) recovery: Recovery,
    /// With `retries`: what is to be delivered one by one, in the order of the ids. Bounded like the offline buffer.
    pub(super) queue: VecDeque<Queued>,
    pub(super) queue_bytes: usize,
    /// The id that was last put into the queue.
    pub(super) last_queued: Option<u64>,
}

/// Whether a namespace is joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Membership {
    Out,
    /// The auth function is asked.
    Joining,
    /// CONNECT is on its way.
    Asked,
    /// Left while CONNECT was on its way: DISCONNECT follows the server's answer.
    Leaving,
    Joined(String),
}

/// An acknowledgement that is waited for.
pub(super) struct PendingAck {
    /// Who waits; nobody for an event of `retries` that was emitted without an acknowledgement.
    pub(super) waiter: Option<Waiter>,
    pub(super) deadline: Option<Instant>,
    /// Whether the event was handed to a session: then the end of that session is the end of it.
    pub(super) sent: bool,
    /// Whether the event is in the queue of `retries`.
    pub(super) queued: bool,
    pub(super) since: Instant,
}

/// Who waits for an acknowledgement.
pub(super) enum Waiter {
    /// A thread, which keeps its own time.
    Thread(Sender<Result<OwnedArgs, Error>>),
    /// A callback, to be called on the handlers' thread.
    Callback(Guarded<Callback>),
}

/// A callback of an acknowledgement, as the user gave it.
type OnAck = Box<dyn FnOnce(&Socket, Result<OwnedArgs, Error>) + Send>;

/// What is called with an acknowledgement.
pub(super) struct Callback {
    /// The event that is acknowledged.
    pub(super) event: String,
    pub(super) call: OnAck,
}

/// An event in the queue of `retries`.
pub(super) struct Queued {
    pub(super) encoded: Encoded,
    pub(super) id: u64,
    pub(super) tries: u32,
    /// When the current try counts as failed; `None`: not on its way.
    pub(super) expires: Option<Instant>,
}

impl Core {
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked::new(&self.state)
    }

    pub(super) fn new(config: Config, dialer: Dialer) -> std::io::Result<Self> {
        let state = State {
            target: Target::Down,
            phase: Phase::Idle,
            epoch: 0,
            token: None,
            session: None,
            close_token: None,
            spaces: Vec::new(),
            offline: Offline::new(config.offline),
            timers: BTreeSet::new(),
            attempts: 0,
            results: 0,
            results_before: 0,
            attempt_result: None,
            upgraded: false,
            unfinished: None,
            last_reason: None,
            last_error: None,
            stats: Stats::default(),
            threads: 0,
            notes: Vec::new(),
        };
        let rid = (config.retries > 0).then(new_rid).transpose()?;
        Ok(Self {
            rid,
            events: Queue::new(config.event_queue),
            config,
            dialer,
            state: Mutex::new(state),
            changed: Condvar::new(),
            link_waker: Waker::new()?,
            hooks: Mutex::default(),
            events_thread: OnceLock::new(),
        })
    }

    /// Whether the caller is a handler.
    pub(super) fn in_handler(&self) -> bool {
        self.events_thread.get() == Some(&std::thread::current().id())
    }

    /// Ends the waits of everything that hangs on `token`.
    pub(super) fn cancel(&self, token: &CancelToken) {
        token.cancel();
        self.events.wake_reader();
    }

    /// Wakes `link`, if it sleeps.
    pub(super) fn wake_link(&self, session: &mut Session) {
        if std::mem::take(&mut session.link_asleep) {
            self.link_waker.wake();
        }
    }

    /// Waits until `done` gives a value, or until `deadline`.
    pub(super) fn wait_for<T>(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(value) = done(&mut state) {
                return Some(value);
            }
            if !state.wait(&self.changed, deadline) {
                return done(&mut state);
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        self.lock().stats.clone()
    }

    pub(super) fn status(&self) -> Status {
        let state = self.lock();
        let session = state.session.as_ref();
        let next = match (state.target, state.phase) {
            (Target::Up, Phase::Waiting(until)) => Some(until.saturating_duration_since(Instant::now())),
            _ => None,
        };
        Status {
            state: state.connection(),
            transport: session.map(|session| session.transport),
            attempts: state.attempts,
            next_attempt_in: next,
            buffered: state.offline.len() + state.spaces.iter().map(|space| space.queue.len()).sum::<usize>(),
            buffered_bytes: state.offline.bytes()
                + state.spaces.iter().map(|space| space.queue_bytes).sum::<usize>(),
            queued_bytes: session.map_or(0, |session| session.outbox_bytes),
            last_reason: state.last_reason,
            last_error: state.last_error.clone(),
        }
    }
}

impl State {
    pub(super) fn connection(&self) -> ConnectionState {
        match (self.target, self.phase) {
            (Target::Down | Target::Gone, _) => ConnectionState::Disconnected,
            (Target::Up, Phase::Waiting(_)) => ConnectionState::Reconnecting,
            (Target::Up, Phase::Open) if self.session.as_ref().is_some_and(|session| session.joined) => {
                ConnectionState::Connected
            }
            (Target::Up, _) => ConnectionState::Connecting,
        }
    }

    /// The session, if it is the one of this number.
    pub(super) fn session(&mut self, epoch: u64) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.epoch == epoch)
    }

    /// Notes an error of the connection.
    pub(super) fn note(&mut self, error: &Error) {
        self.stats.errors += 1;
        self.last_error = Some(error.clone());
    }

    /// Begins to connect.
    pub(super) fn go_up(&mut self) {
        self.target = Target::Up;
        self.attempts = 0;
        self.results_before = self.results;
    }

    /// Whether no namespace is to be joined any more.
    pub(super) fn is_deserted(&self) -> bool {
        self.spaces.iter().all(|space| !space.active)
    }
}

impl Session {
    pub(super) fn push(&mut self, packet: QueuedPacket) {
        self.outbox_bytes += packet.encoded.bytes().len();
        self.outbox.push_back(Entry::QueuedPacket(packet));
    }
}

impl QueuedPacket {
    /// A packet that belongs to its session and ends with it.
    pub(super) fn of_session(encoded: Encoded) -> Self {
        Self { encoded, keep: None, counts: false }
    }
}

impl SpaceState {
    pub(super) fn new(space: Arc<Space>) -> Self {
        Self {
            active: space.invalid.is_none(),
            space,
            membership: Membership::Out,
            refusal: None,
            join_after: None,
            left_in: 0,
            acks: HashMap::new(),
            recovery: Recovery::default(),
            last_queued: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
        }
    }

    /// It is to be joined, whatever was before.
    pub(super) fn activate(&mut self) {
        (self.active, self.refusal, self.join_after) = (true, None, None);
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self.membership, Membership::Joined(_))
    }
}

/// What [`Core::rid`] is: 20 characters of base64url, 120 bits from the operating system.
fn new_rid() -> std::io::Result<String> {
    let mut random = [0; 15];
    crate::random::fill(&mut random)?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// Names a client's threads, and counts them.
pub(super) fn spawn(
    core: &Arc<Core>,
    name: &str,
    stack: usize,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    /// Counts also when the thread panics.
    struct Leaving(Arc<Core>);
    impl Drop for Leaving {
        fn drop(&mut self) {
            self.0.lock().threads -= 1;
            self.0.changed.notify_all();
        }
    }
    core.lock().threads += 1;
    let leaving = Leaving(core.clone());
    std::thread::Builder::new().name(name.to_owned()).stack_size(stack).spawn(move || {
        let _leaving = leaving;
        run();
    })
}

/// What `spawn` hands to `link`.
pub(super) type Jobs = Sender<Job>;

impl Core {
    /// Which client, and which of its namespaces, for the log.
    pub(super) fn place(&self, space: Option<&Space>) -> String {
        let server = self.dialer.endpoint.name();
        let Some(space) = space else { return format!("client of {server}") };
        let id = self.lock().spaces[space.index].membership.id().map(str::to_owned);
        format!(
            "client of {server}: socket {} of namespace {:?}",
            id.as_deref().unwrap_or("(not joined)"),
            space.name
        )
    }

    /// A socket of this client, for the handlers.
    pub(super) fn socket(self: &Arc<Self>, space: &Arc<Space>) -> Socket {
        Socket::new(Handle::new(self.clone()), space.clone())
    }
}
