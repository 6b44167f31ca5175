//! When a server's changes are durable, and the state of its store.

use std::{fmt, sync::Arc, time::Duration};

use crate::sys::sync::Mutex;

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
    /// It has failed, for this reason, and the server goes on without: what is kept is in memory only. The server tries to open
    /// it again, after 1 s first, then less and less often, at last once a minute; when that works it is given the packets
    /// and sessions that memory holds, not the answers to retries, and is [`Working`](Self::Working).
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
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(StoreStatus::Off)))
    }

    /// How it is at this moment.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        self.0.lock().clone()
    }

    pub(crate) fn set(&self, status: StoreStatus) {
        *self.0.lock() = status;
    }
}
