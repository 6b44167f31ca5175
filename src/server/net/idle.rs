//! Idle connections: they wait here without a thread of their own.
//!
//! ```text
//!   conn-N ── silent for park_after ──► park ──► epoll, one thread for all
//!   conn-M ◄── resume ◄── the first byte, the peer's end, a packet for a held GET, a deadline
//! ```
//! It owns the parked connections and the thread that waits for them, the poller. A parked connection costs its
//! descriptor and a little memory, but no stack. It knows a connection only as an [`IdleConnection`]. The poller never
//! blocks on a connection and calls no code of the application. It lets a connection read pongs and pings at once, so
//! that the heartbeats of ten thousand idle clients need no other thread.

use std::{fmt, io, mem, sync::Arc, time::Duration};

use crate::server::net::stream::{Stream, Waker};
use crate::sys::{
    fd::OwnedFd,
    os::{
        Errno, Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
        spare_capacity,
    },
    sync::Mutex,
    thread::{self, JoinHandle},
    time::Instant,
};

/// Events that are taken from the kernel at once.
const EVENTS_MAX: usize = 64;

/// The number of our own waker's event. No token has it.
const WAKER: u64 = u64::MAX;

/// The pause of the poller after an error of the kernel.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A connection that can wait without a thread.
pub(crate) trait IdleConnection: Send + 'static {
    fn stream(&self) -> &Stream;

    /// The events of the stream that end the wait.
    fn interest(&self) -> EventFlags;

    /// The wait ends at this time.
    fn deadline(&self) -> Option<Instant>;

    /// Handles what has come, without waiting. `false`: the connection needs a thread.
    fn handles_without_thread(&mut self) -> bool;
}

/// Ends the wait of an idle connection. It hides the type of the connection.
pub(crate) trait WakeIdle: fmt::Debug + Send + Sync {
    /// The connection with this token gets a thread. Nothing happens if it has left.
    fn wake(&self, token: Token);
}

/// Identifies an idle connection: the index of its entry in the table, and how often the entry was used before. So a
/// late wake-up for an earlier connection does not wake the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    index: u32,
    generation: u32,
}

impl Token {
    fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn from_number(number: u64) -> Self {
        Self { index: number as u32, generation: (number >> 32) as u32 }
    }
}

/// The idle connections. Shared by the threads that park and wake them, and by the poller.
#[derive(Debug)]
pub(crate) struct IdleConnections<C> {
    epoll: OwnedFd,
    waker: Waker,
    /// Locked for a look or a change. No other lock is taken under it, and nothing waits under it.
    table: Mutex<Table<C>>,
}

#[derive(Debug)]
struct Table<C> {
    places: Vec<Place<C>>,
    free: Vec<u32>,
    /// Parked places that were woken. A place is in the list at most once.
    woken: Vec<Token>,
    /// When the poller wakes up. No deadline is earlier.
    next_look: Option<Instant>,
    stopped: bool,
}

#[derive(Debug)]
struct Place<C> {
    generation: u32,
    state: State<C>,
}

#[derive(Debug)]
enum State<C> {
    Free,
    /// Given to a connection that is about to park. It may be woken already.
    Reserved {
        woken: bool,
    },
    Parked {
        connection: C,
        woken: bool,
    },
    /// The poller lets the connection handle what has come.
    Handling {
        woken: bool,
    },
}

impl<C> Table<C> {
    fn new(stopped: bool) -> Self {
        Self { places: Vec::new(), free: Vec::new(), woken: Vec::new(), next_look: None, stopped }
    }

    /// `None`: the holder of this token has left.
    fn place(&mut self, token: Token) -> Option<&mut Place<C>> {
        self.places.get_mut(token.index as usize).filter(|place| place.generation == token.generation)
    }

    fn state(&mut self, token: Token) -> Option<&mut State<C>> {
        self.place(token).map(|place| &mut place.state)
    }

    fn reserve(&mut self) -> Token {
        let state = State::Reserved { woken: false };
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.state = state;
            return Token { index, generation: place.generation };
        }
        self.places.push(Place { generation: 0, state });
        Token { index: self.places.len() as u32 - 1, generation: 0 }
    }

    /// Frees the place. Gives the state that it had.
    fn free(&mut self, token: Token) -> State<C> {
        let Some(place) = self.place(token) else { return State::Free };
        // The last generation is never given: with the last index it would be the number of the waker.
        place.generation = if place.generation == u32::MAX - 1 { 0 } else { place.generation + 1 };
        let state = mem::replace(&mut place.state, State::Free);
        self.free.push(token.index);
        state
    }
}

