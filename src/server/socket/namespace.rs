//! A namespace: its handlers, which are fixed before the server starts, and what a running server offers for it.
//!
//! It owns the lists of handlers. It uses the hub's handle for rooms and broadcasts, and calls no handler itself.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::server::{
    error::{ConnectError, EmitError},
    guard,
    guard::Callee,
    hub::{HubHandle, Selection},
    socket::broadcast::Broadcast,
    socket::retries::Retried,
    socket::{Event, Socket},
};
use crate::{
    outcome::Outcome,
    proto::{
        CloseReason, limits,
        socket::{EncodeError, Encoded, Outgoing},
    },
    sys::sync::atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed},
    },
};

pub(super) type Middleware = Box<dyn Fn(&Socket) -> Result<(), ConnectError> + Send + Sync>;
pub(super) type ConnectHandler = Box<dyn Fn(&Socket) + Send + Sync>;
pub(super) type EventHandler = Box<dyn Fn(&Socket, Event<'_>) + Send + Sync>;
pub(super) type AnyHandler = Box<dyn Fn(&Socket, &Event<'_>) + Send + Sync>;
pub(super) type CloseHandler = Box<dyn Fn(&Socket, CloseReason) + Send + Sync>;

/// The handlers of a namespace.
///
/// They are the same for all its sockets, and set before the server starts. [`Socket::set_data`] stores data of one
/// socket. The handlers of one client run one at a time, in the order of its packets, on worker threads. A handler
/// may block; it delays no other client. A panic in a handler is caught and logged, and ends only that call.
///
/// As in the official API, each call adds a handler. Handlers of the same event are called one after the other, in
/// the order of their registration, also if an earlier one has panicked.
pub struct NamespaceBuilder {
    pub(crate) name: Arc<str>,
    pub(crate) middlewares: Vec<Middleware>,
    pub(crate) connect: Vec<ConnectHandler>,
    /// A tree, because with few names its search is faster than a hash.
    pub(crate) events: BTreeMap<String, Vec<EventHandler>>,
    pub(crate) any: Vec<AnyHandler>,
    pub(crate) unhandled: Vec<EventHandler>,
    pub(crate) rate_limited: Vec<EventHandler>,
    pub(crate) disconnecting: Vec<CloseHandler>,
    pub(crate) disconnect: Vec<CloseHandler>,
    pub(crate) data: Option<Codec>,
}

/// How a socket's data goes to the store and back.
pub(crate) struct Codec {
    /// `None`: it is of another type, or cannot be written.
    pub(crate) encode: fn(&(dyn Any + Send + Sync)) -> Option<Bytes>,
    pub(crate) decode: fn(&[u8]) -> Option<Arc<dyn Any + Send + Sync>>,
}

impl NamespaceBuilder {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            middlewares: Vec::new(),
            connect: Vec::new(),
            events: BTreeMap::new(),
            any: Vec::new(),
            unhandled: Vec::new(),
            rate_limited: Vec::new(),
            disconnecting: Vec::new(),
            disconnect: Vec::new(),
            data: None,
        }
    }

    /// Official `io.use`: sees each socket before it is connected, with its auth payload
    /// ([`Socket::auth`]), and can refuse it. Several run in the order of their registration. Nothing can be
    /// sent to the socket yet.
    pub fn middleware(
        &mut self,
        check: impl Fn(&Socket) -> Result<(), ConnectError> + Send + Sync + 'static,
    ) -> &mut Self {
        self.middlewares.push(Box::new(check));
        self
    }

    /// Official `connection` event: the socket is connected, and its client has been told so before anything that
    /// this handler emits.
    pub fn on_connect<O: Outcome>(
        &mut self,
        handler: impl Fn(&Socket) -> O + Send + Sync + 'static,
    ) -> &mut Self {
        self.connect.push(Box::new(move |socket| {
            report(socket, "connect handler", handler(socket));
        }));
        self
    }

    /// Official `socket.on(name, …)`. Several handlers of one event get it in the order of their registration; the
    /// acknowledgement is the first one's that sends or takes it, and for the others [`Event::ack`] is without effect.
    ///
    /// The server does not start ([`StartError::Config`](crate::server::StartError::Config)) with a handler for a
    /// name that no event of a client has: `connect`, `connection`, `disconnect` and `disconnecting` are
    /// [`on_connect`](Self::on_connect), [`on_disconnect`](Self::on_disconnect) and
    /// [`on_disconnecting`](Self::on_disconnecting) here, `connect_error` is an event of clients, `newListener` and
    /// `removeListener` are Node's. A client that sends such an event, which official clients refuse to do, is
    /// disconnected with "parse error", as by the official server; only `connection` is an event like others, and
    /// goes to [`on_any`](Self::on_any) and [`on_unhandled`](Self::on_unhandled).
    ///
    /// With connection state recovery, if a client of this crate sends the event with `retries`: the packets that
    /// the handler emits are kept, and sent together with the acknowledgement when the handler returns. They are
    /// sent earlier if the handler queries the hub, waits for an acknowledgement, or has emitted more than 1 MiB.
    pub fn on<O: Outcome>(
        &mut self,
        name: impl Into<String>,
        handler: impl Fn(&Socket, Event<'_>) -> O + Send + Sync + 'static,
    ) -> &mut Self {
        let name = name.into();
        self.events.entry(name.clone()).or_default().push(event_handler(name, handler));
        self
    }

    /// Official `socket.onAny`: sees every event before its handler does.
    pub fn on_any(&mut self, handler: impl Fn(&Socket, &Event<'_>) + Send + Sync + 'static) -> &mut Self {
        self.any.push(Box::new(handler));
        self
    }

    /// Gets the events that have no handler of their own. The official server drops them.
    pub fn on_unhandled<O: Outcome>(
        &mut self,
        handler: impl Fn(&Socket, Event<'_>) -> O + Send + Sync + 'static,
    ) -> &mut Self {
        self.unhandled.push(event_handler("unhandled event".to_owned(), handler));
        self
    }

    /// Gets the events that exceed [`event_rate`](crate::server::Config::event_rate) or
    /// [`byte_rate`](crate::server::Config::byte_rate), instead of all other handlers. It may emit to the client,
    /// and acknowledge. Without this handler these events are dropped. A client that goes on sending too fast is
    /// disconnected after this handler has run.
    pub fn on_rate_limited<O: Outcome>(
        &mut self,
        handler: impl Fn(&Socket, Event<'_>) -> O + Send + Sync + 'static,
    ) -> &mut Self {
        self.rate_limited.push(event_handler("rate limit handler".to_owned(), handler));
        self
    }

    /// Stores the data of [`Socket::set_data`] if they are a `T`. So a client that is recovered after a restart of
    /// the server has the same data. The data are encoded during that call; later changes inside them are stored by
    /// the next call only.
    pub fn keep_data<T: Any + Send + Sync + Serialize + DeserializeOwned>(&mut self) -> &mut Self {
        self.data = Some(Codec {
            encode: |data| serde_json::to_vec(data.downcast_ref::<T>()?).ok().map(Bytes::from),
            decode: |bytes| Some(Arc::new(serde_json::from_slice::<T>(bytes).ok()?)),
        });
        self
    }

    /// Official `disconnecting` event: the socket can no longer be sent to, but is still in its rooms.
    pub fn on_disconnecting(
        &mut self,
        handler: impl Fn(&Socket, CloseReason) + Send + Sync + 'static,
    ) -> &mut Self {
        self.disconnecting.push(Box::new(handler));
        self
    }

    /// Official `disconnect` event: the socket has left its rooms.
    pub fn on_disconnect(
        &mut self,
        handler: impl Fn(&Socket, CloseReason) + Send + Sync + 'static,
    ) -> &mut Self {
        self.disconnect.push(Box::new(handler));
        self
    }
}

impl NamespaceBuilder {
    /// # Errors
    /// A sentence about a handler that would never be called.
    pub(crate) fn check_events(&self) -> Result<(), String> {
        for event in self.events.keys() {
            let instead = match event.as_str() {
                "connect" | "connection" => "use on_connect",
                "disconnect" => "use on_disconnect",
                "disconnecting" => "use on_disconnecting",
                "connect_error" => "it is an event of clients, which get it when a middleware refuses them",
                name if limits::RESERVED_EVENTS.contains(&name) => "the name is reserved",
                _ => continue,
            };
            return Err(format!(
                "on({event:?}) of the namespace {:?} would never be called: {instead}",
                self.name
            ));
        }
        Ok(())
    }
}

impl NamespaceBuilder {
    /// What handler that is. `None`: none of this namespace.
    pub(crate) fn describe(&self, callee: Callee) -> Option<String> {
        let is = |other: Callee| callee == other;
        for (name, handlers) in &self.events {
            if is(Callee::of(handlers)) {
                return Some(format!("the handler of event {name:?}"));
            }
        }
        let others = [
            (Callee::of(&self.middlewares), "a middleware"),
            (Callee::of(&self.connect), "on_connect"),
            (Callee::of(&self.any), "on_any"),
            (Callee::of(&self.unhandled), "on_unhandled"),
            (Callee::of(&self.rate_limited), "on_rate_limited"),
            (Callee::of(&self.disconnecting), "on_disconnecting"),
            (Callee::of(&self.disconnect), "on_disconnect"),
        ];
        others.into_iter().find(|(other, _)| is(*other)).map(|(_, name)| name.to_owned())
    }
}

/// Logs the error of a handler. The text is escaped, because it may quote the client, which must not add log lines.
fn report(socket: &Socket, doing: &str, outcome: impl Outcome) {
    if let Err(error) = outcome.into_result() {
        guard::warn!("socket {}: {doing}: {}", socket.id(), error.escape_debug());
    }
}

fn event_handler<O: Outcome>(
    name: String,
    handler: impl Fn(&Socket, Event<'_>) -> O + Send + Sync + 'static,
) -> EventHandler {
    Box::new(move |socket, event| {
        report(socket, &name, handler(socket, event));
    })
}

impl fmt::Debug for NamespaceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamespaceBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) index: usize,
    pub(crate) handlers: NamespaceBuilder,
    pub(crate) hub: HubHandle,
    /// The answers that are kept for clients with `retries`.
    pub(crate) retried: Arc<Retried>,
    /// One counter for the acks of single emits, so that ids are unique in the namespace.
    pub(crate) ack_ids: AtomicU64,
    /// Sockets connected.
    pub(crate) connected: AtomicUsize,
    /// All namespaces of the server, this one among them; so weak.
    all: Arc<OnceLock<Vec<Weak<Self>>>>,
}

/// A namespace of a running server: the official `io.of(name)`. Cheap to clone, and every method may be called from any
/// thread and any handler.
#[derive(Clone)]
pub struct Namespace(pub(crate) Arc<Inner>);

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Namespace").field(&self.name()).finish()
    }
}

impl Namespace {
    /// The namespaces of a server.
    pub(crate) fn all(
        namespaces: Vec<NamespaceBuilder>,
        hub: &HubHandle,
        retried: &Arc<Retried>,
    ) -> Vec<Self> {
        let all = Arc::new(OnceLock::new());
        let new = |(index, handlers)| {
            Self(Arc::new(Inner {
                index,
                handlers,
                hub: hub.clone(),
                retried: Arc::clone(retried),
                ack_ids: AtomicU64::new(0),
                connected: AtomicUsize::new(0),
                all: Arc::clone(&all),
            }))
        };
        let namespaces: Vec<Self> = namespaces.into_iter().enumerate().map(new).collect();
        // It is set here only.
        let _ = all.set(namespaces.iter().map(|namespace| Arc::downgrade(&namespace.0)).collect());
        namespaces
    }

    /// Official `io.of(name)`, or `socket.server.of(name)` in a handler: `socket.namespace().of("/admin")`. `None`:
    /// no such namespace was set up, or the server is gone.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<Self> {
        let all = self.0.all.get()?;
        all.iter().filter_map(Weak::upgrade).map(Self).find(|namespace| namespace.name() == name)
    }

    /// Its name, with the leading `/`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.handlers.name
    }

    /// How many sockets are connected to it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.connected.load(Acquire)
    }

    /// Whether nobody is connected to it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Official `io.emit`: to everybody in the namespace. `args` as in [`Socket::emit`].
    ///
    /// # Errors
    /// [`EmitError::Encode`], [`EmitError::TooLarge`], [`EmitError::ServerGone`]. What becomes of it at each
    /// recipient is not reported.
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        self.everybody().emit(event, args)
    }

    /// Official `io.to(room)`: the sockets in the room, or the socket with this id. More rooms can be added.
    pub fn to(&self, room: &str) -> Broadcast {
        self.everybody().to(room)
    }

    /// Official `io.except(room)`: everybody who is not in the room.
    pub fn except(&self, room: &str) -> Broadcast {
        self.everybody().except(room)
    }

    /// Official `io.volatile`: dropped for recipients that have a backlog.
    pub fn volatile(&self) -> Broadcast {
        self.everybody().volatile()
    }

    /// The sockets connected, in no particular order.
    #[must_use]
    pub fn sockets(&self) -> Vec<Socket> {
        self.everybody().sockets()
    }

    /// The number of sockets in the room, after all earlier joins and leaves of this thread. The id of a socket is a
    /// room that contains this socket, and that it cannot leave.
    #[must_use]
    pub fn room_len(&self, room: &str) -> usize {
        self.0.hub.count(self.0.index, room.into())
    }

    /// Official `io.disconnectSockets(close)`.
    pub fn disconnect_sockets(&self, close: bool) {
        self.everybody().disconnect_sockets(close);
    }

    pub(super) fn next_ack_id(&self) -> u64 {
        self.0.ack_ids.fetch_add(1, Relaxed)
    }

    /// An event without an acknowledgement. With connection state recovery it has room for its offset.
    pub(super) fn encode_event<T: Serialize + ?Sized>(
        &self,
        event: &str,
        args: &T,
    ) -> Result<Encoded, EncodeError> {
        let packet = Outgoing::event(self.name(), event, None);
        if self.0.hub.recovers() { packet.with_offset().encode(args) } else { packet.encode(args) }
    }

    pub(super) fn broadcast(&self, selection: Selection) -> Broadcast {
        Broadcast::new(self.clone(), selection)
    }

    fn everybody(&self) -> Broadcast {
        self.broadcast(Selection::default())
    }
}
