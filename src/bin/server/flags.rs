//! Flags and environment variables of the `server` program, and the options that they set.

#![allow(rustdoc::bare_urls, reason = "the comments on the flags are the text of --help")]

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use log::LevelFilter;
#[cfg(feature = "store")]
use tinysio::server::{Durability, FileStore};
use tinysio::{
    chat::{Limits, Network, Options, Rate, limits},
    server::{Builder, ConnectionStateRecovery, Cors, Server},
};

use crate::common::{exit::Failure, logging::Format};

/// A Socket.IO v4 chat server.
///
/// Any Socket.IO client may connect. It gets a welcome, sends messages to all clients or to rooms, and is
/// notified when others connect or disconnect. Each flag can also be given by the environment variable beside
/// it.
#[derive(Debug, Parser)]
#[command(name = "server", version, max_term_width = 100, args_override_self = true)]
pub(crate) struct Flags {
    /// Address to listen on. The default is reachable from the network; 127.0.0.1 only from this machine
    #[arg(long, env = "TINYSIO_HOST", default_value = "0.0.0.0", value_name = "ADDRESS")]
    pub(crate) host: String,

    /// Port to listen on; 0 selects a free one and prints it
    #[arg(long, short, env = "TINYSIO_PORT", default_value_t = 5000)]
    pub(crate) port: u16,

    /// Listen on this Unix-domain socket instead of a host and port
    #[arg(long, env = "TINYSIO_UNIX", value_name = "PATH")]
    pub(crate) unix: Option<PathBuf>,

    /// Mode of the socket's file in octal, like 660. Clients, or a proxy in front, need the right to write.
    /// Default: set by the umask
    #[arg(long, env = "TINYSIO_UNIX_MODE", value_name = "MODE", requires = "unix", value_parser = mode)]
    unix_mode: Option<u32>,

    /// Serve /health and /metrics on a separate address, like 127.0.0.1:9090
    #[arg(long, env = "TINYSIO_OPERATOR", value_name = "HOST:PORT")]
    pub(crate) operator: Option<SocketAddr>,

    /// Maximum number of clients; further ones get 503
    #[arg(long, env = "TINYSIO_MAX_CONNECTIONS", value_name = "N", default_value_t = limits::CONNECTIONS as u32,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_connections: u32,

    /// Maximum number of clients from one address or IPv6 /64; 0 for no limit. Trusted proxies and this machine
    /// do not count. Clients behind one router, or behind a proxy that is not in --trust-proxy, share an
    /// address
    #[arg(long, env = "TINYSIO_MAX_CONNECTIONS_PER_IP", value_name = "N", default_value_t = 0)]
    max_connections_per_ip: usize,

    /// New clients per second, on average; further ones get 503 with Retry-After. 0 for no limit
    #[arg(long, env = "TINYSIO_ACCEPT_RATE", value_name = "N", default_value_t = 0)]
    accept_rate: u32,

    /// New clients at once after a quiet time
    #[arg(long, env = "TINYSIO_ACCEPT_BURST", value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..))]
    accept_burst: u32,

    /// Events per second from one client, on average; 0 for no limit
    #[arg(long, env = "TINYSIO_RATE_LIMIT", value_name = "N", default_value_t = limits::RATE.per_second)]
    rate_limit: u32,

