//! The `events` thread: runs the user's handlers, one at a time, in order, with no lock held.

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Error, Event, Handle,
    cancel::CancelToken,
    core::{Callback, Core, Space},
    guard::Guarded,
    space::{List, OnEvent, add},
};
use crate::{
    outcome::catch,
    proto::{CloseReason, socket::OwnedArgs},
};

/// Bytes of events that may wait for their handlers.
const MAX_BYTES: usize = 16 << 20;

/// By how much the bounds grow while a handler waits for an acknowledgement, which may be behind the events.
const ACK_WAIT_FACTOR: usize = 4;

/// Something that a handler is to hear of.
pub(super) enum Item {
    Event(Box<Incoming>),
    Ack(Arc<Space>, Guarded<Callback>, Result<OwnedArgs, Error>),
    Connect(Arc<Space>),
    Disconnect(Arc<Space>, CloseReason),
    ConnectError(Arc<Space>, Error),
    Scheduled(u32, Duration),
    Attempt(u32),
    Reconnect(u32),
    ReconnectError(Error),
    ReconnectFailed,
}

/// An event as it waits.
pub(super) struct Incoming {
    pub(super) space: Arc<Space>,
    pub(super) epoch: u64,
    pub(super) name: String,
    pub(super) args: OwnedArgs,
    pub(super) ack: Option<u64>,
    /// Bytes that it occupied on the wire.
    pub(super) bytes: usize,
}

/// What waits for the handlers.
///
/// Full (so many events, or [`MAX_BYTES`]): the reader stops reading, and the network pushes back on the server.
/// Connects, disconnects and acknowledgements always fit: there are at most as many as there were connections and emits
/// made. The notices of the backoff thread, and CONNECTs that the server repeats, are thrown away when twice as many
/// items wait as events may.
pub(super) struct Queue {
    limit: usize,
    inner: Mutex<Inner>,
    ready: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    events: usize,
    bytes: usize,
    closed: bool,
    /// The deadlines of acknowledgements have changed.
    nudged: bool,
    /// A handler waits for an acknowledgement.
    waiting_for_ack: bool,
    /// A reader stopped for want of room.
    paused: bool,
}

/// What the `events` thread does next.
enum Next {
    Item(Item),
    /// Looks at the deadlines of the acknowledgements.
    Deadlines,
    Exit,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, inner: Mutex::default(), ready: Condvar::new(), room: Condvar::new() }
    }

    /// Appends; see the bounds above.
    pub(super) fn push(&self, item: Item) {
        let mut inner = self.inner.lock();
        let notice = matches!(
            item,
            Item::Scheduled(..) | Item::Attempt(_) | Item::ReconnectError(_) | Item::ConnectError(..)
        );
        if notice && self.has_too_many(&inner) {
            return;
        }
        if let Item::Event(event) = &item {
            inner.events += 1;
            inner.bytes += event.bytes;
        }
        inner.items.push_back(item);
        self.ready.notify_one();
    }

    /// Whether so much waits that notices are thrown away.
    pub(super) fn is_crowded(&self) -> bool {
        self.has_too_many(&self.inner.lock())
    }

    fn has_too_many(&self, inner: &Inner) -> bool {
        inner.items.len() / 2 > self.limit.saturating_add(32)
    }

    /// Whether so many events would fill an empty queue.
    pub(super) fn is_full_with(&self, events: usize, bytes: usize) -> bool {
        events >= self.limit || bytes >= MAX_BYTES
    }

    /// Whether a reader may go on. When not, it is woken as soon as it may.
    pub(super) fn has_room(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.paused = !self.fits(&inner);
        !inner.paused
    }

    /// Waits for room. `false`: the connection was cancelled before, or a WebSocket is to take over.
    pub(super) fn wait_room(&self, token: &CancelToken) -> bool {
        let mut inner = self.inner.lock();
        while !token.is_cancelled() && !token.is_upgrading() {
            inner.paused = !self.fits(&inner);
            token.suspend_liveness(inner.paused);
            if !inner.paused {
                return true;
            }
            self.room.wait(&mut inner);
        }
        false
    }

    /// Throws the events of a namespace away. Gives how many there were; and `true` when a reader is to be woken.
    pub(super) fn forget(&self, space: &Space) -> (usize, bool) {
        let mut inner = self.inner.lock();
        let items = std::mem::take(&mut inner.items);
        let (forgotten, kept) = items.into_iter().partition::<VecDeque<_>, _>(
            |item| matches!(item, Item::Event(event) if event.space.index == space.index),
        );
        inner.items = kept;
        for item in &forgotten {
            if let Item::Event(event) = item {
                inner.events -= 1;
                inner.bytes -= event.bytes;
            }
        }
        let wake = self.resume(&mut inner);
        (forgotten.len(), wake)
    }

    /// Wakes a reader that waits for room, to look at its token.
    pub(super) fn wake_reader(&self) {
        let _inner = self.inner.lock();
        self.room.notify_all();
    }

    /// Makes the `events` thread look at the deadlines of the acknowledgements.
    pub(super) fn nudge(&self) {
        self.inner.lock().nudged = true;
        self.ready.notify_one();
    }

    /// Widens the bounds while a handler waits for an acknowledgement. `true`: a reader is to be woken.
    pub(super) fn set_waiting_for_ack(&self, waiting_for_ack: bool) -> bool {
        let mut inner = self.inner.lock();
        inner.waiting_for_ack = waiting_for_ack;
        self.resume(&mut inner)
    }

    /// Ends the thread once what is left is dealt with.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.ready.notify_all();
    }

    fn fits(&self, inner: &Inner) -> bool {
        let factor = if inner.waiting_for_ack { ACK_WAIT_FACTOR } else { 1 };
        inner.events < self.limit.saturating_mul(factor) && inner.bytes < MAX_BYTES * factor
    }

    /// Wakes the readers if they may go on. `true`: a reader that sleeps in `poll(2)` is to be woken too.
    fn resume(&self, inner: &mut Inner) -> bool {
        if !self.fits(inner) {
            return false;
        }
        // Whether or not one is known to wait: `link` asks for room as well while `poll` waits for it.
        self.room.notify_all();
        std::mem::take(&mut inner.paused)
    }

    /// The next thing to do, and whether a reader is to be woken.
    fn next(&self, deadline: Option<Instant>) -> (Next, bool) {
        let mut inner = self.inner.lock();
        loop {
            let Some(item) = inner.items.pop_front() else {
                if inner.closed {
                    return (Next::Exit, false);
                }
                if std::mem::take(&mut inner.nudged) || deadline.is_some_and(|at| at <= Instant::now()) {
                    return (Next::Deadlines, false);
                }
                match deadline {
                    Some(deadline) => drop(self.ready.wait_until(&mut inner, deadline)),
                    None => self.ready.wait(&mut inner),
                }
                continue;
            };
            let Item::Event(event) = &item else { return (Next::Item(item), false) };
            inner.events -= 1;
            inner.bytes -= event.bytes;
            // Woken at half, so that a reader does not stop and go with every event.
            let resume = inner.events <= self.limit / 2 && self.resume(&mut inner);
            if inner.closed {
                // The client is gone: nobody wants events, but endings and acknowledgements are still told.
                continue;
            }
            return (Next::Item(item), resume);
        }
    }
}

