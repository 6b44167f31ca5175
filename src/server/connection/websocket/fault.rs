//! What an error of the codec or of the dispatch means for the session: the reason and the close code (RFC 6455
//! 7.4.1).

use std::io;

use tungstenite::{Error, error::ProtocolError, protocol::frame::coding::CloseCode};

use crate::{proto::CloseReason, server::session::CloseMode};

/// Why a session on WebSocket is closed, and how.
pub(super) struct Fault {
    pub(super) reason: CloseReason,
    pub(super) mode: CloseMode,
}

impl Fault {
    /// Pending packets are sent first.
    pub(super) fn polite(reason: CloseReason) -> Self {
        Self { reason, mode: CloseMode::Close(None) }
    }

    /// Pending packets are dropped.
    pub(super) fn abrupt(reason: CloseReason) -> Self {
        Self { reason, mode: CloseMode::Abort }
    }

    fn coded(reason: CloseReason, code: CloseCode) -> Self {
        Self { reason, mode: CloseMode::Close(Some(code.into())) }
    }
}

impl From<CloseReason> for Fault {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Overloaded => Self::coded(reason, CloseCode::Again),
            reason => Self::polite(reason),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => CloseReason::Overloaded.into(),
            Error::Capacity(_) => Self::coded(CloseReason::MessageTooBig, CloseCode::Size),
            Error::Utf8(_) => Self::coded(CloseReason::TransportError, CloseCode::Invalid),
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::abrupt(CloseReason::TransportClose)
            }
            Error::Protocol(_) => Self::coded(CloseReason::TransportError, CloseCode::Protocol),
            _ => Self::abrupt(CloseReason::TransportError),
        }
    }
}
