//! Building a server, the handle to a running one, and its stop.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use crate::server::{
    broadcast::Broadcast,
    config::{Config, is_duration},
    dispatch::acks,
    dispatch::retries::Retried,
    error::{EmitError, StartError},
    guard::{self, Callee},
    http::cors::Cors,
    http::{Request, Response},
    hub::{self, HubHandle},
    limits::admission::Admission,
    limits::budget::Budget,
    limits::rate::Rate,
    limits::refusals::Refusals,
    namespace::{Namespace, NamespaceBuilder},
    net::connections::Connections,
    net::descriptors,
    net::idle::{self, Lot},
    net::stream::Waker,
    net::unix_socket,
    recovery::journal::{Durability, Journal, StoreStatus, StoreWatch},
    recovery::store::{self, GuardedStore, Kept, Store},
    recovery::{ConnectionStateRecovery, Recovery},
    router::{self, Listener},
    session::engine::EngineHandlers,
    session::{self, Registry},
    stats::{Stats, StatsWatch},
    transport::drain::DrainHandle,
    workers::Workers,
};
use crate::{
    proto::{CloseReason, engine::TransportKind, limits, socket::is_namespace},
    sys::{
        channel::{RecvTimeoutError, bounded},
        net::TcpListener,
        sync::{
            Condvar, Mutex,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
        thread::{self, JoinHandle},
        time::Instant,
    },
};

type RouteHandler = Box<dyn Fn(&Request<'_>) -> Response + Send + Sync>;

/// What a path is served by.
#[derive(Debug)]
pub(crate) enum Endpoint {
    SocketIo,
    Engine(EngineHandlers),
}

/// How much sooner than usual silent connections give their threads back while there is a crowd of threads.
const HASTE: u32 = 10;

/// What every thread of a server shares.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) hub: HubHandle,
    pub(crate) drain: DrainHandle,
    pub(crate) sessions: Registry,
    pub(crate) connections: Arc<Connections>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) lot: Arc<Lot>,
    /// What waits for the clients.
    pub(crate) waiting: Arc<Budget>,
    /// What is being received from them.
    pub(crate) receiving: Arc<Budget>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) refusals: Refusals,
    /// What the clients that send again were answered.
    pub(crate) retried: Retried,
    pub(crate) store_watch: StoreWatch,
    endpoints: Vec<(String, Endpoint)>,
    namespaces: Vec<Namespace>,
    routes: HashMap<String, RouteHandler>,
    born: Instant,
    /// No new session is taken.
    ending: AtomicBool,
    /// No new connection and no new request is taken.
    closed: AtomicBool,
}

impl Core {
    /// An instant as microseconds of the server's life.
    pub(crate) fn micros_at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.born).as_micros() as u64
    }

    /// How long a connection may be silent before it is parked. `None`: for ever.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let silence = self.config.park_after?;
        Some(if self.workers.is_crowded() { silence / HASTE } else { silence })
    }

    /// Too much waits for all clients together: the largest backlogs go, until it is no more than may be.
    pub(crate) fn relieve(&self) {
        while let Some(largest) = self.sessions.largest_backlog() {
            // Another thread may have been faster.
            if !self.waiting.is_exceeded() {
                return;
            }
            log::info!(
                "session {}: {} bytes wait for it, the most while outbox_bytes_total is used up",
                largest.name(),
                largest.outbox.charged()
            );
            largest.end(CloseReason::SlowConsumer);
            // It may have been ending in peace.
            largest.cut();
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(SeqCst)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    pub(crate) fn endpoint(&self, index: usize) -> &Endpoint {
        &self.endpoints[index].1
    }

    /// The endpoint that serves this path; a missing slash at its end is forgiven, as by the official server.
    pub(crate) fn endpoint_at(&self, path: &str) -> Option<usize> {
        self.endpoints.iter().position(|(at, _)| path == at || at.strip_suffix('/') == Some(path))
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.name() == name)
    }

    /// What user code that is, and of which namespace.
    pub(crate) fn describe(&self, callee: Callee) -> String {
        if let Some(name) = callee.name() {
            return name.to_owned();
        }
        let of = |namespace: &Namespace| {
            let handler = namespace.0.handlers.describe(callee)?;
            Some(format!("{handler} of namespace {:?}", namespace.name()))
        };
        self.namespaces.iter().find_map(of).unwrap_or_else(|| "a handler".to_owned())
    }

    pub(crate) fn route(&self, path: &str) -> Option<&RouteHandler> {
        self.routes.get(path)
    }
}

