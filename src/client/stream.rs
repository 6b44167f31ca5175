//! One byte stream to the server: TCP or a Unix socket, with TLS or without, always non-blocking underneath.
//!
//! A read or a write of a [`Stream`] waits as its [`Blocking`] says, in `poll(2)` beside the connection's
//! [`CancelToken`], so that another thread can cancel every wait. Handshakes and polling requests wait; an open
//! WebSocket does not.
//!
//! Uses `tls` and the cancel token. It must not know what is written.

use std::{
    fmt,
    io::{self, Read, Write},
    net::TcpStream,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    net::{RecvFlags, recv},
};

use super::cancel::CancelToken;
#[cfg(feature = "tls")]
use super::tls::Tls;

/// The socket under a stream.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How long a read or write may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocking {
    /// Not at all: `WouldBlock`.
    Never,
    /// Until then: `TimedOut`.
    Until(Instant),
    /// Until the token is cancelled.
    UntilCancelled,
}

/// A stream that a token cancels.
pub(super) struct Stream {
    layer: Layer,
    token: Arc<CancelToken>,
    blocking: Blocking,
    /// Set by [`end_when_silent`](Self::end_when_silent): no wait goes on once the connection has been silent for so
    /// long.
    silence: Option<Duration>,
}

enum Layer {
    Plain(Socket),
    #[cfg(feature = "tls")]
    Tls(Box<Tls<Socket>>),
}

impl Stream {
    pub(super) fn plain(socket: Socket, token: Arc<CancelToken>, blocking: Blocking) -> Self {
        Self { layer: Layer::Plain(socket), token, blocking, silence: None }
    }

    /// Puts TLS over a plain stream. The handshake happens with the first read or write, or in
    /// [`Stream::finish_handshake`].
    #[cfg(feature = "tls")]
    pub(super) fn secure(
        socket: Socket,
        tls: rustls::ClientConnection,
        plain: (Arc<CancelToken>, Blocking),
    ) -> Self {
        let (token, blocking) = plain;
        let layer = Layer::Tls(Box::new(Tls::new(tls, socket)));
        Self { layer, token, blocking, silence: None }
    }

    /// Finishes the TLS handshake, so that its errors can be distinguished from later ones.
    #[cfg(feature = "tls")]
    pub(super) fn finish_handshake(&mut self) -> io::Result<()> {
        loop {
            self.check_wait()?;
            let Layer::Tls(tls) = &mut self.layer else { return Ok(()) };
            match tls.step() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let interest = if tls.wants_write() { PollFlags::OUT } else { PollFlags::IN };
                    self.wait(interest)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn set_blocking(&mut self, blocking: Blocking) {
        self.blocking = blocking;
    }

    /// From now on reads do not count as activity: answers to POSTs say nothing about the connection that brings
    /// packets. Every wait ends once the connection has been silent for `silence`.
    pub(super) fn end_when_silent(&mut self, silence: Duration) {
        self.silence = Some(silence);
    }

    /// Whether the connection has been silent for too long.
    fn is_silent(&self) -> bool {
        self.silence.is_some_and(|silence| self.token.last_activity() + silence <= Instant::now())
    }

    /// Replaces the token by the one of the session that takes the stream.
    pub(super) fn set_token(&mut self, token: Arc<CancelToken>) {
        self.token = token;
    }

    pub(super) fn is_secure(&self) -> bool {
        !matches!(self.layer, Layer::Plain(_))
    }

    /// Whether an idle stream can still be used: the peer has neither closed it nor sent anything.
    pub(super) fn is_open(&self) -> bool {
        let mut byte = [0];
        match recv(self.as_fd(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            // TLS sends session tickets unasked.
            Ok((n, _)) => n > 0 && self.is_secure(),
            Err(error) => error == rustix::io::Errno::WOULDBLOCK,
        }
    }

    /// Closes the write side.
    pub(super) fn shutdown_write(&mut self) {
        let _ = match self.layer.finish() {
            Socket::Tcp(tcp) => tcp.shutdown(std::net::Shutdown::Write),
            Socket::Unix(unix) => unix.shutdown(std::net::Shutdown::Write),
        };
    }

    fn wait(&self, interest: PollFlags) -> io::Result<()> {
        let deadline = match self.blocking {
            Blocking::Never => return Err(io::ErrorKind::WouldBlock.into()),
            Blocking::Until(deadline) => Some(deadline),
            Blocking::UntilCancelled => None,
        };
        let silent = self.silence.map(|silence| self.token.last_activity() + silence);
        let wake = [deadline, silent].into_iter().flatten().min();
        if !self.token.wait(self.as_fd(), interest, wake)?
            && (deadline.is_some_and(|d| d <= Instant::now()) || self.is_silent())
        {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"));
        }
        Ok(())
    }

    /// Checks the deadline and the token. This is done before each step, because a slow peer may never let one block
    /// for long.
    fn check_wait(&self) -> io::Result<()> {
        match self.blocking {
            Blocking::Never => Ok(()),
            Blocking::Until(deadline) if deadline <= Instant::now() => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"))
            }
            Blocking::Until(_) | Blocking::UntilCancelled => self.token.check(),
        }
    }

    /// Runs `attempt` until it does not block, or may wait no longer.
    fn blocking_io<T>(
        &mut self,
        interest: PollFlags,
        mut attempt: impl FnMut(&mut Layer) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            self.check_wait()?;
            match attempt(&mut self.layer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(interest)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Layer {
    /// Sends TLS's close alert, if there is TLS, and gives the socket.
    fn finish(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.close(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.blocking_io(PollFlags::IN, |layer| match layer {
            Layer::Plain(socket) => socket.read(buf),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.read(buf),
        })?;
        if self.silence.is_none() && read > 0 {
            self.token.note_activity();
        }
        Ok(read)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.blocking_io(PollFlags::OUT, |layer| match layer {
            Layer::Plain(socket) => socket.write(buf),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.write(buf),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blocking_io(PollFlags::OUT, |layer| match layer {
            Layer::Plain(_) => Ok(()),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.flush(),
        })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.layer {
            Layer::Plain(socket) => socket.as_fd(),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.socket().as_fd(),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("fd", &self.as_fd())
            .field("secure", &self.is_secure())
            .finish_non_exhaustive()
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(buf),
            Self::Unix(unix) => unix.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(buf),
            Self::Unix(unix) => unix.write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        }
    }
}
