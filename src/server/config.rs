//! Every option of a server, with its default and its bound.
//!
//! It owns the values and their checks. `Builder` sets them, and `memory` adds up what they allow.

use std::{sync::Arc, time::Duration};

use crate::proto::{engine::TransportKind, limits};
use crate::server::{
    ConnectionStateRecovery, Cors, Rate, Request, error::StartError, http::RequestLimits,
    limits::admission::Exempt,
};
use crate::sys::thread;

/// What [`allow_request`](Config::allow_request) calls: `Err` refuses with that message.
pub(crate) type AllowRequest = Arc<dyn Fn(&Request<'_>) -> Result<(), String> + Send + Sync>;

/// Deadlines are instants, which a longer duration could overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// More commands than this do not wait for the hub: its queue has room for all of them from the start.
const HUB_QUEUE_MAX: usize = 1 << 16;

/// With less, a debug build could not read the deepest JSON that `serde_json` reads into a `Value`.
const STACK_MIN: usize = 384 << 10;

const LEADERS_MAX: usize = 64;

/// A larger head is not read: where its parts are is kept in 32 bits.
const HEAD_SIZE_MAX: usize = 1 << 30;

/// Whether an option can be this.
pub(crate) fn is_duration(duration: Duration) -> bool {
    !duration.is_zero() && duration <= DURATION_MAX
}

/// The options of a server. Those of the official server have its names and defaults.
///
/// An option that bounds a number or a size is switched off by `usize::MAX`; a few say which bound remains.
///
/// Set them through [`Builder`](crate::server::Builder), or fill this and hand it to
/// [`Builder::config`](crate::server::Builder::config).
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Official `path`, where Socket.IO is served; begins and ends with `/`. Default `/socket.io/`.
    pub path: String,
    /// Official `pingInterval`. Default 25 s: below the idle timeouts of most proxies. Shorter finds dead peers
    /// sooner and wakes sleeping devices more often.
    pub ping_interval: Duration,
    /// Official `pingTimeout`: how long a pong may take. Default 20 s.
    pub ping_timeout: Duration,
    /// Official `upgradeTimeout`: how long an upgrading WebSocket may take. Default 10 s. The polling session is
    /// not affected when it passes.
    pub upgrade_timeout: Duration,
    /// Official `connectTimeout`: how long a session may live without joining a namespace. Default 45 s.
    pub connect_timeout: Duration,
    /// Official `maxHttpBufferSize`: bytes of one WebSocket message and of one polling body. Default 1,000,000.
    /// Larger ones close a WebSocket (1009) and are answered 413 on polling. Costs up to this much a connection.
    pub max_http_buffer_size: usize,
    /// Bytes of one binary packet, text and attachments together. Default `4 * max_http_buffer_size`, and never less
    /// than that size once. The official server bounds each attachment, but not their sum.
    pub max_packet_size: Option<usize>,
    /// Attachments of one packet, 0 to 10. Default 10, the official parser's `maxAttachments`.
    pub max_attachments: usize,
    /// Levels of arrays and objects in one argument of an event or an acknowledgement, and in the auth payload of a
    /// CONNECT, with bytes and without. Default 2,000, at least 1. A deeper packet closes the connection, "parse
    /// error". The official server has no limit. Taking a level costs no stack, but up to 150 bytes of memory for a
    /// moment in a packet with bytes. Whatever is taken, these are errors of that call alone: to read more than 127
    /// levels into a type (64 in a packet with bytes), and to send on bytes below more than 64 levels.
    pub max_depth: usize,
    /// Official `transports`. Default both.
    pub transports: Vec<TransportKind>,
    /// Official `allowUpgrades`. Default true.
    pub allow_upgrades: bool,
    /// Official `cors`. Default [`Cors::SameOrigin`].
    pub cors: Cors,
    /// Permission bits of the file of [`listen_unix`](crate::server::Builder::listen_unix), like `0o660`: a client
    /// needs the right to write. Default `None`: what the umask leaves. They are set before anybody can connect.
    pub unix_mode: Option<u32>,
    /// Official `allowRequest`: accepts or refuses each handshake, before a session exists. Default: accepts all.
    pub allow_request: Option<AllowRequest>,
    /// Sessions at one time. Default 1,000. The next handshake is answered 503 with `Retry-After`. Each costs some
    /// KB, and a thread while a handler of it takes long or waits.
    pub max_connections: usize,
    /// TCP connections at one time. Default `2 * max_connections + 64`: a polling client uses two. Beyond it, a new
    /// connection replaces one that has been open for a second without a request. If there is none, the new one is
    /// answered 503 and closed. If the process may not have so many descriptors (`RLIMIT_NOFILE`), this and
    /// `max_connections` are lowered at the start, and that is logged.
    pub max_tcp_connections: Option<usize>,
    /// Sessions that one address may have at one time. It may have twice as many TCP connections and 8 more, because
    /// a polling client uses two. Default `None`, because many clients may share the address of a router or a proxy.
    /// An IPv6 address counts with all of its /64; clients of a Unix-domain socket have no address. Beyond it: 503.
    /// Costs 50 bytes an address.
    pub max_connections_per_ip: Option<usize>,
    /// The addresses that [`max_connections_per_ip`](Self::max_connections_per_ip) does not limit, such as proxies
    /// in front of the server. Called on a worker thread, and only for an address that has reached the limit. If it
    /// panics, the address is not exempt. Default: no address is exempt.
    pub exempt_from_ip_limit: Option<Exempt>,
    /// The rate of new sessions. Default [`Rate::NONE`]. After a restart of the server all clients reconnect at
    /// once. Handshakes beyond this rate are answered 503 with `Retry-After`, before a session is created. Requests
    /// of existing sessions are not limited by it.
    pub accept_rate: Rate,
    /// Bytes that may wait for one client. Default 4 MiB, or `4 * max_http_buffer_size` if that is more; must be
    /// more than `max_http_buffer_size`. If more bytes wait, the client is disconnected, "slow consumer". A larger
    /// packet cannot be sent: [`EmitError::TooLarge`](crate::server::EmitError::TooLarge). An empty outbox accepts
    /// any other packet.
    pub outbox_bytes_max: Option<usize>,
    /// Bytes of memory of the packets that wait for all clients together. Default 64 MiB, or `outbox_bytes_max` if
    /// that is more; must be at least `outbox_bytes_max`. Beyond it, the clients with the largest backlogs are
    /// disconnected, "slow consumer", until the limit is kept.
    pub outbox_bytes_total: Option<usize>,
    /// Bytes that are being received from all clients together: request bodies, WebSocket messages, and attachments
    /// of incomplete packets, until they have been handled. The first 16 KiB of each connection and of each session
    /// do not count. Default 64 MiB, or `2 * max_packet_size` if that is more; must be at least `max_packet_size`.
    /// Beyond it, a request is answered 503 with `Retry-After`, or the session is closed, "overloaded" (1013 on
    /// WebSocket).
    pub receive_bytes_total: Option<usize>,
    /// Bytes of the auth payload of a CONNECT, which is kept with the socket. Default 16 KiB, several times what
    /// tokens take. A larger one is refused, "Auth payload too large".
    pub max_auth_size: usize,
    /// Namespaces that one client may be in. Default 32. A CONNECT beyond it is refused, "Too many namespaces".
    pub max_namespaces: usize,
    /// Bytes that rooms may take, all together: about 64 a membership, and 160 and its name a room. Default 16 MiB,
    /// enough for 100,000 memberships in 50,000 rooms. A join beyond it is refused and logged.
    pub room_bytes_total: usize,
    /// Commands that may wait for the hub. Default 1,024; more than 65,536 count as that, because the queue takes its
    /// memory at the start. Emitting threads wait when it is full, so TCP pushes back on the senders.
    pub hub_queue: usize,
    /// Acknowledgements awaited from one socket at one time. Default 1,000. The next `emit_with_ack` fails.
    pub max_pending_acks: usize,
    /// Rooms that one socket may be in. Default 1,000. A join beyond it is refused.
    pub max_rooms: usize,
    /// Events that one client may send, and as many CONNECTs beside them. Default [`Rate::NONE`]. An acknowledgement
    /// that the server does not await counts as an event, and so does a message of a bare Engine.IO session. An event
    /// that comes faster goes to [`on_rate_limited`](crate::server::NamespaceBuilder::on_rate_limited) and to no
    /// other handler; a CONNECT is refused; an acknowledgement or a message is dropped. After 100 refusals without a
    /// rest in between that fills the burst up again, the client is disconnected: "rate limited". Costs a look at the
    /// clock for each packet.
    pub event_rate: Rate,
    /// Bytes of all packets that one client may send, with their attachments: events, acknowledgements, CONNECTs,
    /// pongs, and the pings of WebSocket. Default [`Rate::NONE`]. A packet is accepted if the bucket has at least
    /// one byte, and may overdraw it; so `burst` may be less than `max_packet_size`. Refused packets are charged
    /// too, and have the consequences of [`event_rate`](Self::event_rate). Beyond the rate an awaited
    /// acknowledgement is dropped too; a pong or a disconnect takes effect, and counts as a refusal. The pong that
    /// answers the server's ping is not charged.
    pub byte_rate: Rate,
    /// Official `connectionStateRecovery`. Default `None`, off: a client that loses its connection begins anew. When
    /// on, every event goes through the hub and carries its offset, 14 bytes, as one more argument.
    pub connection_state_recovery: Option<ConnectionStateRecovery>,
    /// Bytes of a request head. Default 16 KiB, as Node has it; at most 1 GiB. Answered 431.
    pub max_head_size: usize,
    /// How long a request head may take. Default 10 s. Answered 408.
    pub head_timeout: Duration,
    /// How long a request body may take. Default 2 min: a slow uplink needs 80 s for a megabyte.
    pub body_timeout: Duration,
    /// How long an HTTP connection may rest between two requests. Default 65 s, beyond the 60 s of common
    /// proxies, so that they and not we end it.
    pub keep_alive_timeout: Duration,
    /// How long a closing connection may take to let its last packets out. Default 5 s.
    pub close_timeout: Duration,
    /// How long a WebSocket that has a thread of its own may be silent before it gives the thread back. Default 3 s.
    /// One thread serves all connections that are ready, and a connection that waits has no thread; but while up to
    /// two clients talk, and fast, each WebSocket has one, which is faster. `None`: every WebSocket has a thread of
    /// its own for ever. HTTP needs none.
    pub park_after: Option<Duration>,
    /// Stack of a worker thread in bytes, reserved, not resident. Default 512 KiB, at least 384 KiB. Handlers run on
    /// it: reading 127 levels of JSON, which is the most that `serde_json` reads, into a `Value` takes up to
    /// 300 KiB in a debug build. A type of the application's that contains itself may take more for each level.
    pub stack_size: usize,
    /// Threads that serve connections at the same time without a slow handler as the reason: each connection belongs to
    /// one of so many groups, and each group has a leader. Default: half the processor cores, at least 1, because the
    /// kernel needs the others to send and receive. At most 64.
    pub leaders: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: limits::DEFAULT_PATH.into(),
            ping_interval: limits::PING_INTERVAL,
            ping_timeout: limits::PING_TIMEOUT,
            upgrade_timeout: limits::UPGRADE_TIMEOUT,
            connect_timeout: limits::CONNECT_TIMEOUT,
            max_http_buffer_size: limits::MAX_HTTP_BUFFER_SIZE,
            max_packet_size: None,
            max_attachments: limits::MAX_ATTACHMENTS,
            max_depth: limits::MAX_JSON_DEPTH,
            transports: vec![TransportKind::Polling, TransportKind::Websocket],
            allow_upgrades: true,
            cors: Cors::default(),
            unix_mode: None,
            allow_request: None,
            max_connections: 1_000,
            max_tcp_connections: None,
            max_connections_per_ip: None,
            exempt_from_ip_limit: None,
            accept_rate: Rate::NONE,
            outbox_bytes_max: None,
            outbox_bytes_total: None,
            receive_bytes_total: None,
            max_auth_size: 16 << 10,
            max_namespaces: 32,
            room_bytes_total: 16 << 20,
            hub_queue: 1_024,
            max_pending_acks: 1_000,
            max_rooms: 1_000,
            event_rate: Rate::NONE,
            byte_rate: Rate::NONE,
            connection_state_recovery: None,
            max_head_size: 16 << 10,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(120),
            keep_alive_timeout: Duration::from_secs(65),
            close_timeout: Duration::from_secs(5),
            park_after: Some(Duration::from_secs(3)),
            stack_size: 512 << 10,
            leaders: thread::available_parallelism()
                .map_or(1, |cores| (cores.get() / 2).clamp(1, LEADERS_MAX)),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("path", &self.path)
            .field("ping_interval", &self.ping_interval)
            .field("ping_timeout", &self.ping_timeout)
            .field("max_http_buffer_size", &self.max_http_buffer_size)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

impl Config {
    fn durations(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let fixed = [
            ("ping_interval", self.ping_interval),
            ("ping_timeout", self.ping_timeout),
            ("upgrade_timeout", self.upgrade_timeout),
            ("connect_timeout", self.connect_timeout),
            ("head_timeout", self.head_timeout),
            ("body_timeout", self.body_timeout),
            ("keep_alive_timeout", self.keep_alive_timeout),
            ("close_timeout", self.close_timeout),
        ];
        let recovery = self.connection_state_recovery.as_ref();
        let recovery = recovery.map(|of| ("max_disconnection_duration", of.max_disconnection_duration));
        fixed.into_iter().chain(recovery).chain(self.park_after.map(|silence| ("park_after", silence)))
    }

    /// TCP connections at one time, given or derived.
    pub(crate) fn tcp_connections(&self) -> usize {
        self.max_tcp_connections.unwrap_or(self.max_connections.saturating_mul(2).saturating_add(64))
    }

    /// The limits of one request.
    pub(crate) fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            head_size: self.head_size(),
            head_timeout: self.head_timeout,
            body_size: self.max_http_buffer_size,
            body_timeout: self.body_timeout,
        }
    }

    /// Bytes of one binary packet, given or derived.
    pub(crate) fn packet_size(&self) -> usize {
        self.max_packet_size.unwrap_or(self.max_http_buffer_size.saturating_mul(4))
    }

    /// Bytes that may wait for one client, given or derived.
    pub(crate) fn outbox_bytes(&self) -> usize {
        self.outbox_bytes_max.unwrap_or_else(|| (4 << 20).max(self.max_http_buffer_size.saturating_mul(4)))
    }

    /// Bytes that may wait for all clients, given or derived.
    pub(crate) fn total_outbox_bytes(&self) -> usize {
        self.outbox_bytes_total.unwrap_or_else(|| (64 << 20).max(self.outbox_bytes()))
    }

    /// Bytes that may be under way from all clients, given or derived.
    pub(crate) fn total_receive_bytes(&self) -> usize {
        self.receive_bytes_total.unwrap_or_else(|| (64 << 20).max(self.packet_size().saturating_mul(2)))
    }

    /// Commands that may wait for the hub.
    pub(crate) fn hub_commands(&self) -> usize {
        self.hub_queue.min(HUB_QUEUE_MAX)
    }

    /// Bytes of a request head.
    pub(crate) fn head_size(&self) -> usize {
        self.max_head_size.min(HEAD_SIZE_MAX)
    }

    /// # Errors
    /// [`StartError::Config`] with a sentence that says which option to change.
    pub(crate) fn validate(&self) -> Result<(), StartError> {
        let check = |fine: bool, sentence: &str| {
            if fine { Ok(()) } else { Err(StartError::Config(sentence.into())) }
        };
        check(
            self.path.len() > 1 && self.path.starts_with('/') && self.path.ends_with('/'),
            "path must begin and end with '/', like \"/socket.io/\"",
        )?;
        for (name, duration) in self.durations() {
            if !is_duration(duration) {
                return Err(StartError::Config(format!("{name} must be longer than 0 and at most a year")));
            }
        }
        check(
            self.unix_mode.is_none_or(|mode| mode <= 0o777),
            "unix_mode must be permission bits, at most 0o777",
        )?;
        check(!self.transports.is_empty(), "transports must name at least one transport")?;
        check(self.max_http_buffer_size >= 64, "max_http_buffer_size must be at least 64 bytes")?;
        check(
            self.packet_size() >= self.max_http_buffer_size,
            "max_packet_size must be at least max_http_buffer_size",
        )?;
        check(self.max_attachments <= limits::MAX_ATTACHMENTS, "max_attachments must be at most 10")?;
        check(self.max_depth > 0, "max_depth must be at least 1, or no CONNECT could have a payload")?;
        check(self.max_connections > 0, "max_connections must be at least 1")?;
        check(self.max_connections_per_ip != Some(0), "max_connections_per_ip must be at least 1")?;
        check(
            self.outbox_bytes() > self.max_http_buffer_size || self.outbox_bytes() == usize::MAX,
            "outbox_bytes_max must exceed max_http_buffer_size, or what comes in could not go out",
        )?;
        check(
            self.total_outbox_bytes() >= self.outbox_bytes(),
            "outbox_bytes_total must be at least outbox_bytes_max",
        )?;
        check(
            self.total_receive_bytes() >= self.packet_size(),
            "receive_bytes_total must be at least max_packet_size, or the largest packet could never come in",
        )?;
        check(self.max_namespaces > 0, "max_namespaces must be at least 1")?;
        check(self.hub_queue > 0, "hub_queue must be at least 1")?;
        check(self.max_head_size >= 1 << 10, "max_head_size must be at least 1 KiB")?;
        for (name, rate) in [
            ("accept_rate", self.accept_rate),
            ("event_rate", self.event_rate),
            ("byte_rate", self.byte_rate),
        ] {
            check(rate.burst > 0, &format!("{name}: burst must be at least 1"))?;
        }
        check(self.stack_size >= STACK_MIN, "stack_size must be at least 384 KiB")?;
        check((1..=LEADERS_MAX).contains(&self.leaders), "leaders must be 1 to 64")
    }
}
