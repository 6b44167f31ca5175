//! The options of a client, with the official names and defaults where the official client has them.
//!
//! Owns the defaults and their validation. It must not start anything.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::{Error, guard::Guarded};
use crate::proto::{engine::TransportKind, limits};

/// Builds a [`Client`](super::Client). Every option has a default. Each option says where it differs from the official
/// client.
///
/// ```no_run
/// use std::time::Duration;
/// use tinysio::client::Client;
///
/// let client = Client::builder("http://localhost:5000")
///     .reconnection_delay(Duration::from_millis(500))
///     .auth(serde_json::json!({ "token": "abc" }))
///     .build()?;
/// # Ok::<(), tinysio::client::Error>(())
/// ```
#[derive(Clone)]
pub struct Builder {
    pub(super) url: String,
    pub(super) config: Config,
}

/// The options, for the rest of the client.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) transports: Vec<TransportKind>,
    pub(super) upgrade: bool,
    pub(super) remember_upgrade: bool,
    pub(super) try_all_transports: bool,
    pub(super) timeout: Duration,
    pub(super) reconnection: bool,
    pub(super) attempts: Option<u32>,
    pub(super) delay: Duration,
    pub(super) delay_max: Duration,
    pub(super) randomization: f64,
    pub(super) ack_timeout: Duration,
    pub(super) retries: u32,
    pub(super) auth: Option<Guarded<Auth>>,
    pub(super) offline: OfflineLimits,
    pub(super) queue_bytes: usize,
    pub(super) event_queue: usize,
    pub(super) max_message: usize,
    pub(super) max_depth: usize,
    pub(super) ca: Vec<Vec<u8>>,
}

/// Called with the namespace for every CONNECT. Gives the JSON of the payload.
pub(super) type Auth = Arc<dyn Fn(&str) -> Result<String, serde_json::Error> + Send + Sync>;

/// The limits of the offline buffer, and of each retry queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfflineLimits {
    pub(super) packets: usize,
    pub(super) bytes: usize,
    pub(super) ttl: Option<Duration>,
}

impl OfflineLimits {
    /// Whether nothing can ever be buffered.
    pub(super) fn is_off(&self) -> bool {
        self.packets == 0 || self.bytes == 0
    }

    /// Whether one more packet, of `size` bytes, may join so many packets and bytes.
    pub(super) fn admits(&self, packets: usize, bytes: usize, size: usize) -> bool {
        packets < self.packets && bytes + size <= self.bytes
    }
}

