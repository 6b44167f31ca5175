//! The user's closures on the client's threads. A panic in a call or in a destructor ends that call only.

use crate::outcome::catch;

/// A closure of the user, with its captured values. It may be dropped on any thread.
#[derive(Clone)]
pub(super) struct Guarded<F>(Option<F>);

impl<F> Guarded<F> {
    pub(super) fn new(closure: F) -> Self {
        Self(Some(closure))
    }

    /// The closure. `None` only while this is being dropped.
    pub(super) fn get(&self) -> Option<&F> {
        self.0.as_ref()
    }

    /// The closure, which the caller calls and drops.
    pub(super) fn take(mut self) -> Option<F> {
        self.0.take()
    }
}

impl<F> Drop for Guarded<F> {
    fn drop(&mut self) {
        let closure = self.0.take();
        if let Err(panic) = catch(|| drop(closure)) {
            log::error!("the Drop of what a handler of the client holds panicked: {panic}");
        }
    }
}
