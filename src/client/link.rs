//! The `link` thread: owns the transport of the open session, and writes everything that goes to the server.
//!
//! On WebSocket it also reads: one loop over a non-blocking socket. It sleeps in `poll(2)` until the socket is ready,
//! something is emitted, its token is cancelled, or a deadline has come. On polling it makes the POSTs, one after the
//! other, while the `poll` thread holds the GET. Once an upgrade is probed and the last GET is answered, it continues
//! on WebSocket.
//!
//! Uses `core` and the transports. It must not call a handler, or hold the lock while it reads or writes.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags};

use super::{
    cancel::CancelToken,
    core::Core,
    end::End,
    http::HttpClient,
    inbound::Inbound,
    open::Transport,
    polling::{self, PollJob},
    send_queue::Frame,
    websocket::{Incoming, WebSocket},
    work::Work,
};
use crate::proto::{CloseReason, engine::TransportKind, socket::Opcode};
use crate::sys::real::wait::wait;

/// Messages that are read in a row. Then emitted packets are written.
const READS: usize = 64;

/// The longest wait for the answer to a WebSocket ping.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The longest silence that a server may announce. A longer one would make the client wait without end.
const MAX_SILENCE: Duration = Duration::from_secs(24 * 3_600);

/// A session for the `link` thread.
pub(super) struct Job {
    pub(super) epoch: u64,
    pub(super) sid: String,
    /// How long the server may be silent: its ping interval and ping timeout.
    pub(super) silence: Duration,
    /// How long the server waits for a pong.
    pub(super) ping_timeout: Duration,
    pub(super) token: Arc<CancelToken>,
    pub(super) transport: Transport,
    pub(super) inbound: Inbound,
}

/// The thread. It owns the channel to `poll`, which ends when this thread does.
pub(super) fn run(core: &Arc<Core>, jobs: &Receiver<Job>, polls: Option<&Sender<PollJob>>) {
    for job in jobs {
        let epoch = job.epoch;
        let token = job.token.clone();
        let mut link = Link::new(core, &job);
        let end = link.run(job, polls);
        let unclosed = link.unclosed.take();
        // The held GET ends too.
        core.cancel(&token);
        let close_token = unclosed.as_ref().and_then(|_| CancelToken::new().ok()).map(Arc::new);
        core.session_ended(epoch, end, close_token.clone());
        if let (Some(target), Some(token)) = (unclosed, close_token) {
            polling::send_close(core, &token, &target);
        }
    }
}

/// How long the server may take to handle what was written. At most half of the time that is left for closing.
fn pause_length(closing: Option<Instant>) -> Duration {
    let left = closing.map(|by| by.saturating_duration_since(Instant::now()) / 2);
    left.unwrap_or(MAX_PAUSE).min(MAX_PAUSE)
}

/// The session, and what the thread knows of it.
struct Link<'c> {
    core: &'c Arc<Core>,
    epoch: u64,
    token: Arc<CancelToken>,
    silence: Duration,
    /// After how long without a ping a pong is sent unasked: half of the ping timeout after the ping was due.
    pong_after: Duration,
    /// The interval of further pongs. It is shorter than the ping timeout, so that each ping gets one, whether the
    /// server counts its interval from the last pong (as the official server does) or from its last ping.
    pong_again: Duration,
    /// When the next pong is sent unasked.
    pong_due: Instant,
    /// While polling: where the `poll` thread sends its result.
    polled: Option<Receiver<Result<Inbound, End>>>,
    /// What the `poll` thread gave back for an upgrade.
    inbound: Option<Inbound>,
    /// Frames that are taken from the send queue and not written.
    pending: VecDeque<Frame>,
    /// When a pause ends, if the server does not end it before.
    pause: Option<Instant>,
    /// The target of the request that closes a failed polling session on the server.
    unclosed: Option<String>,
}

impl<'c> Link<'c> {
    fn new(core: &'c Arc<Core>, job: &Job) -> Self {
        let pong_after = job.silence.saturating_sub(job.ping_timeout / 2).min(MAX_SILENCE);
        Self {
            core,
            epoch: job.epoch,
            token: job.token.clone(),
            silence: job.silence.min(MAX_SILENCE),
            pong_after,
            // Not too often for a server with a short ping timeout.
            pong_again: (job.ping_timeout / 4 * 3).max(job.silence / 16).min(MAX_SILENCE),
            pong_due: Instant::now() + pong_after,
            polled: None,
            inbound: None,
            pending: VecDeque::new(),
            pause: None,
            unclosed: None,
        }
    }

