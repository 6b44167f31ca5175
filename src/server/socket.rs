//! A socket: one client's membership of one namespace. Also the events it brings and their acknowledgements.

use std::{
    any::Any,
    cell::Cell,
    fmt,
    panic::Location,
    sync::{Arc, Weak},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use smallvec::smallvec;

use crate::server::{
    broadcast::Broadcast,
    dispatch::Todo,
    dispatch::acks::{Acks, Waiting},
    error::{AckError, EmitError},
    guard::{self, Callee},
    hub::membership::{Identity, Membership},
    hub::{self, Command, Question, Selection},
    namespace::Namespace,
    recovery::Resume,
    session::{Handshake, Session},
    transport::outbox::Packets,
};
use crate::{
    proto::{
        CloseReason,
        engine::TransportKind,
        socket::{Arg, Args, EncodeError, Encoded, Outgoing, OwnedArgs},
    },
    sys::{
        channel::{RecvTimeoutError, bounded},
        sync::{Mutex, atomic::Ordering::AcqRel},
        thread_local,
        time::Instant,
        wait::deadline_in,
    },
};

/// A connected client in one namespace: the official `Socket`. Cheap to clone; every method may be called from any
/// thread and from inside any handler.
#[derive(Clone)]
pub struct Socket(Arc<Inner>);

pub(crate) struct Inner {
    membership: Arc<Membership>,
    session: Arc<Session>,
    namespace: Namespace,
    auth: Option<Box<RawValue>>,
    acks: Mutex<Acks>,
    /// Joined before it was connected.
    early_rooms: Mutex<Option<Vec<Arc<str>>>>,
    data: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

pub(crate) type AckResult = Result<OwnedArgs, AckError>;

pub(crate) type AckCallback = Box<dyn FnOnce(&Socket, AckResult) + Send>;

thread_local! {
    /// Where packets to a single socket are encoded.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger scratch buffer is not kept.
pub(crate) const SCRATCH_MAX: usize = 16 << 10;

impl Socket {
    pub(crate) fn new(
        id: Arc<str>,
        namespace: Namespace,
        session: &Arc<Session>,
        auth: Option<&RawValue>,
        identity: Identity,
    ) -> Self {
        Self(Arc::new_cyclic(|inner: &Weak<Inner>| Inner {
            membership: Arc::new(Membership::new(
                id,
                namespace.0.index,
                Arc::<Session>::clone(session),
                identity,
                Weak::<Inner>::clone(inner),
            )),
            session: Arc::clone(session),
            namespace,
            auth: auth.map(ToOwned::to_owned),
            acks: Mutex::default(),
            early_rooms: Mutex::new(Some(Vec::new())),
            data: Mutex::default(),
        }))
    }

    /// The socket of this membership. `None`: it was dropped. Not for the hub's thread, which must not be the last to hold it.
    pub(crate) fn of(membership: &Membership) -> Option<Self> {
        membership.socket_state()?.downcast().ok().map(Self)
    }

    /// Its id, which other clients may know; the Engine.IO session's id is another one, and secret.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.membership.id()
    }

    /// The namespace it is in: the official `socket.nsp`. [`Namespace::of`] leads to the others.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// What the first request of the session said.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.session().handshake
    }

    /// The auth payload of the CONNECT, an object, as raw JSON. `None` when the client sent none.
    #[must_use]
    pub fn auth(&self) -> Option<&RawValue> {
        self.0.auth.as_deref()
    }

    /// The auth payload as a `T`; a missing one is read as `{}`.
    ///
    /// # Errors
    /// When it is no `T`.
    pub fn auth_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.auth().map_or("{}", RawValue::get))
    }

    /// The transport that its session is on now.
    #[must_use]
    pub fn transport(&self) -> TransportKind {
        self.session().transport()
    }

    /// Whether it can be sent to.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.membership.is_connected()
    }

    /// Official `socket.recovered`: whether this client has taken up the connection that it lost, with id, rooms and data, and what
    /// it missed follows. Always false without [`connection_state_recovery`](crate::server::Config::connection_state_recovery).
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.0.membership.recovered()
    }

    /// Official `socket.emit`. Without connection state recovery the packet is sent by this thread, at once, unless earlier packets
    /// wait.
    ///
    /// `args`: a tuple gives one argument an element, `()` gives none. Everything else is one argument: a `Vec`, an array,
    /// a slice, `null`, an `Option`, a struct. What came in an event ([`Event::args`], [`OwnedArgs`]) is sent on as it came.
    /// Byte values ([`bytes::Bytes`], whatever serialises as bytes) become attachments.
    ///
    /// With connection state recovery the hub sends it, as it does a broadcast, and what becomes of it is not reported; for a
    /// client that was just lost it is kept, like everything else that the client misses.
    ///
    /// # Errors
    /// [`EmitError`]: each variant says whether something was sent.
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        self.send_event(event, None, &args, false)
    }

    /// As [`emit`](Self::emit), but waits first, at most for `timeout`, while more than half of
    /// [`outbox_bytes_max`](crate::server::Config::outbox_bytes_max) waits for this client, or so much that the packet does not fit: a producer that is faster than its client
    /// goes at the client's pace, and leaves the other half to everybody else. Inside a handler of the same client, nothing more
    /// is read from it meanwhile. `args` as in [`emit`](Self::emit).
    ///
    /// # Errors
    /// [`EmitError`]; [`EmitError::Timeout`] when the client has not read enough in time.
    pub fn emit_timeout(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
    ) -> Result<(), EmitError> {
        let packet = self.encode_event(event, &args)?;
        let bytes = packet.bytes().len();
        self.0.namespace.0.hub.check_size(bytes)?;
        self.session().wait_for_room(bytes, deadline_in(timeout))?;
        if self.0.namespace.0.hub.recovers() {
            return self.emit_through_hub(packet, false);
        }
        if self.is_connected() { self.session().send_ordered(packet) } else { Err(EmitError::Disconnected) }
    }

    /// Bytes that wait for this client at the moment, because it has not read what was sent before.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.session().outbox.backlog()
    }

    /// Official `socket.volatile.emit`: dropped ([`EmitError::Dropped`]) if it could not leave at once; with connection state recovery
    /// the hub drops it, and that is not reported. `args` as in [`emit`](Self::emit).
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn emit_volatile(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        self.send_event(event, None, &args, true)
    }

    /// Official `socket.timeout(t).emitWithAck`: emits, and waits for the client's acknowledgement. `args` as in
    /// [`emit`](Self::emit).
    ///
    /// # Errors
    /// [`AckError`]. Inside a handler of the same client it is [`AckError::WouldDeadlock`] at once, because that
    /// handler runs on the thread that must read the answer.
    pub fn emit_with_ack(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
    ) -> Result<OwnedArgs, AckError> {
        if guard::is_in_handler_of(self.session()) {
            return Err(AckError::WouldDeadlock);
        }
        let (answer, wait) = bounded(1);
        let id = self.0.namespace.next_ack_id();
        self.await_ack(id, Waiting::Thread(answer)).map_err(|_| AckError::TooMany)?;
        self.send_awaited(event, id, &args)?;
        self.0.namespace.0.hub.send_batch().map_err(AckError::Emit)?;
        match wait.recv_timeout(timeout) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                self.0.acks.lock().remove(id);
                // It may have come between the two.
                wait.try_recv().unwrap_or(Err(AckError::Timeout))
            }
            Err(RecvTimeoutError::Disconnected) => Err(AckError::Disconnected),
        }
    }

    /// Official `socket.timeout(t).emit(…, callback)`: emits, and has `callback` called once, with the answer or
    /// with the reason that none came. It is called as a handler of this client is: in order with the others, holding up no other
    /// client. `args` as in [`emit`](Self::emit).
    ///
    /// # Errors
    /// [`AckError::TooMany`] or [`AckError::Emit`]; `callback` is not called then.
    #[track_caller]
    pub fn emit_with_callback(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
        callback: impl FnOnce(&Self, Result<OwnedArgs, AckError>) + Send + 'static,
    ) -> Result<(), AckError> {
        let id = self.0.namespace.next_ack_id();
        let waiting = Waiting::Callback {
            callback: Box::new(callback),
            deadline: deadline_in(timeout),
            given_at: Location::caller(),
        };
        self.await_ack(id, waiting).map_err(|_| AckError::TooMany)?;
        self.send_awaited(event, id, &args)
    }

    /// One recipient's part of a broadcast that wants acknowledgements: `packet` carries `id`, and `callback` is
    /// called as in [`emit_with_callback`](Self::emit_with_callback), also when nothing could be sent.
    pub(crate) fn send_asking(
        &self,
        packet: &Encoded,
        id: u64,
        deadline: Instant,
        callback: impl FnOnce(&Self, Result<OwnedArgs, AckError>) + Send + 'static,
    ) {
        let waiting =
            Waiting::Callback { callback: Box::new(callback), deadline, given_at: Location::caller() };
        let asked = self.await_ack(id, waiting);
        if let Err(waiting) = asked {
            return self.answer(waiting, Err(AckError::TooMany));
        }
        let sent = if self.is_connected() {
            self.session().send_ordered(packet.clone())
        } else {
            Err(EmitError::Disconnected)
        };
        if let Err(error) = sent {
            self.settle_ack(id, || Err(error.into()));
        }
    }

    /// Official `socket.join`. In effect for every emit that this thread makes afterwards; in a middleware, as soon as
    /// the socket is connected.
    pub fn join(&self, room: &str) {
        let mut early = self.0.early_rooms.lock();
        match &mut *early {
            Some(rooms) if rooms.iter().any(|early| **early == *room) => {}
            Some(rooms) => rooms.push(room.into()),
            None => {
                drop(early);
                self.0.namespace.0.hub.join(self.membership(), smallvec![room.into()]);
            }
        }
    }

    /// Enters the namespace, and the rooms that were joined before. From now on the hub knows its rooms.
    pub(crate) fn enter(&self, consent: Encoded, resume: Option<Box<Resume>>) {
        // Under one lock, so that what another thread joins or leaves, as soon as it finds the socket, comes behind.
        let mut early = self.0.early_rooms.lock();
        let hub = &self.0.namespace.0.hub;
        hub.enter(self.membership(), consent, resume);
        let rooms = early.take().unwrap_or_default();
        if !rooms.is_empty() {
            hub.join(self.membership(), rooms.into());
        }
    }

    /// Official `socket.leave`. Leaving the room of its own id, which [`Namespace::to`] takes, has no effect.
    pub fn leave(&self, room: &str) {
        let mut early = self.0.early_rooms.lock();
        if let Some(rooms) = &mut *early {
            return rooms.retain(|early| **early != *room);
        }
        drop(early);
        self.0.namespace.0.hub.leave(self.membership(), room.into());
    }

    /// Official `socket.rooms`, without the socket's own id, which is no room here although
    /// [`to`](Namespace::to) takes it. In no particular order.
    #[must_use]
    pub fn rooms(&self) -> Vec<Arc<str>> {
        if let Some(early) = &*self.0.early_rooms.lock() {
            return early.clone();
        }
        let index = self.namespace_index();
        let question = |reply| Question::RoomsOf(self.membership(), reply);
        self.0.namespace.0.hub.ask(index, question).unwrap_or_default()
    }

    /// Official `socket.broadcast`: everybody in the namespace but this socket.
    pub fn broadcast(&self) -> Broadcast {
        self.0.namespace.broadcast(Selection { skip: Some(self.shared_id()), ..Selection::default() })
    }

    /// Official `socket.to(room)`: whoever is in the room but this socket.
    pub fn to(&self, room: &str) -> Broadcast {
        self.broadcast().to(room)
    }

    /// Official `socket.disconnect(close)`: removes it from the namespace; with `true` removes its client from all
    /// namespaces and closes the connection, behind everything that was sent before, and behind the handler of this client that
    /// runs at the moment. The official client does not reconnect by itself afterwards.
    pub fn disconnect(&self, close: bool) {
        // Another thread tells its handlers, and takes it out of the namespace.
        let _ = self.0.namespace.0.hub.send_batch();
        if close {
            self.hang_up(CloseReason::ServerNamespaceDisconnect, CloseReason::ForcedServerClose);
        } else {
            self.leave_namespace(CloseReason::ServerNamespaceDisconnect);
        }
    }

    /// Removes its client from all namespaces and closes the connection. The reasons: this socket's, and the session's.
    pub(crate) fn hang_up(&self, reason: CloseReason, of_session: CloseReason) {
        self.leave_namespace(reason);
        self.session().leave_todo(Todo::HangUp(hub::unfinished(), of_session));
    }

    /// Official `socket.data`: keeps `data` with the socket, in place of what was kept.
    ///
    /// A client that is recovered finds it again; after a restart of the server too, if there is a store and
    /// [`keep_data`](crate::server::NamespaceBuilder::keep_data) was called for `T`.
    pub fn set_data<T: Any + Send + Sync>(&self, data: T) {
        self.set_any_data(Some(Arc::new(data)));
        if !self.0.membership.is_new() {
            self.keep_data();
        }
    }

    /// Has the store keep what is kept with the socket, if it is of the type that the namespace keeps.
    pub(crate) fn keep_data(&self) {
        let (Some(codec), Some(data)) = (&self.0.namespace.0.handlers.data, self.any_data()) else { return };
        let encoded = guard::call_for_socket(
            self,
            Callee::KEEP_DATA,
            format_args!("the Serialize of its data"),
            || (codec.encode)(&*data),
        );
        self.0.namespace.0.hub.keep_data(self.membership(), encoded.flatten());
    }

    pub(crate) fn set_any_data(&self, data: Option<Arc<dyn Any + Send + Sync>>) {
        // Dropped without the lock: `Drop` is user code.
        let _before = std::mem::replace(&mut *self.0.data.lock(), data);
    }

    pub(crate) fn any_data(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.data.lock().clone()
    }

    /// What [`set_data`](Self::set_data) kept, if it is a `T`.
    #[must_use]
    pub fn data<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.data.lock().clone()?.downcast().ok()
    }

    pub(crate) fn shared_id(&self) -> Arc<str> {
        self.0.membership.shared_id()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn namespace_index(&self) -> usize {
        self.0.membership.namespace_index()
    }

    pub(crate) fn pid(&self) -> Option<&Arc<str>> {
        self.0.membership.pid()
    }

    pub(crate) fn rid(&self) -> Option<&Arc<str>> {
        self.0.membership.rid()
    }

    /// What the hub keeps of it.
    pub(crate) fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.0.membership)
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.0.session
    }

    /// The middlewares let it pass.
    pub(crate) fn set_connected(&self) {
        self.0.membership.set_connected();
        self.0.namespace.0.connected.fetch_add(1, AcqRel);
    }

    /// `false`: it was not connected, so there is nothing to tell anybody.
    pub(crate) fn set_disconnected(&self, reason: CloseReason) -> bool {
        let was = self.0.membership.set_disconnected(reason);
        if was {
            self.0.namespace.0.connected.fetch_sub(1, AcqRel);
        }
        was
    }

    /// Removes the socket from its namespace; the handlers follow in their turn.
    fn leave_namespace(&self, reason: CloseReason) {
        if self.set_disconnected(reason) {
            // Before the packet: when its client joins again at once, this socket must not be there any more.
            self.session().leave_todo(Todo::Left(self.clone(), reason));
            self.send_disconnect();
        }
    }

    /// Says good-bye to the client in this namespace. `false`: it is not there, so there is nothing to tell anybody.
    pub(crate) fn say_goodbye(&self, reason: CloseReason) -> bool {
        let was = self.set_disconnected(reason);
        if was {
            self.send_disconnect();
        }
        was
    }

    fn send_disconnect(&self) {
        // `()` always encodes; a failed send means that the session has ended by itself.
        if let Ok(packet) = Outgoing::disconnect(self.0.namespace.name()).encode(&()) {
            let _ = self.session().send_ordered(packet);
        }
    }

    fn send_event<T: Serialize + ?Sized>(
        &self,
        event: &str,
        id: Option<u64>,
        args: &T,
        volatile: bool,
    ) -> Result<(), EmitError> {
        if !self.0.namespace.0.hub.recovers() || id.is_some() {
            return self.send(&Outgoing::event(self.0.namespace.name(), event, id), args, volatile);
        }
        let packet = self.encode_event(event, args)?;
        self.emit_through_hub(packet, volatile)
    }

    /// Without an acknowledgement.
    fn encode_event<T: Serialize + ?Sized>(&self, event: &str, args: &T) -> Result<Encoded, EncodeError> {
        let packet = Outgoing::event(self.0.namespace.name(), event, None);
        if self.0.namespace.0.hub.recovers() {
            packet.with_offset().encode(args)
        } else {
            packet.encode(args)
        }
    }

    /// As a broadcast to this socket alone, with connection state recovery.
    fn emit_through_hub(&self, packet: Encoded, volatile: bool) -> Result<(), EmitError> {
        if !self.0.membership.is_connected_or_lost() {
            return Err(EmitError::Disconnected);
        }
        let to = Selection { only: Some(self.shared_id()), ..Selection::default() };
        self.0.namespace.0.hub.emit(self.namespace_index(), to.into(), packet, volatile)
    }

    fn send<T: Serialize + ?Sized>(
        &self,
        packet: &Outgoing<'_>,
        args: &T,
        volatile: bool,
    ) -> Result<(), EmitError> {
        if !self.is_connected() {
            return Err(EmitError::Disconnected);
        }
        let session = self.session();
        if !hub::caught_up() {
            let packet = packet.encode(args)?;
            return self.0.namespace.0.hub.direct(Arc::<Session>::clone(session), packet, volatile);
        }
        // Taken out for the time of encoding: a value's own `serialize` might emit.
        let mut scratch = SCRATCH.take();
        let sent = packet.encode_into(args, &mut scratch).map_err(EncodeError::into).and_then(|range| {
            session.core.hub.check_size(range.len())?;
            session.send(Packets::Borrowed(&scratch[range]), volatile)
        });
        if scratch.capacity() <= SCRATCH_MAX {
            SCRATCH.set(scratch);
        }
        sent
    }

    fn await_ack(&self, id: u64, waiting: Waiting) -> Result<(), Waiting> {
        let max = self.session().core.config.max_pending_acks;
        let alarm = self.0.acks.lock().insert(id, waiting, max)?;
        self.set_ack_alarm(alarm);
        Ok(())
    }

    fn set_ack_alarm(&self, alarm: Option<Instant>) {
        if let Some(at) = alarm {
            self.0.namespace.0.hub.send(Command::AckDeadline(Arc::downgrade(&self.0.membership), at));
        }
    }

    /// The hub's alarm rang: tells the callbacks that waited too long.
    pub(crate) fn fail_overdue_acks(&self) {
        let (overdue, alarm) = self.0.acks.lock().overdue(Instant::now());
        self.set_ack_alarm(alarm);
        for waiting in overdue {
            self.answer(waiting, Err(AckError::Timeout));
        }
    }

    fn send_awaited<T: Serialize + ?Sized>(&self, event: &str, id: u64, args: &T) -> Result<(), AckError> {
        match self.send_event(event, Some(id), args, false) {
            Err(error) if self.0.acks.lock().remove(id).is_some() => Err(error.into()),
            // Of a failure by the socket's end, whoever waits has been told with that end: not twice.
            _ => Ok(()),
        }
    }

    /// Whether somebody waits for the answer with this id.
    pub(crate) fn awaits(&self, id: u64) -> bool {
        self.0.acks.lock().has(id)
    }

    /// The answer to an emit has come, or has failed to. An id that nobody waits for is ignored, as on the official
    /// server.
    pub(crate) fn settle_ack(&self, id: u64, result: impl FnOnce() -> AckResult) {
        let waiting = self.0.acks.lock().remove(id);
        if let Some(waiting) = waiting {
            self.answer(waiting, result());
        }
    }

    /// No answer can come any more.
    pub(crate) fn fail_acks(&self) {
        let waiting = self.0.acks.lock().take_all();
        for waiting in waiting {
            self.answer(waiting, Err(AckError::Disconnected));
        }
    }

    fn answer(&self, waiting: Waiting, result: AckResult) {
        match waiting {
            // The waiting thread may have given up.
            Waiting::Thread(answer) => drop(answer.send(result)),
            Waiting::Callback { callback, given_at, .. } => {
                let what = format_args!("the acknowledgement callback given at {given_at}");
                guard::call_for_socket(self, Callee::ACKNOWLEDGEMENT, what, || callback(self, result));
            }
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("id", &self.id())
            .field("namespace", &self.0.namespace.name())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whoever drops the last handle of a socket must not suffer from what the application has left in it.
        let (data, acks) = (self.data.lock().take(), std::mem::take(&mut *self.acks.lock()));
        if let Some(data) = data {
            guard::drop_value(data);
        }
        guard::drop_value(acks);
    }
}

