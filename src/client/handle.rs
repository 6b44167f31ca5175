//! The client and the handle to it: connecting, ending, waiting, looking.

use std::{fmt, ops::Deref, time::Duration};

use super::{Builder, Error, Socket, Stats, Status};
use crate::proto::CloseReason;

/// A Socket.IO client: one connection to one server, carrying any number of namespaces.
///
/// It is the owner: its threads run until it is dropped, and dropping it disconnects first, as
/// [`disconnect`](Handle::disconnect) does. Everything that can be done with it is in [`Handle`], which it dereferences
/// to and which can be cloned into handlers and threads without keeping the client alive.
pub struct Client {
    handle: Handle,
}

impl Client {
    /// A client for the server at `url`; see [`Builder::build`] for its forms.
    #[must_use]
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    pub(super) fn build(builder: Builder) -> Result<Self, Error> {
        let _ = builder;
        Err(Error::Closed)
    }

    /// The handle, to be cloned into threads and handlers.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Deref for Client {
    type Target = Handle;
    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("status", &self.handle.status()).finish()
    }
}

/// Builds a client with the default options and connects it.
///
/// # Errors
/// As [`Builder::build`] and [`Handle::connect`].
pub fn connect(url: &str) -> Result<Client, Error> {
    let client = Client::builder(url).build()?;
    client.connect()?;
    Ok(client)
}

/// What can be done with a [`Client`], from any thread and inside any handler. Cheap to clone. After the client is
/// dropped every call returns at once, with [`Error::Closed`] where it can fail.
#[derive(Clone)]
pub struct Handle {}

impl Handle {
    /// The client's socket in `namespace` (`"/"`, `"/chat"`; a missing slash is added). The first call for a namespace
    /// adds it: it is joined with the next connection, or at once when there is one. A malformed name gives a
    /// socket that is never connected and whose calls say so ([`Error::Invalid`]).
    #[must_use]
    pub fn socket(&self, namespace: &str) -> Socket {
        let _ = namespace;
        unimplemented!()
    }

    /// The namespace that the URL names, `/` when it names none. It is joined when no other was asked for.
    #[must_use]
    pub fn namespace(&self) -> &str {
        unimplemented!()
    }

    /// Begins to connect and returns at once. Does nothing when a connection stands or is being made; ends the wait
    /// between two attempts.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn start(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Begins to connect and waits for the verdict of this attempt: `Ok` when every namespace is joined, or the error of
    /// the attempt or of the first namespace that was refused. With `reconnection` on, the client goes on
    /// trying after a transient error: [`wait_connected`](Self::wait_connected) waits for that,
    /// [`disconnect`](Self::disconnect) ends it. Bounded by twice the `timeout` option.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Handshake`], [`Error::Refused`], [`Error::Timeout`], [`Error::Disconnected`]
    /// when somebody disconnects meanwhile, [`Error::Closed`].
    pub fn connect(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Waits until every namespace is joined, over as many attempts as it takes. Does not begin to connect by itself.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), once nothing more is tried; [`Error::Timeout`] after `timeout`, with the
    /// attempts going on ([`Status::last_error`] has the last one's error).
    pub fn wait_connected(&self, timeout: Duration) -> Result<(), Error> {
        let _ = timeout;
        Err(Error::Closed)
    }

    /// Leaves every namespace and closes the connection; no reconnection follows, and one that is under way ends. What
    /// was emitted before is written first, for at most 0.8 s. Handlers see `io client disconnect`.
    /// [`start`](Self::start) or [`connect`](Self::connect) connect again.
    pub fn disconnect(&self) {
        let _ = self.disconnect_within(super::DISCONNECT_TIME);
    }

    /// As [`disconnect`](Self::disconnect), with one's own bound for writing what was emitted before.
    ///
    /// # Errors
    /// [`Error::Timeout`] when not everything was written in time; the connection is closed all the same.
    pub fn disconnect_within(&self, timeout: Duration) -> Result<(), Error> {
        let _ = timeout;
        Err(Error::Closed)
    }

    /// Tries now: ends the wait between two attempts, and starts from anew (attempt 1, every namespace active) when the
    /// client had given up or was disconnected. Does nothing while connected. Returns at once.
    pub fn reconnect_now(&self) {}

    /// Waits until the client is disconnected for good: by [`disconnect`](Self::disconnect), by the server, with the
    /// attempts used up, or dropped. Returns at once when it is so already.
    ///
    /// # Errors
    /// [`Error::InHandler`] on the handlers' thread; otherwise the reason is the value.
    pub fn wait(&self) -> Result<Option<CloseReason>, Error> {
        Err(Error::Closed)
    }

    /// As [`wait`](Self::wait), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`]; works inside handlers too.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<CloseReason>, Error> {
        let _ = timeout;
        Err(Error::Closed)
    }

    /// The state now.
    #[must_use]
    pub fn status(&self) -> Status {
        unimplemented!()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// Official `reconnect_attempt`: called with the attempt's number, from 1, when a delay is over and a
    /// reconnection begins.
    pub fn on_reconnect_attempt(&self, handler: impl Fn(&Self, u32) + Send + Sync + 'static) {
        let _ = handler;
    }

    /// Official `reconnect`: the connection is back, after so many attempts; namespaces are being joined.
    pub fn on_reconnect(&self, handler: impl Fn(&Self, u32) + Send + Sync + 'static) {
        let _ = handler;
    }

    /// Official `reconnect_error`: a reconnection failed.
    pub fn on_reconnect_error(&self, handler: impl Fn(&Self, &Error) + Send + Sync + 'static) {
        let _ = handler;
    }

    /// Official `reconnect_failed`: `reconnection_attempts` are used up.
    pub fn on_reconnect_failed(&self, handler: impl Fn(&Self) + Send + Sync + 'static) {
        let _ = handler;
    }

    /// Ours: a delay begins; called with the number of the attempt that follows it, and the delay.
    pub fn on_reconnect_scheduled(&self, handler: impl Fn(&Self, u32, Duration) + Send + Sync + 'static) {
        let _ = handler;
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
