//! The API of one namespace: emitting, and the handlers of events.
//!
//! Owns nothing but the namespace's `Arc`. Uses `core`. It must not change the state itself: `membership` and `emit`
//! do.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::MappedMutexGuard;
use serde::Serialize;

use super::{
    Error, Event, Handle, Outcome,
    acks::{Callback, Waiter},
    core::Core,
    emit::{Delivery, OutgoingEvent},
    guard::Guarded,
    handlers::{OnEvent, SocketHandlers, add},
    namespace::Namespace,
};
use crate::proto::{
    CloseReason, limits,
    socket::{Outgoing, OwnedArgs},
};
use crate::sys::real::wait::deadline_in;

/// Reserved names whose handlers are never called.
const NEVER_FIRED: [&str; 3] = ["disconnecting", "newListener", "removeListener"];

/// One namespace of a client. Cheap to clone; all clones are the same socket. Does not keep the client alive.
///
/// Handlers run one at a time on the client's `events` thread, in the order of arrival, with no lock held. They may
/// call any method of the client. A new handler is called for events that have not reached their handlers yet; to
/// miss none, set handlers before [`Handle::connect`].
#[derive(Clone)]
pub struct Socket {
    client: Handle,
    namespace: Arc<Namespace>,
}

impl Socket {
    pub(super) fn new(client: Handle, namespace: Arc<Namespace>) -> Self {
        Self { client, namespace }
    }

    fn core(&self) -> &Core {
        self.client.core()
    }

