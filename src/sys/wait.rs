//! Waiting for descriptors, and waking a thread that does: one source for server and client.
//!
//! Owns the [`Waker`] and the loop around `poll(2)`. Uses the module that includes it, and nothing else: `real`
//! includes it for the client and for ordinary builds of the server, `sim` for the server under the model checker.

use std::{io, time::Duration};

use super::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    os::{Errno, EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll, read, write},
    time::Instant,
};

/// An eventfd. Any thread calls [`wake`](Self::wake); the owner polls the descriptor beside its sockets.
#[derive(Debug)]
pub(crate) struct Waker(OwnedFd);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// Makes the descriptor readable. Several calls before the next [`reset`](Self::reset) count as one.
    pub(crate) fn wake(&self) {
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable again.
    pub(crate) fn reset(&self) {
        // Fails only when the descriptor is not readable.
        let _ = read(&self.0, &mut [0u8; 8]);
    }

    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.0, PollFlags::IN)
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` is ready (`true`) or the deadline has passed (`false`). A signal does not end the wait.
pub(crate) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ }
        });
        match poll(fds, timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The longest timeout that is distinguished from an endless one: ten years.
const ENDLESS: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The deadline of a timeout that begins now. An endless timeout is over in ten years.
pub(crate) fn deadline_in(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(ENDLESS)
}
