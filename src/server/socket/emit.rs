//! Events to one socket.
//!
//! The calling thread encodes and sends at once, unless the hub has not finished what the same sender sent before:
//! then the packet goes through the hub, behind the others. With connection state recovery every event goes through
//! the hub.

use std::{cell::Cell, sync::Arc, time::Duration};

use serde::Serialize;

use super::Socket;
use crate::server::{
    error::EmitError,
    hub::{self, Selection},
    session::Session,
    transport::outbox::Packets,
};
use crate::{
    proto::socket::{EncodeError, Encoded, Outgoing},
    sys::{thread_local, wait::deadline_in},
};

thread_local! {
    /// Where packets to a single socket are encoded.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger scratch buffer is not kept.
pub(crate) const SCRATCH_MAX: usize = 16 << 10;

impl Socket {
    /// Official `socket.emit`. Without connection state recovery the packet is sent by this thread, at once, unless
    /// earlier packets wait.
    ///
    /// `args`: a tuple is a list of arguments, `()` an empty one. Every other value is one argument: a `Vec`,
    /// an array, a slice, `null`, an `Option`, a struct. Received arguments
    /// ([`Event::args`](crate::server::Event::args), [`OwnedArgs`](crate::OwnedArgs)) are forwarded as they
    /// are. Values that serialise as bytes ([`bytes::Bytes`]) become attachments.
    ///
    /// With connection state recovery the hub sends it, as it does a broadcast, and what becomes of it is not
    /// reported; for a client that was just lost it is kept, like everything else that the client misses.
    ///
    /// # Errors
    /// [`EmitError`]: each variant says whether something was sent.
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        self.send_event(event, None, &args, false)
    }

    /// As [`emit`](Self::emit), but first waits, at most for `timeout`, while more than half of
    /// [`outbox_bytes_max`](crate::server::Config::outbox_bytes_max) waits for this client, or while the packet does
    /// not fit. So a fast producer sends at the speed of its client, and half of the outbox stays free for other
    /// senders. While a handler of the same client waits here, nothing is read from that client. `args` as in
    /// [`emit`](Self::emit).
    ///
    /// # Errors
    /// [`EmitError`]; [`EmitError::Timeout`] when the client has not read enough in time.
    pub fn emit_timeout(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
    ) -> Result<(), EmitError> {
        let packet = self.0.namespace.encode_event(event, &args)?;
        let bytes = packet.bytes().len();
        self.0.namespace.0.hub.check_size(bytes)?;
        self.session().wait_for_room(bytes, deadline_in(timeout))?;
        if self.0.namespace.0.hub.recovers() {
            return self.emit_through_hub(packet, false);
        }
        self.send_encoded(packet)
    }

    /// Bytes that wait for this client at the moment, because it has not read what was sent before.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.session().outbox.backlog()
    }

    /// Official `socket.volatile.emit`: dropped ([`EmitError::Dropped`]) if it could not leave at once; with
    /// connection state recovery the hub drops it, and that is not reported. `args` as in [`emit`](Self::emit).
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn emit_volatile(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        self.send_event(event, None, &args, true)
    }

    pub(super) fn send_event<T: Serialize + ?Sized>(
        &self,
        event: &str,
        id: Option<u64>,
        args: &T,
        volatile: bool,
    ) -> Result<(), EmitError> {
        if !self.0.namespace.0.hub.recovers() || id.is_some() {
            return self.send(&Outgoing::event(self.0.namespace.name(), event, id), args, volatile);
        }
        let packet = self.0.namespace.encode_event(event, args)?;
        self.emit_through_hub(packet, volatile)
    }

    /// Sends a packet behind everything that this thread has emitted before.
    pub(super) fn send_encoded(&self, packet: Encoded) -> Result<(), EmitError> {
        if self.is_connected() { self.session().send_ordered(packet) } else { Err(EmitError::Disconnected) }
    }

    /// As a broadcast to this socket alone, with connection state recovery.
    fn emit_through_hub(&self, packet: Encoded, volatile: bool) -> Result<(), EmitError> {
        if !self.0.membership.is_connected_or_lost() {
            return Err(EmitError::Disconnected);
        }
        let to = Selection { only: Some(self.shared_id()), ..Selection::default() };
        self.0.namespace.0.hub.emit(self.namespace_index(), to.into(), packet, volatile)
    }

    pub(super) fn send<T: Serialize + ?Sized>(
        &self,
        packet: &Outgoing<'_>,
        args: &T,
        volatile: bool,
    ) -> Result<(), EmitError> {
        if !self.is_connected() {
            return Err(EmitError::Disconnected);
        }
        let session = self.session();
        if !hub::caught_up() {
            let packet = packet.encode(args)?;
            return self.0.namespace.0.hub.direct(Arc::<Session>::clone(session), packet, volatile);
        }
        // Taken out for the time of encoding: a value's own `serialize` might emit.
        let mut scratch = SCRATCH.take();
        let sent = packet.encode_into(args, &mut scratch).map_err(EncodeError::into).and_then(|range| {
            session.shared.hub.check_size(range.len())?;
            session.send(Packets::Borrowed(&scratch[range]), volatile)
        });
        if scratch.capacity() <= SCRATCH_MAX {
            SCRATCH.set(scratch);
        }
        sent
    }
}
