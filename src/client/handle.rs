//! The API of a client: the [`Handle`] to it.
//!
//! Owns nothing but the two halves of a client: what its threads share, and the handlers. Uses `core`. It must not
//! change the state itself: `lifecycle` does.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Error, Socket, Stats, Status,
    cancel::CancelToken,
    connection::{Phase, Target},
    core::Core,
    handlers::{Handlers, add},
    http::HttpClient,
    namespaces::NamespaceState,
    state::State,
};
use crate::proto::CloseReason;
use crate::sys::real::wait::deadline_in;

/// How long [`Handle::disconnect`] writes what was emitted before it.
const DISCONNECT_TIME: Duration = Duration::from_millis(700);

/// The answer to [`Handle::http_get`], whatever its status.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The `content-type`, empty when there was none.
    pub content_type: String,
    /// The body, at most `max_message` bytes.
    pub body: Bytes,
}

/// The methods of a [`Client`](super::Client), for any thread and any handler. Cheap to clone. After the client is
/// dropped, every call returns at once, with [`Error::Closed`] where it can fail.
///
/// The handlers of `on_…` run on the thread of the [`Socket`]'s handlers, one at a time with those.
#[derive(Clone)]
pub struct Handle {
    core: Arc<Core>,
    handlers: Arc<Handlers>,
}

