//! Building a server: options, namespaces, routes, and the address to listen on.
//!
//! It owns what the application sets up, and hands all of it to [`start`](super::start). It checks it, and starts
//! nothing.
//!
//! A new option is a field of [`Config`], with its default and its check, and a line in `options!` below, which makes
//! its method. `CONTRIBUTING.md` has all steps.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::Duration,
};

use crate::server::{
    config::{Config, is_duration},
    dispatch::core::RouteHandler,
    engine::EngineHandlers,
    error::StartError,
    http::cors::Cors,
    http::{Request, Response},
    limits::rate::Rate,
    net::listener::Listener,
    net::unix_socket,
    recovery::ConnectionStateRecovery,
    recovery::store::Durability,
    recovery::store::{GuardedStore, Store},
    server::Server,
    socket::namespace::NamespaceBuilder,
};
use crate::{
    proto::{engine::TransportKind, limits, socket::is_namespace},
    sys::net::TcpListener,
};

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
    pub(super) config: Config,
    pub(super) namespaces: Vec<NamespaceBuilder>,
    pub(super) engines: Vec<(String, EngineHandlers)>,
    pub(super) routes: HashMap<String, RouteHandler>,
    pub(super) store: Option<(GuardedStore, Durability)>,
    pub(super) store_required: bool,
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
        leaders: usize => leaders;
    }

    /// Official `allowRequest`: sees each handshake before a session exists; `Err` refuses it with that message (403,
    /// code 4).
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

    /// Sets the store. It keeps the state of connection state recovery, and the answers to clients with `retries`,
    /// beyond the end of the process. This switches [`connection_state_recovery`](Config::connection_state_recovery)
    /// on, with its defaults, if it is off.
    ///
    /// A store that cannot be opened is [`StartError::Store`], unless [`store_required(false)`](Self::store_required)
    /// was called. One that fails later is an error in the log and in [`Server::store_watch`]; the server goes on
    /// without it, and tries to open it again.
    pub fn store(mut self, store: impl Store, durability: Durability) -> Self {
        self.store = Some((GuardedStore::new(Box::new(store)), durability));
        self
    }

    /// Whether the server needs its store in order to start. Default true. With `false` a store that cannot be opened
    /// is an error in the log and in [`Server::store_watch`], and the server starts without it: what it keeps for
    /// clients is in memory only until the store can be opened.
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
        let at = self.namespaces.iter().position(|other| *other.name == *name).unwrap_or_else(|| {
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

    /// Answers plain HTTP requests for this path, on a worker thread. Request bodies are not read.
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

    /// Starts on a Unix-domain socket, whose file gets the mode [`Config::unix_mode`]. A socket file that refuses
    /// connections was left by a server that has ended, and is replaced. Any other file stays, also one that this
    /// user may not connect to. The file is removed when the server stops.
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

    pub(super) fn validate(&self) -> Result<(), StartError> {
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
