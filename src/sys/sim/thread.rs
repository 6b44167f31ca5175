//! Threads as std's, which are shuttle's.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use super::kernel::{self, Ticket, WaitSet};

/// Coroutines have the stacks of debug builds, whatever a thread asks for.
const STACK: usize = 1 << 20;

/// The same on every machine, so that a seed means the same schedule.
pub(crate) fn available_parallelism() -> io::Result<NonZeroUsize> {
    Ok(NonZeroUsize::MIN)
}

#[derive(Debug)]
pub(crate) struct Builder(shuttle::thread::Builder);

impl Builder {
    pub(crate) fn new() -> Self {
        Self(shuttle::thread::Builder::new().stack_size(STACK))
    }

    pub(crate) fn name(self, name: String) -> Self {
        Self(self.0.name(name))
    }

    pub(crate) fn stack_size(self, _: usize) -> Self {
        self
    }

    pub(crate) fn spawn<T: Send + 'static>(
        self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        if kernel::happens(|faults| faults.thread) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let end = Arc::new(End::default());
        let end_of_thread = Arc::clone(&end);
        kernel::thread_begins();
        let inner = self.0.spawn(move || {
            let _ending = Ending(end_of_thread);
            run()
        })?;
        Ok(JoinHandle { inner, end })
    }
}

#[derive(Debug, Default)]
struct End {
    over: AtomicBool,
    waiting: WaitSet,
}

struct Ending(Arc<End>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.over.store(true, SeqCst);
        self.0.waiting.wake_all();
        kernel::thread_ends();
    }
}

#[derive(Debug)]
pub(crate) struct JoinHandle<T> {
    inner: shuttle::thread::JoinHandle<T>,
    end: Arc<End>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn join(self) -> std::thread::Result<T> {
        while !self.end.over.load(SeqCst) {
            self.end.waiting.wait(None);
        }
        self.inner.join()
    }
}

pub(crate) fn sleep(duration: Duration) {
    Ticket::new().wait(Some(kernel::now() + duration));
}

pub(crate) use std::thread::panicking;

/// As std's, for the thread of the simulation.
pub(crate) struct LocalKey<T: 'static>(pub(crate) &'static shuttle::thread::LocalKey<T>);

impl<T: 'static> LocalKey<T> {
    pub(crate) fn with<R>(&'static self, look: impl FnOnce(&T) -> R) -> R {
        self.0.with(look)
    }
}

impl<T: 'static> LocalKey<std::cell::Cell<T>> {
    pub(crate) fn set(&'static self, value: T) {
        self.with(|cell| cell.set(value));
    }
    pub(crate) fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(std::cell::Cell::get)
    }
    pub(crate) fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(std::cell::Cell::take)
    }
    pub(crate) fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<std::cell::RefCell<T>> {
    pub(crate) fn with_borrow<R>(&'static self, look: impl FnOnce(&T) -> R) -> R {
        self.with(|cell| look(&cell.borrow()))
    }
    pub(crate) fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
    pub(crate) fn with_borrow_mut<R>(&'static self, change: impl FnOnce(&mut T) -> R) -> R {
        self.with(|cell| change(&mut cell.borrow_mut()))
    }
}

macro_rules! local_keys {
    () => {};
    ($(#[$attr:meta])* static $name:ident: $t:ty = const { $init:expr }; $($rest:tt)*) => {
        $crate::sys::thread_local!($(#[$attr])* static $name: $t = $init; $($rest)*);
    };
    ($(#[$attr:meta])* static $name:ident: $t:ty = $init:expr; $($rest:tt)*) => {
        $(#[$attr])*
        static $name: $crate::sys::thread::LocalKey<$t> = {
            shuttle::thread_local!(static INNER: $t = $init);
            $crate::sys::thread::LocalKey(&INNER)
        };
        $crate::sys::thread_local!($($rest)*);
    };
}
pub(crate) use local_keys as thread_local;
