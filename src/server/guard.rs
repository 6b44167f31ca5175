//! Calls of user code: handlers, checks, callbacks, and `Drop` of the application's values.
//!
//! A panic in user code costs the call in which it happened and nothing else. It is caught here and logged with what was
//! called; where it happened, the panic hook has said. Only worker threads and the application's own threads call user code.

use std::{
    cell::{Cell, RefCell},
    fmt,
    mem::ManuallyDrop,
    sync::Arc,
};

use crate::server::{session::Session, socket::Socket};
use crate::{
    outcome::catch,
    sys::{
        sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        thread_local,
    },
};

/// Which user code is called, as a number: the address of the list that holds the handlers, so that a call needs no text.
/// [`Core::describe`](crate::server::core::Core::describe) finds the words.
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

/// Notes what this thread runs, until it is dropped.
struct Note {
    outer: Option<(usize, u64)>,
}

impl Note {
    fn new(callee: Callee, session: Option<&Session>) -> Self {
        Self { outer: Self::set((callee.0, session.map_or(0, Session::tag))) }
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

/// What this thread runs from now on is seen there; with `None`, nowhere.
pub(crate) fn set_activity(activity: Option<Arc<Activity>>) {
    let before = ACTIVITY.with_borrow_mut(|own| std::mem::replace(own, activity.map(ManuallyDrop::new)));
    before.map(ManuallyDrop::into_inner);
}

thread_local! {
    /// `None`: no worker thread. Without a destructor, so that it is there when a thread's last values are dropped.
    static ACTIVITY: RefCell<Option<ManuallyDrop<Arc<Activity>>>> = const { RefCell::new(None) };
    /// The session whose handler runs on this thread.
    static SESSION: Cell<*const Session> = const { Cell::new(std::ptr::null()) };
    /// User code that belongs to no session runs on this thread.
    static APPLICATION: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a handler of the session.
pub(crate) fn is_in_handler_of(session: &Arc<Session>) -> bool {
    std::ptr::eq(SESSION.get(), Arc::as_ptr(session))
}

/// Whether this thread is inside any user code that the server has called.
pub(crate) fn is_in_handler() -> bool {
    !SESSION.get().is_null() || APPLICATION.get()
}

/// Calls user code that belongs to no session: a route, a check of requests. `None`: it panicked.
pub(crate) fn call<T>(callee: Callee, what: fmt::Arguments<'_>, code: impl FnOnce() -> T) -> Option<T> {
    let _note = Note::new(callee, None);
    let outer = APPLICATION.replace(true);
    let called = catch(code);
    APPLICATION.set(outer);
    called.map_err(|panic| log::error!("{what} panicked: {panic}")).ok()
}

/// Calls a handler of a socket. `None`: it panicked.
pub(crate) fn call_for_socket<T>(
    socket: &Socket,
    callee: Callee,
    what: fmt::Arguments<'_>,
    code: impl FnOnce() -> T,
) -> Option<T> {
    let session = socket.session();
    within(session, callee, code).map_err(|panic| log_panic(session, Some(socket), what, &panic)).ok()
}

/// Calls a handler of a bare Engine.IO session.
pub(crate) fn call_for_session(session: &Arc<Session>, what: fmt::Arguments<'_>, code: impl FnOnce()) {
    if let Err(panic) = within(session, Callee::ENGINE, code) {
        log_panic(session, None, what, &panic);
    }
}

/// Drops a value of the application.
pub(crate) fn drop_value(value: impl Sized) {
    call(Callee::DROP, format_args!("the Drop of a value of the application"), || drop(value));
}

fn within<T>(session: &Arc<Session>, callee: Callee, code: impl FnOnce() -> T) -> Result<T, String> {
    let _note = Note::new(callee, Some(session));
    let outer = SESSION.replace(Arc::as_ptr(session));
    let called = catch(code);
    SESSION.set(outer);
    called
}

#[cold]
fn log_panic(session: &Session, socket: Option<&Socket>, what: fmt::Arguments<'_>, panic: &str) {
    let session = session.name();
    match socket {
        Some(socket) => log::error!(
            "socket {} of namespace {:?} (session {session}): {what} panicked: {panic}",
            socket.id(),
            socket.namespace().name()
        ),
        None => log::error!("session {session}: {what} panicked: {panic}"),
    }
}