    fn run(&mut self, job: Job, polls: Option<&Sender<PollJob>>) -> End {
        let websocket = match (job.transport, polls) {
            (Transport::WebSocket(websocket), _) => Ok(Some((websocket, job.inbound))),
            (Transport::Polling(http, early), Some(polls)) => {
                let post =
                    HttpClient::new(&self.core.dialer, &self.core.config, &self.token, Some(self.silence));
                let target = self.core.dialer.endpoint.target(TransportKind::Polling, Some(&job.sid));
                let (result, polled) = crossbeam_channel::bounded(1);
                self.polled = Some(polled);
                let poll = PollJob {
                    epoch: self.epoch,
                    http,
                    target: target.clone(),
                    early,
                    inbound: job.inbound,
                    token: self.token.clone(),
                    result,
                };
                // The channel has room: the end of the last session has cancelled its GET.
                let _ = polls.send(poll);
                let end = self.polling(&post, &target);
                // "transport close": the server has closed the session, or was told to.
                let failed = matches!(&end, Err(end) if end.reason != CloseReason::TransportClose);
                self.unclosed = failed.then_some(target);
                end
            }
            (Transport::Polling(..), None) => {
                Err(End::failed(CloseReason::TransportError, "no thread for polling"))
            }
        };
        // The polling connections are closed here.
        let ended = websocket.and_then(|taken| match taken {
            Some((websocket, inbound)) => self.websocket(*websocket, inbound),
            None => Ok(()),
        });
        ended.map_or_else(|end| end, |()| End::closed())
    }

    /// Runs a WebSocket session until its end. `Ok`: it was closed normally.
    fn websocket(&mut self, mut websocket: WebSocket, mut inbound: Inbound) -> Result<(), End> {
        let mut blocked = false;
        let mut handshake = ClosingHandshake::NotBegun;
        loop {
            let work = self.take_work()?;
            if work.pause {
                self.pause = Some(Instant::now() + pause_length(work.closing));
                websocket.ping()?;
            }
            if !blocked || websocket.flush()? {
                blocked = !self.write(&mut websocket)?;
            }
            if work.closing.is_some()
                && !work.more
                && !blocked
                && handshake.advance(&mut websocket, self.core, self.epoch)
            {
                continue;
            }
            let mut room = self.core.events.has_room();
            while room && inbound.has_rest() {
                inbound.next()?;
                room = self.core.events.has_room();
            }
            self.token.suspend_liveness(!room);
            let drained = !room || !self.read(&mut websocket, &mut inbound)?;
            let deadline = self.next_deadline(work.deadline)?;
            let deadline = self.pong_unasked(deadline, Some(&websocket));
            if drained && (work.idle || !self.pending.is_empty()) {
                self.sleep(Some((&websocket, room, blocked)), deadline)?;
            }
        }
    }

    /// Runs a polling session until its end, or until a WebSocket takes over.
    fn polling(&mut self, http: &HttpClient, target: &str) -> Result<Option<(Box<WebSocket>, Inbound)>, End> {
        loop {
            let work = self.take_work()?;
            let closing = work.closing.is_some();
            if let Some(inbound) = self.inbound.take() {
                let Some(websocket) = self.core.take_upgrade(self.epoch) else {
                    return Err(End::failed(CloseReason::TransportError, "polling stopped"));
                };
                // The first packet on the new transport (EIO "Upgrade"); nothing else is written before it.
                let upgrade = Frame { opcode: Opcode::Text, data: Bytes::from_static(b"5") };
                self.pending.push_front(upgrade);
                return Ok(Some((websocket, inbound)));
            }
            // Nothing is posted between the probe and the answer to the last GET, unless the session is being closed.
            let hold = work.upgrading && !closing;
            if !self.pending.is_empty() && !hold {
                self.post(http, target)?;
                continue;
            }
            if closing && !work.more {
                self.pending.push_back(Frame { opcode: Opcode::Text, data: Bytes::from_static(b"1") });
                self.post(http, target)?;
                self.core.flushed(self.epoch);
                return Ok(None);
            }
            // So that the thread is woken when there is room again.
            self.core.events.has_room();
            let deadline = self.next_deadline(work.deadline)?;
            let deadline = self.pong_unasked(deadline, None);
            if (work.idle && self.pending.is_empty()) || hold {
                self.sleep(None, deadline)?;
            }
        }
    }

    fn take_work(&mut self) -> Result<Work, End> {
        self.core.link_waker.reset();
        self.pause = self.pause.filter(|end| *end > Instant::now());
        let mut work = self.core.take_work(self.epoch, &mut self.pending, self.pause.is_some());
        work.deadline = [work.deadline, self.pause].into_iter().flatten().min();
        if work.pong {
            self.pong_due = Instant::now() + self.pong_after;
        }
        if let Some(failed) = work.failed {
            return Err(failed);
        }
        // Read first: the `poll` thread sends its result, and then cancels the token.
        let cancelled = self.token.is_cancelled();
        match self.polled.as_ref().and_then(|polled| polled.try_recv().ok()) {
            Some(Ok(inbound)) => self.inbound = Some(inbound),
            Some(Err(end)) => return Err(end),
            None => {}
        }
        if cancelled {
            return Err(End::failed(CloseReason::TransportClose, "given up"));
        }
        if work.closing.is_some_and(|by| by <= Instant::now()) {
            return Err(End::failed(CloseReason::TransportClose, "the goodbye took too long"));
        }
        Ok(work)
    }

