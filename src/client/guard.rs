//! The user's closures on the client's threads: a panic in a call, or in a destructor, costs that call and nothing else.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs `run`, which may be anybody's code.
///
/// # Errors
/// What its panic said.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(panicked)
}

/// What a panic said.
fn panicked(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let said = format!("it panicked: {}", text.unwrap_or("no message"));
    // The value that was thrown may panic when it is dropped; whatever that throws is never dropped.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    said
}

/// A closure of the user's with what it has captured. It may be dropped on any thread.
#[derive(Clone)]
pub(super) struct Guarded<F>(Option<F>);

impl<F> Guarded<F> {
    pub(super) fn new(closure: F) -> Self {
        Self(Some(closure))
    }

    /// The closure: there until this is dropped.
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
        if let Err(panic) = caught(|| drop(closure)) {
            log::warn!("what a closure of the client's user held could not be dropped: {panic}");
        }
    }
}
