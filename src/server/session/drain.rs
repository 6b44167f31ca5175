//! The `drain` thread: it sends the backlogs that the kernel did not take at once, and the packets that wait in a
//! corked outbox for too long.
//!
//! ```text
//!   emit ─► outbox ─► kernel full ─► drain(session): poll(2) until writable, send, until the backlog is empty
//!   emit ─► corked outbox ─────────► watch(session): every CORK_PATIENCE, send what was there at the last look
//! ```
//! It uses the outboxes of sessions, and what a push leaves to be done. It never blocks on one client, and runs no
//! handlers.

use std::{io, mem, sync::Arc, time::Duration};

use crate::server::{
    guard::{self, Records},
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

/// How long a packet that one handler emitted may wait in a corked outbox for a later handler of the same read: at
/// least this time, at most twice.
const CORK_PATIENCE: Duration = Duration::from_millis(2);

enum Command {
    Drain(Arc<Session>),
    Watch(Arc<Session>),
    Stop,
}

/// The commands that the thread has not taken yet. A list, because a bounded queue for as many sessions as there can
/// be would take its memory from the start. The thread waits in poll(2) in any case.
struct Inbox {
    /// `None`: the thread has ended.
    list: Mutex<Option<List>>,
    waker: Waker,
}

struct List {
    /// At most two for each session, one of each kind, and the stop.
    commands: Vec<Command>,
    /// The thread has been woken for them.
    woken: bool,
    /// The thread looks at the corked outboxes within [`CORK_PATIENCE`]. A further watch command need not wake it.
    looks: bool,
}

/// Sends commands to the thread.
pub(crate) struct DrainHandle(Arc<Inbox>);

impl DrainHandle {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Inbox {
            list: Mutex::new(Some(List { commands: Vec::new(), woken: false, looks: false })),
            waker: Waker::new()?,
        })))
    }

    /// Starts the thread. It ends after [`stop`](Self::stop).
    pub(crate) fn start(&self, records: &Arc<Records>) -> io::Result<JoinHandle<()>> {
        let drain = Drain { inbox: Arc::clone(&self.0), blocked: Vec::new(), watched: Vec::new() };
        records.thread("drain", 128 << 10, || drain.run())
    }

    /// The outbox has a backlog that the kernel did not take.
    pub(super) fn drain(&self, session: Arc<Session>) {
        self.send(Command::Drain(session));
    }

    /// The outbox is corked, and a packet waits in it.
    pub(super) fn watch(&self, session: Arc<Session>) {
        self.send(Command::Watch(session));
    }

    pub(crate) fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        let wakes = {
            let mut list = self.0.list.lock();
            // The thread has ended. Every session was aborted before the stop.
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
    /// The thread is about to wait, with `looks` for [`CORK_PATIENCE`] at most. `false`: there is a command.
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

/// The thread.
struct Drain {
    inbox: Arc<Inbox>,
    /// The sessions that have a backlog.
    blocked: Vec<(Arc<Session>, Arc<Stream>)>,
    /// The sessions whose outbox is corked.
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
            // Before the commands are taken: a command that comes later must wake the thread again.
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
                        return session.complete_push(pushed).is_ok() && more;
                    }
                    // Without a command, which would only wake this thread.
                    blocked.extend(session.outbox.stream().map(|stream| (Arc::clone(session), stream)));
                    more
                });
            }
        }
    }

    /// Waits for a command, for room in a socket, or for the deadline. Sends to the sockets that have room.
    fn wait(&mut self, deadline: Option<Instant>) {
        let mut fds = Vec::with_capacity(1 + self.blocked.len());
        fds.push(self.inbox.waker.poll_fd());
        fds.extend(self.blocked.iter().map(|(_, stream)| PollFd::new(&**stream, PollFlags::OUT)));
        if let Err(error) = stream::wait(&mut fds, deadline) {
            // No kernel memory. The backlogs are tried again.
            guard::error!("drain: poll failed: {error}");
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
        // However the thread ends: a command that is sent later must not keep its session alive.
        let rest = self.inbox.list.lock().take();
        drop(rest);
    }
}