impl Builder {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), config: Config::default() }
    }

    /// Official `path`. Default `/socket.io/`. The path at which the server listens for Socket.IO, not the namespace. A
    /// missing slash at either end is added.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.config.path = path.to_owned();
        self
    }

    /// Official `query`: one more parameter of every request, which is percent-encoded. Default none. Parameters in
    /// the URL are sent too.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.config.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Official `extraHeaders`: one more header of every HTTP request and of the WebSocket handshake. Default none.
    #[must_use]
    pub fn extra_header(mut self, name: &str, value: &str) -> Self {
        self.config.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Official `auth`, as a value: the payload of every CONNECT. Default none. It must be a JSON object, or the
    /// namespace fails with [`Error::Invalid`]. The client adds its own `pid` and `offset` when there is a session to
    /// [recover](super::Socket::recovered), and `rid` with [`retries`](Self::retries). Your own keys of these names
    /// take precedence.
    #[must_use]
    pub fn auth(self, auth: impl Serialize) -> Self {
        let json = serde_json::to_string(&auth).map_err(|error| error.to_string());
        self.auth_raw(Arc::new(move |_: &str| json.clone().map_err(serde::de::Error::custom)))
    }

    /// Official `auth`, as a function: called with the namespace for every CONNECT, so a new token can be fetched for
    /// every reconnection. It runs on the `backoff` thread and may block. It then delays the joining of namespaces
    /// and the upgrade of this connection only; a disconnect does not wait for it. A panic in it is logged and
    /// reported (`on_connect_error`). With `reconnection`, the function is called again after `reconnection_delay`.
    #[must_use]
    pub fn auth_with<T: Serialize>(self, auth: impl Fn(&str) -> T + Send + Sync + 'static) -> Self {
        self.auth_raw(Arc::new(move |namespace: &str| serde_json::to_string(&auth(namespace))))
    }

    fn auth_raw(mut self, auth: Auth) -> Self {
        self.config.auth = Some(Guarded::new(auth));
        self
    }

    /// Official `transports`. Default polling, then websocket. The connection begins with the first one, and is
    /// upgraded to websocket when both are listed.
    #[must_use]
    pub fn transports(mut self, transports: &[TransportKind]) -> Self {
        self.config.transports = transports.to_vec();
        self
    }

    /// Official `upgrade`. Default true: a polling connection moves to WebSocket as soon as one is open.
    #[must_use]
    pub fn upgrade(mut self, upgrade: bool) -> Self {
        self.config.upgrade = upgrade;
        self
    }

    /// Official `rememberUpgrade`. Default false: after a successful upgrade, the next attempt begins with WebSocket.
    #[must_use]
    pub fn remember_upgrade(mut self, remember: bool) -> Self {
        self.config.remember_upgrade = remember;
        self
    }

    /// Official `tryAllTransports`. Default **true**, the official one is false: when the first transport fails, the
    /// next one is tried within the same attempt and the same `timeout`.
    #[must_use]
    pub fn try_all_transports(mut self, all: bool) -> Self {
        self.config.try_all_transports = all;
        self
    }

    /// Official `timeout`. Default 20 s. The limit of one attempt over all transports that are tried: name lookup
    /// (for which the operating system may take longer), connection, TLS, handshake. The namespaces' answers may take
    /// the same time again.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
    }

    /// Official `reconnection`. Default true: after a loss, and after a failed attempt, there is a next attempt.
    #[must_use]
    pub fn reconnection(mut self, reconnection: bool) -> Self {
        self.config.reconnection = reconnection;
        self
    }

    /// Official `reconnectionAttempts`. Default `None`, unlimited. After so many failed *re*-connections in a row the
    /// client gives up (`on_reconnect_failed`).
    #[must_use]
    pub fn reconnection_attempts(mut self, attempts: impl Into<Option<u32>>) -> Self {
        self.config.attempts = attempts.into();
        self
    }

    /// Official `reconnectionDelay`. Default 1 s. The first delay; it doubles with every failure.
    #[must_use]
    pub fn reconnection_delay(mut self, delay: Duration) -> Self {
        self.config.delay = delay;
        self
    }

    /// Official `reconnectionDelayMax`. Default 5 s. The delay at which the doubling ends. The random part is added
    /// afterwards, so a delay is at most this times one plus the factor, 7.5 s. In the official client the maximum
    /// applies last, so that all its clients end up waiting exactly 5 s.
    #[must_use]
    pub fn reconnection_delay_max(mut self, delay: Duration) -> Self {
        self.config.delay_max = delay;
        self
    }

    /// Official `randomizationFactor`, 0 to 1. Default 0.5: every delay is multiplied by a random number between 0.5
    /// and 1.5.
    #[must_use]
    pub fn randomization_factor(mut self, factor: f64) -> Self {
        self.config.randomization = factor;
        self
    }

    /// Official `retries`. Default 0, off. When set, events that are not volatile are sent one at a time for each
    /// namespace, in order. The server must acknowledge each of them before the next is sent. An event that is not
    /// acknowledged within [`ack_timeout`](Self::ack_timeout), or before the connection is lost, is sent again, at
    /// most this often. Then it is dropped, and the next event is sent. A try is counted when the event is sent in a
    /// joined namespace: time without a connection costs no try, but a connection that is lost again and again does.
    /// `u32::MAX` is unlimited; then an event leaves the queue only when it is acknowledged, or larger than the
    /// server's `maxPayload`.
    ///
    /// When an acknowledgement is lost, the server receives the event again. To recognise it, every CONNECT has a
    /// `rid`, 20 random characters that stay the same for this client, and every event of the queue has an
    /// acknowledgement id that increases in its namespace and stays the same when the event is sent again. A server
    /// that checks them, as tinysio's does, handles each event once. The queue is in memory: it ends with the client.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.config.retries = retries;
        self
    }

    /// Official `ackTimeout`. Default 10 s (in the official client unlimited): how long each try of
    /// [`retries`](Self::retries) waits.
    #[must_use]
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.config.ack_timeout = timeout;
        self
    }

    /// The offline buffer: how many packets and bytes may wait for the connection. Default 1,000 packets and 1 MiB;
    /// the official client has no limit. An emit that does not fit is refused with [`Error::BufferFull`]. `(0, 0)`
    /// turns the buffer off: emits without a connection are then refused with [`Error::NotConnected`].
    #[must_use]
    pub fn offline_buffer(mut self, packets: usize, bytes: usize) -> Self {
        self.config.offline.packets = packets;
        self.config.offline.bytes = bytes;
        self
    }

    /// How long a packet may wait in the offline buffer. Default `None`, unlimited. Not in the official client.
    #[must_use]
    pub fn offline_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.config.offline.ttl = ttl.into();
        self
    }

    /// Bytes that may wait to be written, while connected. Default 4 MiB. An emit that does not fit is refused with
    /// [`Error::QueueFull`]; a single message always fits an empty queue. Not in the official client.
    #[must_use]
    pub fn send_queue(mut self, bytes: usize) -> Self {
        self.config.queue_bytes = bytes;
        self
    }

    /// Events that may wait for their handlers. Default 1,024 (and 16 MiB of them); `usize::MAX` is unlimited. At
    /// this limit, the client stops reading until half of them are handled, and the network pushes back on the
    /// server. The server's pings are then behind the events, so pongs are sent unasked and the session stays open.
    /// Not in the official client.
    #[must_use]
    pub fn event_queue(mut self, events: usize) -> Self {
        self.config.event_queue = events;
        self
    }

    /// Bytes of the largest accepted message from the server. Default 16 MiB. A larger message ends the connection with
    /// [`CloseReason::MessageTooBig`](crate::proto::CloseReason::MessageTooBig). Not in the official client.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.config.max_message = bytes;
        self
    }

    /// Levels of arrays and objects in one argument of an event or an acknowledgement, and in the payload of a
    /// CONNECT or a CONNECT_ERROR, with bytes and without. Default 4,000, which is twice the server's: a server may
    /// wrap what it has received from another client, and so send more levels than it accepts. At least 1;
    /// `usize::MAX` is unlimited. A deeper packet ends the connection with
    /// [`CloseReason::ParseError`](crate::proto::CloseReason::ParseError). Other limits fail only the call: reading
    /// more than 127 levels into a type (64 in a packet with bytes), and sending on bytes below more than 64 levels.
    /// Not in the official client.
    #[must_use]
    pub fn max_depth(mut self, levels: usize) -> Self {
        self.config.max_depth = levels;
        self
    }

    /// One or more certificate authorities in PEM, trusted in addition to Mozilla's. Verification cannot be turned
    /// off. A self-signed certificate is its own authority.
    #[must_use]
    pub fn ca_pem(mut self, pem: &[u8]) -> Self {
        self.config.ca.push(pem.to_owned());
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: limits::DEFAULT_PATH.to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            transports: vec![TransportKind::Polling, TransportKind::Websocket],
            upgrade: true,
            remember_upgrade: false,
            try_all_transports: true,
            timeout: Duration::from_secs(20),
            reconnection: true,
            attempts: None,
            delay: Duration::from_secs(1),
            delay_max: Duration::from_secs(5),
            randomization: 0.5,
            ack_timeout: Duration::from_secs(10),
            retries: 0,
            auth: None,
            offline: OfflineLimits { packets: 1_000, bytes: 1 << 20, ttl: None },
            queue_bytes: 4 << 20,
            event_queue: 1_024,
            max_message: 16 << 20,
            max_depth: 2 * limits::MAX_JSON_DEPTH,
            ca: Vec::new(),
        }
    }
}

impl Config {
    /// Refuses what cannot work, naming the option.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let wrong = |text: &str| Err(Error::Invalid(text.to_owned()));
        if self.transports.is_empty() {
            return wrong("transports: at least one is needed");
        }
        if !(0.0..=1.0).contains(&self.randomization) {
            return wrong("randomization_factor: must be from 0 to 1");
        }
        if self.timeout.is_zero() || self.ack_timeout.is_zero() {
            return wrong("timeout, ack_timeout: must be more than 0");
        }
        if self.event_queue == 0 || self.max_message == 0 || self.max_depth == 0 {
            return wrong("event_queue, max_message, max_depth: must be more than 0");
        }
        if self.retries > 0 && self.offline.is_off() {
            return wrong("retries: its queue has the bounds of offline_buffer, which is off");
        }
        for (name, value) in &self.headers {
            let good = name.parse::<http::HeaderName>().is_ok() && http::HeaderValue::from_str(value).is_ok();
            if !good {
                return Err(Error::Invalid(format!(
                    "extra_header {name:?}: no HTTP header can be like this"
                )));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without headers, query and auth: they carry secrets.
        f.debug_struct("Builder").field("url", &self.url).finish_non_exhaustive()
    }
}
