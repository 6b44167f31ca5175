//! The chat on a server: admission, connect, disconnect, shutdown.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt, hint, mem,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    time::Instant,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    Counters, Limits, Network, Refusal, address, events, handlers, limits,
    members::Members,
    payload::{
        self, ClientNotification, ErrorReport, ServerNotification, UserJoinedRoom, UserLeftRoom, Welcome,
    },
    test_events,
};
use crate::{
    proto::{CloseReason, limits::DEFAULT_NAMESPACE, socket::EncodeError},
    server::{
        Broadcast, Builder, ConnectError, EmitError, NamespaceBuilder, Rate, Server, Socket, Stats,
        StatsWatch,
    },
};

/// Options of the chat.
#[derive(Clone)]
pub struct Options {
    /// What clients may send and join.
    pub limits: Limits,
    /// Events that one client may send. Default 50 a second, bursts of 200. [`Chat::install`] sets it as the
    /// server's [`event_rate`](crate::server::Config::event_rate).
    pub rate: Rate,
    /// The `token` that the auth payload of a client must have. Default: every client is admitted.
    pub auth_token: Option<String>,
    /// Proxies whose `X-Forwarded-For` is used in the log. Default none.
    pub trusted_proxies: Vec<Network>,
    /// Serves `echo`, `ask`, `kick` and the namespace `/custom`, for tests and tools. Default no.
    pub test_events: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            rate: limits::RATE,
            auth_token: None,
            trusted_proxies: Vec::new(),
            test_events: false,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("limits", &self.limits)
            .field("rate", &self.rate)
            .field("auth", &self.auth_token.is_some())
            .field("trusted_proxies", &self.trusted_proxies)
            .field("test_events", &self.test_events)
            .finish()
    }
}

/// The application, for one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Chat(Arc<App>);

impl Chat {
    /// A chat without clients; its uptime begins now.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(App {
            options,
            started: Instant::now(),
            members: Members::default(),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
            watch: OnceLock::new(),
        }))
    }

    /// Adds the namespace `/` and the route `/health` to a server builder, and sets its event rate.
    pub fn install(&self, builder: Builder) -> Builder {
        let app = &self.0;
        let mut builder =
            builder.event_rate(app.options.rate).namespace(DEFAULT_NAMESPACE, |ns| app.install(ns));
        if app.options.test_events {
            builder = builder.namespace(test_events::NAMESPACE, |ns| test_events::install_namespace(app, ns));
        }
        let app = Arc::clone(app);
        builder.route("/health", move |request| app.health_response(request))
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Number of rooms with members.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.0.members.rooms()
    }

    /// Seconds since [`new`](Self::new).
    #[must_use]
    pub fn uptime(&self) -> f64 {
        self.0.uptime()
    }

    /// Makes `/health` report the state of this server: whether its store works, and whether it is full.
    pub fn watch(&self, server: &Server) {
        // One server for each chat: a second one would report the state of the first.
        let _ = self.0.watch.set(server.stats_watch());
    }

    /// The statistics of the [watched](Self::watch) server, while it exists.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        self.0.stats()
    }

    /// The content of `/health`.
    #[must_use]
    pub fn health(&self) -> payload::Health<'static> {
        self.0.health()
    }

    /// The answer of `/health`, for other listeners: status, content type and body.
    #[must_use]
    pub fn health_answer(&self) -> (u16, &'static str, String) {
        self.0.health_answer()
    }

    /// Notifies every client that the server shuts down. From now on `/health` reports it too, and disconnects
    /// are no longer announced. Call [`Server::shutdown`] after it on the same thread.
    pub fn announce_shutdown(&self, server: &Server) {
        self.0.stopping.store(true, Release);
        let notification = ServerNotification {
            kind: "server_shutdown".into(),
            message: "Server is shutting down".into(),
            timestamp: payload::now(),
        };
        self.0.counters.events_out.add_one();
        if let Err(error) = server.emit(events::SERVER_NOTIFICATION, &notification) {
            log::debug!("the shutdown could not be announced: {error}");
        }
    }
}

/// State that all handlers share.
#[derive(Debug)]
pub(super) struct App {
    pub(super) options: Options,
    started: Instant,
    pub(super) members: Members,
    pub(super) counters: Counters,
    stopping: AtomicBool,
    watch: OnceLock<StatsWatch>,
}

/// The data of each socket.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) address: String,
    /// Locked by this client's own handlers, which run one at a time, so there is no contention.
    pub(super) state: Mutex<ClientState>,
}

