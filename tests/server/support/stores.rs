//! Stores for tests: one whose process can be killed, one that shows its commits, and one that waits at a gate.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
    mpsc::Sender,
};

use tinysio::server::{Change, Kept, MemoryStore, Store, StoreError};

use super::gate::Gate;

/// A store whose process can be killed: what it is given afterwards is not kept.
pub(crate) struct Mortal(pub(crate) MemoryStore, pub(crate) Arc<AtomicBool>);

impl Store for Mortal {
    fn open(&mut self) -> Result<Kept, StoreError> {
        self.0.open()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if self.1.load(SeqCst) { Ok(()) } else { self.0.commit(changes) }
    }

    fn abandon(&mut self) {}
}

/// A store that shows its commits.
pub(crate) struct Watched(pub(crate) MemoryStore, pub(crate) Sender<Vec<Change>>);

impl Store for Watched {
    fn open(&mut self) -> Result<Kept, StoreError> {
        self.0.open()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let _ = self.1.send(changes.to_vec());
        self.0.commit(changes)
    }

    fn abandon(&mut self) {}
}

/// A store whose commits wait at a gate.
pub(crate) struct Gated(pub(crate) MemoryStore, pub(crate) Gate);

impl Store for Gated {
    fn open(&mut self) -> Result<Kept, StoreError> {
        self.0.open()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.1.pass();
        self.0.commit(changes)
    }

    fn abandon(&mut self) {}
}
