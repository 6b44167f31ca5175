//! Descriptors, and what they stand for: whether it is ready, and who waits for it.

use std::sync::{Arc, Mutex, Weak};

use rustix::event::epoll::EventFlags;

use super::{
    kernel::{Ticket, WaitSet},
    net::Listening,
    pipe::End,
};

/// What a descriptor stands for.
#[derive(Debug)]
pub(super) enum File {
    Event(Mutex<u64>, WaitSet),
    Stream(End),
    Listener(Listening),
    Epoll(Mutex<Vec<Interest>>, WaitSet),
}

#[derive(Debug)]
pub(super) struct Interest {
    pub(super) file: Weak<File>,
    pub(super) data: u64,
    pub(super) flags: EventFlags,
}

impl File {
    pub(super) fn ready(&self) -> EventFlags {
        let input = |is_there| if is_there { EventFlags::IN } else { EventFlags::empty() };
        match self {
            Self::Event(count, _) => input(*count.lock().expect("nobody panics here") > 0),
            Self::Listener(listening) => {
                input(!listening.queue.lock().expect("nobody panics here").is_empty())
            }
            Self::Epoll(..) => EventFlags::empty(),
            Self::Stream(end) => end.ready(),
        }
    }

    pub(super) fn watch(&self, ticket: &Arc<Ticket>) {
        match self {
            Self::Event(_, set) | Self::Epoll(_, set) => set.add(ticket),
            Self::Listener(listening) => listening.came.add(ticket),
            Self::Stream(end) => end.watch(ticket),
        }
    }
}

#[derive(Debug)]
pub(crate) struct OwnedFd(pub(super) Arc<File>);

#[derive(Debug, Clone, Copy)]
pub(crate) struct BorrowedFd<'a>(pub(super) &'a Arc<File>);

pub(crate) trait AsFd {
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl AsFd for OwnedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        BorrowedFd(&self.0)
    }
}

impl<T: AsFd + ?Sized> AsFd for &T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}