#[derive(Debug, Default)]
pub(super) struct ClientState {
    /// Names as clients know them.
    pub(super) rooms: BTreeSet<String>,
    /// `message` events accepted.
    pub(super) messages: u64,
    /// The first number of its message ids.
    pub(super) ids_from: u64,
}

/// The library's name of a room. The prefix separates it from socket ids, which are rooms too: a room named
/// like a socket id does not receive that socket's events.
pub(super) fn address_of(room: &str) -> String {
    format!("room:{room}")
}

/// The name of a room as clients know it.
fn name_of(address: &str) -> Option<String> {
    address.strip_prefix("room:").map(str::to_owned)
}

impl App {
    fn install(self: &Arc<Self>, ns: &mut NamespaceBuilder) {
        self.require_token(ns);
        let app = Arc::clone(self);
        ns.on_connect(move |socket| app.connected(socket));
        let app = Arc::clone(self);
        ns.on_disconnect(move |socket, reason| app.disconnected(socket, reason));
        handlers::install(self, ns);
        if self.options.test_events {
            test_events::install(self, ns);
        }
    }

    pub(super) fn require_token(self: &Arc<Self>, ns: &mut NamespaceBuilder) {
        if self.options.auth_token.is_some() {
            let app = Arc::clone(self);
            ns.middleware(move |socket| app.authorize(socket));
        }
    }

