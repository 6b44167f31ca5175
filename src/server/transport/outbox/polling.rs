//! The GETs of a session on polling: each takes the packets that wait, or is held until there are some.

use std::sync::Arc;

use super::{Outbox, Sink, State};
use crate::proto::engine::payload;
use crate::server::net::{
    idle::{Token, WakeIdle},
    stream::Waker,
};

/// What a GET gets.
#[derive(Debug)]
pub(crate) enum Poll {
    /// Packets, as a payload.
    Payload(String),
    /// The session has closed, and its last packets have been fetched.
    Over,
    /// Nothing waits. The GET is held until its holder is woken.
    Held,
    /// Another GET is held already.
    Overlap,
    /// The session has left polling, or is gone.
    Gone,
}

/// What is woken when there is something for a held GET.
#[derive(Debug)]
pub(crate) enum Holder {
    /// A thread that waits.
    Thread(Arc<Waker>),
    /// A parked connection.
    Parked(Arc<dyn WakeIdle>, Token),
    /// The GET is about to be parked. It asks again then.
    Nobody,
}

impl Holder {
    pub(super) fn wake(&self) {
        match self {
            Self::Thread(waker) => waker.wake(),
            Self::Parked(idle, token) => idle.wake(*token),
            Self::Nobody => {}
        }
    }
}

impl Outbox {
    /// A GET has come. It takes the packets that wait, or it is held.
    pub(crate) fn poll(&self, holder: impl FnOnce() -> Holder) -> Poll {
        let mut state = self.state.lock();
        let ready = !state.backlog.is_empty() || state.closing;
        match &mut state.sink {
            Sink::Polling { held: Some(_), .. } => Poll::Overlap,
            Sink::Polling { held, .. } if !ready => {
                *held = Some(holder());
                Poll::Held
            }
            Sink::Polling { .. } => self.take(&mut state),
            _ => Poll::Gone,
        }
    }

    /// The thread of a held GET is awake. [`Poll::Held`]: nothing waits. The GET is held on, with `holder` if there is
    /// a new one. `yields`: during an upgrade, the GET is answered with a noop.
    pub(crate) fn resume(&self, yields: bool, holder: Option<Holder>) -> Poll {
        let mut state = self.state.lock();
        let ready = !state.backlog.is_empty() || state.closing;
        match &mut state.sink {
            Sink::Polling { held, upgrading } if ready || (*upgrading && yields) => {
                *held = None;
                self.take(&mut state)
            }
            Sink::Polling { held, .. } => {
                if holder.is_some() {
                    *held = holder;
                }
                Poll::Held
            }
            _ => Poll::Gone,
        }
    }

    /// The held GET is parked. From now on `holder` is woken. `false`: there is something for the GET, and it must not
    /// be parked.
    pub(crate) fn park(&self, holder: Holder) -> bool {
        let mut state = self.state.lock();
        let ready = !state.backlog.is_empty() || state.closing;
        match &mut state.sink {
            Sink::Polling { held, upgrading: false } if !ready => {
                *held = Some(holder);
                true
            }
            _ => false,
        }
    }

    /// A WebSocket has been probed (EIO "Upgrade"). The held GET is answered, and later ones are not held for long.
    pub(crate) fn begin_upgrade(&self, yes: bool) {
        let mut state = self.state.lock();
        if let Sink::Polling { held, upgrading } = &mut state.sink {
            *upgrading = yes;
            if let (true, Some(waker)) = (yes, held.as_ref()) {
                waker.wake();
            }
        }
    }

    /// Takes the waiting packets as a payload, or the end of the session, or a noop.
    fn take(&self, state: &mut State) -> Poll {
        let mut body = payload::Builder::new();
        state.backlog.take_packets(&mut body);
        self.settle(state);
        if !body.is_empty() {
            // The close packet has a payload of its own. The JavaScript client handles the events of a payload later,
            // and drops them if there is a close packet beside them.
            return Poll::Payload(body.finish());
        }
        if state.closing {
            state.sink = Sink::Closed;
            return Poll::Over;
        }
        body.push_text("6");
        Poll::Payload(body.finish())
    }
}