    /// Writes the pending frames. `false`: the socket takes no more.
    fn write(&mut self, websocket: &mut WebSocket) -> Result<bool, End> {
        while let Some(frame) = self.pending.pop_front() {
            if !websocket.write(&frame)? {
                return Ok(false);
            }
        }
        websocket.flush()
    }

    /// Reads the messages that have arrived. `true`: there may be more.
    fn read(&mut self, websocket: &mut WebSocket, inbound: &mut Inbound) -> Result<bool, End> {
        for _ in 0..READS {
            match websocket.read()? {
                None => return Ok(false),
                Some(Incoming::Text(text)) => inbound.text(&text)?,
                Some(Incoming::Binary(bytes)) => inbound.binary(bytes)?,
                Some(Incoming::Ping) => {}
                Some(Incoming::Pong) => {
                    // The packets behind the pause are written before the thread sleeps.
                    if self.pause.take().is_some() {
                        return Ok(true);
                    }
                }
                Some(Incoming::Closed) => return Err(End::closed_by_server()),
            }
            if !self.core.events.has_room() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn post(&mut self, http: &HttpClient, target: &str) -> Result<(), End> {
        let max = {
            let mut state = self.core.lock();
            state.connection.session_of(self.epoch).and_then(|session| session.max_payload())
        };
        let body = polling::payload(&mut self.pending, max.unwrap_or(usize::MAX));
        let Err(error) = polling::post(http, target, &body, Instant::now() + self.silence) else {
            return Ok(());
        };
        // If the POST failed because the session has ended, this gives the reason.
        self.take_work()?;
        self.next_deadline(None)?;
        Err(End::failed(CloseReason::TransportError, error.to_string()))
    }

    /// When to look again: a deadline of the state, or the end of the allowed silence.
    fn next_deadline(&self, deadline: Option<Instant>) -> Result<Instant, End> {
        let dead = self.token.last_activity() + self.silence;
        if dead <= Instant::now() {
            return Err(End::failed(
                CloseReason::PingTimeout,
                "no ping within the time that the server announced",
            ));
        }
        Ok(deadline.map_or(dead, |deadline| deadline.min(dead)))
    }

    /// Sends a pong unasked when the server's ping is overdue: the ping is behind events that wait for room, or
    /// behind a long message. The server takes the pong for the answer to its ping. Gives the time to look again, at
    /// the latest `deadline`.
    fn pong_unasked(&mut self, deadline: Instant, websocket: Option<&WebSocket>) -> Instant {
        // Further pongs must not pile up behind frames that are not written.
        if !self.pending.is_empty() {
            return deadline;
        }
        let now = Instant::now();
        if self.pong_due > now {
            return deadline.min(self.pong_due);
        }
        self.pong_due = now + self.pong_again;
        // Writing to a server that has closed would discard its last messages.
        if !websocket.is_some_and(WebSocket::is_closed_by_peer) {
            self.pending.push_back(Frame { opcode: Opcode::Text, data: Bytes::from_static(b"3") });
        }
        now
    }

    /// Sleeps until there is something to do.
    fn sleep(&self, socket: Option<(&WebSocket, bool, bool)>, deadline: Instant) -> Result<(), End> {
        let deadline = Some(deadline);
        let waker = self.core.link_waker.poll_fd();
        let slept = match socket {
            // A socket without interest is left out: `poll(2)` would report its hang-up again and again.
            Some((websocket, read, write)) if read || write => {
                let mut interest = PollFlags::empty();
                interest.set(PollFlags::IN, read);
                interest.set(PollFlags::OUT, write);
                wait(&mut [waker, self.token.poll_fd(), PollFd::new(websocket, interest)], deadline)
            }
            _ => wait(&mut [waker, self.token.poll_fd()], deadline),
        };
        slept.map(drop).map_err(|error| End::failed(CloseReason::TransportError, error.to_string()))
    }
}

/// The steps of closing a WebSocket: close frame, its flush, the end of the write side; then the server's end is
/// awaited.
enum ClosingHandshake {
    NotBegun,
    FrameSent,
    Done,
}

impl ClosingHandshake {
    /// Makes the next step, once everything is written. `true`: another step follows at once.
    fn advance(&mut self, websocket: &mut WebSocket, core: &Core, epoch: u64) -> bool {
        match self {
            Self::NotBegun => {
                core.flushed(epoch);
                websocket.close();
                *self = Self::FrameSent;
                true
            }
            Self::FrameSent => {
                websocket.shutdown_write();
                *self = Self::Done;
                false
            }
            Self::Done => false,
        }
    }
}
