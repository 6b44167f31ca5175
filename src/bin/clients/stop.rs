//! Requests to stop: Ctrl-C, SIGTERM, SIGHUP, or closed output.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::common::{exit::Failure, signals};

/// A signal so soon after the first is the same one: it was sent to us and to our process group.
const ECHO: Duration = Duration::from_millis(500);

/// Whether the program should stop. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    set: Mutex<bool>,
    changed: Condvar,
    /// Callbacks to wake waiting threads.
    hooks: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

impl Stop {
    /// The first signal requests a stop in good order, a later one ends the program at once.
    pub(crate) fn on_signals() -> Result<Self, Failure> {
        let stop = Self::default();
        let wish = stop.clone();
        let mut first = None;
        signals::handle(move || match first {
            None => {
                first = Some(Instant::now());
                wish.set();
            }
            Some(first) if first.elapsed() < ECHO => {}
            Some(_) => std::process::exit(130),
        })?;
        Ok(stop)
    }

    pub(crate) fn set(&self) {
        *self.0.set.lock() = true;
        self.0.changed.notify_all();
        self.0.hooks.lock().iter().for_each(|hook| hook());
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.0.set.lock()
    }

    /// Calls `hook` at the stop request, or at once if there was one.
    pub(crate) fn on_set(&self, hook: impl Fn() + Send + 'static) {
        let set = self.0.set.lock();
        if *set {
            drop(set);
            hook();
        } else {
            self.0.hooks.lock().push(Box::new(hook));
        }
    }

    /// Waits for this time or until the stop request. `false`: stop requested.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut set = self.0.set.lock();
        while !*set {
            if self.0.changed.wait_until(&mut set, until).timed_out() {
                return !*set;
            }
        }
        false
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_set()).finish()
    }
}
