//! One packet for many sockets: the official `BroadcastOperator`.
//!
//! It encodes the packet once and gives it to the hub, which knows the recipients. It must not write to a socket
//! itself, because the hub keeps the order of the packets.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::server::{
    error::{AckError, EmitError},
    guard,
    hub::Selection,
    socket::Socket,
    socket::namespace::Namespace,
};
use crate::{
    proto::socket::{Outgoing, OwnedArgs},
    sys::{channel::bounded, wait::deadline_in},
};

/// What one recipient answered, or why it did not.
pub type Reply = (Socket, Result<OwnedArgs, AckError>);

/// Some of a namespace's sockets: the official `BroadcastOperator`.
///
/// ```no_run
/// # fn f(io: &tinysio::server::Namespace) -> Result<(), tinysio::server::EmitError> {
/// io.to("kitchen").to("hall").except("muted").emit("light", &("on", 0.8))?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `emit`"]
pub struct Broadcast {
    namespace: Namespace,
    selection: Arc<Selection>,
    volatile: bool,
}

impl Broadcast {
    pub(super) fn new(namespace: Namespace, selection: Selection) -> Self {
        Self { namespace, selection: Arc::new(selection), volatile: false }
    }

    /// Adds the sockets in this room, or the socket with this id. No socket gets a packet twice.
    pub fn to(mut self, room: &str) -> Self {
        Arc::make_mut(&mut self.selection).rooms.push(room.into());
        self
    }

    /// Excludes the sockets in this room.
    pub fn except(mut self, room: &str) -> Self {
        Arc::make_mut(&mut self.selection).except.push(room.into());
        self
    }

    /// Makes the packet volatile: it is dropped for each recipient with a backlog, and for each one on polling that
    /// has no open GET.
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Sends. The packet is encoded once, on this thread; the hub hands it to the recipients. `args` as in
    /// [`Socket::emit`].
    ///
    /// # Errors
    /// [`EmitError::Encode`], [`EmitError::TooLarge`], [`EmitError::ServerGone`]. What becomes of it at each
    /// recipient is not reported.
    pub fn emit(self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        let packet = self.namespace.encode_event(event, &args)?;
        self.namespace.0.hub.emit(self.namespace.0.index, self.selection, packet, self.volatile)
    }

    /// Official `io.timeout(t).emitWithAck`: sends, and waits for the acknowledgement of every recipient, which come in
    /// the order of their arrival, each with its socket. The official server rejects the whole call when one is
    /// missing; here each recipient has its own result. `args` as in [`Socket::emit`].
    ///
    /// # Errors
    /// [`AckError::Emit`] when the packet cannot be encoded, or is too large; [`AckError::WouldDeadlock`] inside a
    /// handler, whose own client might be among the recipients: there call [`Socket::emit_with_callback`] for each of
    /// [`sockets`](Self::sockets), or wait on another thread.
    pub fn emit_with_ack(
        self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
    ) -> Result<Vec<Reply>, AckError> {
        if guard::is_in_handler() {
            return Err(AckError::WouldDeadlock);
        }
        let id = self.namespace.next_ack_id();
        let packet =
            Outgoing::event(self.namespace.name(), event, Some(id)).encode(&args).map_err(EmitError::from)?;
        self.namespace.0.hub.check_size(packet.bytes().len())?;
        let deadline = deadline_in(timeout);
        let sockets = self.sockets();
        let (answers, results) = bounded(sockets.len());
        for socket in sockets {
            let answers = answers.clone();
            socket.send_asking(&packet, id, deadline, move |socket, result| {
                // There is room for each, and the receiver waits for all.
                let _ = answers.send((socket.clone(), result));
            });
        }
        drop(answers);
        Ok(results.into_iter().collect())
    }

    /// The sockets meant, in no particular order: the official `fetchSockets`.
    #[must_use]
    pub fn sockets(self) -> Vec<Socket> {
        let Self { namespace, selection, .. } = self;
        let index = namespace.0.index;
        let members = namespace.0.hub.sockets(index, selection);
        members.iter().filter_map(|member| Socket::of(member)).collect()
    }

    /// Official `socketsJoin`.
    pub fn sockets_join(self, room: &str) {
        let room: Arc<str> = room.into();
        for socket in self.sockets() {
            socket.join_shared(Arc::clone(&room));
        }
    }

    /// Official `socketsLeave`.
    pub fn sockets_leave(self, room: &str) {
        for socket in self.sockets() {
            socket.leave(room);
        }
    }

    /// Official `disconnectSockets`: as [`Socket::disconnect`] on each.
    pub fn disconnect_sockets(self, close: bool) {
        for socket in self.sockets() {
            socket.disconnect(close);
        }
    }
}
