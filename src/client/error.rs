//! The errors of the client, sorted by what the caller can do.

use std::{sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::proto::{CloseReason, engine::TransportKind, socket::EncodeError};

/// Why a call has failed, or why a connection could not be made.
///
/// | what to do | variants |
/// |---|---|
/// | correct the call or the options | [`Invalid`](Self::Invalid), [`ReservedEvent`](Self::ReservedEvent), [`Encode`](Self::Encode), [`TooLarge`](Self::TooLarge), [`InHandler`](Self::InHandler) |
/// | wait, or send less | [`QueueFull`](Self::QueueFull), [`TooManyAcks`](Self::TooManyAcks), [`BufferFull`](Self::BufferFull), [`NotConnected`](Self::NotConnected) |
/// | look at the network or the URL; the client goes on trying by itself | [`Unreachable`](Self::Unreachable), [`Handshake`](Self::Handshake) |
/// | change the credentials or the namespace, then [`Socket::connect`](super::Socket::connect) | [`Refused`](Self::Refused) |
/// | decide whether to repeat: the server may or may not have handled it | [`Timeout`](Self::Timeout), [`Disconnected`](Self::Disconnected) |
/// | build a new client | [`Closed`](Self::Closed) |
///
/// It is cheap to clone: the same error goes to the caller, to the handlers and into
/// [`Status::last_error`](super::Status::last_error).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL, an option, the payload of [`Builder::auth`](super::Builder::auth), or the target of
    /// [`Handle::http_get`](super::Handle::http_get) is invalid; the text says which and why. Also from a socket of a
    /// malformed namespace ([`Handle::socket`](super::Handle::socket)).
    #[error("{0}")]
    Invalid(String),
    /// The name is reserved by the protocol (`connect`, `disconnect`, …). The server would close the connection.
    #[error("{0:?} is a name of the protocol itself and cannot be emitted")]
    ReservedEvent(String),
    /// The arguments have no JSON form, or more than ten binary values. Nothing was sent.
    #[error("cannot be sent: {0}")]
    Encode(Arc<EncodeError>),
    /// The message is larger than the server's `maxPayload`. The server would close the connection. Nothing was sent.
    #[error("message of {size} bytes, the server takes at most {max}")]
    TooLarge {
        /// Bytes of the largest part of the message, in the form that the transport needs.
        size: usize,
        /// The server's `maxPayload`.
        max: usize,
    },
    /// `wait` was called in a handler: it would block every other handler without limit. Use
    /// [`Handle::wait_timeout`](super::Handle::wait_timeout).
    #[error("{0} inside a handler would hold up all others")]
    InHandler(&'static str),

    /// The connection is open, but the unwritten packets have reached
    /// [`Builder::send_queue`](super::Builder::send_queue). Wait, then emit again.
    #[error("the send queue is full ({bytes} bytes wait)")]
    QueueFull {
        /// Bytes that wait to be written.
        bytes: usize,
    },
    /// Too many events of this namespace wait for their acknowledgement. Wait for some of them.
    #[error("{pending} acknowledgements are waited for already")]
    TooManyAcks {
        /// How many.
        pending: usize,
    },
    /// There is no connection, and the offline buffer has reached
    /// [`Builder::offline_buffer`](super::Builder::offline_buffer); or, also while connected, the namespace's queue of
    /// [`Builder::retries`](super::Builder::retries) has.
    #[error("not connected, and the offline buffer is full ({packets} packets, {bytes} bytes)")]
    BufferFull {
        /// Packets in the buffer or queue.
        packets: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// There is no connection, and the offline buffer is off.
    #[error("not connected")]
    NotConnected,
    /// A buffered packet was older than [`Builder::offline_ttl`](super::Builder::offline_ttl) and was dropped. Only a
    /// caller that waits for its acknowledgement gets this error.
    #[error("expired in the offline buffer")]
    Expired,

    /// The server cannot be reached, or the connection has broken: the step that failed, and why.
    #[error("{transport}: {step} failed: {detail}")]
    Unreachable {
        /// The transport that was tried.
        transport: TransportKind,
        /// The step that failed.
        step: Step,
        /// The message of the operating system or the TLS library.
        detail: Arc<str>,
    },
    /// The answer is not one of a Socket.IO server: it is from a proxy, a redirect, another path, or an old protocol.
    #[error("{transport}: {detail}")]
    Handshake {
        /// The transport that was tried.
        transport: TransportKind,
        /// The HTTP status, if the answer was HTTP.
        status: Option<u16>,
        /// What was unexpected, with the beginning of the answer.
        detail: Arc<str>,
    },
    /// The server refused the namespace: its CONNECT_ERROR. The client does not try again by itself.
    #[error("namespace {namespace} refused: {message}")]
    Refused {
        /// The namespace.
        namespace: Arc<str>,
        /// The server's message.
        message: Arc<str>,
        /// The server's `data` as raw JSON, if there was any: see [`Error::refusal_data`].
        data: Option<Arc<RawValue>>,
    },

    /// The result did not come in time.
    #[error("no {what} within {after:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The connection was lost, or the namespace left, before the result came. The server may still have handled the
    /// event.
    #[error("disconnected: {0}")]
    Disconnected(CloseReason),

    /// The client was dropped, or could not start its threads.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    pub(super) fn unreachable(transport: TransportKind, step: Step, detail: impl Into<Arc<str>>) -> Self {
        Self::Unreachable { transport, step, detail: detail.into() }
    }

    pub(super) fn handshake(
        transport: TransportKind,
        status: Option<u16>,
        detail: impl Into<Arc<str>>,
    ) -> Self {
        Self::Handshake { transport, status, detail: detail.into() }
    }

    /// The `data` of a refusal as a `T`. `None` for other errors, for refusals without data, and when the data is not a
    /// `T`.
    #[must_use]
    pub fn refusal_data<T: DeserializeOwned>(&self) -> Option<T> {
        match self {
            Self::Refused { data: Some(data), .. } => serde_json::from_str(data.get()).ok(),
            _ => None,
        }
    }

    /// Whether the client continues by itself after this error, with `reconnection`: it comes from the network or the
    /// server, not from the caller.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Handshake { .. } | Self::Timeout { .. } | Self::Disconnected(_)
        )
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Self::Encode(Arc::new(error))
    }
}

/// The step of an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// The name lookup.
    Resolve,
    /// The TCP or Unix connection.
    Connect,
    /// The TLS handshake, with the check of the certificate.
    Tls,
    /// The HTTP exchange, or the WebSocket handshake.
    Http,
    /// An open connection that broke.
    Transfer,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolve => "name lookup",
            Self::Connect => "connecting",
            Self::Tls => "TLS handshake",
            Self::Http => "HTTP request",
            Self::Transfer => "transfer",
        })
    }
}