    /// Events at once from one client after a quiet time
    #[arg(long, env = "TINYSIO_RATE_BURST", value_name = "N", default_value_t = limits::RATE.burst,
          value_parser = clap::value_parser!(u32).range(1..))]
    rate_burst: u32,

    /// Bytes of messages per second from one client, on average; 0 for no limit
    #[arg(long, env = "TINYSIO_BYTE_RATE", value_name = "BYTES", default_value_t = 0)]
    byte_rate: u32,

    /// Bytes of messages at once from one client after a quiet time
    #[arg(long, env = "TINYSIO_BYTE_BURST", value_name = "BYTES", default_value_t = 4_000_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    byte_burst: u32,

    /// Maximum characters of a message or room message
    #[arg(long, env = "TINYSIO_MAX_MESSAGE", value_name = "N", default_value_t = Limits::DEFAULT.message)]
    max_message: usize,

    /// Maximum bytes of a custom event's JSON
    #[arg(long, env = "TINYSIO_MAX_CUSTOM_EVENT", value_name = "N",
          default_value_t = Limits::DEFAULT.custom_event)]
    max_custom_event: usize,

    /// Maximum rooms of one client
    #[arg(long, env = "TINYSIO_MAX_ROOMS", value_name = "N", default_value_t = Limits::DEFAULT.rooms)]
    max_rooms: usize,

    /// Maximum characters of a room name
    #[arg(long, env = "TINYSIO_MAX_ROOM_NAME", value_name = "N", default_value_t = Limits::DEFAULT.room_name)]
    max_room_name: usize,

    /// Maximum bytes of one WebSocket message or polling request
    #[arg(long, env = "TINYSIO_MAX_PAYLOAD", value_name = "BYTES", default_value_t = limits::PAYLOAD as u32,
          value_parser = clap::value_parser!(u32).range(64..=100_000_000))]
    max_payload: u32,

    /// Time between two pings, like 25s or 500ms
    #[arg(long, env = "TINYSIO_PING_INTERVAL", value_name = "TIME", default_value = "25s",
          value_parser = humantime::parse_duration)]
    ping_interval: Duration,

    /// Time that a client has to answer a ping
    #[arg(long, env = "TINYSIO_PING_TIMEOUT", value_name = "TIME", default_value = "20s",
          value_parser = humantime::parse_duration)]
    ping_timeout: Duration,

    /// Web pages that may connect, like https://example.org; * for all
    #[arg(long, env = "TINYSIO_CORS", value_name = "ORIGIN", default_value = "*", num_args = 1..,
          value_delimiter = ',')]
    cors: Vec<String>,

    /// Allow those pages to send the user's cookies (withCredentials: true), for a login or a load balancer.
    /// With --cors * this allows every page
    #[arg(long, env = "TINYSIO_CORS_CREDENTIALS")]
    cors_credentials: bool,

    /// Admit only clients that connect with auth {"token": TOKEN}. Other users of this machine can read it in
    /// the list of processes: prefer the file
    #[arg(
        long,
        env = "TINYSIO_AUTH_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        conflicts_with = "auth_token_file"
    )]
    auth_token: Option<String>,

    /// The same, with the token in a file
    #[arg(long, env = "TINYSIO_AUTH_TOKEN_FILE", value_name = "FILE")]
    auth_token_file: Option<PathBuf>,

    /// Proxies whose X-Forwarded-For is used in the log, like 127.0.0.1 or 10.0.0.0/8
    #[arg(long, env = "TINYSIO_TRUST_PROXY", value_name = "ADDRESS", num_args = 1.., value_delimiter = ',')]
    trust_proxy: Vec<Network>,

    /// Time after a connection loss in which a client can recover its id, its rooms and missed events
    /// (connection state recovery); 0s for off. Each event then has one more argument, its offset
    #[arg(long, env = "TINYSIO_RECOVERY", value_name = "TIME", default_value = "0s",
          value_parser = humantime::parse_duration)]
    recovery: Duration,

    /// Bytes of memory for missed events
    #[arg(long, env = "TINYSIO_RECOVERY_BYTES", value_name = "BYTES", default_value_t = 8 << 20,
          value_parser = clap::value_parser!(u32).range(1..))]
    recovery_bytes: u32,

    /// Keep sessions and events in this file too, so that clients recover after a crash or a power cut; default
    /// of --recovery is then 2m
    #[cfg(feature = "store")]
    #[arg(long, env = "TINYSIO_STORE", value_name = "FILE")]
    store: Option<PathBuf>,

    /// Start also if the file cannot be opened, and keep everything in memory until it can; /health says
    /// "degraded" then. Otherwise the server does not start
    #[cfg(feature = "store")]
    #[arg(long, env = "TINYSIO_STORE_OPTIONAL", requires = "store")]
    store_optional: bool,

    /// Time between two writes of the file; a crash loses the events of that time. 0s: write before each event
    /// is sent, so a crash loses nothing
    #[cfg(feature = "store")]
    #[arg(long, env = "TINYSIO_STORE_EVERY", value_name = "TIME", default_value = "0s",
          value_parser = humantime::parse_duration)]
    store_every: Duration,

    /// Time over which a shutdown disconnects the clients evenly, so that they do not all connect to the next
    /// server at once. A second signal ends the program at any time
    #[arg(long, env = "TINYSIO_DRAIN", value_name = "TIME", default_value = "0s",
          value_parser = humantime::parse_duration)]
    pub(crate) drain: Duration,

    /// Log level: off, error, warn, info, debug or trace
    #[arg(long, env = "TINYSIO_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LevelFilter,

    /// Log format
    #[arg(long, env = "TINYSIO_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: Format,

    /// Time between two log lines with counters
    #[arg(long, env = "TINYSIO_COUNTERS_INTERVAL", value_name = "TIME", default_value = "60s",
          value_parser = humantime::parse_duration)]
    pub(crate) counters_interval: Duration,

    /// Also serve echo, ask, kick and the namespace /custom, for tests and tools
    #[arg(long, env = "TINYSIO_TEST_EVENTS")]
    test_events: bool,
}

