//! The system that there is.

pub(crate) use std::{thread, thread_local};

/// Locks, and what is shared without one.
pub(crate) mod sync {
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::{OnceLock, atomic};
}

/// Queues between threads.
pub(crate) mod channel {
    pub(crate) use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
}

/// The clock.
pub(crate) mod time {
    pub(crate) use std::time::Instant;
}

/// Streams and listeners.
pub(crate) mod net {
    pub(crate) use std::net::{TcpListener, TcpStream};
    pub(crate) use std::os::unix::net::{UnixListener, UnixStream};
}

/// Descriptors.
pub(crate) mod fd {
    pub(crate) use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
}

/// System calls.
pub(crate) mod os {
    pub(crate) use rustix::{
        buffer::spare_capacity,
        event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll},
        io::{Errno, read, write},
        net::{RecvFlags, SendFlags, recv, send, sockopt::set_tcp_nodelay},
    };
}
