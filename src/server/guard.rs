//! Calls of user code: handlers, checks, callbacks, and `Drop` of the application's values.
//!
//! A panic in user code costs the call in which it happened and nothing else. It is caught here and logged with what was
//! called; where it happened, the panic hook has said. Only worker threads and the application's own threads call user code.

use std::{cell::Cell, fmt, sync::Arc};

use super::{session::Session, socket::Socket};
use crate::{outcome::catch, sys::thread_local};

thread_local! {
    /// The session whose handler runs on this thread.
    static SESSION: Cell<*const Session> = const { Cell::new(std::ptr::null()) };
    /// User code that belongs to no session runs on this thread.
    static APPLICATION: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a handler of the session.
pub(super) fn is_in_handler_of(session: &Arc<Session>) -> bool {
    std::ptr::eq(SESSION.get(), Arc::as_ptr(session))
}

/// Whether this thread is inside any user code that the server has called.
pub(super) fn is_in_handler() -> bool {
    !SESSION.get().is_null() || APPLICATION.get()
}

/// Calls user code that belongs to no session: a route, a check of requests. `None`: it panicked.
pub(super) fn call<T>(what: fmt::Arguments<'_>, code: impl FnOnce() -> T) -> Option<T> {
    let outer = APPLICATION.replace(true);
    let called = catch(code);
    APPLICATION.set(outer);
    called.map_err(|panic| log::error!("{what} panicked: {panic}")).ok()
}

/// Calls a handler of a socket. `None`: it panicked.
pub(super) fn call_for_socket<T>(
    socket: &Socket,
    what: fmt::Arguments<'_>,
    code: impl FnOnce() -> T,
) -> Option<T> {
    let session = socket.session();
    within(session, code).map_err(|panic| log_panic(session, Some(socket), what, &panic)).ok()
}

/// Calls a handler of a bare Engine.IO session.
pub(super) fn call_for_session(session: &Arc<Session>, what: fmt::Arguments<'_>, code: impl FnOnce()) {
    if let Err(panic) = within(session, code) {
        log_panic(session, None, what, &panic);
    }
}

/// Drops a value of the application.
pub(super) fn drop_value(value: impl Sized) {
    call(format_args!("the Drop of a value of the application"), || drop(value));
}

fn within<T>(session: &Arc<Session>, code: impl FnOnce() -> T) -> Result<T, String> {
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
