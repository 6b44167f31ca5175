//! What the hub can be asked to do.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::server::{
    hub::in_flight::InFlightGuard,
    hub::membership::Membership,
    hub::session::HubSession,
    recovery::journal::Report,
    recovery::store::KeptAnswer,
    recovery::{Claim, Resume, RetainedData},
};
use crate::{
    proto::socket::Encoded,
    sys::{channel::Sender, time::Instant},
};

/// Smaller packets are bounded well enough by the number of commands.
pub(crate) const INFLIGHT_MIN: usize = 4 << 10;

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
    Open(Arc<dyn HubSession>, Instant),
    /// A session ends in peace: close it behind what is due, cut it when that takes too long.
    Ending(Arc<dyn HubSession>, Option<u16>, InFlightGuard),
    /// The last that is heard of a session; its seat is free again.
    Gone(Arc<dyn HubSession>),
    /// A socket is connected, and this tells its client so. Together, so that whoever hears of the socket finds it in the
    /// namespace, and no broadcast comes before the consent.
    Enter {
        socket: Arc<Membership>,
        consent: Encoded,
        /// Whose place it takes.
        resume: Option<Box<Resume>>,
        order: InFlightGuard,
    },
    /// It has left; `lost`: and may come back, and then finds this data again.
    Exit {
        socket: Arc<Membership>,
        lost: Option<RetainedData>,
    },
    /// The handlers of one that was lost have been told.
    Left(Arc<Membership>),
    Join(Arc<Membership>, SmallVec<[Arc<str>; 1]>, Option<InFlightGuard>),
    Leave(Arc<Membership>, Arc<str>, Option<InFlightGuard>),
    Emit {
        namespace: usize,
        to: Arc<Selection>,
        packet: Encoded,
        volatile: bool,
        order: InFlightGuard,
    },
    Direct {
        session: Arc<dyn HubSession>,
        packet: Encoded,
        volatile: bool,
        order: InFlightGuard,
    },
    /// Nothing, but what the sending thread emits afterwards comes after everything that is in the queue.
    Fence(InFlightGuard),
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
    Data(Arc<Membership>, Option<Bytes>, Option<InFlightGuard>),
    /// What a client was answered, for its retries.
    Remember(Box<KeptAnswer>, InFlightGuard),
    /// A client's retries are over.
    ForgetAnswer(Arc<str>, usize),
    /// Several commands at once. The store gets the changes of all of them, or of none.
    Batch(Vec<Self>),
    /// Some acknowledgement is awaited until then.
    AckDeadline(Weak<Membership>, Instant),
    /// Nothing; dropping the sender says that what the sending thread has sent before is finished.
    Finished(Sender<()>, InFlightGuard),
    /// There is a signal.
    Look,
}

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

/// What reaches the hub beside its queue, which may be full.
pub(crate) enum Signal {
    Store(Report),
    /// The server stops: the store has until then.
    Stop(Instant),
}

/// A packet, and whether it is volatile.
pub(crate) type Packet = (Encoded, bool);

/// The hub's queue has its slots in memory from the start.
const _: () = assert!(size_of::<Command>() <= 64);

impl Command {
    /// Bytes of large packets in it.
    pub(super) fn large_bytes(&self) -> usize {
        match self {
            Self::Emit { packet, .. } | Self::Direct { packet, .. } => large(packet),
            Self::Batch(commands) => commands.iter().map(Self::large_bytes).sum(),
            _ => 0,
        }
    }
}

/// The bytes of a packet, if it is large.
pub(super) fn large(packet: &Encoded) -> usize {
    let bytes = packet.bytes().len();
    if bytes >= INFLIGHT_MIN { bytes } else { 0 }
}
