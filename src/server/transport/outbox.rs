//! What waits for one client, and the way it goes out.
//!
//! ```text
//!            push                      push, kernel full                drain thread
//!   Polling ──────► backlog      WebSocket ──────────────► backlog ─────────────────► WebSocket
//!      │ held GET takes it           │ push, kernel takes it: nothing waits
//!      └────────── upgrade ──────────┘
//!                    any ──► Closing (what waits still goes out) ──► Closed
//! ```
//! One lock, held for the time of a non-blocking `send` at most. Whoever emits writes; the backlog holds what the kernel
//! did not take, in order, as whole WebSocket frames but for the first, and polling reads its packets out of it.

use std::{collections::VecDeque, io, net::Shutdown, sync::Arc};

use bytes::Bytes;

use crate::server::{
    limits::budget::Budget,
    net::idle::{Token, WakeIdle},
    net::stream::{Stream, Waker},
};
use crate::{
    proto::{
        engine::payload,
        limits,
        socket::{Encoded, Frames, Opcode},
    },
    sys::{
        sync::{
            Condvar, Mutex,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        time::Instant,
    },
};

/// From here on a waiting packet is shared by its recipients; below it is cheaper to copy it.
const SHARE_MIN: usize = 4096;

/// Small packets are gathered up to this size, so that they leave with one `send`.
const GATHER_MAX: usize = 64 << 10;

/// A WebSocket close without a code (RFC 6455 5.5.1), as the official server sends it.
pub(crate) const CLOSE_FRAME: &[u8] = &[0x88, 0];

/// What a chunk takes in its queue, which may have twice the room that it needs, and around its allocation.
const CHUNK_COST: usize = 96;

/// A payload of this size that is being written counts as waiting.
pub(crate) const DELIVERY_MIN: usize = 16 << 10;

/// A polling payload that has reached this size takes no further packet.
const PAYLOAD_FULL: usize = 256 << 10;

/// Packets on their way to one client.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packets<'a> {
    /// Frames in a buffer that will be used again.
    Borrowed(&'a [u8]),
    /// Frames that others get too.
    Shared(&'a Encoded),
}

impl Packets<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(encoded) => encoded.bytes(),
        }
    }
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pushed {
    /// Sent, or in the backlog in its order.
    Done,
    /// In the backlog, and the drain thread must be told to finish it.
    Drain,
    /// In a corked backlog, and the drain thread must be told to watch that it does not wait for long.
    Watch,
    /// Volatile, and dropped.
    Dropped,
    /// The backlog has passed its bound; the session must end.
    Overflow,
    /// Nobody is there any more.
    Closed,
}

/// What a drain pass left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing waits.
    Empty,
    /// The kernel is full again.
    Blocked,
}

/// What a GET finds.
#[derive(Debug)]
pub(crate) enum Poll {
    /// Packets, as a payload.
    Payload(String),
    /// The session has closed, and its last packets have been fetched.
    Over,
    /// Nothing yet: the GET is held, and its waker will be woken.
    Held,
    /// Another GET is held already.
    Overlap,
    /// The session has left polling, or is gone.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    max: usize,
    budget: Arc<Budget>,
    /// Bytes of memory that the budget is charged with for what waits here; changed under the lock.
    charged: AtomicUsize,
    /// Less waits than before, or nothing will any more.
    less: Condvar,
}

#[derive(Debug)]
struct State {
    sink: Sink,
    backlog: Backlog,
    /// The connection's thread has more input to work on, so its answers are gathered.
    corked: bool,
    /// The drain thread watches the cork.
    watched: bool,
    /// The watcher has seen what waits.
    stale: bool,
    /// The drain thread has the backlog.
    draining: bool,
    /// No packet follows any more.
    closing: bool,
    /// A payload that is being written to a polling client, and its size.
    delivering: Option<(Arc<Stream>, usize)>,
    /// Threads that wait until less waits.
    waiters: usize,
}

