//! The `tend` thread: runs the handlers that no connection's thread is there for.
//!
//! A polling session has no thread between two requests; when it times out, or a user's thread disconnects it, its
//! disconnect handlers run here. Handlers that block hold up only others of this kind.

use std::{io, sync::Arc};

use super::session::Session;
use crate::sys::{
    channel::{Receiver, Sender, bounded},
    thread::{self, JoinHandle},
};

/// Tells the thread which session to look after.
#[derive(Debug)]
pub(super) struct TendHandle {
    inbox: Sender<Option<Arc<Session>>>,
}

impl TendHandle {
    /// `sessions`: as many as there can be. Each is in the queue at most once, so it never fills.
    pub(super) fn start(sessions: usize, stack_size: usize) -> io::Result<(Self, JoinHandle<()>)> {
        let (inbox, queue) = bounded(sessions + 1);
        let thread =
            thread::Builder::new().name("tend".into()).stack_size(stack_size).spawn(move || run(&queue))?;
        Ok((Self { inbox }, thread))
    }

    pub(super) fn tell(&self, session: Arc<Session>) {
        // Fails only after the stop, when no handler runs any more.
        let _ = self.inbox.send(Some(session));
    }

    pub(super) fn stop(&self) {
        let _ = self.inbox.send(None);
    }
}

fn run(queue: &Receiver<Option<Arc<Session>>>) {
    for session in queue {
        let Some(session) = session else { return };
        session.tend();
    }
}
