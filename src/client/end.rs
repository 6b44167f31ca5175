//! How a transport or a session ended.
//!
//! Uses [`Error`]. Who finds the end does not know the session's transport; [`End::into_error`] is told.

use std::time::Duration;

use super::{Error, Step};
use crate::proto::{self, CloseReason, engine::TransportKind};

/// How a transport or a session ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: CloseReason,
    cause: Cause,
}

/// What ended it.
#[derive(Debug)]
enum Cause {
    /// It was closed normally.
    Close,
    /// The transport has failed, or one side has given up; the text says why.
    Failure(String),
    /// The server has not answered CONNECT within this time.
    NoAnswer(Duration),
}

impl End {
    /// It was closed normally.
    pub(super) fn closed() -> Self {
        Self { reason: CloseReason::TransportClose, cause: Cause::Close }
    }

    /// It cannot be used any more.
    pub(super) fn failed(reason: CloseReason, detail: impl Into<String>) -> Self {
        Self { reason, cause: Cause::Failure(detail.into()) }
    }

    /// The server has closed it.
    pub(super) fn closed_by_server() -> Self {
        Self::failed(CloseReason::TransportClose, "closed by the server")
    }

    /// The server has not answered CONNECT within `timeout`.
    pub(super) fn no_answer(timeout: Duration) -> Self {
        Self { reason: CloseReason::TransportError, cause: Cause::NoAnswer(timeout) }
    }

    /// The error for the user. `None` after a normal close.
    pub(super) fn into_error(self, transport: TransportKind) -> Option<Error> {
        match self.cause {
            Cause::Close => None,
            Cause::Failure(detail) => Some(Error::unreachable(transport, Step::Transfer, detail)),
            Cause::NoAnswer(after) => Some(Error::Timeout { what: "answer to CONNECT", after }),
        }
    }
}

impl From<proto::Error> for End {
    fn from(error: proto::Error) -> Self {
        Self::failed(CloseReason::ParseError, error.to_string())
    }
}
