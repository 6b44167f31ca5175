//! The commands to the hub, the queries, and the signals that do not wait in the commands' queue.
//!
//! Only [`HubHandle`](super::HubHandle) makes commands; the other modules call its methods.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::server::{
    hub::in_flight::InFlightGuard,
    hub::membership::Membership,
    hub::recovery::journal::Report,
    hub::recovery::{Claim, Resume, RetainedData},
    hub::session::HubSession,
    recovery::store::KeptAnswer,
};
use crate::{
    proto::socket::Encoded,
    sys::{channel::Sender, time::Instant},
};

/// Smaller packets are not counted: the number of commands bounds them.
pub(crate) const INFLIGHT_MIN: usize = 4 << 10;

/// The recipients of a broadcast, among the sockets of a namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// Only the socket with this id.
    pub(crate) only: Option<Arc<str>>,
    /// The sockets in one of these rooms, or with one of these ids. If empty: all sockets of the namespace.
    pub(crate) rooms: SmallVec<[Arc<str>; 2]>,
    /// Without the sockets that are in one of these rooms.
    pub(crate) except: SmallVec<[Arc<str>; 1]>,
    /// Without the socket with this id: the sender.
    pub(crate) skip: Option<Arc<str>>,
}

pub(super) enum Command {
    /// A session was opened at this time. Its heartbeat and its connect deadline begin.
    OpenSession(Arc<dyn HubSession>, Instant),
    /// Close a session after its packets, with this code. Abort it when that takes too long.
    CloseSession(Arc<dyn HubSession>, Option<u16>, InFlightGuard),
    /// The handlers of an ended session have returned. It gets nothing more; another session may get its slot.
    ForgetSession(Arc<dyn HubSession>),
    /// A socket is connected. One command for the membership and the answer to the client: when the client has the
    /// answer, the socket is in the namespace; and no broadcast comes before the answer.
    ConnectSocket {
        socket: Arc<Membership>,
        connect_ack: Encoded,
        /// The place of a disconnected client that it takes.
        resume: Option<Box<Resume>>,
        guard: InFlightGuard,
    },
    /// A socket is disconnected. `lost`: it may be recovered, and then finds this data again.
    DisconnectSocket {
        socket: Arc<Membership>,
        lost: Option<RetainedData>,
    },
    /// The disconnect handlers of a socket that may be recovered have returned.
    HandlersDone(Arc<Membership>),
    Join(Arc<Membership>, SmallVec<[Arc<str>; 1]>, Option<InFlightGuard>),
    Leave(Arc<Membership>, Arc<str>, Option<InFlightGuard>),
    Emit {
        namespace: usize,
        to: Arc<Selection>,
        packet: Encoded,
        volatile: bool,
        guard: InFlightGuard,
    },
    Direct {
        session: Arc<dyn HubSession>,
        packet: Encoded,
        volatile: bool,
        guard: InFlightGuard,
    },
    /// No effect, but what the sending thread emits later comes behind every command before this one.
    Fence(InFlightGuard),
    /// Run the timers that are due, then drop the sender.
    RunTimers(Sender<()>),
    /// Answer a question of the sending thread.
    Query {
        namespace: usize,
        query: Query,
    },
    /// The claim of a disconnected client's place is given up.
    ReleaseClaim(Box<Resume>),
    /// The application's data of a socket, as the store keeps it.
    StoreData(Arc<Membership>, Option<Bytes>, Option<InFlightGuard>),
    /// The answer to a client, for its retries.
    StoreAnswer(Box<KeptAnswer>, InFlightGuard),
    /// The answer to this client in this namespace is not needed any more.
    ForgetAnswer(Arc<str>, usize),
    /// Several commands at once. The store gets the changes of all of them, or of none.
    Batch(Vec<Self>),
    /// An acknowledgement must come by then.
    AckDeadline(Weak<Membership>, Instant),
    /// Drop the sender when the earlier commands of the sending thread are finished.
    ReportFinished(Sender<()>, InFlightGuard),
    /// Look for a signal.
    CheckSignals,
}

pub(super) enum Query {
    /// The rooms of a socket, without the one that has its id.
    RoomsOf(Arc<Membership>, Sender<Vec<Arc<str>>>),
    /// The number of sockets in a room.
    Count(Arc<str>, Sender<usize>),
    /// The selected sockets.
    Sockets(Arc<Selection>, Sender<Vec<Arc<Membership>>>),
    /// Whether the disconnected client with this pid, which has received up to this offset, can be recovered.
    Claim(Arc<str>, Option<Arc<str>>, Sender<Claim>),
}

/// What the hub gets besides the commands, whose queue may be full.
pub(super) enum Signal {
    /// The store has finished what it was given.
    Store(Report),
    /// The server stops. The store has until then.
    Stop(Instant),
}

/// A packet, and whether it is volatile.
pub(super) type Packet = (Encoded, bool);

/// The queue has memory for all its commands from the start.
const _: () = assert!(size_of::<Command>() <= 64);

impl Command {
    /// The bytes of large packets in it.
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
