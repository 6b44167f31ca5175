//! A socket as the hub sees it: its ids, its state and its session, and no data of the application.
//!
//! The hub's thread must not drop a value of the application, because `Drop` is user code: it could panic, block, or
//! ask the hub. So the hub keeps a [`Membership`]. The socket with its data and its callbacks belongs to the threads
//! that run handlers. The membership has a weak reference to it, which only those threads use.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Weak},
};

use crate::server::{hub::session::HubSession, recovery::is_recoverable};
use crate::{
    proto::CloseReason,
    sys::sync::atomic::{
        AtomicU8,
        Ordering::{AcqRel, Acquire, Release},
    },
};

/// The names of a socket beside its id, if the server has connection state recovery.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// The secret by which it can be recovered.
    pub(crate) pid: Option<Arc<str>>,
    /// Whether it was recovered: it has taken the place of a disconnected client.
    pub(crate) recovered: bool,
    /// The name of a client that retries events without an acknowledgement.
    pub(crate) rid: Option<Arc<str>>,
}

/// Not connected yet: the middlewares are running.
const NEW: u8 = 0;
const CONNECTED: u8 = 1;
const DISCONNECTED: u8 = 2;
/// Disconnected, and may be recovered: events for it are kept.
const LOST: u8 = 3;

/// What the socket itself keeps. Layers below the sockets only pass it on.
pub(crate) type SocketState = dyn Any + Send + Sync;

pub(crate) struct Membership {
    id: Arc<str>,
    /// The index of its namespace.
    namespace: usize,
    session: Arc<dyn HubSession>,
    identity: Identity,
    state: AtomicU8,
    /// The socket's own state, which the hub cannot look into.
    socket: Weak<SocketState>,
}

impl Membership {
    pub(crate) fn new(
        id: Arc<str>,
        namespace: usize,
        session: Arc<dyn HubSession>,
        identity: Identity,
        socket: Weak<SocketState>,
    ) -> Self {
        Self { id, namespace, session, identity, state: AtomicU8::new(NEW), socket }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn shared_id(&self) -> Arc<str> {
        Arc::clone(&self.id)
    }

    pub(crate) fn namespace_index(&self) -> usize {
        self.namespace
    }

    pub(crate) fn session(&self) -> &Arc<dyn HubSession> {
        &self.session
    }

    /// The slot of its session.
    pub(super) fn slot(&self) -> u32 {
        self.session.slot()
    }

    pub(crate) fn pid(&self) -> Option<&Arc<str>> {
        self.identity.pid.as_ref()
    }

    pub(crate) fn rid(&self) -> Option<&Arc<str>> {
        self.identity.rid.as_ref()
    }

    pub(crate) fn recovered(&self) -> bool {
        self.identity.recovered
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }

    /// The socket's own state. `None`: it was dropped. Not for the hub's thread, which must not be the last to hold it.
    pub(crate) fn socket_state(&self) -> Option<Arc<SocketState>> {
        self.socket.upgrade()
    }

    pub(crate) fn is_new(&self) -> bool {
        self.state.load(Acquire) == NEW
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.state.load(Acquire) == CONNECTED
    }

    /// Whether events for it are sent or kept.
    pub(crate) fn is_connected_or_lost(&self) -> bool {
        matches!(self.state.load(Acquire), CONNECTED | LOST)
    }

    pub(crate) fn set_connected(&self) {
        self.state.store(CONNECTED, Release);
    }

    /// `false`: it was not connected.
    pub(crate) fn set_disconnected(&self, reason: CloseReason) -> bool {
        let lost = self.identity.pid.is_some() && is_recoverable(reason);
        let then = if lost { LOST } else { DISCONNECTED };
        self.state.compare_exchange(CONNECTED, then, AcqRel, Acquire).is_ok()
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("id", &self.id).finish_non_exhaustive()
    }
}