    fn authorize(&self, socket: &Socket) -> Result<(), ConnectError> {
        #[derive(Deserialize)]
        struct Auth<'a> {
            token: Cow<'a, str>,
        }
        let given = socket.auth_as::<Auth<'static>>();
        let wanted = self.options.auth_token.as_deref();
        match (wanted, given) {
            (None, _) => Ok(()),
            (Some(wanted), Ok(given)) if is_same_secret(wanted, &given.token) => Ok(()),
            (Some(_), given) => {
                self.counters.unauthorized.add_one();
                let why = if given.is_ok() { "wrong token" } else { "no token" };
                log::warn!("refused {}: {why}", self.address(socket));
                Err(ConnectError::new("Unauthorized"))
            }
        }
    }

    fn address(&self, socket: &Socket) -> String {
        address::client_address(socket.handshake(), &self.options.trusted_proxies)
    }

    pub(super) fn uptime(&self) -> f64 {
        payload::seconds(self.started.elapsed())
    }

    pub(super) fn stats(&self) -> Option<Stats> {
        self.watch.get().and_then(StatsWatch::stats)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    fn connected(&self, socket: &Socket) {
        let client = Client { address: self.address(socket), state: Mutex::new(self.state(socket)) };
        self.counters.connects.add_one();
        let total = socket.namespace().len();
        log::info!(
            client = socket.id();
            "connected from {} on {}{}; {total} here",
            client.address,
            socket.transport().as_str(),
            if socket.recovered() { ", recovered" } else { "" },
        );
        let rooms = client.state.lock().rooms.clone();
        socket.set_data(client);
        let greeted = if socket.recovered() {
            self.tell_connected(socket, total)
                .and_then(|()| rooms.iter().try_for_each(|room| self.rejoined(socket, room)))
        } else {
            self.greet(socket, total)
        };
        if greeted.is_err() {
            self.refuse(socket, "connect", &Refusal::Connection, None);
        }
    }

    /// The initial state of a client: empty, or the state before its connection was lost.
    fn state(&self, socket: &Socket) -> ClientState {
        if !socket.recovered() {
            return ClientState::default();
        }
        let rooms = socket.rooms().iter().filter_map(|room| name_of(room)).collect();
        match socket.data::<Client>() {
            Some(before) => ClientState { rooms, ..*before.state.lock() },
            // The server was restarted and the number of messages is lost; message ids must not repeat.
            None => ClientState { rooms, messages: 0, ids_from: payload::now() as u64 },
        }
    }

    fn greet(&self, socket: &Socket, total_clients: usize) -> Result<(), EncodeError> {
        let welcome = Welcome {
            data: "Welcome! You are connected to the server.".into(),
            server_time: self.uptime(),
            client_id: socket.id().into(),
            total_clients,
        };
        self.reply(socket, events::MESSAGE, &welcome)?;
        self.tell_connected(socket, total_clients)
    }

    fn tell_connected(&self, socket: &Socket, total_clients: usize) -> Result<(), EncodeError> {
        let notification = ClientNotification {
            kind: "user_connected".into(),
            user_id: socket.id().into(),
            total_clients,
            timestamp: payload::now(),
        };
        self.tell(socket, socket.broadcast(), events::CLIENT_NOTIFICATION, &notification)
    }

    fn disconnected(&self, socket: &Socket, reason: CloseReason) {
        // A socket without data was never counted.
        let Some(client) = socket.data::<Client>() else { return };
        self.counters.disconnects.add_one();
        let rooms = mem::take(&mut client.state.lock().rooms);
        log::info!(
            client = socket.id();
            "disconnected from {}: {reason}; {} left; rooms: {}",
            client.address,
            socket.namespace().len(),
            RoomList(&rooms)
        );
        for room in &rooms {
            let remaining = self.members.leave(room);
            self.tell_left(socket, room, remaining);
        }
        if self.is_stopping() {
            return;
        }
        let notification = ClientNotification {
            kind: "user_disconnected".into(),
            user_id: socket.id().into(),
            total_clients: socket.namespace().len(),
            timestamp: payload::now(),
        };
        // Texts and numbers always encode.
        let _ = self.tell(socket, socket.broadcast(), events::CLIENT_NOTIFICATION, &notification);
    }

    /// Restores the room of a recovered client.
    fn rejoined(&self, socket: &Socket, room: &str) -> Result<(), EncodeError> {
        let room_members = self.members.join(room);
        self.tell_joined(socket, room, room_members, payload::now())
    }

    /// Notifies the other members that a socket joined the room.
    pub(super) fn tell_joined(
        &self,
        socket: &Socket,
        room: &str,
        room_members: usize,
        timestamp: payload::Timestamp,
    ) -> Result<(), EncodeError> {
        let notification =
            UserJoinedRoom { user_id: socket.id().into(), room: room.into(), room_members, timestamp };
        self.tell(socket, socket.to(&address_of(room)), events::USER_JOINED_ROOM, &notification)
    }

    /// Notifies the remaining members that a socket left the room.
    pub(super) fn tell_left(&self, socket: &Socket, room: &str, remaining_members: usize) {
        if remaining_members == 0 || self.is_stopping() {
            return;
        }
        let notification = UserLeftRoom {
            user_id: socket.id().into(),
            room: room.into(),
            kind: events::USER_LEFT_ROOM.into(),
            remaining_members,
            timestamp: payload::now(),
        };
        // Texts and numbers always encode.
        let _ = self.tell(socket, socket.to(&address_of(room)), events::USER_LEFT_ROOM, &notification);
    }

    /// Emits to the client itself. It is not an error if the client is gone: its earlier events are processed
    /// all the same.
    ///
    /// # Errors
    /// [`EncodeError`]: the payload cannot be encoded.
    pub(super) fn reply<T: Serialize>(
        &self,
        socket: &Socket,
        event: &str,
        payload: &T,
    ) -> Result<(), EncodeError> {
        self.counters.events_out.add_one();
        unless_gone(socket, socket.emit(event, payload))
    }

    /// Emits to the `recipients`.
    ///
    /// # Errors
    /// [`EncodeError`]: the payload cannot be encoded.
    pub(super) fn tell<T: Serialize>(
        &self,
        socket: &Socket,
        recipients: Broadcast,
        event: &str,
        payload: &T,
    ) -> Result<(), EncodeError> {
        self.counters.events_out.add_one();
        unless_gone(socket, recipients.emit(event, payload))
    }

    /// Answers with an `error`, and logs why.
    pub(super) fn refuse(
        &self,
        socket: &Socket,
        event: &str,
        refusal: &Refusal,
        original_data: Option<&str>,
    ) {
        self.counters.refusals.add_one();
        log::warn!(client = socket.id(); "{event} refused: {refusal}");
        let report = ErrorReport {
            error: true,
            message: refusal.to_string().into(),
            timestamp: payload::now(),
            client_id: socket.id().into(),
            original_data: original_data.map(Into::into),
        };
        // Texts and numbers always encode.
        let _ = self.reply(socket, events::ERROR, &report);
    }
}

fn unless_gone(socket: &Socket, emitted: Result<(), EmitError>) -> Result<(), EncodeError> {
    match emitted {
        Err(EmitError::Encode(error)) => Err(error),
        Err(error) => {
            log::debug!(client = socket.id(); "{error}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Compares in constant time. The length is not hidden.
fn is_same_secret(wanted: &str, given: &str) -> bool {
    if wanted.len() != given.len() {
        return false;
    }
    let differences = wanted.bytes().zip(given.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    hint::black_box(differences) == 0
}

struct RoomList<'a>(&'a BTreeSet<String>);

impl fmt::Display for RoomList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, room) in self.0.iter().enumerate() {
            write!(f, "{}'{room}'", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
