//! What the hub needs of a session.
//!
//! The sessions' module implements [`HubSession`]. So the hub does not depend on it. A method that may leave work to be
//! done never does the work on the calling thread: the worker threads run the handlers.

use std::sync::Arc;

use crate::server::{
    error::EmitError,
    hub::{in_flight::Unfinished, membership::Membership},
    peer::Peer,
    transport::outbox::{Packets, Pushed},
};
use crate::{
    proto::{
        CloseReason,
        engine::{Heard, TransportKind},
    },
    sys::time::Instant,
};

/// A session, as the hub sees it.
pub(crate) trait HubSession: Send + Sync {
    /// The index of the session in the hub's tables. Two sessions never have the same slot at the same time.
    fn slot(&self) -> u32;

    /// The name of the session in the log.
    fn name(&self) -> &str;

    fn peer(&self) -> Peer;

    fn transport(&self) -> TransportKind;

    /// Whether it has joined a namespace, or needs none.
    fn has_joined(&self) -> bool;

    fn has_ended(&self) -> bool;

    /// The commands of its handlers that the hub has not finished.
    fn unfinished(&self) -> &Unfinished;

    /// Puts packets into the outbox. `Err`: the result must be given to [`complete_push`](Self::complete_push).
    fn push(&self, packets: Packets<'_>, volatile: bool) -> Result<(), Pushed>;

    /// Does what a push has left to be done.
    fn complete_push(self: Arc<Self>, pushed: Pushed) -> Result<(), EmitError>;

    /// The signs of life since the last call.
    fn take_signs(&self) -> Heard;

    /// The number of the binary packet whose attachments have not all come yet, 0 for none.
    fn assembling(&self) -> u64;

    /// When the heartbeat looks next.
    fn set_next_look(&self, at: Instant);

    /// Ends the session. The first reason counts.
    fn end(self: Arc<Self>, reason: CloseReason);

    /// Closes the connection behind the packets in the outbox; a WebSocket with this code, if any.
    fn close(self: Arc<Self>, code: Option<u16>);

    /// Closes the connection at once.
    fn abort(&self);

    /// The hub has forgotten the session.
    fn forgotten(&self);

    /// The deadline of an acknowledgement of this socket has passed.
    fn ack_expired(self: Arc<Self>, socket: Arc<Membership>);
}

/// Sends packets to the session, or queues them in its outbox.
pub(super) fn send(
    session: &Arc<dyn HubSession>,
    packets: Packets<'_>,
    volatile: bool,
) -> Result<(), EmitError> {
    session.push(packets, volatile).or_else(|pushed| Arc::clone(session).complete_push(pushed))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::sync::Mutex;

    /// A session whose outbox is a list.
    pub(in crate::server::hub) struct FakeSession {
        slot: u32,
        unfinished: Unfinished,
        pub(in crate::server::hub) sent: Mutex<Vec<String>>,
    }

    impl FakeSession {
        pub(in crate::server::hub) fn new(slot: u32) -> Arc<Self> {
            Arc::new(Self { slot, unfinished: Unfinished::default(), sent: Mutex::default() })
        }
    }

    impl HubSession for FakeSession {
        fn slot(&self) -> u32 {
            self.slot
        }

        fn name(&self) -> &'static str {
            "fake"
        }

        fn peer(&self) -> Peer {
            Peer::Unix
        }

        fn transport(&self) -> TransportKind {
            TransportKind::Websocket
        }

        fn has_joined(&self) -> bool {
            true
        }

        fn has_ended(&self) -> bool {
            false
        }

        fn unfinished(&self) -> &Unfinished {
            &self.unfinished
        }

        fn push(&self, packets: Packets<'_>, _: bool) -> Result<(), Pushed> {
            let bytes = match packets {
                Packets::Borrowed(bytes) => bytes.to_vec(),
                Packets::Shared(packet) => packet.bytes().to_vec(),
            };
            self.sent.lock().push(String::from_utf8(bytes).expect("a text"));
            Ok(())
        }

        fn complete_push(self: Arc<Self>, _: Pushed) -> Result<(), EmitError> {
            Ok(())
        }

        fn take_signs(&self) -> Heard {
            Heard { pong: false, packet: false, busy: false }
        }

        fn assembling(&self) -> u64 {
            0
        }

        fn set_next_look(&self, _: Instant) {}

        fn end(self: Arc<Self>, _: CloseReason) {}

        fn close(self: Arc<Self>, _: Option<u16>) {
            self.sent.lock().push("close".into());
        }

        fn abort(&self) {}

        fn forgotten(&self) {}

        fn ack_expired(self: Arc<Self>, _: Arc<Membership>) {}
    }
}