impl<C: IdleConnection> Table<C> {
    /// Moves the tokens whose deadline has passed into `due`, and sets the next look.
    fn take_overdue(&mut self, now: Instant, due: &mut Vec<Token>) {
        if self.next_look.is_none_or(|at| at > now) {
            return;
        }
        self.next_look = None;
        for (index, place) in self.places.iter().enumerate() {
            let State::Parked { connection, .. } = &place.state else { continue };
            let Some(deadline) = connection.deadline() else { continue };
            if deadline <= now {
                due.push(Token { index: index as u32, generation: place.generation });
            } else {
                self.next_look = Some(self.next_look.map_or(deadline, |next| next.min(deadline)));
            }
        }
    }
}

impl<C> IdleConnections<C> {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let waker = Waker::new()?;
        epoll::add(&epoll, &waker, EventData::new_u64(WAKER), EventFlags::IN)?;
        Ok(Self { epoll, waker, table: Mutex::new(Table::new(false)) })
    }

    /// A place for a connection that is about to [`park`](Self::park), or to [`give_back`](Self::give_back) the place.
    pub(crate) fn reserve(&self) -> Token {
        self.table.lock().reserve()
    }

    pub(crate) fn give_back(&self, token: Token) {
        self.table.lock().free(token);
    }

    /// Ends the poller. It drops the connections that are still parked.
    pub(crate) fn stop(&self) {
        self.table.lock().stopped = true;
        self.waker.wake();
    }

    /// The number of parked connections.
    pub(crate) fn len(&self) -> usize {
        let table = self.table.lock();
        table.places.len() - table.free.len()
    }
}

impl<C: IdleConnection> IdleConnections<C> {
    /// Parks the connection. `Some`: it was woken meanwhile or cannot be watched, and stays on its thread.
    pub(crate) fn park(&self, token: Token, connection: C) -> Option<C> {
        let mut table = self.table.lock();
        let stopped = table.stopped;
        match table.state(token) {
            Some(state @ State::Reserved { woken: false }) if !stopped && self.watch(token, &connection) => {
                let deadline = connection.deadline();
                *state = State::Parked { connection, woken: false };
                // The poller may be about to wait for longer.
                if deadline.is_some_and(|at| table.next_look.is_none_or(|next| at < next)) {
                    table.next_look = deadline;
                    self.waker.wake();
                }
                None
            }
            _ => {
                table.free(token);
                Some(connection)
            }
        }
    }

    /// Watches the stream. The poller handles its events when the lock of the table is free. `false`: no kernel
    /// memory.
    fn watch(&self, token: Token, connection: &C) -> bool {
        let data = EventData::new_u64(token.number());
        epoll::add(&self.epoll, connection.stream(), data, connection.interest()).is_ok()
    }

    /// Starts the poller. `resume` gives a connection a thread again.
    pub(crate) fn start(self: &Arc<Self>, resume: impl Fn(C) + Send + 'static) -> io::Result<JoinHandle<()>> {
        let poller = Poller { idle: Arc::clone(self), resume };
        thread::Builder::new().name("idle".into()).stack_size(128 << 10).spawn(move || poller.run())
    }
}

impl<C: IdleConnection + fmt::Debug> WakeIdle for IdleConnections<C> {
    fn wake(&self, token: Token) {
        let mut table = self.table.lock();
        match table.state(token) {
            Some(State::Reserved { woken } | State::Handling { woken }) => *woken = true,
            Some(State::Parked { woken: woken @ false, .. }) => {
                *woken = true;
                table.woken.push(token);
                self.waker.wake();
            }
            _ => {}
        }
    }
}

/// The thread that waits for the idle connections.
struct Poller<C, R> {
    idle: Arc<IdleConnections<C>>,
    resume: R,
}

