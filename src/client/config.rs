//! The options of a client: the official names and defaults, and ours where the official client has none.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::{Error, guard::Guarded};
use crate::proto::{engine::TransportKind, limits};

/// Builds a [`Client`](super::Client). Every option has a default; each says how it differs from the official client's, if it does.
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

/// The options, as the rest of the client reads them.
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

/// Called with the namespace for every CONNECT; gives the JSON of the payload.
pub(super) type Auth = Arc<dyn Fn(&str) -> Result<String, serde_json::Error> + Send + Sync>;

/// The bounds of the offline buffer. `packets == 0`: off.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfflineLimits {
    pub(super) packets: usize,
    pub(super) bytes: usize,
    pub(super) ttl: Option<Duration>,
}

impl Builder {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), config: Config::default() }
    }

    /// Official `path`. Default `/socket.io/`. Where the server listens for Socket.IO; not the namespace. A missing
    /// slash at either end is added.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.config.path = path.to_owned();
        self
    }

    /// Official `query`: one more parameter of every request, percent-encoded here. Default none. Those in the URL are
    /// sent too.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.config.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Official `extraHeaders`: one more header of every HTTP request and of the WebSocket's opening. Default none.
    #[must_use]
    pub fn extra_header(mut self, name: &str, value: &str) -> Self {
        self.config.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Official `auth`, as a value: the payload of every CONNECT. Default none. It must be a JSON object, or the
    /// namespace fails with [`Error::Invalid`]. The client adds its own `pid` and `offset` when there is a session to
    /// [recover](super::Socket::recovered), and `rid` with [`retries`](Self::retries); yours of these names win.
    #[must_use]
    pub fn auth(self, auth: impl Serialize) -> Self {
        let json = serde_json::to_string(&auth).map_err(|error| error.to_string());
        self.auth_raw(Arc::new(move |_: &str| json.clone().map_err(serde::de::Error::custom)))
    }

    /// Official `auth`, as a function: called with the namespace for every CONNECT, so a token can be fetched anew for
    /// every reconnection. It runs on the `backoff` thread and may block: it holds up the joining of namespaces and the
    /// upgrade of this connection only, and a disconnect does not wait for it. A panic in it is logged and reported
    /// (`on_connect_error`), and with `reconnection` the function is asked again after `reconnection_delay`.
    #[must_use]
    pub fn auth_with<T: Serialize>(self, auth: impl Fn(&str) -> T + Send + Sync + 'static) -> Self {
        self.auth_raw(Arc::new(move |namespace: &str| serde_json::to_string(&auth(namespace))))
    }

    fn auth_raw(mut self, auth: Auth) -> Self {
        self.config.auth = Some(Guarded::new(auth));
        self
    }

    /// Official `transports`. Default polling, then websocket: the connection begins on the first, and is upgraded to
    /// websocket when both are listed. The order counts.
    #[must_use]
    pub fn transports(mut self, transports: &[TransportKind]) -> Self {
        self.config.transports = transports.to_vec();
        self
    }

    /// Official `upgrade`. Default true: a polling connection moves to WebSocket as soon as one stands.
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

    /// Official `timeout`. Default 20 s. The bound of one attempt: name lookup (which the operating system may hold
    /// longer), connection, TLS, handshake, over all transports that are tried; and once more for the namespaces'
    /// answers.
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

    /// Official `reconnectionAttempts`. Default `None`, without end. After so many failed *re*-connections in a row
    /// the client gives up (`on_reconnect_failed`).
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

    /// Official `reconnectionDelayMax`. Default 5 s. Where the doubling ends. The jitter comes on top of it, not
    /// under it as in the official client, whose crowd of clients ends up waiting exactly 5 s each, all together: so a
    /// delay is at most this times one plus the factor, 7.5 s.
    #[must_use]
    pub fn reconnection_delay_max(mut self, delay: Duration) -> Self {
        self.config.delay_max = delay;
        self
    }

    /// Official `randomizationFactor`, 0 to 1. Default 0.5: every delay is multiplied with a random number between 0.5
    /// and 1.5.
    #[must_use]
    pub fn randomization_factor(mut self, factor: f64) -> Self {
        self.config.randomization = factor;
        self
    }

    /// Official `retries`. Default 0, off. When set, events that are not volatile go out one at a time for each
    /// namespace, in order, each acknowledged by the server (it must do that for all of them) before the next; one
    /// that is not acknowledged within [`ack_timeout`](Self::ack_timeout), or before the connection is lost, is sent
    /// again, this often at most; then it is thrown away, and the next has its turn. A try is counted when the event is
    /// handed to a joined namespace, so the time without a connection costs none, but connections that come and go
    /// do: `u32::MAX` is without end, and then an event leaves the queue only when it is acknowledged, or
    /// larger than the server's `maxPayload`.
    ///
    /// A server that handled the event before its acknowledgement was lost sees it again. So that it can tell, every
    /// CONNECT carries a `rid`, 20 random characters for the life of this client, and every event of the queue
    /// a number for its acknowledgement that counts up in its namespace and stays the same when it is sent again.
    /// A server that keeps count of them, as tinysio's does, handles each once. The queue is in memory: it ends with
    /// the client.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.config.retries = retries;
        self
    }

    /// Official `ackTimeout`. Default 10 s (the official client waits for ever): how long each try of
    /// [`retries`](Self::retries) waits.
    #[must_use]
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.config.ack_timeout = timeout;
        self
    }

    /// The offline buffer: how many packets, and how many bytes of them, may wait for the connection. Default 1,000
    /// packets and 1 MiB; the official client's has no bound. What does not fit is refused with
    /// [`Error::BufferFull`]. `(0, 0)` turns it off: emits without a connection are [`Error::NotConnected`].
    #[must_use]
    pub fn offline_buffer(mut self, packets: usize, bytes: usize) -> Self {
        self.config.offline.packets = packets;
        self.config.offline.bytes = bytes;
        self
    }

    /// How long a packet may wait in the offline buffer. Default `None`, for ever. Ours.
    #[must_use]
    pub fn offline_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.config.offline.ttl = ttl.into();
        self
    }

    /// Bytes that may be emitted ahead of what the network takes, while connected. Default 4 MiB. What does not fit
    /// is refused with [`Error::QueueFull`]; a single message always fits an empty queue. Ours.
    #[must_use]
    pub fn send_queue(mut self, bytes: usize) -> Self {
        self.config.queue_bytes = bytes;
        self
    }

    /// Events that may wait for their handlers. Default 1,024 (and 16 MiB of them), without end `usize::MAX`. When they
    /// are there, the client stops reading until half of them is handled, and the network pushes back on the server;
    /// its pings, which lie behind the events then, are answered unasked, so the session lasts for as long as the
    /// server keeps what it has to say. Ours.
    #[must_use]
    pub fn event_queue(mut self, events: usize) -> Self {
        self.config.event_queue = events;
        self
    }

    /// Bytes of the largest message from the server that is taken. Default 16 MiB; a larger one ends the connection
    /// with [`CloseReason::MessageTooBig`](crate::proto::CloseReason::MessageTooBig). Ours.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.config.max_message = bytes;
        self
    }

    /// Levels of arrays and objects in one argument of an event or an acknowledgement, and in the payload of a CONNECT or a
    /// CONNECT_ERROR, with bytes and without. Default 4,000, which is twice the server's: a server may wrap what it has
    /// received from another client, and sends more levels than it takes. At least 1, without end `usize::MAX`. A deeper packet
    /// ends the connection with [`CloseReason::ParseError`](crate::proto::CloseReason::ParseError). These are
    /// errors of that call alone: to read more than 127 levels into a type (64 in a packet with bytes), and to send on bytes
    /// below more than 64 levels. Ours.
    #[must_use]
    pub fn max_depth(mut self, levels: usize) -> Self {
        self.config.max_depth = levels;
        self
    }

    /// One or more certificate authorities, PEM, trusted beside Mozilla's: for a server whose certificate is signed by
    /// one's own. Verification cannot be turned off; a self-signed certificate is its own authority.
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
        if self.retries > 0 && (self.offline.packets == 0 || self.offline.bytes == 0) {
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
