//! A socket: one client in one namespace.
//!
//! It owns the data of the application, the auth payload and the acknowledgements that it waits for. What the hub
//! knows of it is a [`Membership`]. It sends through its session, or through the hub; it must not be dropped on the
//! hub's thread.

mod acks;
pub(crate) mod broadcast;
mod emit;
mod event;
pub(crate) mod namespace;
pub(crate) mod retries;

use std::{
    any::Any,
    fmt,
    sync::{Arc, Weak},
};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use smallvec::smallvec;

use crate::server::{
    guard::{self, Callee, Owner},
    hub::membership::{Identity, Membership, SocketState},
    hub::recovery::Resume,
    hub::{self, Selection},
    session::{Handshake, Session, Task},
    socket::broadcast::Broadcast,
    socket::namespace::Namespace,
};
use crate::{
    proto::{
        CloseReason,
        engine::TransportKind,
        socket::{Encoded, Outgoing},
    },
    sys::sync::{Mutex, atomic::Ordering::AcqRel},
};

use acks::Acks;
pub(crate) use emit::SCRATCH_MAX;
pub use event::{Ack, Event};

/// A connected client in one namespace: the official `Socket`. Cheap to clone; every method may be called from any
/// thread and from inside any handler.
#[derive(Clone)]
pub struct Socket(Arc<Inner>);

pub(crate) struct Inner {
    membership: Arc<Membership>,
    session: Arc<Session>,
    namespace: Namespace,
    auth: Option<Box<RawValue>>,
    acks: Mutex<Acks>,
    /// Joined before it was connected.
    early_rooms: Mutex<Option<Vec<Arc<str>>>>,
    data: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Socket {
    pub(crate) fn new(
        id: Arc<str>,
        namespace: Namespace,
        session: &Arc<Session>,
        auth: Option<&RawValue>,
        identity: Identity,
    ) -> Self {
        Self(Arc::new_cyclic(|inner: &Weak<Inner>| Inner {
            membership: Arc::new(Membership::new(
                id,
                namespace.0.index,
                Arc::<Session>::clone(session),
                identity,
                Weak::<Inner>::clone(inner),
            )),
            session: Arc::clone(session),
            namespace,
            auth: auth.map(ToOwned::to_owned),
            acks: Mutex::default(),
            early_rooms: Mutex::new(Some(Vec::new())),
            data: Mutex::default(),
        }))
    }

    /// The socket of this membership. `None`: it was dropped. Not for the hub's thread, which must not be the last to
    /// hold it.
    pub(crate) fn of(membership: &Membership) -> Option<Self> {
        Self::of_state(membership.socket_state()?)
    }

    pub(crate) fn of_state(state: Arc<SocketState>) -> Option<Self> {
        state.downcast().ok().map(Self)
    }

    /// Its id, which other clients may know; the Engine.IO session's id is another one, and secret.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.membership.id()
    }

