//! What the hub may do with a session.
//!
//! The hub knows sessions only by the trait `HubSession`, so that it depends on nothing above it. The hub's thread
//! calls these methods, so none of them waits or runs user code.

use std::sync::Arc;

use crate::server::{
    error::EmitError,
    hub::{HubSession, Unfinished, membership::Membership},
    peer::Peer,
    session::{Session, Task},
    transport::outbox::{Packets, Pushed},
};
use crate::{
    proto::{
        CloseReason,
        engine::{Heard, TransportKind},
    },
    sys::{
        sync::atomic::Ordering::{Acquire, Relaxed},
        time::Instant,
    },
};

impl HubSession for Session {
    fn slot(&self) -> u32 {
        self.slot
    }

    fn name(&self) -> &str {
        Self::name(self)
    }

    fn peer(&self) -> Peer {
        self.handshake.peer()
    }

    fn transport(&self) -> TransportKind {
        Self::transport(self)
    }

    fn has_joined(&self) -> bool {
        self.has_joined.load(Acquire)
    }

    fn has_ended(&self) -> bool {
        self.ended().is_some()
    }

    fn unfinished(&self) -> &Unfinished {
        &self.unfinished
    }

    fn push(&self, packets: Packets<'_>, volatile: bool) -> Result<(), Pushed> {
        match self.outbox.push(packets, volatile) {
            Pushed::Done if !self.shared.waiting.is_exceeded() => Ok(()),
            pushed => Err(pushed),
        }
    }

    fn complete_push(self: Arc<Self>, pushed: Pushed) -> Result<(), EmitError> {
        Self::complete_push(&self, pushed)
    }

    fn take_signs(&self) -> Heard {
        Self::take_signs(self)
    }

    fn assembling(&self) -> u64 {
        self.assembling.load(Relaxed)
    }

    fn set_next_look(&self, at: Instant) {
        Self::set_next_look(self, at);
    }

    fn end(self: Arc<Self>, reason: CloseReason) {
        Self::end(&self, reason);
    }

    fn close(self: Arc<Self>, code: Option<u16>) {
        Self::close(&self, code);
    }

    fn abort(&self) {
        Self::abort(self);
    }

    fn forgotten(&self) {
        Self::forgotten(self);
    }

    fn ack_expired(self: Arc<Self>, socket: Arc<Membership>) {
        self.add_task(Task::AckExpired(socket));
    }
}