impl<C: IdleConnection, R: Fn(C)> Poller<C, R> {
    fn run(self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            self.wait(&mut events);
            for event in &events {
                match event.data.u64() {
                    WAKER => self.idle.waker.reset(),
                    number => self.handle(Token::from_number(number), event.flags),
                }
            }
            if self.resume_due(Instant::now()) {
                return;
            }
        }
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) {
        events.clear();
        let timeout = self.idle.table.lock().next_look.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ }
        });
        match epoll::wait(&self.idle.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                log::error!("waiting for idle connections failed: {error}");
                thread::sleep(ERROR_PAUSE);
            }
        }
    }

    /// Handles an event of a parked connection: bytes have come, or its peer is gone.
    fn handle(&self, token: Token, flags: EventFlags) {
        let mut connection = {
            let mut table = self.idle.table.lock();
            let Some(state) = table.state(token) else { return };
            match mem::replace(state, State::Handling { woken: false }) {
                State::Parked { connection, woken } => {
                    *state = State::Handling { woken };
                    connection
                }
                other => {
                    *state = other;
                    return;
                }
            }
        };
        let stays = flags == EventFlags::IN && connection.handles_without_thread();
        {
            let mut table = self.idle.table.lock();
            match table.state(token) {
                Some(state @ State::Handling { woken: false }) if stays => {
                    *state = State::Parked { connection, woken: false };
                    return;
                }
                _ => drop(table.free(token)),
            }
        }
        self.resume(connection);
    }

    /// Resumes the connections that were woken, and those whose deadline has passed. `true`: the poller must end.
    fn resume_due(&self, now: Instant) -> bool {
        let mut due = Vec::new();
        {
            let mut table = self.idle.table.lock();
            if table.stopped {
                let left = mem::replace(&mut *table, Table::new(true));
                // Unlocked first: what the connections hold may use the table while it is dropped.
                drop(table);
                drop(left);
                return true;
            }
            due.append(&mut table.woken);
            table.take_overdue(now, &mut due);
        }
        for token in due {
            let state = self.idle.table.lock().free(token);
            if let State::Parked { connection, .. } = state {
                self.resume(connection);
            }
        }
        false
    }

    /// Gives the connection a thread again.
    fn resume(&self, connection: C) {
        if let Err(error) = epoll::delete(&self.idle.epoll, connection.stream()) {
            // Its events are reported until its stream is closed.
            log::error!("an idle connection cannot be removed from epoll: {error}");
        }
        (self.resume)(connection);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::sys::net::UnixStream;

    struct Parked(Stream, Option<Instant>);

    impl IdleConnection for Parked {
        fn stream(&self) -> &Stream {
            &self.0
        }

        fn interest(&self) -> EventFlags {
            EventFlags::IN
        }

        fn deadline(&self) -> Option<Instant> {
            self.1
        }

        fn handles_without_thread(&mut self) -> bool {
            false
        }
    }

    #[test]
    fn a_late_token_does_not_reach_the_next_holder_of_its_place() {
        let mut table = Table::<()>::new(false);
        let first = table.reserve();
        assert!(matches!(table.free(first), State::Reserved { woken: false }));
        let second = table.reserve();
        assert_eq!(first.index, second.index);
        assert!(table.state(first).is_none() && table.state(second).is_some());
        assert!(matches!(table.free(first), State::Free));
        assert!(table.state(second).is_some());
    }

    #[test]
    fn no_token_has_the_number_of_the_waker() {
        let mut table = Table::<()>::new(false);
        table.places.push(Place { generation: u32::MAX - 1, state: State::Free });
        let token = Token { index: 0, generation: u32::MAX - 1 };
        assert_eq!(Token::from_number(token.number()), token);
        assert_ne!(token.number(), WAKER);
        table.free(token);
        assert_eq!(table.reserve().generation, 0);
    }

    #[test]
    fn only_the_overdue_end_their_wait_and_the_next_deadline_is_the_next_look() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        let mut table = Table::new(false);
        for deadline in [Some(now), None, Some(later), Some(later + Duration::from_secs(1))] {
            let (near, _) = UnixStream::pair().expect("descriptors");
            let token = table.reserve();
            let connection = Parked(Stream::unix(near), deadline);
            *table.state(token).expect("a place") = State::Parked { connection, woken: false };
        }
        let mut due = Vec::new();
        table.take_overdue(now, &mut due);
        assert!(due.is_empty(), "the poller looks at no deadline before its time");
        table.next_look = Some(now);
        table.take_overdue(now, &mut due);
        assert_eq!(due, [Token { index: 0, generation: 0 }]);
        assert_eq!(table.next_look, Some(later));
    }
}
