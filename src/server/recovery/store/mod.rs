//! The store: what outlives the process. These are the packets that were sent, the sessions, and the answers to
//! retries.
//!
//! Below the hub: it knows no session, no socket and no thread.
//!
//! ```text
//!   start   open ───► Kept: packets, sessions, answers; a new generation has begun
//!   then    commit ─► [Change, Change, …]: all of them or none, durable when it returns
//!   failure abandon ► the server goes on without it; the next start does not use what it holds
//! ```
//! A packet's **offset** is `generation << 44 | count`. Each opening of the store begins a new generation (in the API
//! and in the file it is called `life`), so no offset is used twice, also if packets were lost. A new store begins at
//! a random generation, so that it does not use the offsets of another store. The **floor** is the largest offset
//! that was trimmed: below it there are gaps.
//!
//! No time of day is stored, because a device without a clock battery starts in 1970. Ages begin at 0 in each
//! generation.

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;

#[cfg(feature = "store")]
mod codec;
#[cfg(all(test, feature = "store"))]
mod crash;
#[cfg(feature = "store")]
mod disk;
#[cfg(feature = "store")]
mod file;
mod guarded;
mod memory;
mod status;
#[cfg(feature = "store")]
mod tables;
#[cfg(test)]
mod tests;

#[cfg(feature = "store")]
pub use file::FileStore;
pub(crate) use guarded::{GuardedStore, text_of};
pub use memory::MemoryStore;
pub use status::{Durability, StoreStatus, StoreWatch};

/// Keeps packets, sessions and answers beyond the end of the process.
///
/// The server opens the store on the thread that starts the server. All other calls come from one thread, the store's
/// thread, which does nothing else. So a method may block: only what depends on the store waits. A panic is a failure
/// of the store, as an error is.
///
/// A method may use the server's handles, but must not wait for a packet that waits for the store: a
/// [`Socket`](crate::server::Socket)'s emit fails with [`EmitError::Dropped`](crate::server::EmitError::Dropped) when
/// the hub's queue is full, and queries for rooms and sockets return nothing. It must not wait for a lock that a
/// handler holds while it emits.
pub trait Store: Send + 'static {
    /// Begins a new generation (`life`): returns what was committed, and makes the new number durable before it
    /// returns. Called once at each start, before all other methods; and again after the store was abandoned, until
    /// it succeeds. Then the store must be empty, and the number greater than all earlier ones.
    ///
    /// # Errors
    /// The store cannot be used. The server does not start, unless it may start without a store
    /// ([`Builder::store_required`](crate::server::Builder::store_required)).
    fn open(&mut self) -> Result<Kept, StoreError>;

    /// Makes the changes durable in their order, all of them or none.
    ///
    /// # Errors
    /// The changes may be durable or not. The server [abandons](Self::abandon) the store and goes on without it.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// The server goes on without this store. The next start must not use what it holds, because later packets are
    /// missing in it. Called after a commit, or the opening, has failed. Later the store may be [opened](Self::open)
    /// again.
    fn abandon(&mut self);
}

/// What an opened store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The number of the generation that has begun, from 1 to [`LIFE_MAX`](Self::LIFE_MAX).
    pub life: u32,
    /// The largest offset that was trimmed, 0 if none was.
    pub floor: u64,
    /// In order of their offsets, all above the floor.
    pub packets: Vec<KeptPacket>,
    /// In order of their pids.
    pub sessions: Vec<KeptSession>,
    /// In order of clients, then namespaces.
    pub answers: Vec<KeptAnswer>,
}

impl Kept {
    /// The largest number of a generation: an offset has 20 bits for it. The next opening forgets everything and
    /// begins like a new store, so that no client with an old offset is known.
    pub const LIFE_MAX: u32 = (1 << 20) - 1;
}

/// The greater numbers are for later openings.
const FIRST_GENERATION_MAX: u32 = Kept::LIFE_MAX / 2;

/// The first generation of a new store: random, or 1 without randomness. Clients keep their last offset when the file
/// is lost. If the new store used the same offsets, the old one would say that the client has packets that it does
/// not have.
fn first_generation() -> u32 {
    1 + crate::random::u32().unwrap_or_default() % FIRST_GENERATION_MAX
}

