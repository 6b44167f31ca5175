//! The system calls of epoll, level-triggered.

use std::sync::{Arc, Mutex};

pub(crate) use rustix::event::epoll::{CreateFlags, EventData, EventFlags};

use rustix::{event::Timespec, io::Errno};

use super::{
    fd::{AsFd, File, Interest, OwnedFd},
    kernel::{self, Ticket, WaitSet},
    os::deadline_of,
};

pub(crate) struct Event {
    pub(crate) flags: EventFlags,
    pub(crate) data: EventData,
}

pub(crate) fn create(_: CreateFlags) -> Result<OwnedFd, Errno> {
    Ok(OwnedFd(Arc::new(File::Epoll(Mutex::default(), WaitSet::default()))))
}

fn interests(epoll: &OwnedFd) -> (&Mutex<Vec<Interest>>, &WaitSet) {
    let File::Epoll(interests, changed) = &*epoll.0 else { unreachable!("an epoll") };
    (interests, changed)
}

pub(crate) fn add(epoll: &OwnedFd, fd: impl AsFd, data: EventData, flags: EventFlags) -> Result<(), Errno> {
    kernel::point();
    let (interests, changed) = interests(epoll);
    let file = Arc::downgrade(fd.as_fd().0);
    {
        let mut interests = interests.lock().expect("nobody panics here");
        interests.retain(|interest| interest.file.strong_count() > 0);
        if interests.iter().any(|interest| interest.file.ptr_eq(&file)) {
            return Err(Errno::EXIST);
        }
        interests.push(Interest { file, data: data.u64(), flags });
    }
    changed.wake_all();
    Ok(())
}

pub(crate) fn modify(
    epoll: &OwnedFd,
    fd: impl AsFd,
    data: EventData,
    flags: EventFlags,
) -> Result<(), Errno> {
    delete(epoll, &fd)?;
    add(epoll, fd, data, flags)
}

pub(crate) fn delete(epoll: &OwnedFd, fd: impl AsFd) -> Result<(), Errno> {
    kernel::point();
    let file = Arc::downgrade(fd.as_fd().0);
    let mut interests = interests(epoll).0.lock().expect("nobody panics here");
    let at = interests.iter().position(|interest| interest.file.ptr_eq(&file)).ok_or(Errno::NOENT)?;
    interests.swap_remove(at);
    Ok(())
}

pub(crate) fn wait(
    epoll: &OwnedFd,
    events: &mut Vec<Event>,
    timeout: Option<&Timespec>,
) -> Result<usize, Errno> {
    kernel::point();
    if kernel::happens(|faults| faults.interrupted) {
        return Err(Errno::INTR);
    }
    let deadline = deadline_of(timeout);
    let (interests, changed) = interests(epoll);
    let mut in_time = true;
    loop {
        let ticket = Ticket::new();
        changed.add(&ticket);
        for interest in &*interests.lock().expect("nobody panics here") {
            let Some(file) = interest.file.upgrade() else { continue };
            file.watch(&ticket);
            let flags = file.ready() & (interest.flags | EventFlags::HUP | EventFlags::ERR);
            if !flags.is_empty() && events.len() < events.capacity() {
                events.push(Event { flags, data: EventData::new_u64(interest.data) });
            }
        }
        if !events.is_empty() || !in_time {
            // Not waited for.
            ticket.wake();
            return Ok(events.len());
        }
        in_time = ticket.wait(deadline);
    }
}
