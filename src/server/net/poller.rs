//! The poller: connections, and the listener, wait here without a thread of their own, in one epoll set.
//!
//! ```text
//!   insert ─► waiting ── input, the peer's end, a deadline, wake ──► taken: a thread serves it ─► put_back ─► waiting
//!                                                                              └─► it ends
//! ```
//! It owns the connections that wait and the epoll set. A connection in it costs its descriptor and a little memory,
//! but no stack. One thread calls [`wait`](Poller::wait): the leader (see [`lead`](crate::server::lead)). The set is
//! level-triggered, so what a thread leaves unread is reported again, and a leader that loses the lead in the middle of
//! its events loses none of them. It knows a connection only as a [`Pollable`]. It never blocks on a connection and
//! calls no code of the application.

use std::{collections::VecDeque, fmt, io, mem, sync::Arc, time::Duration};

use crate::server::{guard, net::stream::Waker};
use crate::sys::{
    fd::{AsFd, OwnedFd},
    os::{
        Errno, Timespec,
        epoll::{self, CreateFlags, EventData},
        spare_capacity,
    },
    sync::Mutex,
    thread,
    time::Instant,
};

pub(crate) use crate::sys::os::epoll::EventFlags;

/// Events that are taken from the kernel at once.
const EVENTS_MAX: usize = 64;

/// The number of our own waker's event. No token has it.
const WAKER: u64 = u64::MAX;

/// The pause after an error of the kernel.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// The least time between two looks at all deadlines. One that is set meanwhile is in time.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// What the epoll set watches: a stream or a listener.
pub(crate) trait Source: AsFd + fmt::Debug + Send + Sync {}

impl<T: AsFd + fmt::Debug + Send + Sync> Source for T {}

/// A connection that can wait without a thread, or the listener.
pub(crate) trait Pollable: Send + 'static {
    fn source(&self) -> Arc<dyn Source>;

    /// The events of the source that end the wait.
    fn interest(&self) -> EventFlags;

    /// The wait ends at this time.
    fn deadline(&self) -> Option<Instant>;
}

/// Ends the wait of a connection. It hides the type of the connection.
trait Wake: fmt::Debug + Send + Sync {
    /// The connection with this token is served. Nothing happens if it has left.
    fn wake(&self, token: Token);
}

/// Identifies a connection: the index of its entry in the table, and how often the entry was used before. So a late
/// wake-up for an earlier connection does not wake the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    index: u32,
    generation: u32,
}

impl Token {
    #[cfg(test)]
    pub(crate) fn numbered(index: u32) -> Self {
        Self { index, generation: 0 }
    }

    fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn from_number(number: u64) -> Self {
        Self { index: number as u32, generation: (number >> 32) as u32 }
    }
}

/// Room for the events of one wait.
pub(crate) struct Events(Vec<epoll::Event>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(EVENTS_MAX))
    }

    /// The connections that have events.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Token, EventFlags)> {
        let events = self.0.iter().map(|event| (event.data.u64(), event.flags));
        events
            .filter(|(number, _)| *number != WAKER)
            .map(|(number, flags)| (Token::from_number(number), flags))
    }
}

/// The connections that wait. Shared by the threads that serve and wake them.
#[derive(Debug)]
pub(crate) struct Poller<C> {
    epoll: OwnedFd,
    waker: Waker,
    /// Locked for a look or a change. No other lock is taken under it, and nothing waits under it.
    table: Mutex<Table<C>>,
}

#[derive(Debug)]
struct Table<C> {
    entries: Vec<Entry<C>>,
    free: Vec<u32>,
    /// Connections that were woken, or whose deadline has passed. Each is in the list at most once.
    due: VecDeque<Token>,
    /// When the leader looks at the deadlines. No deadline is earlier by more than [`LOOK_PAUSE`].
    next_look: Option<Instant>,
    /// The leader is in the kernel, or about to be, and must be woken for what is due.
    sleeps: bool,
    stopped: bool,
}

#[derive(Debug)]
struct Entry<C> {
    generation: u32,
    /// It is in the list of those that are due.
    is_due: bool,
    /// The source and its events that the epoll set watches. `None`: it is not in the set.
    watched: Option<(Arc<dyn Source>, EventFlags)>,
    state: State<C>,
}

#[derive(Debug)]
enum State<C> {
    Free,
    Waiting(C),
    /// A thread serves it.
    Taken {
        /// It was woken meanwhile.
        woken: bool,
    },
}

