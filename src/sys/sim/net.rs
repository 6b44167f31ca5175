//! Streams and listeners, with the methods of std. Those of the Unix domain are the same.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    net::{Shutdown, SocketAddr},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use rustix::io::Errno;
use shuttle::rand::{Rng, thread_rng};

use super::{
    fd::{AsFd, BorrowedFd, File},
    kernel::{self, WaitSet},
    pipe::End,
};

pub(crate) use TcpListener as UnixListener;
pub(crate) use TcpStream as UnixStream;

std::thread_local! {
    /// The listener that was bound last.
    static LISTENER: RefCell<Weak<File>> = const { RefCell::new(Weak::new()) };
}

#[derive(Debug)]
pub(super) struct Listening {
    pub(super) queue: Mutex<VecDeque<TcpStream>>,
    pub(super) came: WaitSet,
}

/// There are no files here.
pub(crate) fn listen_unix(
    path: &std::path::Path,
    _: impl FnOnce() -> io::Result<()>,
) -> io::Result<UnixListener> {
    TcpListener::bind(path)
}

pub(crate) fn is_abandoned(_: &std::path::Path) -> bool {
    false
}

#[derive(Debug, Clone)]
pub(crate) struct TcpStream(Arc<File>);

impl TcpStream {
    /// Both ends of a new stream.
    pub(crate) fn pair() -> (Self, Self) {
        let (here, there) = End::pair();
        let stream = |end| Self(Arc::new(File::Stream(end)));
        (stream(here), stream(there))
    }

    /// To the listener that was bound last.
    pub(crate) fn connect<A>(_: A) -> io::Result<Self> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = LISTENER.with_borrow(Weak::upgrade).ok_or_else(refused)?;
        let (here, there) = Self::pair();
        let listening = TcpListener(listener);
        let listening = listening.listening();
        listening.queue.lock().expect("nobody panics here").push_back(there);
        listening.came.wake_all();
        Ok(here)
    }

    fn end(&self) -> &End {
        let File::Stream(end) = &*self.0 else { unreachable!("a stream") };
        end
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.end().send(bytes)?)
    }

    pub(crate) fn recv(&self, max: usize, wait: bool) -> io::Result<Vec<u8>> {
        Ok(self.end().recv(max, wait)?)
    }

    /// Waits until it takes something.
    pub(crate) fn wait_writable(&self) {
        self.end().wait_writable();
    }

    /// As a peer that resets.
    pub(crate) fn reset(&self) {
        self.end().reset();
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.end().set_read_timeout(timeout);
        Ok(())
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.end().shutdown(how);
        Ok(())
    }
}

impl io::Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.end().recv(buffer.len(), true)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct TcpListener(Arc<File>);

impl TcpListener {
    pub(crate) fn bind<A>(_: A) -> io::Result<Self> {
        let listening = Listening { queue: Mutex::default(), came: WaitSet::default() };
        let listener = Self(Arc::new(File::Listener(listening)));
        LISTENER.set(Arc::downgrade(&listener.0));
        Ok(listener)
    }

    fn listening(&self) -> &Listening {
        let File::Listener(listening) = &*self.0 else { unreachable!("a listener") };
        listening
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 1).into())
    }

    pub(crate) fn set_nonblocking(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        static PORT: AtomicU64 = AtomicU64::new(0);
        kernel::point();
        if kernel::happens(|faults| faults.accept) {
            const ERRORS: [Errno; 6] =
                [Errno::MFILE, Errno::NFILE, Errno::CONNABORTED, Errno::NOBUFS, Errno::NOMEM, Errno::INTR];
            return Err(ERRORS[thread_rng().gen_range(0..ERRORS.len())].into());
        }
        let stream = self.listening().queue.lock().expect("nobody panics here").pop_front();
        let stream = stream.ok_or(io::ErrorKind::WouldBlock)?;
        let port = 1024 + PORT.fetch_add(1, SeqCst) % 60_000;
        Ok((stream, ([127, 0, 0, 1], port as u16).into()))
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        BorrowedFd(&self.0)
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        BorrowedFd(&self.0)
    }
}