/// A handler of reconnections, called with the attempt's number.
type OnAttempt = Arc<dyn Fn(&Handle, u32) + Send + Sync>;
/// A handler of delays, called with the attempt's number and the delay.
type OnScheduled = Arc<dyn Fn(&Handle, u32, Duration) + Send + Sync>;
/// A handler of failed reconnections.
type OnError = Arc<dyn Fn(&Handle, &Error) + Send + Sync>;
/// A handler of the end of all reconnections.
type OnFailed = Arc<dyn Fn(&Handle) + Send + Sync>;

/// The handlers of the client itself.
#[derive(Default)]
pub(super) struct Hooks {
    pub(super) scheduled: List<OnScheduled>,
    pub(super) attempt: List<OnAttempt>,
    pub(super) reconnect: List<OnAttempt>,
    pub(super) error: List<OnError>,
    pub(super) failed: List<OnFailed>,
}

impl Hooks {
    /// Sets a handler.
    pub(super) fn add<T: Clone>(list: &mut List<T>, handler: T) {
        add(list, handler);
    }
}

/// The thread.
pub(super) fn thread(core: &Arc<Core>) {
    let _ = core.events_thread.set(std::thread::current().id());
    loop {
        let (next, wake) = core.events.next(core.next_ack_deadline());
        if wake {
            core.link_waker.wake();
        }
        match next {
            Next::Item(item) => deliver(core, item),
            Next::Deadlines => core.expire_acks(),
            Next::Exit => return,
        }
    }
}

