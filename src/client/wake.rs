//! Waking a thread that sleeps in `poll(2)`, and cutting the connection that it sleeps on.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};

/// An eventfd: any thread rings it, its owner polls it beside a socket.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Wakes whoever polls it, now or at its next poll. Ringing twice is ringing once.
    pub(super) fn ring(&self) {
        // The one error of a live eventfd is a full counter, and then it has been rung.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Takes back what was rung so far.
    pub(super) fn silence(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What every stream of one connection hangs on: cut it, and whoever waits on one of them stops waiting.
///
/// It is cut once and stays cut, so there is no moment at which a cut could be missed.
#[derive(Debug)]
pub(super) struct Lifeline {
    cut: AtomicBool,
    /// A WebSocket is to take over: the `poll` thread starts no more requests.
    upgrading: AtomicBool,
    bell: Bell,
    pulse: Mutex<Pulse>,
}

/// The server's last sign of life.
#[derive(Debug)]
struct Pulse {
    heard_at: Instant,
    /// Nothing is read at the moment, so nothing can be heard.
    held: bool,
}

impl Lifeline {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            cut: AtomicBool::new(false),
            upgrading: AtomicBool::new(false),
            bell: Bell::new()?,
            pulse: Mutex::new(Pulse { heard_at: Instant::now(), held: false }),
        })
    }

    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.bell.ring();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// What a wait on a cut lifeline ends with.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.is_cut() { Err(io::Error::new(io::ErrorKind::ConnectionAborted, "given up")) } else { Ok(()) }
    }

    /// Asks the `poll` thread to end, because a WebSocket takes over.
    pub(super) fn upgrade(&self) {
        self.upgrading.store(true, Ordering::Release);
    }

    pub(super) fn is_upgrading(&self) -> bool {
        self.upgrading.load(Ordering::Acquire)
    }

    /// Notes bytes from the server: any byte is a sign of life, also in the middle of a long message.
    pub(super) fn hear(&self) {
        self.pulse.lock().heard_at = Instant::now();
    }

    /// Says whether reading is held back. While it is, the server's silence proves nothing and is not counted.
    pub(super) fn hold(&self, held: bool) {
        let mut pulse = self.pulse.lock();
        if pulse.held != held {
            *pulse = Pulse { heard_at: Instant::now(), held };
        }
    }

    /// When the last sign of life came: now, while nothing is read.
    pub(super) fn heard_at(&self) -> Instant {
        let pulse = self.pulse.lock();
        if pulse.held { Instant::now() } else { pulse.heard_at }
    }

    /// Waits until `fd` is ready for `interest`, in which case it is `true`, or until `deadline`.
    ///
    /// # Errors
    /// When cut.
    pub(super) fn wait(
        &self,
        fd: BorrowedFd<'_>,
        interest: PollFlags,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        self.check()?;
        let mut fds = [PollFd::from_borrowed_fd(fd, interest), PollFd::new(&self.bell, PollFlags::IN)];
        poll(&mut fds, deadline)?;
        self.check()?;
        Ok(!fds[0].revents().is_empty())
    }

    /// The descriptor that becomes readable with the cut.
    pub(super) fn as_poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.bell, PollFlags::IN)
    }
}

/// The instant that is `duration` from now; a duration without end ends in ten years.
pub(super) fn from_now(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or_else(|| now + Duration::from_secs(10 * 365 * 86_400))
}

/// `poll(2)` until one of `fds` is ready or `deadline` has come; without a deadline for ever. A signal does not end it.
pub(super) fn poll(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos() as _,
            }
        });
        match rustix::event::poll(fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}