/// Who is to be woken when there is something for a held GET.
#[derive(Debug)]
pub(crate) enum Holder {
    /// A thread that waits.
    Thread(Arc<Waker>),
    /// A parked connection.
    Parked(Arc<dyn WakeIdle>, Token),
    /// The GET is about to be parked, and looks again then.
    Nobody,
}

impl Holder {
    fn wake(&self) {
        match self {
            Self::Thread(waker) => waker.wake(),
            Self::Parked(idle, token) => idle.wake(*token),
            Self::Nobody => {}
        }
    }
}

#[derive(Debug)]
enum Sink {
    Polling { held: Option<Holder>, upgrading: bool },
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
            delivering: None,
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

    /// Bytes of memory that what waits takes, as of a moment ago.
    pub(crate) fn charged(&self) -> usize {
        self.charged.load(Relaxed)
    }

    /// Waits until no more than half of what may wait does, and `bytes` more may. `None`: that was not to be before `deadline`; `false`: there is nobody
    /// to wait for any more.
    pub(crate) fn wait_for_room(&self, bytes: usize, deadline: Instant) -> Option<bool> {
        let enough = (self.max / 2).min(self.max.saturating_sub(bytes));
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

    /// A payload taken out of here is about to be written to this stream by the thread that asks; until that is done or given
    /// up, it counts as waiting, and ends with the session. `None`: it is too small to matter.
    pub(crate) fn deliver(&self, stream: &Arc<Stream>, bytes: usize) -> Option<Delivery<'_>> {
        if bytes < DELIVERY_MIN {
            return None;
        }
        let mut state = self.state.lock();
        if !matches!(state.sink, Sink::Closed) {
            state.delivering = Some((Arc::clone(stream), bytes));
            self.settle(&mut state);
        }
        Some(Delivery(self))
    }

    /// Gathers what is pushed from now on until [`uncork`](Self::uncork).
    pub(crate) fn cork(&self) {
        self.state.lock().corked = true;
    }

    /// Ends the gathering if nothing has been gathered: what comes next may leave at once.
    pub(crate) fn uncork_empty(&self) -> bool {
        let mut state = self.state.lock();
        let empty = state.backlog.is_empty();
        state.corked &= !empty;
        empty
    }

    /// Sends what was gathered.
    pub(crate) fn uncork(&self) -> Pushed {
        let mut state = self.state.lock();
        state.corked = false;
        let pushed = state.release();
        self.account(&mut state, pushed)
    }

    /// The watcher's look at a corked outbox: sends what has waited since the last look. `false`: the outbox needs
    /// no watching any more.
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

