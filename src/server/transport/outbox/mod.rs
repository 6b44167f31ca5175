//! The outbox of one client: it sends packets, or keeps them until they can be sent.
//!
//! ```text
//!            push                      push, kernel full                drain thread
//!   Polling ──────► backlog      WebSocket ──────────────► backlog ─────────────────► WebSocket
//!      │ held GET takes it           │ push, kernel takes it: nothing waits
//!      └────────── upgrade ──────────┘
//!                    any ──► Closing (waiting packets are still sent) ──► Closed
//! ```
//! The thread that pushes also writes: the emitting thread for one client, the hub for several. The backlog keeps what
//! the kernel did not take. A GET takes its packets out of the backlog. There is one lock, held for a non-blocking
//! `send` at most.
//!
//! It uses the streams and the poller of `net`, and the budget of all outboxes. It knows no session. The result of a
//! push ([`Pushed`]) says what is left to do, and the session does it without the lock.

mod polling;

use std::{io, net::Shutdown, sync::Arc};

pub(crate) use self::polling::Poll;
pub(crate) use crate::server::transport::backlog::Packets;
use crate::server::{
    lead,
    limits::budget::Budget,
    net::poller::ConnectionWaker,
    net::stream::Stream,
    transport::backlog::{Backlog, GATHER_MAX},
};
use crate::sys::{
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

/// A WebSocket close frame without a code (RFC 6455 5.5.1), as the official server sends it.
pub(crate) const CLOSE_FRAME: &[u8] = &[0x88, 0];

/// A payload of this size counts as waiting while it is written.
pub(crate) const PAYLOAD_WRITE_MIN: usize = 16 << 10;

/// The result of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pushed {
    /// Sent, or in the backlog.
    Done,
    /// In the backlog. The drain thread must send it.
    Drain,
    /// In a corked backlog. The drain thread must watch it, so that it does not wait for long.
    Watch,
    /// Volatile, and dropped.
    Dropped,
    /// The backlog is over its limit. The session must end.
    Overflow,
    /// The outbox takes no packets any more.
    Closed,
}

/// The result of a drain pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing waits.
    Empty,
    /// The kernel is full again.
    Blocked,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    max: usize,
    budget: Arc<Budget>,
    /// Bytes of memory that are charged to the budget. Changed under the lock.
    charged: AtomicUsize,
    /// Notified when less waits than before, and when the outbox closes.
    less: Condvar,
}

#[derive(Debug)]
struct State {
    sink: Sink,
    backlog: Backlog,
    /// Packets are kept until `uncork`, because the thread of the connection has more input to handle.
    corked: bool,
    /// The drain thread watches the cork.
    watched: bool,
    /// The drain thread has seen the waiting packets once.
    stale: bool,
    /// The drain thread sends the backlog.
    draining: bool,
    /// No packet is taken any more.
    closing: bool,
    /// A payload that is being written to a polling client, and its size.
    writing: Option<(Arc<Stream>, usize)>,
    /// Threads that wait until less waits.
    waiters: usize,
}

#[derive(Debug)]
enum Sink {
    Polling { held: Option<ConnectionWaker>, upgrading: bool },
    WebSocket(Arc<Stream>),
    Closed,
}

impl Outbox {
    /// An outbox that begins on polling.
    pub(crate) fn new(max: usize, budget: Arc<Budget>) -> Self {
        let state = State {
            sink: Sink::Polling { held: None, upgrading: false },
            backlog: Backlog::default(),
            corked: false,
            watched: false,
            stale: false,
            draining: false,
            closing: false,
            writing: None,
            waiters: 0,
        };
        let (charged, less) = (AtomicUsize::new(0), Condvar::new());
        Self { state: Mutex::new(state), max, budget, charged, less }
    }

    /// Sends, or queues behind what waits already.
    pub(crate) fn push(&self, packets: Packets<'_>, volatile: bool) -> Pushed {
        let mut state = self.state.lock();
        if state.closing {
            return Pushed::Closed;
        }
        if volatile && !state.is_writable() {
            return Pushed::Dropped;
        }
        let pushed = state.push(packets);
        self.account(&mut state, pushed)
    }

    /// Bytes that wait.
    pub(crate) fn backlog(&self) -> usize {
        self.state.lock().backlog.len
    }

    /// Bytes of memory of the waiting packets, at some moment of the near past.
    pub(crate) fn charged(&self) -> usize {
        self.charged.load(Relaxed)
    }

