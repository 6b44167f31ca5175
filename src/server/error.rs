//! The errors of the server library, one variant for each cause that a caller can act on.

use std::io;

use serde::Serialize;

use crate::proto::socket::EncodeError;
use crate::server::recovery::store::StoreError;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option contradicts another, or has a value that cannot work; the text names both and the way out.
    #[error("{0}")]
    Config(String),
    /// The address cannot be listened on. `AddrInUse`: choose another port.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address as it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The store cannot be opened. The store is left as it is. With
    /// [`Builder::store_required(false)`](crate::server::Builder::store_required) the server starts without it.
    #[error("cannot open the store: {0}")]
    Store(#[from] StoreError),
    /// The system refused a thread or a descriptor.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Why an emit sent nothing, or not to everybody.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The socket is not, or no longer, connected. Nothing was sent.
    #[error("the socket is disconnected")]
    Disconnected,
    /// The recipient does not read: its outbox has passed `outbox_bytes_max`, or is the largest when all have passed
    /// `outbox_bytes_total`. It has been disconnected with reason "slow consumer".
    #[error("the recipient is too slow and has been disconnected")]
    SlowConsumer,
    /// So much waits for the recipient still that [`emit_timeout`](crate::server::Socket::emit_timeout) gave up.
    /// Nothing was sent.
    #[error("the recipient has a backlog that has not become smaller in time")]
    Timeout,
    /// The packet is larger than [`outbox_bytes_max`](crate::server::Config::outbox_bytes_max): no client may ever
    /// have so much waiting for it. Nothing was sent, to nobody, and nobody was disconnected. Send it in parts, or
    /// raise the option.
    #[error("the packet has {bytes} bytes, and outbox_bytes_max allows {max}")]
    TooLarge {
        /// Bytes of the packet as it goes over a WebSocket, attachments included.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// The packet was dropped: it was volatile and could not be sent at once, or a method of the store sent it while
    /// the queue of the hub was full.
    #[error("dropped: the recipient has a backlog and the packet is volatile")]
    Dropped,
    /// The data cannot be sent at all.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The server has been shut down.
    #[error("the server has been shut down")]
    ServerGone,
}

/// Why an acknowledgement did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The client did not answer in time. It may still have handled the event.
    #[error("no acknowledgement within the timeout")]
    Timeout,
    /// The socket disconnected before it answered.
    #[error("the socket disconnected before it acknowledged")]
    Disconnected,
    /// The call was made in a handler of the client that must answer, or, for a broadcast, in any handler, because
    /// its client may be a recipient. The thread of the handler must read the answer, so it would wait for itself.
    /// Use [`Socket::emit_with_callback`](crate::server::Socket::emit_with_callback), for a broadcast on each of
    /// [`Broadcast::sockets`](crate::server::Broadcast::sockets), or wait on another thread.
    #[error(
        "a handler cannot wait for acknowledgements that its own client may owe; Socket::emit_with_callback does not wait"
    )]
    WouldDeadlock,
    /// As many acknowledgements as `max_pending_acks` are awaited from this socket already.
    #[error("too many acknowledgements awaited from this socket")]
    TooMany,
    /// The event itself could not be sent.
    #[error(transparent)]
    Emit(#[from] EmitError),
}

/// A refusal of a CONNECT, sent to the client as CONNECT_ERROR: the official `{"message":…,"data":…}`.
#[derive(Debug, Clone, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    /// What the client's `connect_error` handler finds in `err.message`.
    pub message: String,
    /// What it finds in `err.data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl ConnectError {
    /// A refusal with a message only.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// Adds details for the client.
    #[must_use]
    pub fn with_data(mut self, data: serde_json::Value) -> Self {
        self.data = Some(data);
        self
    }
}