    /// Sends as much of the backlog as the kernel takes: the drain thread's turn.
    pub(crate) fn drain(&self) -> Drained {
        let mut state = self.state.lock();
        let sent = state.send_backlog();
        self.settle(&mut state);
        match sent {
            Ok(true) => {
                state.draining = false;
                state.finish_if_closing();
                Drained::Empty
            }
            Ok(false) => Drained::Blocked,
            Err(_) => {
                state.fail();
                self.settle_closed(&mut state);
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

    /// Whether everything is out, or dropped.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state.lock().sink, Sink::Closed)
    }

    /// A GET has come: what is there, or else its holder is kept.
    pub(crate) fn poll(&self, holder: impl FnOnce() -> Holder) -> Poll {
        let mut state = self.state.lock();
        let ready = !state.backlog.is_empty() || state.closing;
        match &mut state.sink {
            Sink::Polling { held: Some(_), .. } => Poll::Overlap,
            Sink::Polling { held, .. } if !ready => {
                *held = Some(holder());
                Poll::Held
            }
            Sink::Polling { .. } => self.take(&mut state),
            _ => Poll::Gone,
        }
    }

    /// A held GET's thread is awake: what is there now. [`Poll::Held`]: nothing, wait on, with a new `holder` if there is one.
    /// `yields`: an upgrade sends it home.
    pub(crate) fn resume(&self, yields: bool, holder: Option<Holder>) -> Poll {
        let mut state = self.state.lock();
        let ready = !state.backlog.is_empty() || state.closing;
        match &mut state.sink {
            Sink::Polling { held, upgrading } if ready || (*upgrading && yields) => {
                *held = None;
                self.take(&mut state)
            }
            Sink::Polling { held, .. } => {
                if holder.is_some() {
                    *held = holder;
                }
                Poll::Held
            }
            _ => Poll::Gone,
        }
    }

    /// The held GET's thread leaves; from now on `holder` is woken. `false`: there is something for it, stay.
    pub(crate) fn park(&self, holder: Holder) -> bool {
        let mut state = self.state.lock();
        let ready = !state.backlog.is_empty() || state.closing;
        match &mut state.sink {
            Sink::Polling { held, upgrading: false } if !ready => {
                *held = Some(holder);
                true
            }
            _ => false,
        }
    }

    /// The WebSocket has been probed: the held GET goes home (EIO "Upgrade"), and later ones are not held for long.
    pub(crate) fn begin_upgrade(&self, yes: bool) {
        let mut state = self.state.lock();
        if let Sink::Polling { held, upgrading } = &mut state.sink {
            *upgrading = yes;
            if let (true, Some(waker)) = (yes, held.as_ref()) {
                waker.wake();
            }
        }
    }

    /// The session moves to a WebSocket, and what waits goes there, also when the session is closing: its client polls no
    /// more. `None`: it is over, or there already.
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
            state.finish_if_closing();
        }
        Some(self.account(&mut state, pushed))
    }

    /// No packet follows what waits: behind it goes `close_frame` and the end of a WebSocket's write side; a polling client
    /// may fetch it.
    pub(crate) fn finish(&self, close_frame: &[u8]) -> Pushed {
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
            Sink::WebSocket(_) if state.backlog.is_empty() => state.finish_if_closing(),
            _ => {}
        }
        self.account(&mut state, pushed)
    }

    /// Drops everything at once and lets go of whoever waits.
    pub(crate) fn abort(&self) {
        let mut state = self.state.lock();
        state.fail();
        if let Some((stream, _)) = state.delivering.take() {
            // Its thread need not wait for a peer that does not read.
            stream.shutdown(Shutdown::Both);
        }
        self.settle_closed(&mut state);
    }

    fn take(&self, state: &mut State) -> Poll {
        let mut body = payload::Builder::new();
        state.backlog.take_packets(&mut body);
        self.settle(state);
        if !body.is_empty() {
            // The close has a payload of its own: the JavaScript client hands events on a moment later, and a close
            // beside them makes it drop them.
            return Poll::Payload(body.finish());
        }
        if state.closing {
            state.sink = Sink::Closed;
            return Poll::Over;
        }
        body.push_text("6");
        Poll::Payload(body.finish())
    }

    /// Keeps the accounts after a push and judges the backlog's size.
    fn account(&self, state: &mut State, pushed: Pushed) -> Pushed {
        if matches!(pushed, Pushed::Closed) {
            state.backlog = Backlog::default();
        }
        self.settle(state);
        if state.backlog.len > self.max { Pushed::Overflow } else { pushed }
    }

    fn settle(&self, state: &mut State) {
        let delivering = state.delivering.as_ref().map_or(0, |(_, bytes)| *bytes);
        let (before, after) = (self.charged.load(Relaxed), state.backlog.held + delivering);
        if before != after {
            self.charged.store(after, Relaxed);
            self.budget.change(before, after);
        }
        if state.waiters > 0 {
            self.less.notify_all();
        }
    }

    fn settle_closed(&self, state: &mut State) {
        state.backlog = Backlog::default();
        self.settle(state);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.budget.change(self.charged.load(Relaxed), 0);
    }
}

/// A payload is being written; over on drop.
#[derive(Debug)]
pub(crate) struct Delivery<'o>(&'o Outbox);

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.delivering = None;
        self.0.settle(&mut state);
    }
}

