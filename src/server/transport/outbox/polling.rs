//! The GETs of a session on polling: each takes the packets that wait, or is held until there are some.

use super::{Outbox, Sink, State};
use crate::proto::engine::payload;
use crate::server::net::poller::ConnectionWaker;

/// What a GET gets.
#[derive(Debug)]
pub(crate) enum Poll {
    /// Packets, as a payload.
    Payload(String),
    /// The session has closed, and its last packets have been fetched.
    Over,
    /// Nothing waits. The GET is held until its connection is woken.
    Held,
    /// Another GET is held already.
    Overlap,
    /// The session has left polling, or is gone.
    Gone,
}

impl Outbox {
    /// A GET has come. It takes the packets that wait, or it is held.
    pub(crate) fn poll(&self, waker: ConnectionWaker) -> Poll {
        let mut state = self.state.lock();
        let ready = !state.backlog.is_empty() || state.closing;
        match &mut state.sink {
            Sink::Polling { held: Some(_), .. } => Poll::Overlap,
            Sink::Polling { held, .. } if !ready => {
                *held = Some(waker);
                Poll::Held
            }
            Sink::Polling { .. } => self.take(&mut state),
            _ => Poll::Gone,
        }
    }

    /// A held GET looks again. [`Poll::Held`]: nothing waits, and it is held on. `yields`: during an upgrade, it is
    /// answered with a noop.
    pub(crate) fn poll_again(&self, yields: bool) -> Poll {
        let mut state = self.state.lock();
        let ready = !state.backlog.is_empty() || state.closing;
        match &mut state.sink {
            Sink::Polling { held, upgrading } if ready || (*upgrading && yields) => {
                *held = None;
                self.take(&mut state)
            }
            Sink::Polling { .. } => Poll::Held,
            _ => Poll::Gone,
        }
    }

    /// `true`: a WebSocket has been probed (EIO "Upgrade"). The held GET is answered, and later ones are not held for
    /// long. `false`: the upgrade has ended.
    pub(crate) fn set_upgrading(&self, yes: bool) {
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
        self.update_charge(state);
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
