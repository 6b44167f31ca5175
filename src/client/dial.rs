//! From an address to a stream: name lookup, connection, TLS. Each can be cancelled as far as the system allows.
//!
//! Uses `stream`, `tls`, `url` and the cancel token. It must not know HTTP or Engine.IO.

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    sync::Arc,
    time::Instant,
};

use rustix::{
    event::PollFlags,
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt},
};

use super::{
    Step,
    cancel::CancelToken,
    stream::{Blocking, Socket, Stream},
    url::{Address, Endpoint},
};

/// A step of the connection that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed: {detail}")]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) detail: String,
}

impl Failure {
    fn new(step: Step, detail: impl ToString) -> Self {
        Self { step, detail: detail.to_string() }
    }
}

/// The address and the TLS configuration of the server.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    pub(super) endpoint: Arc<Endpoint>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
}

impl Dialer {
    /// Opens a stream that `token` cancels, with `deadline` for its reads and writes.
    pub(super) fn dial(&self, token: &Arc<CancelToken>, deadline: Instant) -> Result<Stream, Failure> {
        let socket = match &self.endpoint.address {
            Address::Tcp { host, port } => Socket::Tcp(tcp(host, *port, token, deadline)?),
            Address::Unix(path) => Socket::Unix(unix(path, token, deadline)?),
        };
        self.secure(socket, token, deadline)
    }

    #[cfg(feature = "tls")]
    fn secure(&self, socket: Socket, token: &Arc<CancelToken>, deadline: Instant) -> Result<Stream, Failure> {
        let plain = (token.clone(), Blocking::Until(deadline));
        let (Some(config), Address::Tcp { host, .. }) = (&self.tls, &self.endpoint.address) else {
            return Ok(Stream::plain(socket, plain.0, plain.1));
        };
        let tls = super::tls::connection(config, host).map_err(|error| Failure::new(Step::Tls, error))?;
        let mut stream = Stream::secure(socket, tls, plain);
        stream.finish_handshake().map_err(|error| Failure::new(Step::Tls, error))?;
        Ok(stream)
    }

    #[cfg(not(feature = "tls"))]
    fn secure(&self, socket: Socket, token: &Arc<CancelToken>, deadline: Instant) -> Result<Stream, Failure> {
        Ok(Stream::plain(socket, token.clone(), Blocking::Until(deadline)))
    }
}

/// Tries the addresses of the name in turn, each with an equal share of the remaining time.
fn tcp(host: &str, port: u16, token: &CancelToken, deadline: Instant) -> Result<TcpStream, Failure> {
    // The system's resolver can neither be cancelled nor given a deadline.
    let addresses: Vec<_> =
        (host, port).to_socket_addrs().map_err(|error| Failure::new(Step::Resolve, error))?.collect();
    token.check().map_err(|error| Failure::new(Step::Connect, error))?;
    let mut failure = Failure::new(Step::Resolve, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let share = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - index) as u32;
        match tcp_at(address, token, Instant::now() + share) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Failure::new(Step::Connect, format_args!("{error} ({address})")),
        }
        if token.is_cancelled() {
            break;
        }
    }
    Err(failure)
}

fn tcp_at(address: &SocketAddr, token: &CancelToken, deadline: Instant) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = new_socket(family)?;
    finish(&socket, connect(&socket, address), token, deadline)?;
    let stream = TcpStream::from(socket);
    // Small packets must not wait for more to send.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn unix(path: &Path, token: &CancelToken, deadline: Instant) -> Result<UnixStream, Failure> {
    let open = || {
        let socket = new_socket(AddressFamily::UNIX)?;
        finish(&socket, connect(&socket, &SocketAddrUnix::new(path)?), token, deadline)?;
        Ok::<_, io::Error>(UnixStream::from(socket))
    };
    open().map_err(|error| Failure::new(Step::Connect, format_args!("{error} ({})", path.display())))
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Waits for the result of a non-blocking connect.
fn finish(
    socket: &OwnedFd,
    begun: rustix::io::Result<()>,
    token: &CancelToken,
    deadline: Instant,
) -> io::Result<()> {
    use std::os::fd::AsFd;
    match begun {
        Err(Errno::INPROGRESS | Errno::INTR) => {}
        result => return Ok(result?),
    }
    while !token.wait(socket.as_fd(), PollFlags::OUT, Some(deadline))? {
        if deadline <= Instant::now() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"));
        }
    }
    Ok(sockopt::socket_error(socket)??)
}