impl State {
    /// Whether a packet pushed now would leave now: what "volatile" asks.
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
        // Much of it is not gathered: a client that reads would be taken for a slow one.
        if !self.corked || self.backlog.len >= GATHER_MAX {
            return self.release();
        }
        if std::mem::replace(&mut self.watched, true) { Pushed::Done } else { Pushed::Watch }
    }

    /// Lets the backlog go: to the socket, to the held poll, or to the drain thread.
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

    /// `true`: all of it went.
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

    fn finish_if_closing(&mut self) {
        if self.closing
            && let Sink::WebSocket(stream) = &self.sink
        {
            // The reader stays: it sees the peer's end, or the linger deadline does.
            stream.shutdown(Shutdown::Write);
        }
    }

    /// The stream is of no use any more, or the session has ended: lets its reader and its held poll know.
    fn fail(&mut self) {
        self.closing = true;
        match std::mem::replace(&mut self.sink, Sink::Closed) {
            Sink::WebSocket(stream) => stream.shutdown(Shutdown::Both),
            Sink::Polling { held: Some(waker), .. } => waker.wake(),
            _ => {}
        }
    }
}

/// As much as the kernel takes now; a full kernel takes nothing.
fn send_some(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
    match stream.send_now(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
}

/// Frames in order: small ones gathered, large ones shared.
#[derive(Debug, Default)]
struct Backlog {
    chunks: VecDeque<Chunk>,
    /// How much of the first chunk is gone.
    gone: usize,
    /// Bytes that wait.
    len: usize,
    /// Bytes of memory that the chunks take, whatever of the first one is gone.
    held: usize,
}

#[derive(Debug)]
enum Chunk {
    Gathered(Vec<u8>),
    Shared(Bytes),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Gathered(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// Bytes of memory, as if nobody else shared them.
    fn held(&self) -> usize {
        CHUNK_COST
            + match self {
                Self::Gathered(bytes) => bytes.capacity(),
                Self::Shared(bytes) => bytes.len(),
            }
    }
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends packets, but for their first `sent` bytes.
    fn push(&mut self, packets: Packets<'_>, sent: usize) {
        let rest = &packets.bytes()[sent..];
        self.len += rest.len();
        match (packets, self.chunks.back_mut()) {
            (Packets::Shared(encoded), _) if rest.len() >= SHARE_MIN => {
                self.chunks.push_back(Chunk::Shared(encoded.bytes().slice(sent..)));
            }
            (_, Some(Chunk::Gathered(last))) if last.len() + rest.len() <= GATHER_MAX => {
                self.held -= last.capacity();
                last.extend_from_slice(rest);
                self.held += last.capacity();
                return;
            }
            _ => self.chunks.push_back(Chunk::Gathered(rest.to_vec())),
        }
        self.held += self.chunks.back().map_or(0, Chunk::held);
    }

    fn front(&self) -> Option<&[u8]> {
        self.chunks.front().map(|chunk| &chunk.bytes()[self.gone..])
    }

    fn advance(&mut self, bytes: usize) {
        self.gone += bytes;
        self.len -= bytes;
        if self.front().is_some_and(<[u8]>::is_empty) {
            self.held -= self.chunks.pop_front().map_or(0, |chunk| chunk.held());
            self.gone = 0;
        }
        if self.chunks.is_empty() {
            // A connection that once had a backlog keeps no buffer for it.
            self.chunks = VecDeque::new();
        }
    }

    /// Moves whole packets into a payload, as many as every client takes.
    fn take_packets(&mut self, body: &mut payload::Builder) {
        while body.packets() < limits::MAX_SENT_PACKETS && body.len() < PAYLOAD_FULL {
            let Some(frame) = self.front().and_then(|chunk| Frames::new(chunk).next()) else {
                return;
            };
            match (frame.opcode, frame.text()) {
                (Opcode::Text, Some(text)) => body.push_text(text),
                (Opcode::Binary, _) => body.push_binary(frame.data),
                _ => {}
            }
            let size = frame.size;
            self.advance(size);
        }
    }
}
