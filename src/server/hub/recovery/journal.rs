//! The journal: the changes on their way from the hub to the store. The store's thread commits them; the hub does not
//! wait.
//!
//! ```text
//!   hub     note, note, … ──► hand_over: one portion at a time ──► the store thread: commit
//!           goes on, gathers the next portion             ◄── Signal::Store(Committed | Failed | Reopened)
//!
//!   Failed ──► abandon ──► open again after 1 s, 2 s, … 1 min ──► Reopened ──► all packets and sessions
//! ```
//! It may use the stores and the hub's signals. It does not know what a change means.

use std::{fmt, io, sync::Arc, time::Duration};

use crate::server::{
    guard::{self, Records},
    hub::command::Signal,
    hub::handle::Signaller,
    hub::threads::{self, Role},
    recovery::store::{Change, Durability, GuardedStore, Kept, StoreError, StoreStatus, StoreWatch, text_of},
};
use crate::sys::{
    channel::{Receiver, RecvTimeoutError, Sender, bounded},
    thread::JoinHandle,
    time::Instant,
};

/// Changes with more bytes are handed over before their time. With more bytes while the store is busy, the hub takes
/// no more commands.
const GATHER_MAX: usize = 1 << 20;

/// The bytes that are on their way to the store: those gathered and those being written. Each portion may be larger
/// by one batch of the hub.
pub(crate) const BYTES_MAX: usize = 4 * GATHER_MAX + 16 * GATHER_MAX;

/// The bytes that a change takes beside its text and its frames.
const CHANGE_COST: usize = 192;

/// The pause before a failed store is opened again: the first and the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The reports of the store's thread to the hub.
#[derive(Debug)]
pub(crate) enum Report {
    /// The changes that were handed over last are durable.
    Committed,
    /// The store has failed, and the server goes on without it.
    Failed,
    /// The store works again, is empty, and has begun this generation.
    Reopened(u32),
}

/// What has been done with the gathered changes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HandedOver {
    /// There are none, or they need not be durable yet.
    Nothing,
    /// They were handed over to the store.
    All,
    /// The store is busy with earlier changes.
    NotYet,
}

/// The hub's side of a store.
pub(crate) struct Journal {
    changes: Vec<Change>,
    bytes: usize,
    /// `None`: every change is durable before its effects are sent.
    every: Option<Duration>,
    /// When the gathered changes are to be handed over.
    due: Option<Instant>,
    /// The store works.
    is_on: bool,
    /// It has not reported on the last portion yet.
    is_busy: bool,
    to: Sender<Vec<Change>>,
    /// Closes when the thread has dropped the store.
    over: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Journal {
    /// `generation`: the one that the store has begun. `None`: the store could not be opened, and is to be opened
    /// later.
    pub(crate) fn new(
        store: GuardedStore,
        generation: Option<u32>,
        durability: Durability,
        watch: StoreWatch,
        hub: Signaller,
        stack_size: usize,
        records: &Arc<Records>,
    ) -> io::Result<Self> {
        let (to, portions) = bounded(1);
        let (alive, over) = bounded(0);
        if generation.is_some() {
            watch.set(StoreStatus::Working);
        }
        let store_thread =
            StoreThread { store, generation: generation.unwrap_or(0), portions, hub, watch, _alive: alive };
        let thread = records.thread("store", stack_size, move || store_thread.run(generation.is_some()))?;
        let every = match durability {
            Durability::EveryPacket => None,
            Durability::Every(every) => Some(every),
        };
        Ok(Self {
            changes: Vec::new(),
            bytes: 0,
            every,
            due: None,
            is_on: generation.is_some(),
            is_busy: false,
            to,
            over,
            thread,
        })
    }

    /// Closes when the store's thread has dropped the store, as it does when the journal is dropped.
    pub(crate) fn over(&self) -> Receiver<()> {
        self.over.clone()
    }

    /// Whether the store works.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether the effects of a change must wait until it is durable.
    pub(super) fn holds_back(&self) -> bool {
        self.is_on && self.every.is_none()
    }

    pub(super) fn note(&mut self, change: Change) {
        if !self.is_on {
            return;
        }
        self.bytes += CHANGE_COST
            + match &change {
                Change::Packet(packet) => packet.frames.len(),
                Change::Answer(answer) => answer.frames.len(),
                Change::Session(session) => session.stays.len() * 64,
                _ => 0,
            };
        self.changes.push(change);
    }

    /// Whether the store is behind by so much that no more changes may be gathered.
    pub(super) fn is_full(&self) -> bool {
        self.is_busy && self.bytes >= GATHER_MAX
    }

    /// Gives the changes to the store's thread, if it is free and the time has come. `all`: at any time.
    pub(super) fn hand_over(&mut self, now: Instant, all: bool) -> HandedOver {
        if self.is_busy {
            return HandedOver::NotYet;
        }
        if self.changes.is_empty() {
            return HandedOver::Nothing;
        }
        if let Some(every) = self.every {
            let at = *self.due.get_or_insert(now + every);
            if self.bytes < GATHER_MAX && now < at && !all {
                return HandedOver::Nothing;
            }
        }
        (self.due, self.bytes, self.is_busy) = (None, 0, true);
        // There is room, because one portion is handed over at a time. The thread lives as long as the journal.
        let _ = self.to.send(std::mem::take(&mut self.changes));
        HandedOver::All
    }

    /// The changes that were handed over are durable.
    pub(super) fn committed(&mut self) {
        self.is_busy = false;
    }

    /// The store has failed. Changes are dropped from now on.
    pub(super) fn switch_off(&mut self) {
        self.changes = Vec::new();
        (self.bytes, self.due, self.is_on, self.is_busy) = (0, None, false, false);
    }

    pub(super) fn switch_on(&mut self) {
        self.is_on = true;
    }

    /// When the changes are to be handed over. `None`: there are none, or the store is busy.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_busy)
    }

