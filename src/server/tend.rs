//! The `tend` thread: runs the handlers that no connection's thread is there for.
//!
//! A polling session has no thread between two requests; when it times out, or a user's thread disconnects it, its
//! disconnect handlers run here. Handlers that block hold up only others of this kind.

use std::{io, mem, sync::Arc};

use super::session::Session;
use crate::sys::{
    sync::{Condvar, Mutex},
    thread::{self, JoinHandle},
};

/// Who is to be looked after. A list, because a queue of as many slots as there can be sessions would be resident from the start.
#[derive(Debug, Default)]
struct Inbox {
    list: Mutex<List>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct List {
    /// Each session once at most.
    sessions: Vec<Arc<Session>>,
    /// No more are taken.
    stopped: bool,
}

/// Tells the thread which session to look after.
#[derive(Debug)]
pub(super) struct TendHandle(Arc<Inbox>);

impl TendHandle {
    pub(super) fn start(stack_size: usize) -> io::Result<(Self, JoinHandle<()>)> {
        let inbox = Arc::new(Inbox::default());
        let tend = Tend(Arc::clone(&inbox));
        let thread =
            thread::Builder::new().name("tend".into()).stack_size(stack_size).spawn(move || tend.run())?;
        Ok((Self(inbox), thread))
    }

    pub(super) fn tell(&self, session: Arc<Session>) {
        let mut list = self.0.list.lock();
        // After the stop no handler runs any more.
        if !list.stopped {
            list.sessions.push(session);
            self.0.more.notify_one();
        }
    }

    /// The thread ends when it has looked after those that it was told of.
    pub(super) fn stop(&self) {
        self.0.list.lock().stopped = true;
        self.0.more.notify_one();
    }
}

struct Tend(Arc<Inbox>);

impl Tend {
    fn run(self) {
        while let Some(sessions) = self.next() {
            for session in sessions {
                session.tend();
            }
        }
    }

    /// `None`: stopped, and nobody is left.
    fn next(&self) -> Option<Vec<Arc<Session>>> {
        let mut list = self.0.list.lock();
        while list.sessions.is_empty() {
            if list.stopped {
                return None;
            }
            self.0.more.wait(&mut list);
        }
        Some(mem::take(&mut list.sessions))
    }
}

impl Drop for Tend {
    fn drop(&mut self) {
        // However the thread ends, it keeps nobody.
        let rest = {
            let mut list = self.0.list.lock();
            list.stopped = true;
            mem::take(&mut list.sessions)
        };
        drop(rest);
    }
}
