//! A guarded store. A store may be code of the application; a panic in it is a failure of the store and of nothing
//! else.

use std::fmt;

use super::{Change, Kept, Store, StoreError};
use crate::server::guard::{self, Callee};

/// A store whose panics are caught, logged, and reported as [`StoreError::Panicked`].
pub(crate) struct GuardedStore(Option<Box<dyn Store>>);

impl GuardedStore {
    pub(crate) fn new(store: Box<dyn Store>) -> Self {
        Self(Some(store))
    }

    pub(crate) fn open(&mut self) -> Result<Kept, StoreError> {
        self.call("open", |store| store.open())
    }

    pub(crate) fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.call("commit", |store| store.commit(changes))
    }

    pub(crate) fn abandon(&mut self) {
        // A panic was logged.
        let _ = self.call("abandon", |store| {
            store.abandon();
            Ok(())
        });
    }

    fn call<T>(
        &mut self,
        method: &'static str,
        code: impl FnOnce(&mut dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let panicked = || StoreError::Panicked { method };
        let store = self.0.as_deref_mut().ok_or_else(panicked)?;
        guard::call(Callee::STORE, format_args!("the store's `{method}`"), || code(store))
            .ok_or_else(panicked)?
    }
}

impl Drop for GuardedStore {
    fn drop(&mut self) {
        let store = self.0.take();
        guard::call(Callee::STORE, format_args!("the store's `Drop`"), || drop(store));
    }
}

impl fmt::Debug for GuardedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuardedStore")
    }
}

/// The text of the error, which may be made by code of the application.
pub(crate) fn text_of(error: StoreError) -> String {
    guard::call(Callee::STORE, format_args!("the text of the store's error"), || error.to_string())
        .unwrap_or_else(|| "it failed, and its error has no text".to_owned())
}