/// A server being set up: options, namespaces and their handlers, routes.
///
/// ```no_run
/// use tinysio::server::Server;
///
/// let server = Server::builder()
///     .namespace("/", |ns| {
///         ns.on("echo", |socket, event| socket.emit("echo", event.args()));
///     })
///     .listen("127.0.0.1:3000")?;
/// println!("listening on {}", server.local_addr().unwrap());
/// server.wait();
/// # Ok::<(), tinysio::server::StartError>(())
/// ```
#[must_use = "nothing is served before `listen` or `listen_unix`"]
pub struct Builder {
    config: Config,
    namespaces: Vec<NamespaceBuilder>,
    engines: Vec<(String, EngineHandlers)>,
    routes: HashMap<String, RouteHandler>,
    store: Option<(GuardedStore, Durability)>,
    store_required: bool,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}

macro_rules! options {
    ($($name:ident: $kind:ty => $value:expr;)*) => {$(
        #[doc = concat!("Sets [`Config::", stringify!($name), "`].")]
        pub fn $name(mut self, $name: $kind) -> Self {
            self.config.$name = $value;
            self
        }
    )*};
}

impl Builder {
    options! {
        path: impl Into<String> => path.into();
        ping_interval: Duration => ping_interval;
        ping_timeout: Duration => ping_timeout;
        upgrade_timeout: Duration => upgrade_timeout;
        connect_timeout: Duration => connect_timeout;
        max_http_buffer_size: usize => max_http_buffer_size;
        max_packet_size: usize => Some(max_packet_size);
        max_attachments: usize => max_attachments;
        max_depth: usize => max_depth;
        transports: impl Into<Vec<TransportKind>> => transports.into();
        allow_upgrades: bool => allow_upgrades;
        cors: Cors => cors;
        unix_mode: u32 => Some(unix_mode);
        max_connections: usize => max_connections;
        max_tcp_connections: usize => Some(max_tcp_connections);
        max_connections_per_ip: usize => Some(max_connections_per_ip);
        accept_rate: Rate => accept_rate;
        outbox_bytes_max: usize => Some(outbox_bytes_max);
        outbox_bytes_total: usize => Some(outbox_bytes_total);
        receive_bytes_total: usize => Some(receive_bytes_total);
        max_auth_size: usize => max_auth_size;
        max_namespaces: usize => max_namespaces;
        room_bytes_total: usize => room_bytes_total;
        hub_queue: usize => hub_queue;
        max_pending_acks: usize => max_pending_acks;
        max_rooms: usize => max_rooms;
        event_rate: Rate => event_rate;
        byte_rate: Rate => byte_rate;
        connection_state_recovery: impl Into<Option<ConnectionStateRecovery>> => connection_state_recovery.into();
        max_head_size: usize => max_head_size;
        head_timeout: Duration => head_timeout;
        body_timeout: Duration => body_timeout;
        keep_alive_timeout: Duration => keep_alive_timeout;
        close_timeout: Duration => close_timeout;
        park_after: impl Into<Option<Duration>> => park_after.into();
        stack_size: usize => stack_size;
    }

