//! Calls of user code: handlers, checks, callbacks, the logger, and `Drop` of the application's values.
//!
//! Only this module calls user code. Handlers run on worker threads, a store on the thread of the store, and the
//! logger also on threads of the application. A panic in user code costs the call in which it happened and nothing
//! else: it is caught here, and logged with the name of what was called. The panic hook has logged the place.
//!
//! Of the server it uses `lead` alone: a logger may block.

mod records;

use std::{
    cell::{Cell, RefCell},
    fmt,
    mem::ManuallyDrop,
    sync::Arc,
};

pub(crate) use records::{Delivery, Place, Records, debug, error, info, log, log_at, trace, warn};

use crate::{
    outcome::catch,
    sys::{
        sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        thread_local,
    },
};

/// Identifies user code by a number: a constant, or the address of a list of handlers. So a call needs no text.
/// [`Core::describe`](crate::server::dispatch::core::Core::describe) makes the text for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Callee(usize);

impl Callee {
    pub(crate) const ACKNOWLEDGEMENT: Self = Self(1);
    pub(crate) const ROUTE: Self = Self(2);
    pub(crate) const ALLOW_REQUEST: Self = Self(3);
    pub(crate) const EXEMPT: Self = Self(4);
    pub(crate) const DROP: Self = Self(5);
    pub(crate) const ENGINE: Self = Self(6);
    pub(crate) const KEEP_DATA: Self = Self(7);
    pub(crate) const STORE: Self = Self(8);
    const LOGGER: Self = Self(9);

    /// One of these handlers, of which there is at least one.
    pub(crate) fn of<H>(handlers: &[H]) -> Self {
        Self(handlers.as_ptr().addr())
    }

    /// What it is, if it is none of a namespace's handlers.
    pub(crate) fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::ACKNOWLEDGEMENT => "an acknowledgement callback",
            Self::ROUTE => "a route",
            Self::ALLOW_REQUEST => "allow_request",
            Self::EXEMPT => "exempt_from_ip_limit",
            Self::DROP => "the Drop of a value of the application",
            Self::KEEP_DATA => "Serialize or Deserialize of a socket's data",
            Self::STORE => "the store",
            Self::LOGGER => "the logger",
            Self::ENGINE => "a handler of an Engine.IO endpoint",
            _ => return None,
        })
    }
}

/// What user code a worker thread runs at the moment: written by that thread, read by a stop that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// 0: none.
    callee: AtomicUsize,
    /// The name of the session that it is called for; 0: none.
    session: AtomicU64,
}

impl Activity {
    /// What runs, and for which session.
    pub(crate) fn now(&self) -> Option<(Callee, Option<String>)> {
        let callee = self.callee.load(Relaxed);
        let session = self.session.load(Relaxed).to_le_bytes();
        let name = String::from_utf8_lossy(&session).trim_end_matches('\0').to_owned();
        (callee != 0).then(|| (Callee(callee), Some(name).filter(|name| !name.is_empty())))
    }
}

/// For whom a handler runs: a session, or one of its sockets.
pub(crate) trait Owner {
    /// What the log calls it.
    fn log_name(&self) -> String;

    /// The name of the session, as a number.
    fn session_tag(&self) -> u64;

    /// Where the session is in memory: tells sessions apart for as long as they exist.
    fn session_address(&self) -> usize;
}

/// Notes what this thread runs, until it is dropped.
struct Note {
    outer: Option<(usize, u64)>,
}

impl Note {
    /// `session`: its tag; 0: none.
    fn new(callee: Callee, session: u64) -> Self {
        Self { outer: Self::set((callee.0, session)) }
    }

    /// What was noted before.
    fn set((callee, session): (usize, u64)) -> Option<(usize, u64)> {
        ACTIVITY.with_borrow_mut(|activity| {
            let activity = activity.as_ref()?;
            let outer = (activity.callee.load(Relaxed), activity.session.load(Relaxed));
            activity.session.store(session, Relaxed);
            activity.callee.store(callee, Relaxed);
            Some(outer)
        })
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(outer) = self.outer {
            Self::set(outer);
        }
    }
}

/// Sets where this thread records the user code that it runs. `None`: nowhere.
pub(crate) fn set_activity(activity: Option<Arc<Activity>>) {
    let before = ACTIVITY.with_borrow_mut(|own| std::mem::replace(own, activity.map(ManuallyDrop::new)));
    before.map(ManuallyDrop::into_inner);
}

thread_local! {
    /// `None`: this is not a worker thread. The value has no destructor, so that it still exists while other values
    /// of the thread are dropped.
    static ACTIVITY: RefCell<Option<ManuallyDrop<Arc<Activity>>>> = const { RefCell::new(None) };
    /// The address of the session whose handler runs on this thread; 0: none.
    static SESSION: Cell<usize> = const { Cell::new(0) };
    /// User code that belongs to no session runs on this thread.
    static APPLICATION: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a handler of the same session.
pub(crate) fn is_in_handler_of(owner: &impl Owner) -> bool {
    SESSION.get() == owner.session_address()
}

/// Whether this thread is inside any user code that the server has called.
pub(crate) fn is_in_handler() -> bool {
    SESSION.get() != 0 || APPLICATION.get()
}

/// Calls user code that belongs to no session: a route, a check of requests. `None`: it panicked.
pub(crate) fn call<T>(callee: Callee, what: fmt::Arguments<'_>, code: impl FnOnce() -> T) -> Option<T> {
    run(callee, code).map_err(|panic| error!("{what} panicked: {panic}")).ok()
}

/// Calls user code that belongs to no session. `Err`: the text of its panic.
fn run<T>(callee: Callee, code: impl FnOnce() -> T) -> Result<T, String> {
    let _note = Note::new(callee, 0);
    let outer = APPLICATION.replace(true);
    let called = catch(code);
    APPLICATION.set(outer);
    called
}

/// Calls a handler of a session or of a socket. `None`: it panicked.
pub(crate) fn call_for<T>(
    owner: &impl Owner,
    callee: Callee,
    what: fmt::Arguments<'_>,
    code: impl FnOnce() -> T,
) -> Option<T> {
    let _note = Note::new(callee, owner.session_tag());
    let outer = SESSION.replace(owner.session_address());
    let called = catch(code);
    SESSION.set(outer);
    called.map_err(|panic| log_panic(owner, what, &panic)).ok()
}

/// Drops a value of the application.
pub(crate) fn drop_value(value: impl Sized) {
    call(Callee::DROP, format_args!("the Drop of a value of the application"), || drop(value));
}

#[cold]
fn log_panic(owner: &impl Owner, what: fmt::Arguments<'_>, panic: &str) {
    error!("{}: {what} panicked: {panic}", owner.log_name());
}