    fn handlers(&self) -> MappedMutexGuard<'_, SocketHandlers> {
        self.client.handlers().of_socket(&self.namespace)
    }

    /// The namespace's name.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace.name
    }

    /// The client it belongs to.
    #[must_use]
    pub fn client(&self) -> &Handle {
        &self.client
    }

    /// The id that the server gave this socket, while joined.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        self.core().lock().namespaces[self.namespace.index].id().map(str::to_owned)
    }

    /// Whether the namespace is joined.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.core().lock().namespaces[self.namespace.index].is_joined()
    }

    /// Official `recovered`: whether the last CONNECT continued the session before it (connection state recovery,
    /// when the server has it on). Then the id is the same, the server has put this socket back into its rooms, and
    /// it sends the missed events, each once and in order. Events that waited for their handlers when the connection
    /// was lost are not sent again. False before the first CONNECT, and whenever an event may be missing.
    ///
    /// ```no_run
    /// # let client = tinysio::client::connect("http://localhost:5000")?;
    /// client.socket("/").on_connect(|socket| {
    ///     if !socket.recovered() {
    ///         socket.emit("subscribe", "prices").ok();
    ///     }
    /// });
    /// # Ok::<(), tinysio::client::Error>(())
    /// ```
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.core().lock().namespaces[self.namespace.index].recovery.recovered
    }

    /// Joins the namespace again after it was left, removed or refused, with a new auth payload. Connects the client
    /// if it is not connected, with every active namespace ([`Handle::start`]). Returns at once;
    /// [`Handle::wait_connected`] and [`on_connect`](Self::on_connect) give the result.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Invalid`].
    pub fn connect(&self) -> Result<(), Error> {
        self.core().rejoin(&self.namespace)
    }

    /// Leaves the namespace. When it was the last one, the connection is closed as by [`Handle::disconnect`], with
    /// the same timeout. Its events that wait for their handlers are dropped. If the server has not answered CONNECT
    /// yet, DISCONNECT follows its answer.
    pub fn disconnect(&self) {
        if self.core().disconnect_namespace(&self.namespace) {
            self.client.disconnect();
        }
    }

    /// Emits an event. Never blocks.
    ///
    /// `args`: a tuple gives one argument for each element, `()` gives none. Any other value is one argument: a
    /// `Vec`, an array, a slice, `null`, an `Option`, a struct. The arguments of a received event ([`Event::args`],
    /// [`OwnedArgs`]) are sent on unchanged. Bytes ([`Bytes`](crate::Bytes), or a field that serialises as bytes)
    /// become attachments.
    ///
    /// ```no_run
    /// # let client = tinysio::client::connect("http://localhost:5000")?;
    /// let chat = client.socket("/chat");
    /// chat.emit("say", ("lobby", "hello"))?;
    /// chat.emit("photo", tinysio::Bytes::from_static(b"\x89PNG"))?;
    /// # Ok::<(), tinysio::client::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ReservedEvent`], [`Error::Encode`], [`Error::TooLarge`], [`Error::QueueFull`],
    /// [`Error::BufferFull`], [`Error::NotConnected`], [`Error::Closed`]; [`Error::Invalid`] when the namespace's name
    /// is malformed.
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<Delivery, Error> {
        self.send(event, &args, false, None).map(|(_, delivery)| delivery)
    }

    /// Emits an event that may be dropped: it is not buffered, not retried, and dropped when the send queue is full.
    /// `args` as in [`emit`](Self::emit).
    ///
    /// # Errors
    /// As [`emit`](Self::emit), without those of queue, buffer and connection.
    pub fn emit_volatile(&self, event: &str, args: impl Serialize) -> Result<Delivery, Error> {
        self.send(event, &args, true, None).map(|(_, delivery)| delivery)
    }

    /// Emits an event and waits for the server's acknowledgement, for at most `timeout`, including time in the offline
    /// buffer. It may be called in a handler: other events then wait, the acknowledgement does not. `args` as in
    /// [`emit`](Self::emit).
    ///
    /// # Errors
    /// As [`emit`](Self::emit); [`Error::TooManyAcks`]; [`Error::Timeout`], after which an event in the offline buffer
    /// is not sent any more (with `retries` it is); [`Error::Disconnected`] as soon as the connection is lost;
    /// [`Error::Expired`] after `offline_ttl`; the refusal when the namespace is or was refused. With `retries`, a try
    /// that fails is an error only if it was the last one.
    pub fn emit_with_ack(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
    ) -> Result<OwnedArgs, Error> {
        let by = deadline_in(timeout);
        let (waiter, answer) = crossbeam_channel::bounded(1);
        let waiting = Waiting::new(self.core());
        let (id, _) = self.send(event, &args, false, Some(Waiter::Thread(waiter)))?;
        let answer = answer.recv_deadline(by).unwrap_or_else(|_| {
            if let Some(id) = id {
                self.core().give_up_ack(self.namespace.index, id);
            }
            // It may have come at the last moment.
            answer.try_recv().unwrap_or(Err(Error::Timeout { what: "acknowledgement", after: timeout }))
        });
        drop(waiting);
        answer
    }

    /// Emits an event, and calls `callback` exactly once on the handlers' thread: with the arguments of the
    /// acknowledgement, or with the error, after at most `timeout`; its errors are those of
    /// [`emit_with_ack`](Self::emit_with_ack). When this returns an error, the callback is not called. `args` as in
    /// [`emit`](Self::emit).
    ///
    /// # Errors
    /// As [`emit`](Self::emit); [`Error::TooManyAcks`]; the refusal when the namespace was refused.
    pub fn emit_with_callback(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
        callback: impl FnOnce(&Self, Result<OwnedArgs, Error>) + Send + 'static,
    ) -> Result<Delivery, Error> {
        let socket = self.clone();
        let call = Box::new(move |result| callback(&socket, result));
        let callback = Callback { event: event.to_owned(), call };
        let waiter = Waiter::Callback(Guarded::new(callback), deadline_in(timeout));
        self.send(event, &args, false, Some(waiter)).map(|(_, delivery)| delivery)
    }

    /// Encodes, then posts. Gives the acknowledgement's id, if there is to be one.
    fn send<T: Serialize + ?Sized>(
        &self,
        event: &str,
        args: &T,
        volatile: bool,
        waiter: Option<Waiter>,
    ) -> Result<(Option<u64>, Delivery), Error> {
        if limits::RESERVED_EVENTS.contains(&event) {
            return Err(Error::ReservedEvent(event.to_owned()));
        }
        // Each event of `retries` is acknowledged, also when the caller asked for none.
        let acknowledged = waiter.is_some() || self.core().retries(volatile);
        let id = acknowledged.then(|| self.namespace.take_id());
        let encoded = Outgoing::event(&self.namespace.name, event, id).encode(args)?;
        let mut event = OutgoingEvent { encoded, id, waiter, volatile };
        let delivery = self.core().post(&self.namespace, &mut event)?;
        Ok((event.id, delivery))
    }

    /// Acknowledges an event of the session `epoch`.
    pub(super) fn answer(&self, epoch: u64, id: u64, args: impl Serialize) -> Result<(), Error> {
        let encoded = Outgoing::ack(&self.namespace.name, id).encode(&args)?;
        self.core().answer(&self.namespace, epoch, encoded)
    }

    /// Calls `handler` for every event of this name. A second handler of the same name is called after the first, as in
    /// the official client; the first one that takes the acknowledgement gets it. A handler returns nothing, or a
    /// `Result<(), impl Display>` whose error is logged.
    ///
    /// Three names are events of the client itself, as in the official client: `"connect"`, without arguments;
    /// `"disconnect"`, with the text of the reason; `"connect_error"`, with an object of `message` and, if the server
    /// gave it, `data`. Their handlers are called after those of [`on_connect`](Self::on_connect),
    /// [`on_disconnect`](Self::on_disconnect) and [`on_connect_error`](Self::on_connect_error), which get typed
    /// values.
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
        if NEVER_FIRED.contains(&event) {
            log::warn!(
                "a handler of {event:?} is never called: it is an event of the official library's internals"
            );
        }
        let mut handlers = self.handlers();
        add(handlers.named.entry(event.to_owned()).or_default(), outcome(handler));
    }

    /// Calls `handler` for every event, before the handlers of its name.
    pub fn on_any(&self, handler: impl Fn(&Self, &Event<'_>) + Send + Sync + 'static) {
        add(&mut self.handlers().any, Arc::new(handler));
    }

    /// Removes all handlers of this name.
    pub fn off(&self, event: &str) {
        let removed = self.handlers().named.remove(event);
        // Without the lock, because dropping a handler runs the user's code.
        drop(removed);
    }

    /// Calls `handler` whenever the namespace is joined, the first time and after every reconnection.
    pub fn on_connect(&self, handler: impl Fn(&Self) + Send + Sync + 'static) {
        add(&mut self.handlers().connect, Arc::new(handler));
    }

    /// Calls `handler` with the reason, whenever the joined namespace is left.
    pub fn on_disconnect(&self, handler: impl Fn(&Self, CloseReason) + Send + Sync + 'static) {
        add(&mut self.handlers().disconnect, Arc::new(handler));
    }

    /// Calls `handler` when the namespace cannot be joined: the attempt has failed, or the server has refused it
    /// ([`Error::Refused`]).
    pub fn on_connect_error(&self, handler: impl Fn(&Self, &Error) + Send + Sync + 'static) {
        add(&mut self.handlers().connect_error, Arc::new(handler));
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("namespace", &self.namespace.name).finish_non_exhaustive()
    }
}

/// A handler, as the list of handlers keeps it.
fn outcome<F, R>(handler: F) -> OnEvent
where
    F: Fn(&Socket, Event<'_>) -> R + Send + Sync + 'static,
    R: Outcome,
{
    Arc::new(move |socket, event| handler(socket, event).into_result())
}

/// Raises the limits of the event queue while a handler waits for an acknowledgement, which may be behind events.
struct Waiting<'c>(Option<&'c Core>);

impl<'c> Waiting<'c> {
    fn new(core: &'c Core) -> Self {
        let waiting = Self(core.in_handler().then_some(core));
        waiting.set(true);
        waiting
    }

    fn set(&self, waiting_for_ack: bool) {
        if let Some(core) = self.0 {
            core.events.set_waiting_for_ack(waiting_for_ack);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}
