//! The system that there is.
#![cfg_attr(shuttle, allow(dead_code, unused_imports, reason = "then only the client uses it"))]

#[path = "wait.rs"]
pub(crate) mod wait;

pub(crate) use std::{thread, thread_local};

/// Locks, and what is shared without one.
pub(crate) mod sync {
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::OnceLock;

    /// As the standard library's, with `AtomicU64` on every processor.
    pub(crate) mod atomic {
        pub(crate) use crate::wide::AtomicU64;
        pub(crate) use std::sync::atomic::*;
    }
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
    use std::{io, path::Path};

    use rustix::{
        io::Errno,
        net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
    };

    /// Connections that may wait to be accepted; the kernel's own bound (`net.core.somaxconn`) is lower on most
    /// machines.
    const BACKLOG: i32 = 4096;

    fn unix_socket(flags: SocketFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None)
    }

    /// Listens at `path`. `prepare` is called when the file is there and nobody can connect yet.
    pub(crate) fn listen_unix(
        path: &Path,
        prepare: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<UnixListener> {
        let socket = unix_socket(SocketFlags::empty())?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        prepare()?;
        listen(&socket, BACKLOG)?;
        Ok(socket.into())
    }

    /// Whether nobody listens on this socket any more. Of one that cannot be asked, or is too busy to answer, that is
    /// not known: `false`.
    pub(crate) fn is_abandoned(path: &Path) -> bool {
        let asked = SocketAddrUnix::new(path)
            .and_then(|address| connect(&unix_socket(SocketFlags::NONBLOCK)?, &address));
        asked == Err(Errno::CONNREFUSED)
    }
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

    /// Descriptors that this process may have (`RLIMIT_NOFILE`). `None`: any number.
    pub(crate) fn descriptor_limit() -> Option<usize> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
        Some(usize::try_from(limit).unwrap_or(usize::MAX))
    }
}
