//! One namespace, as its sockets and the queued events share it: index and name.
//!
//! Owns the counter of acknowledgement ids. Uses [`Error`]. It must not know whether it is joined:
//! `namespaces` does.

use std::sync::{Arc, atomic::Ordering};

use super::Error;
use crate::{proto::socket::is_namespace, wide::AtomicU64};

/// One namespace: what never changes. Shared by its sockets.
pub(super) struct Namespace {
    pub(super) index: usize,
    pub(super) name: Arc<str>,
    /// Why it can never be joined: its name is malformed.
    pub(super) invalid: Option<Error>,
    next_id: AtomicU64,
}

impl Namespace {
    pub(super) fn new(index: usize, name: String) -> Self {
        let invalid =
            (!is_namespace(&name)).then(|| Error::Invalid(format!("{name:?} is no name of a namespace")));
        let next_id = AtomicU64::default();
        Self { index, name: name.into(), invalid, next_id }
    }

    /// The id of a new acknowledgement.
    pub(super) fn take_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}