/// An event from a client, on its way through the handlers.
#[derive(Debug)]
pub struct Event<'a> {
    socket: &'a Socket,
    name: &'a str,
    args: &'a Args<'a>,
    /// Empty when the acknowledgement was taken; all handlers of the event share it.
    id: &'a Cell<Option<u64>>,
    /// The try of a client that sends its events again.
    attempt: Option<u64>,
}

impl<'a> Event<'a> {
    pub(crate) fn new(
        socket: &'a Socket,
        name: &'a str,
        args: &'a Args<'a>,
        id: &'a Cell<Option<u64>>,
    ) -> Self {
        Self { socket, name, args, id, attempt: None }
    }

    /// The same event, for another handler.
    pub(crate) fn again(&self) -> Self {
        let &Self { socket, name, args, id, attempt } = self;
        Self { socket, name, args, id, attempt }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// Its arguments, raw.
    #[must_use]
    pub fn args(&self) -> &Args<'a> {
        self.args
    }

    /// The argument at `index`, raw. `None` when fewer came.
    #[must_use]
    pub fn raw(&self, index: usize) -> Option<Arg<'a>> {
        self.args.raw(index)
    }

    /// The argument at `index` as a `T`; a missing one is read as `null`.
    ///
    /// # Errors
    /// When it is no `T`.
    pub fn arg<T: DeserializeOwned>(&self, index: usize) -> Result<T, serde_json::Error> {
        self.args.get(index)
    }

    /// All arguments as a tuple: `let (x, y): (i32, i32) = event.parse()?;`
    ///
    /// # Errors
    /// When one is not of its type.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, serde_json::Error> {
        self.args.parse()
    }

    /// Whether the client wants an acknowledgement that it has not got yet.
    #[must_use]
    pub fn wants_ack(&self) -> bool {
        self.id.get().is_some()
    }

    /// The id by which a client that sends its events again would know this one.
    pub(crate) fn retried_id(&self) -> Option<u64> {
        self.socket.rid().and(self.id.get())
    }

    /// Its acknowledgement is remembered for its client's next try.
    pub(crate) fn set_retried(&mut self, attempt: u64) {
        self.attempt = Some(attempt);
    }

    /// Acknowledges the event, with arguments as [`Socket::emit`] takes them. Without effect when the client asked for no
    /// acknowledgement, or has got it.
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn ack(&self, args: impl Serialize) -> Result<(), EmitError> {
        match self.take_ack() {
            Some(ack) => ack.send(args),
            None => Ok(()),
        }
    }

    /// The acknowledgement, to be sent later or by another thread. `None` as [`ack`](Self::ack) is without effect.
    #[must_use]
    pub fn take_ack(&self) -> Option<Ack> {
        let id = self.id.take()?;
        if let Some(attempt) = self.attempt {
            self.socket.session().core.retried.taken(self.socket, attempt);
        }
        Some(Ack { socket: self.socket.clone(), id, attempt: self.attempt })
    }
}

/// The right to acknowledge an event, once.
#[derive(Debug)]
pub struct Ack {
    socket: Socket,
    id: u64,
    /// Of the try under which it is remembered; it has not been given.
    attempt: Option<u64>,
}

impl Ack {
    /// Sends the acknowledgement, with arguments as [`Socket::emit`] takes them.
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn send(mut self, args: impl Serialize) -> Result<(), EmitError> {
        let packet = Outgoing::ack(self.socket.namespace().name(), self.id);
        let Some(attempt) = self.attempt else {
            return self.socket.send(&packet, &args, false);
        };
        let answer = packet.encode(&args)?;
        self.socket.session().core.hub.check_size(answer.bytes().len())?;
        self.attempt = None;
        self.socket.session().core.retried.answered(&self.socket, attempt, &answer)
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt {
            self.socket.session().core.retried.end(&self.socket, attempt, true);
        }
    }
}
