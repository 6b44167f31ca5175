//! Locks as parking_lot's, atomics as shuttle's.
//!
//! Shuttle's atomics are sequentially consistent: what a weaker ordering allows is not explored.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::PoisonError,
};

pub(crate) use shuttle::sync::atomic;

use super::{
    kernel::{self, WaitSet},
    time::Instant,
};

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Empty while a condition variable waits.
    guard: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)) }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.guard.as_ref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("held")
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(WaitSet);

pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.wait_for(guard, None);
    }

    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline: Instant,
    ) -> WaitTimeoutResult {
        WaitTimeoutResult(!self.wait_for(guard, Some(deadline)))
    }

    fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Option<Instant>) -> bool {
        let ticket = kernel::Ticket::new();
        self.0.add(&ticket);
        guard.guard = None;
        let woken = ticket.wait(deadline.map(Instant::since_boot));
        guard.guard = guard.mutex.lock().guard;
        woken
    }

    pub(crate) fn notify_one(&self) {
        self.0.wake_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.wake_all();
    }
}

/// As std's; each use is a place where another thread may run.
#[derive(Debug, Default)]
pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>);

impl<T> OnceLock<T> {
    pub(crate) const fn new() -> Self {
        Self(std::sync::OnceLock::new())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        kernel::point();
        self.0.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        kernel::point();
        self.0.set(value)
    }
}
