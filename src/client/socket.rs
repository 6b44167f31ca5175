//! A client's membership of one namespace: emitting, and the handlers for what comes.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{Error, Event, Handle, Outcome};
use crate::proto::{CloseReason, socket::OwnedArgs};

/// What became of an emit that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a volatile event may have been dropped, another may only be buffered"]
pub enum Delivery {
    /// Handed to the open connection.
    Sent,
    /// Kept until the namespace is joined: in the offline buffer, or in the queue of `retries`.
    Buffered,
    /// Volatile and thrown away: no connection, or it does not keep up.
    Dropped,
}

/// One namespace of a client. Cheap to clone; all clones are the same socket. Does not keep the client alive.
///
/// Handlers run one at a time on the client's `events` thread, in the order of arrival, with no lock held: every method
/// of every object here may be called inside them. Setting a handler takes effect for events that have not reached
/// their handlers yet; to miss none, set them before [`Handle::connect`].
#[derive(Clone)]
pub struct Socket {
    client: Handle,
}

impl Socket {
    /// The namespace's name.
    #[must_use]
    pub fn namespace(&self) -> &str {
        unimplemented!()
    }

    /// The client it belongs to.
    #[must_use]
    pub fn client(&self) -> &Handle {
        &self.client
    }

    /// The id that the server gave this membership, while joined.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        unimplemented!()
    }

    /// Whether the namespace is joined.
    #[must_use]
    pub fn connected(&self) -> bool {
        unimplemented!()
    }

    /// Joins the namespace again after it was left, removed or refused, with fresh auth; connects the client if
    /// need be. Returns at once; [`Handle::wait_connected`] or [`on_connect`](Self::on_connect) tell the outcome.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn connect(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Leaves the namespace; when it was the last one, the connection is closed as by [`Handle::disconnect`], with the
    /// same bound.
    pub fn disconnect(&self) {}

    /// Emits an event. `args`: a tuple gives one argument an element, `()` none, everything else one; bytes
    /// ([`Bytes`](crate::Bytes), or a field that serialises as bytes) become attachments. Never blocks.
    ///
    /// ```no_run
    /// # let client = tinysio::client::connect("http://localhost:5000")?;
    /// let chat = client.socket("/chat");
    /// let _ = chat.emit("say", ("lobby", "hello"))?;
    /// let _ = chat.emit("photo", tinysio::Bytes::from_static(b"\x89PNG"))?;
    /// # Ok::<(), tinysio::client::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ReservedEvent`], [`Error::Encode`], [`Error::TooLarge`], [`Error::QueueFull`],
    /// [`Error::BufferFull`], [`Error::NotConnected`], [`Error::Closed`].
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<Delivery, Error> {
        let _ = (event, args);
        Err(Error::Closed)
    }

    /// Emits an event that may be thrown away: it is not buffered, not retried, and dropped when the send queue is full.
    ///
    /// # Errors
    /// As [`emit`](Self::emit), without those of queue, buffer and connection.
    pub fn emit_volatile(&self, event: &str, args: impl Serialize) -> Result<Delivery, Error> {
        let _ = (event, args);
        Err(Error::Closed)
    }

    /// Emits an event and waits for the server's acknowledgement, for at most `timeout`, buffering included. May be called
    /// inside a handler: other events then wait, the acknowledgement does not.
    ///
    /// # Errors
    /// As [`emit`](Self::emit); [`Error::Timeout`]; [`Error::Disconnected`] at the moment the connection is lost.
    pub fn emit_with_ack(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
    ) -> Result<OwnedArgs, Error> {
        let _ = (event, args, timeout);
        Err(Error::Closed)
    }

    /// Emits an event and has the acknowledgement brought to `callback`, exactly once, on the handlers' thread:
    /// with the arguments, or with the error, after at most `timeout`. When this returns an error the callback is not called.
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub fn emit_with_callback(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
        callback: impl FnOnce(&Self, Result<OwnedArgs, Error>) + Send + 'static,
    ) -> Result<Delivery, Error> {
        let _ = (event, args, timeout, callback);
        Err(Error::Closed)
    }

    /// Calls `handler` for every event of this name; several handlers run in the order in which they were set. What
    /// the handler returns is nothing or a `Result<(), impl Display>`, whose error is logged.
    ///
    /// ```no_run
    /// # let client = tinysio::client::connect("http://localhost:5000")?;
    /// client.socket("/").on("question", |_socket, event| {
    ///     let (text, number): (String, u32) = event.parse()?;
    ///     event.ack(format!("{text}: {number}")).ok();
    ///     Ok::<(), serde_json::Error>(())
    /// });
    /// # Ok::<(), tinysio::client::Error>(())
    /// ```
    pub fn on<F, R>(&self, event: &str, handler: F)
    where
        F: Fn(&Self, Event<'_>) -> R + Send + Sync + 'static,
        R: Outcome,
    {
        let _ = (event, handler);
    }

    /// Calls `handler` for every event of whatever name, before the handlers of its name.
    pub fn on_any<F, R>(&self, handler: F)
    where
        F: Fn(&Self, Event<'_>) -> R + Send + Sync + 'static,
        R: Outcome,
    {
        let _ = handler;
    }

    /// Removes all handlers of this name.
    pub fn off(&self, event: &str) {
        let _ = event;
    }

    /// Calls `handler` whenever the namespace is joined, the first time and after every reconnection.
    pub fn on_connect(&self, handler: impl Fn(&Self) + Send + Sync + 'static) {
        let _ = handler;
    }

    /// Calls `handler` whenever the namespace, having been joined, is left, with the reason.
    pub fn on_disconnect(&self, handler: impl Fn(&Self, CloseReason) + Send + Sync + 'static) {
        let _ = handler;
    }

    /// Calls `handler` when the namespace cannot be joined: the attempt failed, or the server refused
    /// ([`Error::Refused`]).
    pub fn on_connect_error(&self, handler: impl Fn(&Self, &Error) + Send + Sync + 'static) {
        let _ = handler;
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}