impl<C> Table<C> {
    fn new(stopped: bool) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            due: VecDeque::new(),
            next_look: None,
            sleeps: false,
            stopped,
        }
    }

    /// `None`: the holder of this token has left.
    fn entry(&mut self, token: Token) -> Option<&mut Entry<C>> {
        self.entries.get_mut(token.index as usize).filter(|entry| entry.generation == token.generation)
    }

    /// A new entry, in the state of a connection that a thread serves.
    fn reserve(&mut self) -> Token {
        let state = State::Taken { woken: false };
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.state = state;
            return Token { index, generation: entry.generation };
        }
        self.entries.push(Entry { generation: 0, is_due: false, watched: None, state });
        Token { index: self.entries.len() as u32 - 1, generation: 0 }
    }

    /// Frees the entry. Returns what the epoll set watches for it.
    fn free(&mut self, token: Token) -> Option<(Arc<dyn Source>, EventFlags)> {
        let entry = self.entry(token)?;
        // The last generation is never given: with the last index it would be the number of the waker.
        let generation = if entry.generation == u32::MAX - 1 { 0 } else { entry.generation + 1 };
        let next = Entry { generation, is_due: false, watched: None, state: State::Free };
        let watched = mem::replace(entry, next).watched;
        self.free.push(token.index);
        watched
    }

    /// Adds a connection to those that are due. `true`: the leader sleeps and must be woken.
    fn add_due(&mut self, token: Token) -> bool {
        let Some(entry) = self.entry(token) else { return false };
        if !mem::replace(&mut entry.is_due, true) {
            self.due.push_back(token);
        }
        mem::take(&mut self.sleeps)
    }

    fn next_due(&mut self) -> Option<Token> {
        while let Some(token) = self.due.pop_front() {
            if let Some(entry) = self.entry(token) {
                entry.is_due = false;
                return Some(token);
            }
        }
        None
    }

    fn wake(&mut self, token: Token) -> bool {
        match self.entry(token).map(|entry| &mut entry.state) {
            Some(State::Taken { woken }) => {
                *woken = true;
                false
            }
            Some(State::Waiting(_)) => self.add_due(token),
            Some(State::Free) | None => false,
        }
    }
}

impl<C: Pollable> Table<C> {
    /// Moves the connections whose deadline has passed to those that are due, and sets the next look.
    fn add_overdue(&mut self, now: Instant) {
        if self.next_look.is_none_or(|at| at > now) {
            return;
        }
        self.next_look = None;
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            let State::Waiting(connection) = &entry.state else { continue };
            let Some(deadline) = connection.deadline() else { continue };
            if deadline <= now {
                let token = Token { index: index as u32, generation: entry.generation };
                self.add_due(token);
            } else {
                self.next_look = Some(self.next_look.map_or(deadline, |next| next.min(deadline)));
            }
        }
        self.next_look = self.next_look.map(|next| next.max(now + LOOK_PAUSE));
    }
}

impl<C> Poller<C> {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let waker = Waker::new()?;
        epoll::add(&epoll, &waker, EventData::new_u64(WAKER), EventFlags::IN)?;
        Ok(Self { epoll, waker, table: Mutex::new(Table::new(false)) })
    }

    /// The number of those that wait and for which `counts` is true.
    pub(crate) fn count(&self, counts: impl Fn(&C) -> bool) -> usize {
        let table = self.table.lock();
        let waits =
            |entry: &&Entry<C>| matches!(&entry.state, State::Waiting(connection) if counts(connection));
        table.entries.iter().filter(waits).count()
    }

    /// Ends the waits of the leader, for ever. The connections that wait are dropped.
    pub(crate) fn stop(&self) {
        let left = mem::replace(&mut *self.table.lock(), Table::new(true));
        // Unlocked first: what the connections hold may use the table while it is dropped.
        drop(left);
        self.waker.wake();
    }

    /// To be called while the table is locked: otherwise the leader could find an event of an entry that is free, again
    /// and again.
    fn unwatch(&self, watched: Option<(Arc<dyn Source>, EventFlags)>) -> Result<(), Errno> {
        watched.map_or(Ok(()), |(source, _)| epoll::delete(&self.epoll, &*source))
    }

    /// The connection has left.
    fn leave(&self, token: Token) {
        let unwatched = {
            let mut table = self.table.lock();
            let watched = table.free(token);
            self.unwatch(watched)
        };
        log_unwatched(unwatched);
    }
}

impl<C: Pollable> Poller<C> {
    /// Takes in a new connection. `Some`: it cannot be watched, or the poller was stopped.
    pub(crate) fn insert(self: &Arc<Self>, connection: C) -> Option<C> {
        self.lease().put_back(connection)
    }

