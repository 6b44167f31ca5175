//! The parking lot: connections that have nothing to say wait here, and give their threads back.
//!
//! ```text
//!   conn-N ── silent for park_after ──► park ──► epoll, one thread for all
//!   conn-M ◄── workers ◄── the first byte, the peer's end, a packet for a held GET, a deadline
//! ```
//! What waits here: WebSockets, held GETs, and HTTP connections between two requests. A parked connection costs its descriptor
//! and a little memory, but no stack. Signs of life, pongs and pings, are taken note of right here, so that ten thousand idle
//! clients that answer their heartbeats need no thread each.

use std::{io, mem, sync::Arc, time::Duration};

use crate::server::{
    core::Core,
    net::stream::Waker,
    router::{self, Work},
};
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

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 64;

/// The event of our own waker; no place has this number.
const WAKER: u64 = u64::MAX;

/// How long the thread rests when the kernel refuses it.
const TROUBLE_PAUSE: Duration = Duration::from_millis(10);

/// A place in the lot: its index, and how often the place was given before, so that a late call for its last holder is not taken
/// for a call for this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    index: u32,
    round: u32,
}

impl Token {
    fn number(self) -> u64 {
        u64::from(self.round) << 32 | u64::from(self.index)
    }

    fn from_number(number: u64) -> Self {
        Self { index: number as u32, round: (number >> 32) as u32 }
    }
}

/// The lot, shared by those who park, those who call, and its thread.
#[derive(Debug)]
pub(crate) struct IdleConnections {
    epoll: OwnedFd,
    waker: Waker,
    /// Held for a look or a change; nothing else is locked or waited for under it.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
    /// Parked places that were woken; a place is in here once at most.
    woken: Vec<Token>,
    /// The thread wakes up then; no deadline is earlier.
    next_look: Option<Instant>,
    stopped: bool,
}

#[derive(Debug)]
struct Place {
    round: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    /// Given to a connection that is about to park, perhaps woken already.
    Reserved {
        woken: bool,
    },
    Parked {
        work: Work,
        woken: bool,
    },
    /// The lot's thread looks at what has come.
    Visited {
        woken: bool,
    },
}

impl Table {
    /// `None`: it has been left, or is another's.
    fn place(&mut self, token: Token) -> Option<&mut Place> {
        self.places.get_mut(token.index as usize).filter(|place| place.round == token.round)
    }

    fn state(&mut self, token: Token) -> Option<&mut State> {
        self.place(token).map(|place| &mut place.state)
    }

    fn reserve(&mut self) -> Token {
        let state = State::Reserved { woken: false };
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.state = state;
            return Token { index, round: place.round };
        }
        self.places.push(Place { round: 0, state });
        Token { index: self.places.len() as u32 - 1, round: 0 }
    }

    /// Empties the place.
    fn free(&mut self, token: Token) -> State {
        let Some(place) = self.place(token) else { return State::Free };
        // One number is never given: it is the waker's.
        place.round = if place.round == u32::MAX - 1 { 0 } else { place.round + 1 };
        let state = mem::replace(&mut place.state, State::Free);
        self.free.push(token.index);
        state
    }
}