    /// The namespace it is in: the official `socket.nsp`. [`Namespace::of`] leads to the others.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// What the first request of the session said.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.session().handshake
    }

    /// The auth payload of the CONNECT, an object, as raw JSON. `None` when the client sent none.
    #[must_use]
    pub fn auth(&self) -> Option<&RawValue> {
        self.0.auth.as_deref()
    }

    /// The auth payload as a `T`; a missing one is read as `{}`.
    ///
    /// # Errors
    /// When it is no `T`.
    pub fn auth_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.auth().map_or("{}", RawValue::get))
    }

    /// The transport that its session is on now.
    #[must_use]
    pub fn transport(&self) -> TransportKind {
        self.session().transport()
    }

    /// Whether it can be sent to.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.membership.is_connected()
    }

    /// Official `socket.recovered`: whether this socket replaces one that its client has lost. It then has the same
    /// id, rooms and data, and the client gets the events that it has missed. Always false without
    /// [`connection_state_recovery`](crate::server::Config::connection_state_recovery).
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.0.membership.recovered()
    }

    /// Official `socket.join`. In effect for every emit that this thread makes afterwards; in a middleware, as soon as
    /// the socket is connected.
    pub fn join(&self, room: &str) {
        self.join_shared(room.into());
    }

    /// [`join`](Self::join), for several sockets that share the name of the room.
    fn join_shared(&self, room: Arc<str>) {
        let mut early = self.0.early_rooms.lock();
        match &mut *early {
            Some(rooms) if rooms.contains(&room) => {}
            Some(rooms) => rooms.push(room),
            None => {
                drop(early);
                self.0.namespace.0.hub.join(self.membership(), smallvec![room]);
            }
        }
    }

    /// Enters the namespace, and the rooms that were joined before. From now on the hub knows its rooms.
    pub(crate) fn enter(&self, consent: Encoded, resume: Option<Box<Resume>>) {
        // The lock is held for both commands. So joins and leaves by other threads reach the hub after them.
        let mut early = self.0.early_rooms.lock();
        let hub = &self.0.namespace.0.hub;
        hub.connect_socket(self.membership(), consent, resume);
        let rooms = early.take().unwrap_or_default();
        if !rooms.is_empty() {
            hub.join(self.membership(), rooms.into());
        }
    }

    /// Official `socket.leave`. Leaving the room of its own id, which [`Namespace::to`] takes, has no effect.
    pub fn leave(&self, room: &str) {
        let mut early = self.0.early_rooms.lock();
        if let Some(rooms) = &mut *early {
            return rooms.retain(|early| **early != *room);
        }
        drop(early);
        self.0.namespace.0.hub.leave(self.membership(), room.into());
    }

    /// Official `socket.rooms`, without the socket's own id, which is no room here although
    /// [`to`](Namespace::to) takes it. In no particular order.
    #[must_use]
    pub fn rooms(&self) -> Vec<Arc<str>> {
        if let Some(early) = &*self.0.early_rooms.lock() {
            return early.clone();
        }
        self.0.namespace.0.hub.rooms_of(self.membership())
    }

    /// Official `socket.broadcast`: everybody in the namespace but this socket.
    pub fn broadcast(&self) -> Broadcast {
        self.0.namespace.broadcast(Selection { skip: Some(self.shared_id()), ..Selection::default() })
    }

    /// Official `socket.to(room)`: all sockets in the room except this one.
    pub fn to(&self, room: &str) -> Broadcast {
        self.broadcast().to(room)
    }

    /// Official `socket.disconnect(close)`: removes it from the namespace; with `true` removes its client from all
    /// namespaces and closes the connection, behind everything that was sent before, and behind the handler of this
    /// client that runs at the moment. The official client does not reconnect by itself afterwards.
    pub fn disconnect(&self, close: bool) {
        // The batch is sent first, because another thread may call the handlers and remove the socket from the
        // namespace.
        let _ = self.0.namespace.0.hub.send_batch();
        if close {
            self.disconnect_client(CloseReason::ServerNamespaceDisconnect, CloseReason::ForcedServerClose);
        } else {
            self.disconnect_socket(CloseReason::ServerNamespaceDisconnect);
        }
    }

    /// Disconnects its client from all namespaces, and closes the connection. The reasons: this socket's, and the
    /// session's.
    pub(crate) fn disconnect_client(&self, reason: CloseReason, of_session: CloseReason) {
        self.disconnect_socket(reason);
        self.session().add_task(Task::Disconnect(hub::unfinished(), of_session));
    }

    /// Official `socket.data`: keeps `data` with the socket, in place of what was kept.
    ///
    /// A client that is recovered finds it again; after a restart of the server too, if there is a store and
    /// [`keep_data`](crate::server::NamespaceBuilder::keep_data) was called for `T`.
    pub fn set_data<T: Any + Send + Sync>(&self, data: T) {
        self.set_any_data(Some(Arc::new(data)));
        if !self.0.membership.is_new() {
            self.keep_data();
        }
    }

    /// Gives the data of the socket to the store, if they have the type that the namespace stores.
    pub(crate) fn keep_data(&self) {
        let (Some(codec), Some(data)) = (&self.0.namespace.0.handlers.data, self.any_data()) else { return };
        let encoded =
            guard::call_for(self, Callee::KEEP_DATA, format_args!("the Serialize of its data"), || {
                (codec.encode)(&*data)
            });
        self.0.namespace.0.hub.store_data(self.membership(), encoded.flatten());
    }

    pub(crate) fn set_any_data(&self, data: Option<Arc<dyn Any + Send + Sync>>) {
        // Dropped without the lock: `Drop` is user code.
        let _before = std::mem::replace(&mut *self.0.data.lock(), data);
    }

    pub(crate) fn any_data(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.data.lock().clone()
    }

    /// What [`set_data`](Self::set_data) kept, if it is a `T`.
    #[must_use]
    pub fn data<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.data.lock().clone()?.downcast().ok()
    }

    pub(crate) fn shared_id(&self) -> Arc<str> {
        self.0.membership.shared_id()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn namespace_index(&self) -> usize {
        self.0.membership.namespace_index()
    }

    pub(crate) fn pid(&self) -> Option<&Arc<str>> {
        self.0.membership.pid()
    }

    pub(crate) fn rid(&self) -> Option<&Arc<str>> {
        self.0.membership.rid()
    }

    /// What the hub keeps of it.
    pub(crate) fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.0.membership)
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.0.session
    }

    /// The middlewares let it pass.
    pub(crate) fn set_connected(&self) {
        self.0.membership.set_connected();
        self.0.namespace.0.connected.fetch_add(1, AcqRel);
    }

    /// `false`: the socket was not connected, so its handlers must not be called.
    pub(crate) fn set_disconnected(&self, reason: CloseReason) -> bool {
        let was = self.0.membership.set_disconnected(reason);
        if was {
            self.0.namespace.0.connected.fetch_sub(1, AcqRel);
        }
        was
    }

    /// Disconnects the socket, and not its client; the handlers follow in their turn.
    fn disconnect_socket(&self, reason: CloseReason) {
        if self.set_disconnected(reason) {
            // Before the packet: the client may join again at once, and this socket must be removed before that.
            self.session().add_task(Task::SocketRemoved(Arc::<Inner>::clone(&self.0), reason));
            self.send_disconnect();
        }
    }

    /// Sends the DISCONNECT packet.
    pub(crate) fn send_disconnect(&self) {
        // `()` always encodes; a failed send means that the session has ended by itself.
        if let Ok(packet) = Outgoing::disconnect(self.0.namespace.name()).encode(&()) {
            let _ = self.session().send_ordered(packet);
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("id", &self.id())
            .field("namespace", &self.0.namespace.name())
            .finish_non_exhaustive()
    }
}

impl Owner for Socket {
    fn log_name(&self) -> String {
        let (id, namespace) = (self.id(), self.0.namespace.name());
        format!("socket {id} of namespace {namespace:?} (session {})", self.session().name())
    }

    fn session_tag(&self) -> u64 {
        self.session().session_tag()
    }

    fn session_address(&self) -> usize {
        self.session().session_address()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The `Drop` of the application's data may panic. The guard catches it, so the thread that drops the socket
        // goes on.
        let (data, acks) = (self.data.lock().take(), std::mem::take(&mut *self.acks.lock()));
        if let Some(data) = data {
            guard::drop_value(data);
        }
        guard::drop_value(acks);
    }
}