    /// Whether everything is durable, or never will be.
    pub(super) fn is_done(&self) -> bool {
        !self.is_busy && self.changes.is_empty()
    }

    /// Waits for the end of the store's thread. `false`: at the deadline it is still in a method of the store, and
    /// goes on without the server.
    pub(super) fn close(self, deadline: Instant) -> bool {
        drop(self.to);
        if self.over.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            guard::error!(
                "the store has not returned by the deadline of the shutdown; what it was given last may be missing"
            );
            return false;
        }
        self.thread.join().is_ok()
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("changes", &self.changes.len()).finish_non_exhaustive()
    }
}

/// The store's thread: the only one that calls the store after the start.
struct StoreThread {
    store: GuardedStore,
    /// The last generation that a store of this server has begun.
    generation: u32,
    portions: Receiver<Vec<Change>>,
    hub: Signaller,
    watch: StoreWatch,
    /// Dropped after the store.
    _alive: Sender<()>,
}

impl StoreThread {
    fn run(mut self, opened: bool) {
        threads::set_role(Role::Store);
        let mut pause = RETRY_MIN;
        if opened {
            self.serve(&mut pause);
        }
        loop {
            match self.portions.recv_timeout(pause) {
                Err(RecvTimeoutError::Disconnected) => return,
                // The hub hands nothing over until it knows that the store works again.
                Err(RecvTimeoutError::Timeout) | Ok(_) => {}
            }
            pause = RETRY_MAX.min(2 * pause);
            match self.reopen() {
                Ok(generation) => {
                    self.generation = generation;
                    self.hub.send(Signal::Store(Report::Reopened(generation)));
                    self.serve(&mut pause);
                }
                Err(error) => {
                    guard::debug!(
                        "the store cannot be opened again: {}; next try in {pause:?}",
                        text_of(error)
                    );
                }
            }
        }
    }

    /// Commits portions until the store fails or the server stops.
    fn serve(&mut self, pause: &mut Duration) {
        while let Ok(changes) = self.portions.recv() {
            if let Err(error) = self.store.commit(&changes) {
                let error = text_of(error);
                guard::error!(
                    "{error}; the server goes on without it, and what it keeps for clients is in memory only"
                );
                self.store.abandon();
                self.watch.set(StoreStatus::Failed(error));
                return self.hub.send(Signal::Store(Report::Failed));
            }
            if self.watch.status() != StoreStatus::Working {
                guard::warn!(
                    "the store works again; the packets and sessions in memory have been written to it"
                );
                self.watch.set(StoreStatus::Working);
            }
            *pause = RETRY_MIN;
            self.hub.send(Signal::Store(Report::Committed));
        }
    }

    /// Opens the store again. It must be empty: what it held before is out of date.
    fn reopen(&mut self) -> Result<u32, StoreError> {
        let Kept { life, packets, sessions, answers, .. } = self.store.open()?;
        if !(packets.is_empty() && sessions.is_empty() && answers.is_empty()) {
            self.store.abandon();
            return Err(StoreError::Other("it still held what was kept before it failed".into()));
        }
        if life <= self.generation {
            self.store.abandon();
            let what =
                format!("it began life {life}, which is not above {}, the one before", self.generation);
            return Err(StoreError::Other(what.into()));
        }
        Ok(life)
    }
}
