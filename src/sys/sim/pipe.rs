//! A stream as the kernel has it: two directions, each with a small buffer. The ends see partial transfers,
//! interrupted calls and resets.

use std::{
    collections::VecDeque,
    net::Shutdown,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rustix::{event::epoll::EventFlags, io::Errno};

use super::kernel::{self, Ticket, WaitSet};

/// Bytes that the kernel keeps for one direction of a stream: few, so that it is often full.
const KERNEL_BUFFER: usize = 4 << 10;

/// One side of a stream.
#[derive(Debug)]
pub(super) struct End {
    inward: Arc<Pipe>,
    outward: Arc<Pipe>,
    read_timeout: Mutex<Option<Duration>>,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    state: Mutex<PipeState>,
    moved: WaitSet,
}

#[derive(Debug, Default)]
struct PipeState {
    bytes: VecDeque<u8>,
    /// The writer has said that nothing follows.
    finished: bool,
    /// The reader wants nothing more.
    deaf: bool,
    /// The reader is gone: who writes is told.
    broken: bool,
    /// The reader is told of an error.
    reset: bool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().expect("nobody panics here")
    }

    fn change(&self, change: impl FnOnce(&mut PipeState)) {
        change(&mut self.lock());
        self.moved.wake_all();
    }
}

impl End {
    /// Both ends of a new stream.
    pub(super) fn pair() -> (Self, Self) {
        let (here, there) = (Arc::new(Pipe::default()), Arc::new(Pipe::default()));
        let end = |inward, outward| Self { inward, outward, read_timeout: Mutex::new(None) };
        (end(Arc::clone(&here), Arc::clone(&there)), end(there, here))
    }

    pub(super) fn ready(&self) -> EventFlags {
        let (inward, outward) = (self.inward.lock(), self.outward.lock());
        let ended = inward.finished || inward.deaf;
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, ended || !inward.bytes.is_empty());
        flags.set(EventFlags::RDHUP, ended);
        flags.set(EventFlags::HUP, ended && (outward.finished || outward.broken));
        flags.set(EventFlags::ERR, inward.reset);
        let open = outward.bytes.len() < KERNEL_BUFFER || outward.finished || outward.broken;
        flags.set(EventFlags::OUT, open);
        flags
    }

    pub(super) fn watch(&self, ticket: &Arc<Ticket>) {
        self.inward.moved.add(ticket);
        self.outward.moved.add(ticket);
    }

    /// Waits until it takes something.
    pub(super) fn wait_writable(&self) {
        while !self.ready().contains(EventFlags::OUT) {
            self.outward.moved.wait(None);
        }
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) {
        *self.read_timeout.lock().expect("nobody panics here") = timeout;
    }

    pub(super) fn reset(&self) {
        for pipe in [&self.inward, &self.outward] {
            pipe.change(|pipe| {
                pipe.bytes.clear();
                pipe.finished = true;
                pipe.broken = true;
                pipe.reset = true;
            });
        }
    }

    pub(super) fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        kernel::point();
        if kernel::happens(|faults| faults.interrupted) {
            return Err(Errno::INTR);
        }
        if kernel::happens(|faults| faults.reset) {
            self.reset();
        }
        if kernel::happens(|faults| faults.no_buffers) {
            return Err(Errno::NOBUFS);
        }
        let mut pipe = self.outward.lock();
        if pipe.reset {
            return Err(Errno::CONNRESET);
        }
        if pipe.broken || pipe.finished {
            return Err(Errno::PIPE);
        }
        let room = KERNEL_BUFFER.saturating_sub(pipe.bytes.len()).min(bytes.len());
        drop(pipe);
        if !bytes.is_empty() && (room == 0 || kernel::happens(|faults| faults.again)) {
            return Err(Errno::AGAIN);
        }
        let taken = kernel::some_of(room);
        pipe = self.outward.lock();
        pipe.bytes.extend(&bytes[..taken]);
        drop(pipe);
        self.outward.moved.wake_all();
        Ok(taken)
    }

    pub(super) fn recv(&self, max: usize, wait: bool) -> Result<Vec<u8>, Errno> {
        kernel::point();
        if kernel::happens(|faults| faults.interrupted) {
            return Err(Errno::INTR);
        }
        if kernel::happens(|faults| faults.reset) {
            self.reset();
        }
        let timeout = *self.read_timeout.lock().expect("nobody panics here");
        let deadline = timeout.map(|timeout| kernel::now() + timeout);
        let mut in_time = true;
        loop {
            {
                let mut pipe = self.inward.lock();
                if pipe.reset {
                    return Err(Errno::CONNRESET);
                }
                if !pipe.bytes.is_empty() {
                    let most = max.min(pipe.bytes.len());
                    let given = kernel::some_of(most);
                    let bytes = pipe.bytes.drain(..given).collect();
                    drop(pipe);
                    self.inward.moved.wake_all();
                    return Ok(bytes);
                }
                if pipe.finished || pipe.deaf {
                    return Ok(Vec::new());
                }
            }
            if !wait || !in_time {
                return Err(Errno::AGAIN);
            }
            in_time = self.inward.moved.wait(deadline);
        }
    }

    pub(super) fn shutdown(&self, how: Shutdown) {
        kernel::point();
        if how != Shutdown::Read {
            self.outward.change(|pipe| pipe.finished = true);
        }
        if how != Shutdown::Write {
            self.inward.change(|pipe| pipe.deaf = true);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let unread = !self.inward.lock().bytes.is_empty();
        // Linux resets a stream that is closed with unread input.
        self.outward.change(|pipe| {
            pipe.finished = true;
            pipe.reset |= unread;
        });
        self.inward.change(|pipe| pipe.broken = true);
    }
}
