//! A client's membership of one namespace: emitting, and the handlers for what comes.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    Error, Event, Handle, Outcome,
    acks::Waiter,
    core::Core,
    emit::OutgoingEvent,
    guard::Guarded,
    handlers::{Callback, OnEvent, add},
    namespace::Namespace,
};
use crate::proto::{
    CloseReason, limits,
    socket::{Outgoing, OwnedArgs},
};
use crate::sys::real::wait::deadline_in;

/// Names that the protocol reserves and the client has no use for.
const NEVER_FIRED: [&str; 3] = ["disconnecting", "newListener", "removeListener"];

/// What became of an emit that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Handed to the open connection.
    Sent,
    /// BufferedPacket until the namespace is joined: in the offline buffer, or in the queue of `retries`.
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
    namespace: Arc<Namespace>,
}

impl Socket {
    pub(super) fn new(client: Handle, namespace: Arc<Namespace>) -> Self {
        Self { client, namespace }
    }

    fn core(&self) -> &Core {
        self.client.core()
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

    /// The id that the server gave this membership, while joined.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        self.core().lock().namespaces[self.namespace.index].id().map(str::to_owned)
    }

    /// Whether the namespace is joined.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.core().lock().namespaces[self.namespace.index].is_joined()
    }

    /// Official `recovered`: whether the last CONNECT went on with the session before it (connection state recovery,
    /// when the server has it on). Then the id is the same, the server has put this socket back into its rooms, and
    /// sends what was missed, each event once and in order: what has waited for its handler when the connection was
    /// lost does not come again. False before the first CONNECT, and whenever something may be missing.
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

    /// Joins the namespace again after it was left, removed or refused, with fresh auth; connects the client if need
    /// be, with every namespace that is active ([`Handle::start`]). Returns at once; [`Handle::wait_connected`] or
    /// [`on_connect`](Self::on_connect) tell the outcome.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Invalid`].
    pub fn connect(&self) -> Result<(), Error> {
        self.core().rejoin(&self.namespace)
    }

    /// Leaves the namespace; when it was the last one, the connection is closed as by [`Handle::disconnect`], with the
    /// same bound. Its events that wait for their handlers are dropped. While the server has not answered CONNECT yet,
    /// DISCONNECT follows its answer, so that no member stays behind.
    pub fn disconnect(&self) {
        if self.core().disconnect_namespace(&self.namespace) {
            self.client.disconnect();
        }
    }

    /// Emits an event. Never blocks.
    ///
    /// `args`: a tuple gives one argument an element, `()` gives none. Everything else is one argument: a `Vec`, an
    /// array, a slice, `null`, an `Option`, a struct. What came in an event ([`Event::args`], [`OwnedArgs`]) is sent on
    /// as it came. Bytes ([`Bytes`](crate::Bytes), or a field that serialises as bytes) become attachments.
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
    /// [`Error::BufferFull`], [`Error::NotConnected`], [`Error::Closed`].
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<Delivery, Error> {
        self.send(event, &args, false, None).map(|(_, delivery)| delivery)
    }

    /// Emits an event that may be thrown away: it is not buffered, not retried, and dropped when the send queue is
    /// full. `args` as in [`emit`](Self::emit).
    ///
    /// # Errors
    /// As [`emit`](Self::emit), without those of queue, buffer and connection.
    pub fn emit_volatile(&self, event: &str, args: impl Serialize) -> Result<Delivery, Error> {
        self.send(event, &args, true, None).map(|(_, delivery)| delivery)
    }

    /// Emits an event and waits for the server's acknowledgement, for at most `timeout`, buffering included. May be
    /// called inside a handler: other events then wait, the acknowledgement does not. `args` as in
    /// [`emit`](Self::emit).
    ///
    /// # Errors
    /// As [`emit`](Self::emit); [`Error::Timeout`], and an event that has waited offline until then is not sent any
    /// more (with `retries` it is); [`Error::Disconnected`] at the moment the connection is lost; the refusal when the
    /// namespace is refused, or was.
    pub fn emit_with_ack(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
    ) -> Result<OwnedArgs, Error> {
        let by = deadline_in(timeout);
        let (waiter, answer) = crossbeam_channel::bounded(1);
        let waiting = Waiting::new(self.core());
        let (id, _) = self.send(event, &args, false, Some((Waiter::Thread(waiter), None)))?;
        let answer = answer.recv_deadline(by).unwrap_or_else(|_| {
            if let Some(id) = id {
                self.core().give_up_ack(self.namespace.index, id);
            }
            // It may have come in the last moment.
            answer.try_recv().unwrap_or(Err(Error::Timeout { what: "acknowledgement", after: timeout }))
        });
        drop(waiting);
        answer
    }

    /// Emits an event and has the acknowledgement brought to `callback`, exactly once, on the handlers' thread:
    /// with the arguments, or with the error, after at most `timeout`. When this returns an error the callback is not
    /// called. `args` as in [`emit`](Self::emit).
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
        let callback = Callback { event: event.to_owned(), call: Box::new(callback) };
        let waiter = Waiter::Callback(Guarded::new(callback));
        let ack = Some((waiter, Some(deadline_in(timeout))));
        self.send(event, &args, false, ack).map(|(_, delivery)| delivery)
    }

    /// Encodes, then posts. Gives the acknowledgement's id, if there is to be one.
    fn send<T: Serialize + ?Sized>(
        &self,
        event: &str,
        args: &T,
        volatile: bool,
        ack: Option<(Waiter, Option<Instant>)>,
    ) -> Result<(Option<u64>, Delivery), Error> {
        if limits::RESERVED_EVENTS.contains(&event) {
            return Err(Error::ReservedEvent(event.to_owned()));
        }
        // Each event of `retries` is acknowledged, also when nobody asked.
        let acknowledged = ack.is_some() || self.core().retries(volatile);
        let id = acknowledged.then(|| self.namespace.take_id());
        let (waiter, deadline) = ack.map_or((None, None), |(waiter, deadline)| (Some(waiter), deadline));
        let encoded = Outgoing::event(&self.namespace.name, event, id).encode(args)?;
        let mut event = OutgoingEvent { encoded, id, waiter, deadline, volatile };
        let delivery = self.core().post(&self.namespace, &mut event)?;
        Ok((event.id, delivery))
    }

    /// Acknowledges an event of the session `epoch`.
    pub(super) fn answer(&self, epoch: u64, id: u64, args: impl Serialize) -> Result<(), Error> {
        let encoded = Outgoing::ack(&self.namespace.name, id).encode(&args)?;
        self.core().answer(&self.namespace, epoch, encoded)
    }

    /// Calls `handler` for every event of this name. A second handler of the same name is called after the first, as in
    /// the official client; whichever takes the acknowledgement first has it. What the handler returns is nothing or a
    /// `Result<(), impl Display>`, whose error is logged.
    ///
    /// Three names are the client's own, as in the official client: `"connect"`, without arguments; `"disconnect"`,
    /// with the reason's text; `"connect_error"`, with an object of `message` and, where the server gave any, `data`.
    /// Their handlers are called after those of [`on_connect`](Self::on_connect),
    /// [`on_disconnect`](Self::on_disconnect) and [`on_connect_error`](Self::on_connect_error), which get the values
    /// themselves.
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
        let mut handlers = self.namespace.handlers.lock();
        add(handlers.named.entry(event.to_owned()).or_default(), outcome(handler));
    }

    /// Calls `handler` for every event of whatever name, before the handlers of its name.
    pub fn on_any(&self, handler: impl Fn(&Self, &Event<'_>) + Send + Sync + 'static) {
        add(&mut self.namespace.handlers.lock().any, Arc::new(handler));
    }

    /// Removes all handlers of this name.
    pub fn off(&self, event: &str) {
        let removed = self.namespace.handlers.lock().named.remove(event);
        // Outside of the lock: what a handler holds may do anything when it is dropped.
        drop(removed);
    }

    /// Calls `handler` whenever the namespace is joined, the first time and after every reconnection.
    pub fn on_connect(&self, handler: impl Fn(&Self) + Send + Sync + 'static) {
        add(&mut self.namespace.handlers.lock().connect, Arc::new(handler));
    }

    /// Calls `handler` whenever the namespace, having been joined, is left, with the reason.
    pub fn on_disconnect(&self, handler: impl Fn(&Self, CloseReason) + Send + Sync + 'static) {
        add(&mut self.namespace.handlers.lock().disconnect, Arc::new(handler));
    }

    /// Calls `handler` when the namespace cannot be joined: the attempt failed, or the server refused
    /// ([`Error::Refused`]).
    pub fn on_connect_error(&self, handler: impl Fn(&Self, &Error) + Send + Sync + 'static) {
        add(&mut self.namespace.handlers.lock().connect_error, Arc::new(handler));
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("namespace", &self.namespace.name).finish_non_exhaustive()
    }
}

/// A handler in the form in which all are kept.
fn outcome<F, R>(handler: F) -> OnEvent
where
    F: Fn(&Socket, Event<'_>) -> R + Send + Sync + 'static,
    R: Outcome,
{
    Arc::new(move |socket, event| handler(socket, event).into_result())
}

/// While a handler waits for an acknowledgement, events that nobody handles meanwhile must not keep it from being read.
struct Waiting<'c>(Option<&'c Core>);

impl<'c> Waiting<'c> {
    fn new(core: &'c Core) -> Self {
        let waiting = Self(core.in_handler().then_some(core));
        waiting.set(true);
        waiting
    }

    fn set(&self, waiting_for_ack: bool) {
        if self.0.is_some_and(|core| core.events.set_waiting_for_ack(waiting_for_ack))
            && let Some(core) = self.0
        {
            core.link_waker.wake();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}