impl Handle {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, handlers: Arc::default() }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn handlers(&self) -> &Handlers {
        &self.handlers
    }

    /// The client's socket in `namespace` (`"/"`, `"/chat"`; a missing slash is added). The first call for a namespace
    /// adds it: it is joined with the next connection, or at once when there is one. A malformed name gives a
    /// socket that is never connected and whose calls fail ([`Error::Invalid`]).
    #[must_use]
    pub fn socket(&self, namespace: &str) -> Socket {
        Socket::new(self.clone(), self.core.namespace(namespace))
    }

    /// The namespace in the URL, or `/`. It is joined when no other namespace was added.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.core.dialer.endpoint.namespace
    }

    /// Begins to connect and returns at once. Does nothing when a connection is open or an attempt is in progress.
    /// Ends the wait between two attempts.
    ///
    /// Every connection joins the namespaces that are active, as the official client does. A namespace is active from
    /// [`socket`](Self::socket) or [`Socket::connect`] until it is left ([`Socket::disconnect`]), refused, or removed
    /// by the server; [`disconnect`](Self::disconnect) does not change that. When no namespace is active, this makes
    /// all of them active, because a connection would have no use otherwise.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Invalid`] when a namespace's name is none.
    pub fn start(&self) -> Result<(), Error> {
        self.core.start().map(drop)
    }

    /// Begins to connect, as [`start`](Self::start), and waits for the result of this attempt: `Ok` when every active
    /// namespace is joined, or the error of the attempt or of the first namespace that was refused. With
    /// `reconnection`, the client then continues to try after a transient error:
    /// [`wait_connected`](Self::wait_connected) waits for it, and [`disconnect`](Self::disconnect) ends it. Takes at
    /// most twice the `timeout` option.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Handshake`], [`Error::Refused`], [`Error::Timeout`], [`Error::Disconnected`]
    /// when the client is disconnected meanwhile, [`Error::Closed`].
    pub fn connect(&self) -> Result<(), Error> {
        let before = self.core.start()?;
        let timeout = self.core.config.timeout.saturating_mul(2);
        self.outcome(timeout, Some(before))
    }

    /// Waits until every namespace is joined, over any number of attempts. Does not begin to connect.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), once the client has given up; [`Error::Timeout`] after `timeout`, while the
    /// attempts go on ([`Status::last_error`] has the error of the last one).
    pub fn wait_connected(&self, timeout: Duration) -> Result<(), Error> {
        self.outcome(timeout, None)
    }

    /// Waits until every namespace is joined, or the client has given up, or one was refused. With `before`, also
    /// until an attempt has failed since then.
    fn outcome(&self, timeout: Duration, before: Option<u64>) -> Result<(), Error> {
        let outcome = self.core.wait_for(Some(deadline_in(timeout)), |state| outcome(state, before));
        outcome.unwrap_or(Err(Error::Timeout { what: "connection", after: timeout }))
    }

    /// Leaves every namespace and closes the connection. No reconnection follows, and one in progress ends. What was
    /// emitted before is written first, for at most 0.7 s. Events that wait for their handlers are dropped, as in the
    /// official client. The reason for the handlers of `disconnect` is `io client disconnect`. [`start`](Self::start)
    /// and [`connect`](Self::connect) connect again.
    pub fn disconnect(&self) {
        let _ = self.disconnect_within(DISCONNECT_TIME);
    }

    /// As [`disconnect`](Self::disconnect), with `timeout` for writing what was emitted before.
    ///
    /// # Errors
    /// [`Error::Timeout`] when not everything was written in time, or the connection broke before. The connection is
    /// closed in either case. [`Error::Closed`].
    pub fn disconnect_within(&self, timeout: Duration) -> Result<(), Error> {
        self.core.disconnect(timeout)
    }

    /// Tries now: ends the wait between two attempts, and begins again with attempt 1 when the client has given up or
    /// was disconnected. Does nothing while connected. Returns at once, as [`start`](Self::start).
    pub fn reconnect_now(&self) {
        let _ = self.start();
    }

    /// Waits until the client is disconnected and does not reconnect: by [`disconnect`](Self::disconnect), by the
    /// server, after the last attempt, or because it is dropped. Gives the reason. Returns at once when it is
    /// disconnected.
    ///
    /// # Errors
    /// [`Error::InHandler`] on the handlers' thread.
    pub fn wait(&self) -> Result<Option<CloseReason>, Error> {
        if self.core.in_handler() {
            return Err(Error::InHandler("wait"));
        }
        Ok(self.core.wait_for(None, |state| ended(state)).flatten())
    }

    /// As [`wait`](Self::wait), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`]. It may be called in handlers.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<CloseReason>, Error> {
        let ended = self.core.wait_for(Some(deadline_in(timeout)), |state| ended(state));
        ended.ok_or(Error::Timeout { what: "end of the client", after: timeout })
    }

    /// A plain HTTP GET of `target` (path and query, `/health`) at the server's address, with the client's headers and
    /// authorities, over TCP, TLS or the Unix socket alike. Independent of the connection; no redirect is followed.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Handshake`] when the answer is no HTTP, [`Error::Invalid`] when `target` does
    /// not begin with a slash, [`Error::Closed`].
    pub fn http_get(&self, target: &str, timeout: Duration) -> Result<HttpAnswer, Error> {
        if !target.starts_with('/') || target.parse::<::http::Uri>().is_err() {
            return Err(Error::Invalid(format!("{target:?} is no path of a URL")));
        }
        self.core.lock().connection.check_alive()?;
        let token = CancelToken::new().map(Arc::new).map_err(no_resources)?;
        let http = HttpClient::new(&self.core.dialer, &self.core.config, &token, None);
        let reply = http.get(target, Some(deadline_in(timeout)))?;
        Ok(HttpAnswer { status: reply.status, content_type: reply.content_type, body: reply.body })
    }

    /// The state now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Official `reconnect_attempt`: called with the attempt's number, from 1, when a delay is over and a
    /// reconnection begins.
    pub fn on_reconnect_attempt(&self, handler: impl Fn(&Self, u32) + Send + Sync + 'static) {
        add(&mut self.handlers.of_client().attempt, Arc::new(handler));
    }

    /// Official `reconnect`: the connection is back, after so many attempts; namespaces are being joined.
    pub fn on_reconnect(&self, handler: impl Fn(&Self, u32) + Send + Sync + 'static) {
        add(&mut self.handlers.of_client().reconnect, Arc::new(handler));
    }

    /// Official `reconnect_error`: a reconnection failed.
    pub fn on_reconnect_error(&self, handler: impl Fn(&Self, &Error) + Send + Sync + 'static) {
        add(&mut self.handlers.of_client().error, Arc::new(handler));
    }

    /// Official `reconnect_failed`: `reconnection_attempts` are used up.
    pub fn on_reconnect_failed(&self, handler: impl Fn(&Self) + Send + Sync + 'static) {
        add(&mut self.handlers.of_client().failed, Arc::new(handler));
    }

    /// A delay begins. Called with the number of the attempt that follows, and the delay. Not in the official client.
    pub fn on_reconnect_scheduled(&self, handler: impl Fn(&Self, u32, Duration) + Send + Sync + 'static) {
        add(&mut self.handlers.of_client().scheduled, Arc::new(handler));
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// How the wait for a connection ends. `None`: it goes on.
fn outcome(state: &State, before: Option<u64>) -> Option<Result<(), Error>> {
    let (connection, namespaces) = (&state.connection, &state.namespaces);
    if let Err(error) = connection.check_alive() {
        return Some(Err(error));
    }
    let mut refusals = namespaces.iter().filter_map(NamespaceState::refusal);
    if let Some((_, refusal)) = refusals.find(|(result, _)| connection.is_recent(*result)) {
        return Some(Err(refusal.clone()));
    }
    let is_up = connection.target() == Target::Up;
    let mut active = namespaces.iter().filter(|namespace| namespace.is_active());
    if is_up && connection.phase() == Phase::Open && active.all(NamespaceState::is_joined) {
        return Some(Ok(()));
    }
    let failed = before.is_some_and(|before| connection.results() > before);
    (failed || !is_up).then(|| Err(connection.attempt_result()))
}

/// The reason, once there is no connection and none is being made.
#[expect(clippy::option_option, reason = "whether it has ended, and why if anything is known")]
fn ended(state: &State) -> Option<Option<CloseReason>> {
    let connection = &state.connection;
    let ended = connection.target() != Target::Up && connection.session().is_none();
    ended.then_some(connection.last_reason())
}

/// The operating system gives no more threads or descriptors.
pub(super) fn no_resources(error: io::Error) -> Error {
    log::error!("the client cannot start: {error}");
    Error::Closed
}