/// The generation that an opening begins. `last`: the one before, 0 for none.
fn next_generation(last: u32, first: u32) -> u32 {
    if last == 0 { first } else { last + 1 }
}

/// One step of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Keep this packet. Its offset is above those of all packets before it, and above the floor.
    Packet(KeptPacket),
    /// Packets up to this offset are not needed any more; it becomes the floor, unless that is higher already.
    Trim(u64),
    /// Keep this session, in place of the one with its pid.
    Session(KeptSession),
    /// Forget the session with this pid, if there is one.
    Forget(Arc<str>),
    /// Keep this answer, in place of the one of this client in this namespace.
    Answer(KeptAnswer),
    /// Forget the answer of this client in this namespace, if there is one.
    ForgetAnswer {
        /// Whose it is.
        client: Arc<str>,
        /// Where it was given.
        namespace: Arc<str>,
    },
}

/// An event that was sent, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPacket {
    /// Its position among all events of the server.
    pub offset: u64,
    /// The namespace of all its recipients.
    pub namespace: Arc<str>,
    /// The sid of its recipient, if it was sent to one socket.
    pub only: Option<Arc<str>>,
    /// The rooms that it was sent to otherwise. If empty: all sockets of the namespace.
    pub rooms: Vec<Arc<str>>,
    /// The rooms whose members did not get it.
    pub except: Vec<Arc<str>>,
    /// The sid that did not get it: the sender of a broadcast.
    pub skip: Option<Arc<str>>,
    /// The encoded packet. A store does not look into it.
    pub frames: Bytes,
}

/// A socket that may be recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSession {
    /// The secret by which it is recovered.
    pub pid: Arc<str>,
    /// The id that it had, and will have again.
    pub sid: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The server's last offset when it connected: later packets may be for it.
    pub entered: u64,
    /// Up to this offset its rooms are not known any more.
    pub blind: u64,
    /// The rooms that it was in, and when.
    pub stays: Vec<Stay>,
    /// The application's data of this socket, encoded. A store does not look into it.
    pub data: Option<Bytes>,
    /// The last offset that was for it, among those up to `known`.
    pub last: u64,
    /// Up to this offset `last` is right. `u64::MAX` for a connected socket: then `last` is right as of the last
    /// [`Change::Trim`].
    pub known: u64,
}

/// An interval in a room, in offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// The room.
    pub room: Arc<str>,
    /// The server's last offset when it joined.
    pub from: u64,
    /// The server's last offset when it left; `u64::MAX`: it is in the room.
    pub to: u64,
}

/// The last answer to a client. A retry of the same event gets it again, and the event is not handled twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The client's name for itself, the `rid` of its CONNECT.
    pub client: Arc<str>,
    /// The namespace of the event.
    pub namespace: Arc<str>,
    /// The event's ack id.
    pub id: u64,
    /// The encoded acknowledgement. A store does not look into it.
    pub frames: Bytes,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full, or a quota is used up.
    #[error("no room on the disk for the store {path}: {source}")]
    Full {
        /// The store's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another server, or another store of this one, has it open.
    #[error("the store {path} is in use by another process; each server needs a file of its own")]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// The system does not let this user read or write it.
    #[error(
        "no permission for the store {path}: {source}; its directory and the file must be writable for this user"
    )]
    Permission {
        /// The store's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no directory to keep it in, or it was taken away.
    #[error("the store {path} has no directory; make it first, writable for this user")]
    NoDirectory {
        /// The store's file.
        path: PathBuf,
    },
    /// A newer tinysio has written it. It is left as it is.
    #[error(
        "the store {path} has format {found}, and this version reads up to {known}: \
         start the newer version, or move the file away"
    )]
    TooNew {
        /// The store's file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The newest format that this version reads.
        known: u64,
    },
    /// What it holds makes no sense.
    #[error("the store {path} is damaged: {what}")]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The system failed in another way.
    #[error("the store {path} failed: {source}")]
    Io {
        /// The store's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A method of the store panicked. The log has the text of the panic.
    #[error("the store's `{method}` panicked")]
    Panicked {
        /// The method of [`Store`].
        method: &'static str,
    },
    /// For stores of your own.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}
