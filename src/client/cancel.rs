//! The [`CancelToken`] of one attempt, session or request: ends its waits from another thread, and knows when the
//! server was last heard.
//!
//! Every stream has one, and every wait of a stream goes through [`CancelToken::wait`]. Uses `sys` only. It must not
//! know what is cancelled.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};

use crate::sys::real::wait::{Waker, wait};

/// Ends all waits of one connection.
///
/// It is never reset, so a wait that begins after [`cancel`](Self::cancel) ends at once too.
#[derive(Debug)]
pub(super) struct CancelToken {
    cancelled: AtomicBool,
    /// A WebSocket is to take over: the `poll` thread starts no more requests.
    upgrading: AtomicBool,
    waker: Waker,
    liveness: Mutex<Liveness>,
}

/// When the server was last heard.
#[derive(Debug)]
struct Liveness {
    last_activity: Instant,
    /// The client reads nothing at the moment, so the server's silence proves nothing.
    suspended: bool,
}

impl CancelToken {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            cancelled: AtomicBool::new(false),
            upgrading: AtomicBool::new(false),
            waker: Waker::new()?,
            liveness: Mutex::new(Liveness { last_activity: Instant::now(), suspended: false }),
        })
    }

    /// Ends every wait, now and later.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// # Errors
    /// When cancelled.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.is_cancelled() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "given up"));
        }
        Ok(())
    }

    /// Asks the `poll` thread to end, because a WebSocket takes over.
    pub(super) fn upgrade(&self) {
        self.upgrading.store(true, Ordering::Release);
    }

    pub(super) fn is_upgrading(&self) -> bool {
        self.upgrading.load(Ordering::Acquire)
    }

    /// Records that bytes came from the server. Any byte counts, also one in the middle of a long message.
    pub(super) fn note_activity(&self) {
        self.liveness.lock().last_activity = Instant::now();
    }

    /// Says whether reading is suspended. While it is, the server's silence is not counted.
    pub(super) fn suspend_liveness(&self, suspended: bool) {
        let mut liveness = self.liveness.lock();
        if liveness.suspended != suspended {
            *liveness = Liveness { last_activity: Instant::now(), suspended };
        }
    }

    /// When bytes last came from the server: now, while reading is suspended.
    pub(super) fn last_activity(&self) -> Instant {
        let liveness = self.liveness.lock();
        if liveness.suspended { Instant::now() } else { liveness.last_activity }
    }

    /// Waits until `fd` is ready for `interest` (`true`), or until `deadline` (`false`).
    ///
    /// # Errors
    /// When cancelled.
    pub(super) fn wait(
        &self,
        fd: BorrowedFd<'_>,
        interest: PollFlags,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        self.check()?;
        let mut fds = [PollFd::from_borrowed_fd(fd, interest), self.waker.poll_fd()];
        wait(&mut fds, deadline)?;
        self.check()?;
        Ok(!fds[0].revents().is_empty())
    }

    /// A descriptor that becomes readable when cancelled.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        self.waker.poll_fd()
    }
}