    /// The entry of a new connection, which this thread may use before the connection waits.
    pub(crate) fn lease(self: &Arc<Self>) -> Lease<'_, C> {
        let token = self.table.lock().reserve();
        Lease::new(self, token)
    }

    /// Waits until a connection has an event or is due. `false`: the poller was stopped.
    pub(crate) fn wait(&self, events: &mut Events) -> bool {
        events.0.clear();
        let timeout = {
            let mut table = self.table.lock();
            if table.stopped {
                return false;
            }
            table.sleeps = table.due.is_empty();
            let next_look = if table.sleeps { table.next_look } else { Some(Instant::now()) };
            next_look.map(|at| {
                let left = at.saturating_duration_since(Instant::now());
                Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ }
            })
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut events.0), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                guard::error!("waiting for connections failed: {error}");
                thread::sleep(ERROR_PAUSE);
            }
        }
        if events.0.iter().any(|event| event.data.u64() == WAKER) {
            self.waker.reset();
        }
        let mut table = self.table.lock();
        table.sleeps = false;
        if table.next_look.is_some() {
            table.add_overdue(Instant::now());
        }
        !table.stopped
    }

    /// The number of connections that are due at this moment, at most.
    pub(crate) fn due(&self) -> usize {
        self.table.lock().due.len()
    }

    /// Takes the connection that is due first.
    pub(crate) fn take_due(self: &Arc<Self>) -> Option<(Lease<'_, C>, C)> {
        let mut table = self.table.lock();
        while let Some(token) = table.next_due() {
            if let Some(connection) = take(&mut table, token) {
                return Some((Lease::new(self, token), connection));
            }
            // A thread has taken it for an event before it saw this wake-up.
            table.wake(token);
        }
        None
    }

    /// Takes a connection that has an event. `None`: it has left, or a thread serves it.
    pub(crate) fn take(self: &Arc<Self>, token: Token) -> Option<(Lease<'_, C>, C)> {
        let mut table = self.table.lock();
        if let Some(connection) = take(&mut table, token) {
            return Some((Lease::new(self, token), connection));
        }
        // The thread that serves it will read what has come. Until then the event would be reported again and again.
        let watched = table.entry(token)?.watched.take();
        let unwatched = self.unwatch(watched);
        drop(table);
        log_unwatched(unwatched);
        None
    }

    /// Watches the source for the events that the connection waits for. `false`: no kernel memory.
    fn watch(&self, table: &mut Table<C>, token: Token, connection: &C) -> bool {
        let Some(entry) = table.entry(token) else { return false };
        let interest = connection.interest();
        let data = EventData::new_u64(token.number());
        match &mut entry.watched {
            Some((_, watched)) if *watched == interest => true,
            Some((source, watched)) => {
                *watched = interest;
                epoll::modify(&self.epoll, &**source, data, interest).is_ok()
            }
            none => {
                let source = connection.source();
                let added = epoll::add(&self.epoll, &*source, data, interest).is_ok();
                *none = added.then_some((source, interest));
                added
            }
        }
    }
}

fn take<C>(table: &mut Table<C>, token: Token) -> Option<C> {
    let state = &mut table.entry(token)?.state;
    match mem::replace(state, State::Taken { woken: false }) {
        State::Waiting(connection) => Some(connection),
        other => {
            *state = other;
            None
        }
    }
}

/// To be called while nothing is locked: it logs.
fn log_unwatched(unwatched: Result<(), Errno>) {
    if let Err(error) = unwatched {
        // Its events are reported until its stream is closed.
        guard::error!("a connection cannot be removed from epoll: {error}");
    }
}

/// Wakes one connection.
#[derive(Debug)]
pub(crate) struct ConnectionWaker {
    poller: Arc<dyn Wake>,
    token: Token,
}

impl ConnectionWaker {
    /// The connection is served soon. Nothing happens if it has left.
    pub(crate) fn wake(&self) {
        self.poller.wake(self.token);
    }
}

/// The entry of a connection that a thread serves. When it is dropped, the connection has left the poller.
#[derive(Debug)]
pub(crate) struct Lease<'p, C> {
    poller: &'p Arc<Poller<C>>,
    token: Token,
    /// The connection waits again: the entry is not this lease's any more.
    is_returned: bool,
}

impl<C: Pollable + fmt::Debug> Lease<'_, C> {
    /// Wakes this connection.
    pub(crate) fn waker(&self) -> ConnectionWaker {
        ConnectionWaker { poller: Arc::<Poller<C>>::clone(self.poller), token: self.token }
    }
}

impl<'p, C> Lease<'p, C> {
    fn new(poller: &'p Arc<Poller<C>>, token: Token) -> Self {
        Self { poller, token, is_returned: false }
    }
}

impl<C: Pollable> Lease<'_, C> {
    /// The connection waits again. `Some`: it cannot be watched, or the poller was stopped. It has left then.
    pub(crate) fn put_back(mut self, connection: C) -> Option<C> {
        let Self { poller, token, is_returned } = &mut self;
        let token = *token;
        let mut table = poller.table.lock();
        let deadline = connection.deadline();
        if table.stopped || !poller.watch(&mut table, token, &connection) {
            return Some(connection);
        }
        let Some(entry) = table.entry(token) else { return Some(connection) };
        let woken = matches!(entry.state, State::Taken { woken: true });
        entry.state = State::Waiting(connection);
        *is_returned = true;
        let mut wakes = woken && table.add_due(token);
        if deadline.is_some_and(|at| table.next_look.is_none_or(|next| at < next)) {
            // The leader may be about to wait for longer.
            table.next_look = deadline;
            wakes |= mem::take(&mut table.sleeps);
        }
        drop(table);
        if wakes {
            poller.waker.wake();
        }
        None
    }
}

impl<C> Drop for Lease<'_, C> {
    fn drop(&mut self) {
        if !self.is_returned {
            self.poller.leave(self.token);
        }
    }
}

impl<C: Pollable + fmt::Debug> Wake for Poller<C> {
    fn wake(&self, token: Token) {
        let wakes = self.table.lock().wake(token);
        if wakes {
            self.waker.wake();
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