fn deliver(core: &Arc<Core>, item: Item) {
    let client = || Handle::new(core.clone());
    match item {
        Item::Event(event) => deliver_event(core, &event),
        Item::Ack(space, callback, result) => {
            let Some(Callback { event, call }) = callback.take() else { return };
            run(core, format_args!("callback of {event:?}"), Some(&space), || {
                call(&core.socket(&space), result);
                Ok(())
            });
        }
        Item::Connect(space) => {
            let handlers = space.handlers.lock().connect.clone();
            each(core, "connect", Some(&space), &handlers, |handler| handler(&core.socket(&space)));
            deliver_reserved(core, &space, "connect", None::<&()>);
        }
        Item::Disconnect(space, reason) => {
            let handlers = space.handlers.lock().disconnect.clone();
            each(core, "disconnect", Some(&space), &handlers, |handler| {
                handler(&core.socket(&space), reason);
            });
            deliver_reserved(core, &space, "disconnect", Some(&reason.as_str()));
        }
        Item::ConnectError(space, error) => {
            let handlers = space.handlers.lock().connect_error.clone();
            each(core, "connect_error", Some(&space), &handlers, |handler| {
                handler(&core.socket(&space), &error);
            });
            deliver_reserved(core, &space, "connect_error", Some(&Reason::of(&error)));
        }
        Item::Scheduled(attempt, delay) => {
            let hooks = core.hooks.lock().scheduled.clone();
            each(core, "reconnect_scheduled", None, &hooks, |hook| hook(&client(), attempt, delay));
        }
        Item::Attempt(attempt) => {
            let hooks = core.hooks.lock().attempt.clone();
            each(core, "reconnect_attempt", None, &hooks, |hook| hook(&client(), attempt));
        }
        Item::Reconnect(attempt) => {
            let hooks = core.hooks.lock().reconnect.clone();
            each(core, "reconnect", None, &hooks, |hook| hook(&client(), attempt));
        }
        Item::ReconnectError(error) => {
            let hooks = core.hooks.lock().error.clone();
            each(core, "reconnect_error", None, &hooks, |hook| hook(&client(), &error));
        }
        Item::ReconnectFailed => {
            let hooks = core.hooks.lock().failed.clone();
            each(core, "reconnect_failed", None, &hooks, |hook| hook(&client()));
        }
    }
}

fn deliver_event(core: &Arc<Core>, event: &Incoming) {
    let socket = core.socket(&event.space);
    let (any, named) = {
        let handlers = event.space.handlers.lock();
        (handlers.any.clone(), handlers.named.get(&event.name).cloned())
    };
    let ack = Cell::new(event.ack);
    let made = || Event::new(&socket, &event.name, event.args.args(), (event.epoch, &ack));
    each(core, &event.name, Some(&event.space), &any, |handler| handler(&socket, &made()));
    each_named(core, &event.space, &event.name, named.as_ref(), |handler| handler(&socket, made()));
}

/// Calls the handlers that [`Socket::on`](super::Socket::on) has set for one of the names which never come from the
/// server.
fn deliver_reserved(core: &Arc<Core>, space: &Arc<Space>, name: &str, arg: Option<&impl Serialize>) {
    let named = space.handlers.lock().named.get(name).cloned();
    let mut args = OwnedArgs::default();
    // Texts always have a JSON form, and the server's data has come as one.
    if let Some(Err(error)) = arg.map(|arg| args.push(arg)) {
        log::error!("{}: no argument for the handlers of {name:?}: {error}", core.place(Some(space)));
    }
    let (socket, ack) = (core.socket(space), Cell::new(None));
    each_named(core, space, name, named.as_ref(), |handler| {
        handler(&socket, Event::new(&socket, name, args.args(), (0, &ack)))
    });
}

/// What handlers of `connect_error` get as their argument: the official client's error, as far as it is JSON.
#[derive(Serialize)]
struct Reason<'a> {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

impl<'a> Reason<'a> {
    fn of(error: &'a Error) -> Self {
        match error {
            Error::Refused { message, data, .. } => {
                Self { message: (**message).to_owned(), data: data.as_deref() }
            }
            error => Self { message: error.to_string(), data: None },
        }
    }
}

/// Calls each handler of a list.
fn each<T>(core: &Core, name: &str, space: Option<&Space>, handlers: &List<T>, call: impl Fn(&T)) {
    for handler in handlers.iter().filter_map(Guarded::get) {
        run(core, format_args!("handler of {name:?}"), space, || {
            call(handler);
            Ok(())
        });
    }
}

/// Calls the handlers of one event, which may fail.
fn each_named(
    core: &Core,
    space: &Space,
    name: &str,
    handlers: Option<&List<OnEvent>>,
    call: impl Fn(&OnEvent) -> Result<(), String>,
) {
    for handler in handlers.into_iter().flat_map(|handlers| handlers.iter()).filter_map(Guarded::get) {
        run(core, format_args!("handler of {name:?}"), Some(space), || call(handler));
    }
}

/// Calls a closure of the user's; a panic costs this call and nothing else.
fn run(
    core: &Core,
    what: fmt::Arguments<'_>,
    space: Option<&Space>,
    closure: impl FnOnce() -> Result<(), String>,
) {
    match catch(closure) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => {
            log::warn!("{}: the {what} failed: {error}", core.place(space));
        }
        Err(panic) => {
            log::error!("{}: the {what} panicked: {panic}", core.place(space));
        }
    }
    core.lock().stats.errors += 1;
}