/// Permission bits as `chmod` takes them.
fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "it must be permission bits in octal, like 660".to_owned())
}

impl Flags {
    /// The options of the chat.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        Ok(Options {
            limits: Limits {
                message: self.max_message,
                custom_event: self.max_custom_event,
                room_name: self.max_room_name,
                rooms: self.max_rooms,
            },
            rate: Rate { per_second: self.rate_limit, burst: self.rate_burst },
            auth_token: self.token()?,
            trusted_proxies: self.trust_proxy.clone(),
            test_events: self.test_events,
        })
    }

    /// A server builder with the options of the flags.
    pub(crate) fn builder(&self) -> Builder {
        let mut builder = Server::builder();
        if self.max_connections_per_ip > 0 {
            let proxies = self.trust_proxy.clone();
            builder = builder.max_connections_per_ip(self.max_connections_per_ip).exempt_from_ip_limit(
                // Local users have other means.
                move |ip| ip.to_canonical().is_loopback() || proxies.iter().any(|proxy| proxy.contains(ip)),
            );
        }
        if let Some(mode) = self.unix_mode {
            builder = builder.unix_mode(mode);
        }
        builder = self.recover(builder);
        builder
            .max_connections(self.max_connections as usize)
            .accept_rate(Rate { per_second: self.accept_rate, burst: self.accept_burst })
            .byte_rate(Rate { per_second: self.byte_rate, burst: self.byte_burst })
            .max_http_buffer_size(self.max_payload as usize)
            .max_rooms(self.max_rooms)
            .ping_interval(self.ping_interval)
            .ping_timeout(self.ping_timeout)
            .cors(self.cors())
    }

    fn recover(&self, builder: Builder) -> Builder {
        let mut options = ConnectionStateRecovery::new().max_bytes(self.recovery_bytes as usize);
        if !self.recovery.is_zero() {
            options = options.max_disconnection_duration(self.recovery);
        }
        #[cfg(feature = "store")]
        if let Some(path) = &self.store {
            let durability = if self.store_every.is_zero() {
                Durability::EveryPacket
            } else {
                Durability::Every(self.store_every)
            };
            return builder
                .connection_state_recovery(options)
                .store(FileStore::new(path), durability)
                .store_required(!self.store_optional);
        }
        if self.recovery.is_zero() { builder } else { builder.connection_state_recovery(options) }
    }

    fn cors(&self) -> Cors {
        let any = self.cors.iter().any(|origin| origin == "*");
        match (any, self.cors_credentials) {
            (true, false) => Cors::Any,
            (true, true) => Cors::AnyWithCredentials,
            (false, false) => Cors::List(self.cors.clone()),
            (false, true) => Cors::ListWithCredentials(self.cors.clone()),
        }
    }

    /// Removes the line end that editors append.
    fn token(&self) -> Result<Option<String>, Failure> {
        let (token, origin) = match &self.auth_token_file {
            None => (self.auth_token.clone(), "--auth-token".to_owned()),
            Some(path) => {
                let token = fs::read_to_string(path).map_err(|error| {
                    Failure::Usage(format!("cannot read the token file {}: {error}", path.display()))
                })?;
                (Some(token.trim_end_matches(['\r', '\n']).to_owned()), path.display().to_string())
            }
        };
        match token {
            Some(token) if token.is_empty() => Err(Failure::Usage(format!("the token of {origin} is empty"))),
            token => Ok(token),
        }
    }
}
