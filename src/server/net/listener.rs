//! The listening socket, TCP or Unix-domain, and what a failed accept means.
//!
//! It accepts one connection at a time and does not block. It knows nothing of limits and of the server.

use std::io;

use crate::server::{net::stream::Stream, net::unix_socket::SocketFile, peer::Peer};
use crate::sys::{
    fd::{AsFd, BorrowedFd},
    net::{TcpListener, UnixListener},
    os::{Errno, set_tcp_nodelay},
};

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// Dropped before the listener: the inode of a closed socket may be reused by another file.
    Unix {
        _file: SocketFile,
        listener: UnixListener,
    },
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix { listener, .. } => listener.as_fd(),
        }
    }
}

impl Listener {
    /// `inherits`: the connection came after [`set_nodelay`](Self::set_nodelay).
    pub(crate) fn accept(&self, inherits: bool) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                if !inherits {
                    // If the peer is gone already, the first read reports it.
                    let _ = set_tcp_nodelay(&stream, true);
                }
                Ok((Stream::tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix { listener, .. } => Ok((Stream::unix(listener.accept()?.0), Peer::Unix)),
        }
    }

    /// Switches Nagle's algorithm off, because packets are small and must leave at once. On Linux a connection
    /// inherits the option from its listener. `false`: this system refuses it on a listener.
    pub(crate) fn set_nodelay(&self) -> bool {
        match self {
            Self::Tcp(listener) => set_tcp_nodelay(listener, true).is_ok(),
            Self::Unix { .. } => true,
        }
    }

    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix { listener, .. } => listener.set_nonblocking(true),
        }
    }
}

/// Whether the process or the system has no descriptor for another connection.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether an accept failed because the peer has closed the connection already. The next accept may succeed.
pub(crate) fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use rustix::net::sockopt::tcp_nodelay;

    use super::*;

    #[test]
    fn every_connection_has_nodelay_whether_it_came_before_or_after_the_start() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = tcp.local_addr().expect("it is bound");
        let dial = || std::net::TcpStream::connect(address).expect("it listens");
        let listener = Listener::Tcp(tcp);
        let _early = dial();
        assert!(listener.set_nodelay());
        let _late = dial();
        for inherits in [false, true] {
            let (stream, _) = listener.accept(inherits).expect("a connection");
            assert_eq!(tcp_nodelay(&stream), Ok(true), "inherits: {inherits}");
        }
    }
}