    /// Waits until the backlog is at most half full and has room for `bytes` more. `None`: it was not before
    /// `deadline`. `false`: the outbox is closed.
    pub(crate) fn wait_for_room(&self, bytes: usize, deadline: Instant) -> Option<bool> {
        let enough = (self.max / 2).min(self.max.saturating_sub(bytes));
        if self.backlog() > enough {
            lead::before_wait();
        }
        let mut state = self.state.lock();
        state.waiters += 1;
        let mut in_time = true;
        while in_time && !state.closing && state.backlog.len > enough {
            in_time = !self.less.wait_until(&mut state, deadline).timed_out();
        }
        state.waiters -= 1;
        if state.closing {
            return Some(false);
        }
        (state.backlog.len <= enough).then_some(true)
    }

    /// The calling thread is about to write a payload of this outbox to this stream. Until the result is dropped, the
    /// payload counts as waiting, and [`abort`](Self::abort) shuts the stream down. `None`: the payload is too small
    /// to be counted.
    pub(crate) fn begin_payload(&self, stream: &Arc<Stream>, bytes: usize) -> Option<PayloadWrite<'_>> {
        if bytes < PAYLOAD_WRITE_MIN {
            return None;
        }
        let mut state = self.state.lock();
        if !matches!(state.sink, Sink::Closed) {
            state.writing = Some((Arc::clone(stream), bytes));
            self.update_charge(&mut state);
        }
        Some(PayloadWrite(self))
    }

    /// Keeps the packets that are pushed until [`uncork`](Self::uncork).
    pub(crate) fn cork(&self) {
        self.state.lock().corked = true;
    }

    /// Uncorks if nothing waits. The next packet is sent at once then. `false`: it is still corked.
    pub(crate) fn uncork_empty(&self) -> bool {
        let mut state = self.state.lock();
        let empty = state.backlog.is_empty();
        state.corked &= !empty;
        empty
    }

    /// Sends the packets that were kept.
    pub(crate) fn uncork(&self) -> Pushed {
        let mut state = self.state.lock();
        state.corked = false;
        let pushed = state.release();
        self.account(&mut state, pushed)
    }

    /// The drain thread looks at a corked outbox, and sends what has waited since the last look. `false`: the outbox
    /// need not be watched any more.
    pub(crate) fn watch(&self) -> (Pushed, bool) {
        let mut state = self.state.lock();
        if !state.corked || !state.is_writable() || state.backlog.is_empty() || state.closing {
            state.watched = false;
            return (Pushed::Done, false);
        }
        if !std::mem::replace(&mut state.stale, true) {
            return (Pushed::Done, true);
        }
        let pushed = state.release();
        (self.account(&mut state, pushed), true)
    }

    /// The drain thread sends as much of the backlog as the kernel takes.
    pub(crate) fn drain(&self) -> Drained {
        let mut state = self.state.lock();
        let sent = state.send_backlog();
        self.update_charge(&mut state);
        match sent {
            Ok(true) => {
                state.draining = false;
                state.end_stream_if_closing();
                Drained::Empty
            }
            Ok(false) => Drained::Blocked,
            Err(_) => {
                state.fail();
                self.drop_backlog(&mut state);
                Drained::Empty
            }
        }
    }

    /// The socket to watch for room, while there is a backlog.
    pub(crate) fn stream(&self) -> Option<Arc<Stream>> {
        match &self.state.lock().sink {
            Sink::WebSocket(stream) => Some(Arc::clone(stream)),
            _ => None,
        }
    }

    /// Whether all packets were sent or dropped.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state.lock().sink, Sink::Closed)
    }

    /// The session moves to a WebSocket. The waiting packets are sent there, also when the session is closing, because
    /// the client polls no more. `None`: the outbox is closed, or on a WebSocket already.
    pub(crate) fn attach(&self, stream: &Arc<Stream>) -> Option<Pushed> {
        let mut state = self.state.lock();
        let Sink::Polling { held, .. } = &mut state.sink else { return None };
        if let Some(waker) = held.take() {
            waker.wake();
        }
        state.sink = Sink::WebSocket(Arc::clone(stream));
        if state.closing {
            state.backlog.push(Packets::Borrowed(CLOSE_FRAME), 0);
        }
        let pushed = state.release();
        if state.backlog.is_empty() {
            state.end_stream_if_closing();
        }
        Some(self.account(&mut state, pushed))
    }

    /// Closes the outbox behind the waiting packets. A WebSocket gets them, `close_frame` and the end of the stream. A
    /// polling client can still fetch them.
    pub(crate) fn close(&self, close_frame: &[u8]) -> Pushed {
        let mut state = self.state.lock();
        if state.closing {
            return Pushed::Closed;
        }
        state.corked = false;
        let pushed = match state.sink {
            Sink::WebSocket(_) => state.push(Packets::Borrowed(close_frame)),
            _ => Pushed::Done,
        };
        state.closing = true;
        match &state.sink {
            Sink::Polling { held: Some(waker), .. } => waker.wake(),
            Sink::WebSocket(_) if state.backlog.is_empty() => state.end_stream_if_closing(),
            _ => {}
        }
        self.account(&mut state, pushed)
    }

    /// Drops the waiting packets, shuts the stream down and wakes every thread that waits.
    pub(crate) fn abort(&self) {
        let mut state = self.state.lock();
        state.fail();
        if let Some((stream, _)) = state.writing.take() {
            // The thread that writes must not wait for a peer that does not read.
            stream.shutdown(Shutdown::Both);
        }
        self.drop_backlog(&mut state);
    }

    /// Charges the budget after a push, and checks the size of the backlog.
    fn account(&self, state: &mut State, pushed: Pushed) -> Pushed {
        if matches!(pushed, Pushed::Closed) {
            state.backlog = Backlog::default();
        }
        self.update_charge(state);
        if state.backlog.len > self.max { Pushed::Overflow } else { pushed }
    }

    fn update_charge(&self, state: &mut State) {
        let writing = state.writing.as_ref().map_or(0, |(_, bytes)| *bytes);
        let (before, after) = (self.charged.load(Relaxed), state.backlog.memory + writing);
        if before != after {
            self.charged.store(after, Relaxed);
            self.budget.change(before, after);
        }
        if state.waiters > 0 {
            self.less.notify_all();
        }
    }

    fn drop_backlog(&self, state: &mut State) {
        state.backlog = Backlog::default();
        self.update_charge(state);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.budget.change(self.charged.load(Relaxed), 0);
    }
}

