//! HTTP requests through ureq, over the client's own streams. So a held request can be cancelled from another thread,
//! and TLS and Unix sockets work as under a WebSocket.
//!
//! Uses `dial` and `stream`. It must not know Engine.IO or sessions.

use std::{
    io::{self, Read, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ureq::{
    Agent, Body, RequestBuilder,
    http::{Response, Uri},
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{self, Buffers, ConnectionDetails, LazyBuffers, NextTimeout},
    },
};

use super::{
    Error, Step,
    cancel::CancelToken,
    config::Config,
    dial::{Dialer, Failure},
    stream::{Blocking, Stream},
};
use crate::proto::engine::TransportKind;
use crate::sys::real::wait::deadline_in;

/// Bytes of an answer's head. The official server sends about two hundred.
const MAX_HEAD: usize = 16 << 10;

/// Bytes of ureq's two buffers for each connection.
const BUFFER: usize = 8 << 10;

/// How long an idle connection is reused. Node's server closes one after five seconds, and a request that it closes
/// would be lost.
const MAX_IDLE: Duration = Duration::from_secs(3);

/// One kept-alive HTTP connection at a time, for consecutive requests: a session has one for its GETs and one for its
/// POSTs. All of them end when the token is cancelled.
#[derive(Debug)]
pub(super) struct HttpClient {
    agent: Agent,
    dialer: Dialer,
    headers: Vec<(String, String)>,
    max_body: u64,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

impl HttpClient {
    /// With `silence`, answers do not count as activity of the session, and requests end once the session has been
    /// silent for so long.
    pub(super) fn new(
        dialer: &Dialer,
        config: &Config,
        token: &Arc<CancelToken>,
        silence: Option<Duration>,
    ) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("tinysio/", env!("CARGO_PKG_VERSION")))
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_response_header_size(MAX_HEAD)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(MAX_IDLE)
            .build();
        let connector = Connector { dialer: dialer.clone(), token: token.clone(), silence };
        Self {
            agent: Agent::with_parts(agent, connector, NoResolver),
            dialer: dialer.clone(),
            headers: config.headers.clone(),
            max_body: config.max_message as u64,
        }
    }

    /// A GET. Without a `deadline`, the server may hold it without end.
    pub(super) fn get(&self, target: &str, deadline: Option<Instant>) -> Result<Reply, Error> {
        let request = self.prepare(self.agent.get(self.url(target)), deadline);
        self.read(request.call())
    }

    /// A POST of text.
    pub(super) fn post(&self, target: &str, body: &str, deadline: Option<Instant>) -> Result<Reply, Error> {
        let request = self.prepare(self.agent.post(self.url(target)), deadline);
        self.read(request.content_type("text/plain;charset=UTF-8").send(body))
    }

    /// Adds the deadline and the user's headers.
    fn prepare<B>(&self, request: RequestBuilder<B>, deadline: Option<Instant>) -> RequestBuilder<B> {
        let request = request.config().timeout_global(left(deadline)).build();
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    fn url(&self, target: &str) -> String {
        let endpoint = &self.dialer.endpoint;
        endpoint.url(if endpoint.secure { "https" } else { "http" }, target)
    }

    fn read(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Reply, Error> {
        let mut response = response.map_err(error)?;
        let header =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (location, content_type) = (header("location"), header("content-type").unwrap_or_default());
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(self.max_body).read_to_vec().map_err(error)?;
        Ok(Reply { status, location, content_type, body: body.into() })
    }
}

fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
}

/// An error of ureq as the client's error.
fn error(error: ureq::Error) -> Error {
    let unreachable = |step, detail: String| Error::unreachable(TransportKind::Polling, step, detail);
    match error {
        ureq::Error::Other(other) => match other.downcast::<Failure>() {
            Ok(failure) => unreachable(failure.step, failure.detail),
            Err(other) => unreachable(Step::Http, other.to_string()),
        },
        ureq::Error::Io(error) => unreachable(Step::Http, error.to_string()),
        ureq::Error::Timeout(_) => unreachable(Step::Http, "timed out".into()),
        error => Error::handshake(TransportKind::Polling, None, format!("no usable HTTP answer: {error}")),
    }
}

/// Opens the client's streams for ureq.
#[derive(Debug)]
struct Connector {
    dialer: Dialer,
    token: Arc<CancelToken>,
    silence: Option<Duration>,
}

impl Connector {
    /// Dials until `deadline`, and only while the session counts as alive.
    fn dial(&self, deadline: Instant) -> Result<Stream, Failure> {
        let Some(silence) = self.silence else { return self.dialer.dial(&self.token, deadline) };
        loop {
            let dead = self.token.last_activity() + silence;
            let result = self.dialer.dial(&self.token, deadline.min(dead));
            let now = Instant::now();
            // Only a dial that was ended by `dead` is repeated, and only if there was activity meanwhile.
            let again = now >= dead && now < deadline && self.token.last_activity() + silence > now;
            if result.is_ok() || !again {
                return result;
            }
        }
    }
}

impl transport::Connector for Connector {
    type Out = Transport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Transport>, ureq::Error> {
        // A held GET has no timeout, but its connection needs one.
        let timeout = details.timeout.not_zero().map_or(Duration::from_secs(20), |timeout| *timeout);
        let mut stream =
            self.dial(deadline_in(timeout)).map_err(|failure| ureq::Error::Other(Box::new(failure)))?;
        if let Some(silence) = self.silence {
            stream.end_when_silent(silence);
        }
        Ok(Some(Transport { stream, buffers: LazyBuffers::new(BUFFER, BUFFER) }))
    }
}

/// A stream of the client, for ureq.
#[derive(Debug)]
struct Transport {
    stream: Stream,
    buffers: LazyBuffers,
}

impl Transport {
    fn set_deadline(&mut self, timeout: NextTimeout) {
        let blocking = timeout
            .not_zero()
            .map_or(Blocking::UntilCancelled, |left| Blocking::Until(Instant::now() + *left));
        self.stream.set_blocking(blocking);
    }
}

impl transport::Transport for Transport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.set_deadline(timeout);
        self.stream.write_all(&self.buffers.output()[..amount]).map_err(|error| timed_out(error, timeout))?;
        self.stream.flush().map_err(|error| timed_out(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.set_deadline(timeout);
        let read =
            self.stream.read(self.buffers.input_append_buf()).map_err(|error| timed_out(error, timeout))?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.is_open()
    }

    fn is_tls(&self) -> bool {
        self.stream.is_secure()
    }
}

fn timed_out(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    if error.kind() == io::ErrorKind::TimedOut { ureq::Error::Timeout(timeout.reason) } else { error.into() }
}

/// ureq resolves addresses before it asks for a connection. The client's connector resolves them itself.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(([0, 0, 0, 0], 0).into());
        Ok(addresses)
    }
}
