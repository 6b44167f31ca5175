//! When a server's changes are durable, and the state of its store.

use std::{fmt, sync::Arc, time::Duration};

use crate::sys::sync::Mutex;

/// When changes are durable, and so what a crash or a power cut may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before their effects are sent: every packet, every change of a room and every answer to a retry is on the disk
    /// first. The changes that come while the disk is busy share one write. Nothing that a client has received is
    /// lost. Each message waits for the disk.
    EveryPacket,
    /// At this interval, and whenever 1 MiB of changes has gathered. A crash or a power cut loses the changes since
    /// the last write. A client that has received a lost packet is told that it is not recovered; other clients are
    /// not told. Messages do not wait for the disk, unless it is behind by two such portions. The interval is longer
    /// than 0 and at most a year.
    Every(Duration),
}

/// The state of a server's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreStatus {
    /// There is no store.
    Off,
    /// The store works.
    Working,
    /// The store has failed, for this reason. The server goes on with what is in memory only. It tries to open the
    /// store again, first after 1 s, then less often, at last once a minute. When that works, the store is given the
    /// packets and the sessions that are in memory, but not the answers to retries, and is
    /// [`Working`](Self::Working).
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

/// The state of a server's store, for any thread, also after the server has stopped. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreWatch(Arc<Mutex<StoreStatus>>);

impl StoreWatch {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(StoreStatus::Off)))
    }

    /// The state at this moment.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        self.0.lock().clone()
    }

    pub(crate) fn set(&self, status: StoreStatus) {
        *self.0.lock() = status;
    }
}