/// A payload is being written, until this is dropped.
#[derive(Debug)]
pub(crate) struct PayloadWrite<'o>(&'o Outbox);

impl Drop for PayloadWrite<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.writing = None;
        self.0.update_charge(&mut state);
    }
}

impl State {
    /// Whether a packet that is pushed now would be sent now. If not, a volatile packet is dropped.
    fn is_writable(&self) -> bool {
        match &self.sink {
            Sink::Polling { held, .. } => held.is_some(),
            Sink::WebSocket(_) => !self.draining,
            Sink::Closed => false,
        }
    }

    fn push(&mut self, packets: Packets<'_>) -> Pushed {
        let mut sent = 0;
        if let Sink::WebSocket(stream) = &self.sink
            && self.backlog.is_empty()
            && !self.corked
        {
            match send_some(stream, packets.bytes()) {
                Ok(count) if count == packets.bytes().len() => return Pushed::Done,
                Ok(count) => sent = count,
                Err(_) => {
                    self.fail();
                    return Pushed::Closed;
                }
            }
        } else if let Sink::Closed = self.sink {
            return Pushed::Closed;
        }
        if self.backlog.is_empty() {
            self.stale = false;
        }
        self.backlog.push(packets, sent);
        // From GATHER_MAX on it is sent although corked. Otherwise a client that reads could exceed `outbox_bytes_max`.
        if !self.corked || self.backlog.len >= GATHER_MAX {
            return self.release();
        }
        if std::mem::replace(&mut self.watched, true) { Pushed::Done } else { Pushed::Watch }
    }

    /// Sends the backlog: to the socket, to the held GET, or with the drain thread.
    fn release(&mut self) -> Pushed {
        if self.backlog.is_empty() || self.draining {
            return Pushed::Done;
        }
        match &self.sink {
            Sink::Closed => Pushed::Closed,
            Sink::Polling { held, .. } => {
                if let Some(waker) = held {
                    waker.wake();
                }
                Pushed::Done
            }
            Sink::WebSocket(_) => match self.send_backlog() {
                Ok(true) => Pushed::Done,
                Ok(false) => {
                    self.draining = true;
                    Pushed::Drain
                }
                Err(_) => {
                    self.fail();
                    Pushed::Closed
                }
            },
        }
    }

    /// `true`: all of it was sent.
    fn send_backlog(&mut self) -> io::Result<bool> {
        let Sink::WebSocket(stream) = &self.sink else { return Ok(true) };
        while let Some(chunk) = self.backlog.front() {
            let sent = send_some(stream, chunk)?;
            let all = sent == chunk.len();
            self.backlog.advance(sent);
            if !all {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn end_stream_if_closing(&mut self) {
        if self.closing
            && let Sink::WebSocket(stream) = &self.sink
        {
            // The reader stays until the peer ends the stream, or until the deadline for that.
            stream.shutdown(Shutdown::Write);
        }
    }

    /// The stream is broken, or the session has ended. Wakes the reader and the held GET.
    fn fail(&mut self) {
        self.closing = true;
        match std::mem::replace(&mut self.sink, Sink::Closed) {
            Sink::WebSocket(stream) => stream.shutdown(Shutdown::Both),
            Sink::Polling { held: Some(waker), .. } => waker.wake(),
            _ => {}
        }
    }
}

/// Sends as much as the kernel takes now. A full kernel takes nothing.
fn send_some(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
    match stream.send_now(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
}