    /// Official `allowRequest`: sees each handshake before a session exists; `Err` refuses it with that message (403, code
    /// 4).
    pub fn allow_request(
        mut self,
        check: impl Fn(&Request<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.config.allow_request = Some(Arc::new(check));
        self
    }

    /// Sets [`Config::exempt_from_ip_limit`]: for these addresses `max_connections_per_ip` does not count.
    pub fn exempt_from_ip_limit(mut self, exempt: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.config.exempt_from_ip_limit = Some(Arc::new(exempt));
        self
    }

    /// Has everything that connection state recovery keeps, and what clients with `retries` were answered, outlive the process;
    /// turns [`connection_state_recovery`](Config::connection_state_recovery) on, with its defaults, unless it is.
    ///
    /// A store that cannot be opened is [`StartError::Store`], unless [`store_required(false)`](Self::store_required) was
    /// called. One that fails later is an error in the log and in [`Server::store_watch`]; the server goes on without it, and
    /// tries to open it again.
    pub fn store(mut self, store: impl Store, durability: Durability) -> Self {
        self.store = Some((GuardedStore::new(Box::new(store)), durability));
        self
    }

    /// Whether the server needs its store in order to start. Default true. With `false` a store that cannot be opened is an
    /// error in the log and in [`Server::store_watch`], and the server starts without it: what it keeps for clients is in memory
    /// only until the store can be opened.
    pub fn store_required(mut self, required: bool) -> Self {
        self.store_required = required;
        self
    }

    /// Sets all options at once.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Serves a namespace; `/` is the one that clients join unasked. Called again for the same name, it adds to its
    /// handlers. A client that asks for a namespace that is not served gets "Invalid namespace".
    pub fn namespace(mut self, name: &str, set_up: impl FnOnce(&mut NamespaceBuilder)) -> Self {
        let at = self.namespaces.iter().position(|other| other.name == name).unwrap_or_else(|| {
            self.namespaces.push(NamespaceBuilder::new(name));
            self.namespaces.len() - 1
        });
        set_up(&mut self.namespaces[at]);
        self
    }

    /// Serves bare Engine.IO at another path, like `/engine.io/`: the official `engine.io` package.
    pub fn engine(mut self, path: &str, set_up: impl FnOnce(&mut EngineHandlers)) -> Self {
        let mut handlers = EngineHandlers::default();
        set_up(&mut handlers);
        self.engines.push((path.to_owned(), handlers));
        self
    }

    /// Answers plain HTTP requests for this path, on the connection's thread. Request bodies are not read.
    ///
    /// ```
    /// use tinysio::server::{Header, Response, Server, StatusCode};
    ///
    /// let builder = Server::builder().route("/version", |request| match request.query() {
    ///     "" => Response::from_string(r#"{"version":"1.2.3"}"#)
    ///         .with_header("Content-Type: application/json".parse::<Header>().expect("a header")),
    ///     _ => Response::from_string("no query, please\n").with_status_code(StatusCode(400)),
    /// });
    /// # drop(builder);
    /// ```
    pub fn route(
        mut self,
        path: &str,
        handler: impl Fn(&Request<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.routes.insert(path.to_owned(), Box::new(handler));
        self
    }

    /// Starts on a TCP address; port 0 takes a free one ([`Server::local_addr`] tells).
    ///
    /// # Errors
    /// [`StartError`].
    pub fn listen(self, address: impl ToSocketAddrs + fmt::Display) -> Result<Server, StartError> {
        let listener = TcpListener::bind(&address)
            .map_err(|source| StartError::Bind { address: address.to_string(), source })?;
        self.start(Listener::Tcp(listener))
    }

    /// Starts on a Unix-domain socket, whose file gets the mode [`Config::unix_mode`]. A socket file that a dead server left
    /// there is replaced: one that refuses connections. Any other one stays, also one that this user may not connect to. The file
    /// is removed when the server stops.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn listen_unix(self, path: impl AsRef<Path>) -> Result<Server, StartError> {
        let path = path.as_ref();
        self.validate()?;
        let (listener, file) = unix_socket::listen(path, self.config.unix_mode)
            .map_err(|source| StartError::Bind { address: path.display().to_string(), source })?;
        self.start(Listener::Unix { _file: file, listener })
    }

    fn start(self, listener: Listener) -> Result<Server, StartError> {
        self.validate()?;
        let Self { mut config, namespaces, engines, routes, store, store_required } = self;
        if store.is_some() {
            config.connection_state_recovery.get_or_insert_default();
        }
        // Every session needs some; to find out now is better than to answer each handshake with 500.
        session::new_id()
            .map_err(|error| io::Error::other(format!("no randomness for session ids: {error}")))?;
        descriptors::fit(&mut config);
        let local_addr = match &listener {
            Listener::Tcp(listener) => Some(listener.local_addr()?),
            Listener::Unix { .. } => None,
        };
        let (hub, queue) = HubHandle::new(&config);
        let (drain, drain_thread) = DrainHandle::start()?;
        let names: Vec<Arc<str>> =
            namespaces.iter().map(|namespace| namespace.name.as_str().into()).collect();
        let store_watch = StoreWatch::new();
        let (journal, mut kept) = match store {
            Some((store, durability)) => {
                let (store, kept, life) = open(store, store_required, &store_watch)?;
                let (watch, hub) = (store_watch.clone(), hub.signaller());
                (Some(Journal::new(store, life, durability, watch, hub, config.stack_size)?), kept)
            }
            None => (None, Kept::default()),
        };
        let retried = Retried::new(&config, &names, std::mem::take(&mut kept.answers));
        let recovery = config
            .connection_state_recovery
            .as_ref()
            .map(|options| Recovery::new(&config, options, names, kept, journal));
        let hub_thread = hub::start(queue, &hub, &config, namespaces.len(), recovery)?;
        let mut endpoints = vec![(config.path.clone(), Endpoint::SocketIo)];
        endpoints.extend(engines.into_iter().map(|(path, handlers)| (path, Endpoint::Engine(handlers))));
        let namespaces = Namespace::all(namespaces, &hub);
        let core = Arc::new(Core {
            sessions: Registry::new(config.max_connections),
            connections: Arc::new(Connections::new(config.tcp_connections())),
            workers: Arc::new(Workers::new(config.stack_size)),
            lot: Arc::new(Lot::new()?),
            waiting: Arc::new(Budget::new(config.total_outbox_bytes())),
            receiving: Arc::new(Budget::new(config.total_receive_bytes())),
            admission: Arc::new(Admission::new(&config)),
            refusals: Refusals::new(),
            retried,
            store_watch,
            born: Instant::now(),
            ending: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            config,
            hub,
            drain,
            endpoints,
            namespaces,
            routes,
        });
        let waker = Arc::new(Waker::new()?);
        let accept_thread = router::start(&core, listener, Arc::clone(&waker))?;
        let lot_thread = idle::start(&core)?;
        let threads =
            Threads { accept: accept_thread, hub: hub_thread, drain: drain_thread, lot: lot_thread };
        let stage = Mutex::new(Stage::Running(Some(threads)));
        Ok(Server(Arc::new(Running { core, local_addr, waker, stage, staged: Condvar::new() })))
    }

    fn validate(&self) -> Result<(), StartError> {
        self.config.validate()?;
        if let Some((_, Durability::Every(every))) = self.store
            && !is_duration(every)
        {
            return Err(StartError::Config(
                "Durability::Every must be longer than 0 and at most a year".into(),
            ));
        }
        for namespace in &self.namespaces {
            if !is_namespace(&namespace.name) {
                return Err(StartError::Config(format!(
                    "the namespace {:?} must begin with '/', be at most {} bytes long and contain none of , ? {{ [ \"",
                    namespace.name,
                    limits::MAX_NAMESPACE
                )));
            }
            namespace.check_events().map_err(StartError::Config)?;
        }
        Ok(())
    }
}

/// A running server. Dropping it stops it at once, with all its threads.
pub struct Server(Arc<Running>);

/// What the handle to a running server holds; a thread of its own has a share in it where a handler stops the server.
struct Running {
    core: Arc<Core>,
    local_addr: Option<SocketAddr>,
    waker: Arc<Waker>,
    stage: Mutex<Stage>,
    staged: Condvar,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("local_addr", &self.local_addr()).finish_non_exhaustive()
    }
}

