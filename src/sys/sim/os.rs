//! System calls, with the functions of rustix.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) use rustix::{
    event::{EventfdFlags, PollFlags, Timespec},
    io::Errno,
    net::{RecvFlags, SendFlags},
};

pub(crate) use super::epoll;
use super::{
    fd::{AsFd, File, OwnedFd},
    kernel::{self, Ticket, WaitSet},
};

/// As many as anybody wants.
pub(crate) fn descriptor_limit() -> Option<usize> {
    None
}

pub(crate) fn eventfd(_: u32, _: EventfdFlags) -> Result<OwnedFd, Errno> {
    Ok(OwnedFd(Arc::new(File::Event(Mutex::new(0), WaitSet::default()))))
}

pub(crate) fn write(fd: &OwnedFd, _: &[u8; 8]) -> Result<usize, Errno> {
    kernel::point();
    let File::Event(count, set) = &*fd.0 else { return Err(Errno::BADF) };
    *count.lock().expect("nobody panics here") += 1;
    set.wake_all();
    Ok(8)
}

pub(crate) fn read(fd: &OwnedFd, _: &mut [u8; 8]) -> Result<usize, Errno> {
    kernel::point();
    let File::Event(count, _) = &*fd.0 else { return Err(Errno::BADF) };
    match std::mem::take(&mut *count.lock().expect("nobody panics here")) {
        0 => Err(Errno::AGAIN),
        _ => Ok(8),
    }
}

pub(crate) fn send(fd: impl AsFd, bytes: &[u8], _: SendFlags) -> Result<usize, Errno> {
    let File::Stream(end) = &**fd.as_fd().0 else { return Err(Errno::NOTSOCK) };
    end.send(bytes)
}

/// The room of a vector that nothing is in.
pub(crate) fn spare_capacity<T>(vector: &mut Vec<T>) -> &mut Vec<T> {
    vector
}

pub(crate) fn recv(fd: impl AsFd, buffer: &mut Vec<u8>, flags: RecvFlags) -> Result<usize, Errno> {
    let File::Stream(end) = &**fd.as_fd().0 else { return Err(Errno::NOTSOCK) };
    let room = buffer.capacity() - buffer.len();
    assert!(room > 0, "a read into no room looks like the peer's end");
    let bytes = end.recv(room, !flags.contains(RecvFlags::DONTWAIT))?;
    buffer.extend_from_slice(&bytes);
    Ok(bytes.len())
}

pub(crate) fn set_tcp_nodelay(_: impl AsFd, _: bool) -> Result<(), Errno> {
    Ok(())
}

#[derive(Debug)]
pub(crate) struct PollFd<'fd> {
    file: Arc<File>,
    events: PollFlags,
    revents: PollFlags,
    of: PhantomData<&'fd File>,
}

impl<'fd> PollFd<'fd> {
    pub(crate) fn new<F: AsFd>(fd: &'fd F, events: PollFlags) -> Self {
        Self { file: Arc::clone(fd.as_fd().0), events, revents: PollFlags::empty(), of: PhantomData }
    }

    pub(crate) fn revents(&self) -> PollFlags {
        self.revents
    }

    fn look(&mut self) -> bool {
        let ready = PollFlags::from_bits_truncate(self.file.ready().bits() as u16);
        self.revents = ready & (self.events | PollFlags::HUP | PollFlags::ERR);
        !self.revents.is_empty()
    }
}

pub(crate) fn poll(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, Errno> {
    kernel::point();
    if kernel::happens(|faults| faults.interrupted) {
        return Err(Errno::INTR);
    }
    let deadline = deadline_of(timeout);
    let mut in_time = true;
    loop {
        let ready = fds.iter_mut().map(PollFd::look).filter(|ready| *ready).count();
        if ready > 0 || !in_time || timeout.is_some_and(is_zero) {
            return Ok(ready);
        }
        let ticket = Ticket::new();
        fds.iter().for_each(|fd| fd.file.watch(&ticket));
        in_time = ticket.wait(deadline);
    }
}

fn is_zero(timeout: &Timespec) -> bool {
    Duration::new(timeout.tv_sec as u64, timeout.tv_nsec as u32).is_zero()
}

pub(super) fn deadline_of(timeout: Option<&Timespec>) -> Option<Duration> {
    timeout.map(|left| kernel::now() + Duration::new(left.tv_sec as u64, left.tv_nsec as u32))
}
