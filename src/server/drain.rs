//! The `drain` thread: finishes what the kernel did not take at once, and sees that corked packets do not wait.
//!
//! ```text
//!   emit ─► outbox ─► kernel full ─► drain(session): poll(2) until writable, send, until the backlog is empty
//!   emit ─► corked outbox ─────────► watch(session): every CORK_PATIENCE, send what was there at the last look
//! ```

use std::{io, sync::Arc, time::Duration};

use super::{
    outbox::{Drained, Pushed},
    session::Session,
    stream::{self, Stream, Waker},
};
use crate::sys::{
    channel::{Receiver, Sender, bounded},
    os::{PollFd, PollFlags},
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

/// Hands sessions to the thread.
#[derive(Debug)]
pub(super) struct DrainHandle {
    inbox: Sender<Command>,
    waker: Arc<Waker>,
}

impl DrainHandle {
    /// `sessions`: as many as there can be. Each is in the queue at most twice, once a kind, so it never fills.
    pub(super) fn start(sessions: usize) -> io::Result<(Self, JoinHandle<()>)> {
        let (inbox, queue) = bounded(2 * sessions + 1);
        let waker = Arc::new(Waker::new()?);
        let drain = Drain { queue, waker: Arc::clone(&waker), blocked: Vec::new(), watched: Vec::new() };
        let thread =
            thread::Builder::new().name("drain".into()).stack_size(128 << 10).spawn(|| drain.run())?;
        Ok((Self { inbox, waker }, thread))
    }

    /// The outbox has a backlog that the kernel did not take.
    pub(super) fn drain(&self, session: Arc<Session>) {
        self.send(Command::Drain(session));
    }

    /// The outbox is corked and has begun to gather.
    pub(super) fn watch(&self, session: Arc<Session>) {
        self.send(Command::Watch(session));
    }

    pub(super) fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        // Fails only after the stop, when every session has been cut.
        if self.inbox.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

struct Drain {
    queue: Receiver<Command>,
    waker: Arc<Waker>,
    blocked: Vec<(Arc<Session>, Arc<Stream>)>,
    watched: Vec<Arc<Session>>,
}

impl Drain {
    fn run(mut self) {
        let mut next_look = Instant::now();
        loop {
            self.wait((!self.watched.is_empty()).then_some(next_look));
            self.waker.reset();
            while let Ok(command) = self.queue.try_recv() {
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
                    // Not by way of the queue, for whose room this thread would wait for itself.
                    blocked.extend(session.outbox.stream().map(|stream| (Arc::clone(session), stream)));
                    more
                });
            }
        }
    }

    /// Waits for a command, for room in a socket, or for the next look; uses the room.
    fn wait(&mut self, deadline: Option<Instant>) {
        let mut fds = Vec::with_capacity(1 + self.blocked.len());
        fds.push(self.waker.poll_fd());
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
