//! The `drain` thread: finishes what the kernel did not take at once, and sees that corked packets do not wait.
//!
//! ```text
//!   emit ─► outbox ─► kernel full ─► drain(session): poll(2) until writable, send, until the backlog is empty
//!   emit ─► corked outbox ─────────► watch(session): every CORK_PATIENCE, send what was there at the last look
//! ```

use std::{io, mem, sync::Arc, time::Duration};

use crate::server::{
    net::stream::{self, Stream, Waker},
    session::Session,
    transport::outbox::{Drained, Pushed},
};
use crate::sys::{
    os::{PollFd, PollFlags},
    sync::Mutex,
    thread::{self, JoinHandle},
    time::Instant,
};

/// How long a packet that one handler emitted may wait, gathered, for a later handler of the same read: at least
/// once, at most twice this.
const CORK_PATIENCE: Duration = Duration::from_millis(2);

#[derive(Debug)]
enum Command {
    Drain(Arc<Session>),
    Watch(Arc<Session>),
    Stop,
}

/// What the thread has not looked at yet. A list, because a queue of as many slots as there can be sessions would be
/// resident from the start; and the thread waits in poll(2) in any case.
#[derive(Debug)]
struct Inbox {
    /// `None`: the thread has ended.
    list: Mutex<Option<List>>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct List {
    /// At most two a session, once a kind, and the stop.
    commands: Vec<Command>,
    /// The thread has been woken for them.
    woken: bool,
    /// The thread looks at what it watches within [`CORK_PATIENCE`], and need not be woken to watch more: what is gathered
    /// now has its first look then.
    looks: bool,
}

/// Hands sessions to the thread.
#[derive(Debug)]
pub(crate) struct DrainHandle(Arc<Inbox>);

impl DrainHandle {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Inbox { list: Mutex::new(Some(List::default())), waker: Waker::new()? })))
    }

    /// Starts the thread. It ends after [`stop`](Self::stop).
    pub(crate) fn start(&self) -> io::Result<JoinHandle<()>> {
        let drain = Drain { inbox: Arc::clone(&self.0), blocked: Vec::new(), watched: Vec::new() };
        thread::Builder::new().name("drain".into()).stack_size(128 << 10).spawn(|| drain.run())
    }

    /// The outbox has a backlog that the kernel did not take.
    pub(crate) fn drain(&self, session: Arc<Session>) {
        self.send(Command::Drain(session));
    }

    /// The outbox is corked and has begun to gather.
    pub(crate) fn watch(&self, session: Arc<Session>) {
        self.send(Command::Watch(session));
    }

    pub(crate) fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        let wakes = {
            let mut list = self.0.list.lock();
            // Only after the stop, when every session has been cut.
            let Some(list) = list.as_mut() else { return };
            let urgent = !(list.looks && matches!(command, Command::Watch(_)));
            list.commands.push(command);
            urgent && !mem::replace(&mut list.woken, true)
        };
        if wakes {
            self.0.waker.wake();
        }
    }
}

impl Inbox {
    /// The thread is about to wait; with `looks`, not for long. `false`: there is something for it.
    fn may_wait(&self, looks: bool) -> bool {
        self.list.lock().as_mut().is_none_or(|list| {
            list.looks = looks;
            looks || list.commands.is_empty()
        })
    }

    fn take(&self) -> Vec<Command> {
        let mut list = self.list.lock();
        let Some(list) = list.as_mut() else { return Vec::new() };
        list.woken = false;
        mem::take(&mut list.commands)
    }
}

struct Drain {
    inbox: Arc<Inbox>,
    blocked: Vec<(Arc<Session>, Arc<Stream>)>,
    watched: Vec<Arc<Session>>,
}

impl Drain {
    fn run(mut self) {
        let mut next_look = Instant::now();
        loop {
            let looks = !self.watched.is_empty();
            if self.inbox.may_wait(looks) {
                self.wait(looks.then_some(next_look));
            }
            // Before the look, so that what comes after the look wakes again.
            self.inbox.waker.reset();
            for command in self.inbox.take() {
                match command {
                    Command::Drain(session) => {
                        if let Some(stream) = session.outbox.stream() {
                            self.blocked.push((session, stream));
                        }
                    }
                    Command::Watch(session) => {
                        if self.watched.is_empty() {
                            next_look = Instant::now() + CORK_PATIENCE;
                        }
                        self.watched.push(session);
                    }
                    Command::Stop => return,
                }
            }
            if !self.watched.is_empty() && Instant::now() >= next_look {
                next_look = Instant::now() + CORK_PATIENCE;
                let blocked = &mut self.blocked;
                self.watched.retain(|session| {
                    let (pushed, more) = session.outbox.watch();
                    if pushed != Pushed::Drain {
                        return session.settle(pushed).is_ok() && more;
                    }
                    // Not by way of the inbox, which would wake this thread for what it knows.
                    blocked.extend(session.outbox.stream().map(|stream| (Arc::clone(session), stream)));
                    more
                });
            }
        }
    }

    /// Waits for a command, for room in a socket, or for the next look; uses the room.
    fn wait(&mut self, deadline: Option<Instant>) {
        let mut fds = Vec::with_capacity(1 + self.blocked.len());
        fds.push(self.inbox.waker.poll_fd());
        fds.extend(self.blocked.iter().map(|(_, stream)| PollFd::new(&**stream, PollFlags::OUT)));
        if let Err(error) = stream::wait(&mut fds, deadline) {
            // Out of kernel memory at worst; what waits is tried again.
            log::error!("drain: poll failed: {error}");
            thread::sleep(CORK_PATIENCE);
        }
        let ready: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        self.blocked.retain(|(session, _)| {
            !ready.next().unwrap_or(false) || session.outbox.drain() == Drained::Blocked
        });
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        // However the thread ends, nothing that is sent later keeps its session.
        let rest = self.inbox.list.lock().take();
        drop(rest);
    }
}
