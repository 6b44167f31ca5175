//! What outlives the process: the packets that were sent, who was there, and what was answered.
//!
//! ```text
//!   start   open ───► Kept: packets, sessions, answers; a new life has begun
//!   then    commit ─► [Change, Change, …]: all of them or none, durable when it returns
//!   trouble abandon ► the server goes on without it; the next start does not believe what it holds
//! ```
//! A packet's **offset** is `life << 44 | count`. The life is one more with each opening of the store, so an offset
//! is never used twice, whatever was lost; a new store begins anywhere, so that it does not use those of another. The **floor** is the largest offset that was trimmed: below it there are gaps.
//!
//! No time of day is kept, because a box without a clock battery wakes up in 1970. Ages begin anew with each life.

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

/// What outlives the process.
///
/// The server opens it at the start, on the thread that starts the server. All other calls come from one thread, the store
/// thread, which does nothing else. So a method may block: what depends on it waits, and the other clients are served. A panic
/// is a failure of the store, as an error is.
///
/// A method may use the server's handles, but must not wait for what the store holds back itself: a [`Socket`](crate::server::Socket)'s
/// emit fails with [`EmitError::Dropped`](crate::server::EmitError::Dropped) when the hub's queue is full, and questions about rooms and
/// sockets find nobody. Nor may it wait for a lock that a handler holds while it emits.
pub trait Store: Send + 'static {
    /// Begins a life: gives what was committed, and makes the new life's number durable before it returns. Called once
    /// a start, before anything else; and again, some time after the store was abandoned, until it succeeds. Then it must be
    /// empty, and the life above all those before.
    ///
    /// # Errors
    /// The store cannot be used. The server does not start, unless it may go on without
    /// ([`Builder::store_required`](crate::server::Builder::store_required)).
    fn open(&mut self) -> Result<Kept, StoreError>;

    /// Makes the changes durable in their order, all of them or none.
    ///
    /// # Errors
    /// They may be durable or not, and the server can no longer know: it [abandons](Self::abandon) the store and goes on
    /// without.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// The server goes on without this store: what it holds must not be believed by the next start, which would find
    /// gaps in it that nobody knows of. Called after a commit, or the opening, has failed. Later the store may be
    /// [opened](Self::open) again.
    fn abandon(&mut self);
}

/// What a store gave when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The life that has begun, from 1 to [`LIFE_MAX`](Self::LIFE_MAX).
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
    /// The largest life: an offset has 20 bits for it. The opening after that forgets everything and begins as a new store
    /// does, so that nobody who asks for an old offset is known.
    pub const LIFE_MAX: u32 = (1 << 20) - 1;
}

/// The others are for the openings to come.
const FIRST_LIFE_MAX: u32 = Kept::LIFE_MAX / 2;

/// Of a new store. Clients keep their last offset when the file goes, until they have received something of the new one's; if it
/// began like the old one, that would say that they have what they have not. 1 where there is no randomness.
fn first_life() -> u32 {
    1 + crate::random::u32().unwrap_or_default() % FIRST_LIFE_MAX
}

/// The life that an opening begins. `last`: the one before, 0 for none.
fn next_life(last: u32, first: u32) -> u32 {
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
    /// Its place among all events of the server.
    pub offset: u64,
    /// The namespace of all its recipients.
    pub namespace: Arc<str>,
    /// The sid that it was sent to, if it was to one socket.
    pub only: Option<Arc<str>>,
    /// The rooms it was sent to otherwise; none: everybody in the namespace.
    pub rooms: Vec<Arc<str>>,
    /// The rooms whose members did not get it.
    pub except: Vec<Arc<str>>,
    /// The sid that did not get it: the sender of a broadcast.
    pub skip: Option<Arc<str>>,
    /// The encoded packet, as the server reads it back; a store does not look into it.
    pub frames: Bytes,
}

/// A socket that may come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSession {
    /// The secret by which it is recovered.
    pub pid: Arc<str>,
    /// The id that it had, and will have again.
    pub sid: Arc<str>,
    /// Where it is connected.
    pub namespace: Arc<str>,
    /// The server's last offset when it came: what is later may be for it.
    pub entered: u64,
    /// Up to this offset it is not known any more in which rooms it was.
    pub blind: u64,
    /// Which rooms it was in, and when.
    pub stays: Vec<Stay>,
    /// The application's data of this socket, encoded; a store does not look into it.
    pub data: Option<Bytes>,
    /// The last offset that was meant for it, as of `known`.
    pub last: u64,
    /// Up to where `last` is right; `u64::MAX` for one that is connected: as of the last [`Change::Trim`].
    pub known: u64,
}

/// A time in a room, counted in offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// The room.
    pub room: Arc<str>,
    /// The server's last offset when it joined.
    pub from: u64,
    /// The server's last offset when it left; `u64::MAX`: it is still there.
    pub to: u64,
}

/// What a client was answered last, so that its retry is answered and not handled again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The client's own number for its life, the `rid` of its CONNECT.
    pub client: Arc<str>,
    /// Where it sent the event.
    pub namespace: Arc<str>,
    /// The event's ack id.
    pub id: u64,
    /// The encoded acknowledgement; a store does not look into it.
    pub frames: Bytes,
}

/// Why a store cannot be used, or can no longer be.
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