/// How far a stop has come.
enum Stage {
    /// Empty while one thread stops the server.
    Running(Option<Threads>),
    Stopped {
        all_gone: bool,
    },
}

struct Threads {
    accept: JoinHandle<()>,
    hub: JoinHandle<bool>,
    drain: JoinHandle<()>,
    lot: JoinHandle<()>,
}

impl Server {
    /// Sets up a server.
    pub fn builder() -> Builder {
        Builder {
            config: Config::default(),
            namespaces: Vec::new(),
            engines: Vec::new(),
            routes: HashMap::new(),
            store: None,
            store_required: true,
        }
    }

    /// The address it listens on. `None` on a Unix-domain socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr
    }

    /// Official `io.of(name)`. `None`: no such namespace was set up.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Option<Namespace> {
        self.0.core.namespace(namespace).cloned()
    }

    /// Official `io.emit`: to everybody in the namespace `/`; without that namespace, to nobody. `args` as in
    /// [`Socket::emit`](crate::server::Socket::emit).
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        self.of(limits::DEFAULT_NAMESPACE).map_or(Ok(()), |namespace| namespace.emit(event, args))
    }

    /// Official `io.to(room)` of the namespace `/`. `None` without that namespace.
    #[must_use]
    pub fn to(&self, room: &str) -> Option<Broadcast> {
        self.of(limits::DEFAULT_NAMESPACE).map(|namespace| namespace.to(room))
    }

    /// Engine.IO sessions at this moment: the official `io.engine.clientsCount`.
    #[must_use]
    pub fn clients_count(&self) -> usize {
        self.0.core.sessions.len()
    }

    /// Bytes that wait in all outboxes.
    #[cfg(all(shuttle, any(test, fuzzing)))]
    pub(crate) fn outbox_bytes(&self) -> usize {
        self.0.core.waiting.used()
    }

    /// Connections at this moment, with and without a session.
    #[must_use]
    pub fn connections_count(&self) -> usize {
        self.0.core.connections.len()
    }

    /// Connections that are silent, and wait without a thread of their own ([`Config::park_after`]).
    #[must_use]
    pub fn parked_count(&self) -> usize {
        self.0.core.lot.len()
    }

    /// The server's figures at this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.0.core)
    }

    /// Reads the figures from any thread, for a route or a thread that must not keep the server alive.
    #[must_use]
    pub fn stats_watch(&self) -> StatsWatch {
        StatsWatch::new(&self.0.core)
    }

    /// Tells how the store is.
    #[must_use]
    pub fn store_watch(&self) -> StoreWatch {
        self.0.core.store_watch.clone()
    }

    /// [`Config::memory_bound`] of this server, with the namespaces that it serves.
    #[must_use]
    pub fn memory_bound(&self) -> usize {
        self.0.core.config.memory_bound(self.0.core.namespaces.len())
    }

    /// Waits until the server has been shut down: by another thread, or by a handler.
    pub fn wait(&self) {
        self.0.wait();
    }

    /// Stops: takes no more sessions, ends each with reason "server shutting down" behind what waits for its client (a
    /// polling client may still fetch it), cuts what is left at the deadline, and waits for every thread. Handlers that
    /// still run then are waited for as long as `deadline` once more, at least a second; `false`: some had not returned,
    /// and their threads were left to themselves.
    ///
    /// From inside a handler, which would wait for itself, it has a thread of its own do that, and returns `false` at once;
    /// [`wait`](Self::wait) tells when it is done.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        self.shutdown_spread(Duration::ZERO, deadline)
    }

    /// As [`shutdown`](Self::shutdown), but ends the sessions one after the other, evenly over `window`, so that their clients
    /// do not all come to the next server at the same moment; `deadline` begins when the last one has been ended. Those whose
    /// turn has not come are served as ever. No new session is taken from the beginning on. When everybody has gone by
    /// themselves, or another thread calls [`shutdown`](Self::shutdown), the rest of the window is not waited for.
    pub fn shutdown_spread(&self, window: Duration, deadline: Duration) -> bool {
        let running = Arc::clone(&self.0);
        if !guard::is_in_handler() {
            return running.shutdown(window, deadline);
        }
        let stop = move || {
            running.shutdown(window, deadline);
        };
        if let Err(error) = thread::Builder::new().name("shutdown".into()).spawn(stop) {
            log::error!("no thread to shut the server down: {error}");
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}

impl Running {
    fn wait(&self) -> bool {
        let mut stage = self.stage.lock();
        loop {
            if let Stage::Stopped { all_gone } = *stage {
                return all_gone;
            }
            self.staged.wait(&mut stage);
        }
    }

    fn shutdown(&self, window: Duration, deadline: Duration) -> bool {
        self.core.ending.store(true, SeqCst);
        let deadline = self.end_sessions(window, deadline);
        let threads = match &mut *self.stage.lock() {
            Stage::Running(threads) => threads.take(),
            Stage::Stopped { .. } => None,
        };
        if let Some(threads) = threads {
            let grace = deadline.max(Duration::from_secs(1));
            let all_gone = self.stop(threads, acks::deadline(deadline), grace);
            *self.stage.lock() = Stage::Stopped { all_gone };
            self.staged.notify_all();
        }
        self.wait()
    }

    /// Ends the sessions. Gives what is left of the deadline, which begins with the last one.
    ///
    /// While a store blocks, the hub may take no commands. A thread of its own waits for it then: the hub's stop ends that.
    fn end_sessions(&self, window: Duration, deadline: Duration) -> Duration {
        if self.core.store_watch.status() == StoreStatus::Off {
            end_all(&self.core, window);
            return deadline;
        }
        let (done, ended) = bounded::<()>(0);
        let core = Arc::clone(&self.core);
        let end = move || {
            end_all(&core, window);
            drop(done);
        };
        if let Err(error) = thread::Builder::new().name("ending".into()).spawn(end) {
            log::error!("no thread to end the sessions in good order: {error}");
        }
        let patience = window.saturating_add(deadline.max(STORE_MOMENT));
        // Nothing is ever sent.
        let in_time = ended.recv_deadline(acks::deadline(patience));
        if in_time == Err(RecvTimeoutError::Timeout) { Duration::ZERO } else { deadline }
    }

    /// Everything of a stop that waits.
    fn stop(&self, threads: Threads, deadline: Instant, grace: Duration) -> bool {
        let core = &self.core;
        core.sessions.wait_until_none(deadline);
        core.closed.store(true, SeqCst);
        self.waker.wake();
        // First, so that nobody comes in behind those who are waited for.
        let mut all_gone = threads.accept.join().is_ok();
        core.connections.interrupt_waiting();
        let in_time = core.connections.wait_until_none(deadline);
        // A polling session has no connection between two requests, so that all may be gone and it still there.
        for session in core.sessions.all() {
            session.cut();
        }
        if !in_time {
            core.connections.shutdown_all();
        }
        let grace = acks::deadline(grace);
        all_gone &= core.connections.wait_until_none(grace);
        // Before the hub, which the last handlers may still want. What a handler asks of the hub later fails.
        // Where some user code is known not to return, the others get only a moment more.
        let at_least =
            |all_gone: bool| grace.max(Instant::now() + if all_gone { LONG_MOMENT } else { MOMENT });
        all_gone &= core.workers.wait_until_idle(at_least(all_gone));
        // Nobody is parked any more, unless its last handler has not returned.
        core.lot.stop();
        // The store may need a moment for what was said last.
        core.hub.stop(grace.max(Instant::now() + STORE_MOMENT));
        core.drain.stop();
        // These run no handlers, so they end.
        all_gone &= threads.hub.join().unwrap_or(false);
        for thread in [threads.drain, threads.lot] {
            all_gone &= thread.join().is_ok();
        }
        // The data that the hub kept for clients is dropped by then.
        all_gone &= core.workers.wait_until_idle(at_least(all_gone));
        core.workers.close();
        all_gone &= core.workers.wait_until_none(at_least(all_gone));
        for (callee, session) in core.workers.activities() {
            let session = session.map_or_else(String::new, |session| format!("session {session}: "));
            log::warn!("{session}{} has not returned; the server stops without it", core.describe(callee));
        }
        all_gone
    }
}

/// Ends the sessions, evenly over the window, behind what all threads have emitted.
fn end_all(core: &Core, window: Duration) {
    if !window.is_zero() {
        end_one_by_one(core, window.min(Duration::from_secs(24 * 3600)));
    }
    // What other threads have emitted goes out too.
    core.hub.fence();
    for session in core.sessions.all() {
        session.end(CloseReason::ServerShuttingDown);
    }
}

fn end_one_by_one(core: &Core, window: Duration) {
    let sessions = core.sessions.all();
    let (begun, count) = (Instant::now(), sessions.len().max(1));
    for (index, session) in sessions.into_iter().enumerate() {
        if session.ended().is_some() {
            continue;
        }
        core.sessions.wait_until_none(begun + window.mul_f64(index as f64 / count as f64));
        session.end(CloseReason::ServerShuttingDown);
    }
}

/// Opens the store; gives the life that it has begun, `None` if the server starts without it.
fn open(
    mut store: GuardedStore,
    required: bool,
    watch: &StoreWatch,
) -> Result<(GuardedStore, Kept, Option<u32>), StartError> {
    match store.open() {
        Ok(kept) => {
            let life = kept.life;
            Ok((store, kept, Some(life)))
        }
        Err(error) if required => Err(error.into()),
        Err(error) => {
            let error = store::text_of(error);
            log::error!(
                "{error}; the server starts without it, and what it keeps for clients is in memory only"
            );
            store.abandon();
            watch.set(StoreStatus::Failed(error));
            Ok((store, Kept::default(), None))
        }
    }
}

/// What a thread that has nothing to do needs to end.
const MOMENT: Duration = Duration::from_millis(100);

/// The same on a machine that is very busy, as long as every thread has ended in time so far.
const LONG_MOMENT: Duration = Duration::from_secs(2);

/// What a store has at least for what was said last.
const STORE_MOMENT: Duration = Duration::from_secs(1);
