//! The way of the hub's changes to the store: at once, before anybody hears of them, or gathered, by a thread of its own.

use std::{fmt, io, sync::Arc, time::Duration};

use super::store::{Change, GuardedStore, StoreError, text_of};
use crate::sys::{
    channel::{Receiver, Sender, bounded},
    sync::Mutex,
    thread::{self, JoinHandle},
    time::Instant,
};

/// When what is kept is durable, and so what a crash or a power cut may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before anybody gets it: every packet, every change of a room, every answer that is remembered is on the disk first. What has
    /// gathered meanwhile shares one write. Nothing that anybody has seen or was promised is lost; each message waits for the
    /// disk.
    EveryPacket,
    /// So often, and whenever 1 MiB has gathered. What happened since the last time is lost with the process or the power. A client
    /// that had received some of it is told that it is not recovered; one that had not is not told. Messages do not wait for the
    /// disk, unless it is behind by two such portions. Longer than 0 and at most a year.
    Every(Duration),
}

/// What a server's store is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreStatus {
    /// There is none.
    Off,
    /// It keeps what it is given.
    Working,
    /// It has failed, for this reason, and the server goes on without: what is kept is in memory only.
    Failed(String),
}

impl fmt::Display for StoreStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Working => f.write_str("working"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// Tells how a server's store is, from any thread, also when the server has gone. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreWatch(Arc<Mutex<StoreStatus>>);

impl StoreWatch {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(StoreStatus::Off)))
    }

    /// How it is at this moment.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        self.0.lock().clone()
    }

    pub(super) fn set(&self, status: StoreStatus) {
        *self.0.lock() = status;
    }
}

/// Changes of so many bytes are handed over before their time.
const GATHER_MAX: usize = 1 << 20;

/// What is on its way to the store: being gathered, handed over, and being written; each portion may be one batch of the hub larger.
pub(super) const BYTES_MAX: usize = 4 * GATHER_MAX + 16 * GATHER_MAX;

/// What a change takes beside its text and its frames.
const CHANGE_COST: usize = 192;

/// The hub's side of a store.
pub(super) struct Journal {
    changes: Vec<Change>,
    bytes: usize,
    way: Way,
    watch: StoreWatch,
}

enum Way {
    Here(GuardedStore),
    There { to: Sender<Vec<Change>>, every: Duration, due: Option<Instant>, thread: JoinHandle<()> },
}

impl Journal {
    pub(super) fn new(store: GuardedStore, durability: Durability, watch: StoreWatch) -> io::Result<Self> {
        let way = match durability {
            Durability::EveryPacket => Way::Here(store),
            Durability::Every(every) => {
                let (to, from) = bounded(1);
                let of_thread = watch.clone();
                let thread = thread::Builder::new()
                    .name("store".into())
                    .stack_size(256 << 10)
                    .spawn(move || write(store, &from, &of_thread))?;
                Way::There { to, every, due: None, thread }
            }
        };
        watch.set(StoreStatus::Working);
        Ok(Self { changes: Vec::new(), bytes: 0, way, watch })
    }

    pub(super) fn note(&mut self, change: Change) {
        self.bytes += CHANGE_COST
            + match &change {
                Change::Packet(packet) => packet.frames.len(),
                Change::Answer(answer) => answer.frames.len(),
                Change::Session(session) => session.stays.len() * 64,
                _ => 0,
            };
        self.changes.push(change);
    }

    /// Makes the changes durable, or hands them over when their time has come. `false`: the store has failed.
    pub(super) fn commit(&mut self) -> bool {
        if self.changes.is_empty() {
            return true;
        }
        match &mut self.way {
            Way::Here(store) => {
                let committed = store.commit(&self.changes);
                self.changes.clear();
                self.changes.shrink_to(1_024);
                self.bytes = 0;
                if let Err(error) = committed {
                    fail(store, error, &self.watch);
                    return false;
                }
                true
            }
            Way::There { to, every, due, .. } => {
                let now = Instant::now();
                let at = *due.get_or_insert(now + *every);
                if self.bytes < GATHER_MAX && now < at {
                    return true;
                }
                (*due, self.bytes) = (None, 0);
                // Waits while the disk is behind by two portions: what is not kept yet is bounded.
                to.send(std::mem::take(&mut self.changes)).is_ok()
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.way {
            Way::Here(_) => None,
            Way::There { due, .. } => *due,
        }
    }

    /// Keeps the rest and waits until it is kept.
    pub(super) fn close(self) {
        if let Way::There { to, thread, .. } = self.way {
            // Fails only if the store has.
            let _ = to.send(self.changes);
            drop(to);
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("changes", &self.changes.len()).finish_non_exhaustive()
    }
}

fn write(mut store: GuardedStore, changes: &Receiver<Vec<Change>>, watch: &StoreWatch) {
    for changes in changes {
        if let Err(error) = store.commit(&changes) {
            return fail(&mut store, error, watch);
        }
    }
}

fn fail(store: &mut GuardedStore, error: StoreError, watch: &StoreWatch) {
    let error = text_of(error);
    log::error!("{error}; the server goes on without it, and what it keeps for clients is in memory only");
    store.abandon();
    watch.set(StoreStatus::Failed(error));
}
