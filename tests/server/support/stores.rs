//! Stores for tests: one whose process can be killed, one that shows its commits, and one that can be held up.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
    mpsc::Sender,
};

use parking_lot::{Condvar, Mutex};
use tinysio::server::{Change, Kept, MemoryStore, Store, StoreError};

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

/// A store that can be held up.
pub(crate) struct Gated(pub(crate) MemoryStore, pub(crate) Arc<(Mutex<bool>, Condvar)>);

impl Store for Gated {
    fn open(&mut self) -> Result<Kept, StoreError> {
        self.0.open()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut closed = self.1.0.lock();
        while *closed {
            self.1.1.wait(&mut closed);
        }
        self.0.commit(changes)
    }

    fn abandon(&mut self) {}
}
