//! How a transport or a session ended.

use super::Error;
use crate::proto::{self, CloseReason};

/// Why a transport cannot be used any more.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) reason: CloseReason,
    pub(super) detail: String,
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: CloseReason,
    pub(super) error: Option<Error>,
}

impl From<proto::Error> for Broken {
    fn from(error: proto::Error) -> Self {
        Self { reason: CloseReason::ParseError, detail: error.to_string() }
    }
}