impl IdleConnections {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let waker = Waker::new()?;
        epoll::add(&epoll, &waker, EventData::new_u64(WAKER), EventFlags::IN)?;
        Ok(Self { epoll, waker, table: Mutex::default() })
    }

    /// A place for a connection that is about to [`park`](Self::park) or to [`give_back`](Self::give_back) the place.
    pub(crate) fn reserve(&self) -> Token {
        self.table.lock().reserve()
    }

    pub(crate) fn give_back(&self, token: Token) {
        self.table.lock().free(token);
    }

    /// Takes the connection in. `Some`: it was woken meanwhile, or cannot be watched, and goes on with the thread that it has.
    pub(crate) fn park(&self, token: Token, work: Work) -> Option<Work> {
        let mut table = self.table.lock();
        let stopped = table.stopped;
        match table.state(token) {
            Some(state @ State::Reserved { woken: false }) if !stopped && self.watch(token, &work) => {
                let deadline = work.deadline();
                *state = State::Parked { work, woken: false };
                // The thread, which may sleep for longer, must know.
                if deadline.is_some_and(|at| table.next_look.is_none_or(|next| at < next)) {
                    table.next_look = deadline;
                    self.waker.wake();
                }
                None
            }
            _ => {
                table.free(token);
                Some(work)
            }
        }
    }

    /// From now on what comes for it is reported, though not before the table's lock is free. `false`: out of kernel memory.
    fn watch(&self, token: Token, work: &Work) -> bool {
        epoll::add(&self.epoll, work.stream(), EventData::new_u64(token.number()), work.interest()).is_ok()
    }

    /// Whoever has this place must go on. For a place that has been left, nothing.
    pub(crate) fn wake(&self, token: Token) {
        let mut table = self.table.lock();
        match table.state(token) {
            Some(State::Reserved { woken } | State::Visited { woken }) => *woken = true,
            Some(State::Parked { woken: woken @ false, .. }) => {
                *woken = true;
                table.woken.push(token);
                self.waker.wake();
            }
            _ => {}
        }
    }

    /// Ends the thread; who is parked still, is let go.
    pub(crate) fn stop(&self) {
        self.table.lock().stopped = true;
        self.waker.wake();
    }

    /// How many are parked.
    pub(crate) fn len(&self) -> usize {
        let table = self.table.lock();
        table.places.len() - table.free.len()
    }
}

/// Starts the lot's thread.
pub(crate) fn start(core: &Arc<Core>) -> io::Result<JoinHandle<()>> {
    let poller = Poller { core: Arc::clone(core), idle: Arc::clone(&core.idle) };
    thread::Builder::new().name("idle".into()).stack_size(128 << 10).spawn(move || poller.run())
}

/// What the lot's thread does.
struct Poller {
    core: Arc<Core>,
    idle: Arc<IdleConnections>,
}

impl Poller {
    fn run(self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            self.wait(&mut events);
            for event in &events {
                match event.data.u64() {
                    WAKER => self.idle.waker.reset(),
                    number => self.look(Token::from_number(number), event.flags),
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
                log::error!("the parking lot cannot wait: {error}");
                thread::sleep(TROUBLE_PAUSE);
            }
        }
    }

    /// Something has come for a parked connection, or its peer is gone.
    fn look(&self, token: Token, flags: EventFlags) {
        let mut work = {
            let mut table = self.idle.table.lock();
            let Some(state) = table.state(token) else { return };
            match mem::replace(state, State::Visited { woken: false }) {
                State::Parked { work, woken } => {
                    *state = State::Visited { woken };
                    work
                }
                other => {
                    *state = other;
                    return;
                }
            }
        };
        let quiet = flags == EventFlags::IN && work.visit();
        {
            let mut table = self.idle.table.lock();
            match table.state(token) {
                Some(state @ State::Visited { woken: false }) if quiet => {
                    *state = State::Parked { work, woken: false };
                    return;
                }
                _ => drop(table.free(token)),
            }
        }
        self.resume(work);
    }

    /// Lets go on who was woken, and whose deadline has passed. `true`: the lot is closed.
    fn resume_due(&self, now: Instant) -> bool {
        let mut leaving = Vec::new();
        {
            let mut table = self.idle.table.lock();
            if table.stopped {
                let left = mem::replace(&mut *table, Table { stopped: true, ..Table::default() });
                // What the parked hold may want the lot while it is dropped.
                drop(table);
                drop(left);
                return true;
            }
            leaving.append(&mut table.woken);
            if table.next_look.is_some_and(|at| at <= now) {
                table.next_look = None;
                for index in 0..table.places.len() {
                    let Place { round, state: State::Parked { work, .. } } = &table.places[index] else {
                        continue;
                    };
                    let Some(deadline) = work.deadline() else { continue };
                    if deadline <= now {
                        leaving.push(Token { index: index as u32, round: *round });
                    } else {
                        table.next_look = Some(table.next_look.map_or(deadline, |next| next.min(deadline)));
                    }
                }
            }
        }
        for token in leaving {
            let state = self.idle.table.lock().free(token);
            if let State::Parked { work, .. } = state {
                self.resume(work);
            }
        }
        false
    }

    /// Gives the connection a thread again.
    fn resume(&self, work: Work) {
        if let Err(error) = epoll::delete(&self.idle.epoll, work.stream()) {
            // It would be reported again and again; without its stream it is not.
            log::error!("a parked connection cannot be taken out: {error}");
        }
        router::resume(&self.core, work);
    }
}
