//! One accepted connection, TCP or Unix-domain. The thread that serves it reads. Every thread that emits may write,
//! through the outbox.
//!
//! It uses `sys`. Only reads with a deadline and [`Stream::send_all`] wait.

use std::{io, net::Shutdown, sync::atomic::Ordering::Relaxed, time::Duration};

use crate::server::lead;
pub(crate) use crate::sys::wait::{Waker, wait};
use crate::sys::{
    fd::{AsFd, BorrowedFd},
    net::{TcpStream, UnixStream},
    os::{Errno, PollFd, PollFlags, RecvFlags, SendFlags, recv, send, spare_capacity},
    time::Instant,
};
use crate::wide::AtomicU64;

/// A TCP or Unix-domain stream. It is shared: every method takes `&self`.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    /// The read timeout in microseconds, 0 for none. Changed by the thread that reads.
    read_timeout: AtomicU64,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        Self { socket: Socket::Tcp(stream), read_timeout: AtomicU64::new(0) }
    }

    pub(crate) fn unix(stream: UnixStream) -> Self {
        Self { socket: Socket::Unix(stream), read_timeout: AtomicU64::new(0) }
    }

    /// Waits until something arrives, the read timeout passes (`TimedOut`), or the stream ends: the buffer is empty
    /// then. It replaces the content of the buffer, up to its capacity. Memory that no byte arrives in is not touched.
    pub(crate) fn recv_into(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        self.recv_more(buffer).map(drop)
    }

    /// As [`recv_into`](Self::recv_into), but appends to the buffer. Returns the number of bytes.
    pub(crate) fn recv_more(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let before = buffer.len();
        loop {
            match recv(self, spare_capacity(buffer), RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                received => return Ok(received.map(|_| buffer.len() - before)?),
            }
        }
    }

    /// As [`recv_into`](Self::recv_into), but does not wait. `WouldBlock`: nothing is there.
    pub(crate) fn recv_now(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        self.recv_more_now(buffer).map(drop)
    }

    /// As [`recv_more`](Self::recv_more), but does not wait. `WouldBlock`: nothing is there.
    pub(crate) fn recv_more_now(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let before = buffer.len();
        loop {
            match recv(self, spare_capacity(buffer), RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                received => return Ok(received.map(|_| buffer.len() - before)?),
            }
        }
    }

    /// Reads fail at `deadline`, as exactly as with [`set_read_timeout`](Self::set_read_timeout).
    pub(crate) fn limit_reads(&self, deadline: Instant) -> io::Result<()> {
        self.set_read_timeout(Some(time_left(deadline)?))
    }

    /// Whether something has come that was not read.
    pub(crate) fn has_input(&self) -> bool {
        self.has_input_by(Instant::now())
    }

    /// Waits until something has come that was not read. `false`: nothing has, by this time.
    pub(crate) fn has_input_by(&self, deadline: Instant) -> bool {
        wait(&mut [PollFd::new(self, PollFlags::IN)], Some(deadline)).unwrap_or(true)
    }

    /// Sends as much as the kernel takes now. `WouldBlock`: it takes nothing.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => return Ok(sent?),
            }
        }
    }

    /// Writes all bytes. It waits for the peer at most `patience` each time, and in total at most `patience` and once
    /// more for each [`PATIENT_BYTES`]. Without the total, a slow peer could keep a thread and a payload for a day.
    /// For a connection that no other thread writes to.
    pub(crate) fn send_all(&self, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
        let last = Instant::now() + patience * (1 + (bytes.len() / PATIENT_BYTES) as u32);
        while !bytes.is_empty() {
            match self.send_now(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    lead::before_wait();
                    let now = Instant::now();
                    let deadline = last.min(now + patience);
                    if now >= last || !wait(&mut [PollFd::new(self, PollFlags::OUT)], Some(deadline))? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads fail after this time, or a sixteenth of it sooner or later. The tolerance saves a system call, because
    /// most waits are as long as the one before.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let wanted = timeout.map_or(0, |timeout| (timeout.as_micros() as u64).max(1));
        let set = self.read_timeout.load(Relaxed);
        if (set == 0) == (wanted == 0) && set.abs_diff(wanted) <= wanted / 16 {
            return Ok(());
        }
        match &self.socket {
            Socket::Tcp(stream) => stream.set_read_timeout(timeout),
            Socket::Unix(stream) => stream.set_read_timeout(timeout),
        }?;
        self.read_timeout.store(wanted, Relaxed);
        Ok(())
    }

    /// Ends one or both directions. A blocked reader returns.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        // It fails if the peer has ended the stream already.
        let _ = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(how),
            Socket::Unix(stream) => stream.shutdown(how),
        };
    }
}

/// How long the thread of a connection waits for its peer to take bytes.
pub(crate) const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a large answer that a peer must take in [`WRITE_PATIENCE`]: 8 KiB a second.
const PATIENT_BYTES: usize = 256 << 10;

/// The time until `deadline`. `TimedOut`: it has passed.
pub(crate) fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::{io::Read, thread};

    use super::*;

    #[test]
    fn a_slow_reader_does_not_keep_an_answer_for_ever() {
        let (near, far) = UnixStream::pair().unwrap();
        // With a small buffer, every read of the peer lets the writer go on.
        rustix::net::sockopt::set_socket_send_buffer_size(&near, 4 << 10).unwrap();
        let reader = thread::Builder::new().spawn(move || {
            let mut buffer = [0; 4 << 10];
            let mut read = 0;
            while let Ok(count @ 1..) = (&far).read(&mut buffer) {
                read += count;
                thread::sleep(Duration::from_millis(5));
            }
            read
        });
        let (stream, answer) = (Stream::unix(near), vec![0; 4 << 20]);
        let sent = stream.send_all(&answer, Duration::from_millis(50));
        assert_eq!(sent.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        drop(stream);
        assert!(reader.unwrap().join().unwrap() > 0, "it has read a part");
    }
}
