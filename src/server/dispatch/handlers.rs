//! Calls of the handlers of a namespace, in the order of the official server.
//!
//! Every call goes through `guard`. The thread has the session's turn and holds no lock.

use std::{fmt, sync::Arc};

use crate::proto::CloseReason;
use crate::server::{
    error::ConnectError,
    guard::{self, Callee},
    hub::recovery::RetainedData,
    recovery::is_recoverable,
    session::Session,
    session::workers::HubData,
    socket::{Event, Socket, retries::Decision},
};

/// Asks the middlewares in their order.
pub(super) fn admit(socket: &Socket) -> Result<(), ConnectError> {
    let middlewares = &socket.namespace().0.handlers.middlewares;
    for check in middlewares {
        guard::call_for(socket, Callee::of(middlewares), format_args!("a middleware"), || check(socket))
            .unwrap_or_else(|| Err(ConnectError::new("Internal server error")))?;
    }
    Ok(())
}

pub(super) fn event(socket: &Socket, event: Event<'_>) {
    if !socket.is_connected() {
        return;
    }
    match event.retried_id() {
        None => handle(socket, &event),
        Some(id) => retried(socket, event, id),
    }
}

fn handle(socket: &Socket, event: &Event<'_>) {
    let handlers = &socket.namespace().0.handlers;
    let (name, own) = (event.name(), handlers.events.get(event.name()).unwrap_or(&handlers.unhandled));
    each(socket, &handlers.any, format_args!("on_any (event {name:?})"), |any| any(socket, event));
    each(socket, own, format_args!("the handler of event {name:?}"), |handler| {
        handler(socket, event.again());
    });
}

/// Calls these handlers in the order of their registration, each inside the guard. `what`: their name in the log.
fn each<H>(socket: &Socket, handlers: &[H], what: fmt::Arguments<'_>, call: impl Fn(&H)) {
    for handler in handlers {
        guard::call_for(socket, Callee::of(handlers), what, || call(handler));
    }
}

/// Handles an event that its client sends again until it is acknowledged. While the answer is kept, a retry does not
/// run the handler again. The packets that the handler emits and the answer reach the store in one commit.
fn retried(socket: &Socket, mut event: Event<'_>, id: u64) {
    let retried = &socket.namespace().0.retried;
    match retried.begin(socket, id) {
        Decision::Handle(attempt) => {
            let hub = &socket.namespace().0.hub;
            event.set_retried(attempt);
            hub.begin_batch();
            handle(socket, &event);
            hub.commit_batch();
            retried.end_gathered();
            retried.end(socket, attempt, false);
        }
        Decision::Answered(answer) => {
            // The fence puts the answer behind the packets of the first attempt, which may still wait for the store.
            // The send fails only after the stop.
            socket.namespace().0.hub.fence();
            let _ = socket.namespace().0.hub.direct(Arc::<Session>::clone(socket.session()), answer, false);
        }
        Decision::Ignore => {}
    }
}

/// An event beyond the rate: one handler may say so to the client.
pub(super) fn too_fast(socket: &Socket, event: Event<'_>) {
    if socket.is_connected() {
        let what = format_args!("on_rate_limited of event {:?}", event.name());
        let handlers = &socket.namespace().0.handlers.rate_limited;
        each(socket, handlers, what, |handler| handler(socket, event.again()));
    }
}

/// The socket is connected.
pub(super) fn connected(socket: &Socket) {
    let handlers = &socket.namespace().0.handlers.connect;
    each(socket, handlers, format_args!("on_connect"), |handler| handler(socket));
}

/// Calls the `disconnecting` handlers, removes the socket from its rooms, and calls the `disconnect` handlers.
pub(super) fn leave(socket: &Socket, reason: CloseReason) {
    let handlers = &socket.namespace().0.handlers;
    socket.fail_acks();
    each(socket, &handlers.disconnecting, format_args!("on_disconnecting"), |handler| {
        handler(socket, reason);
    });
    let hub = &socket.namespace().0.hub;
    let data = (socket.pid().is_some() && is_recoverable(reason)).then(|| data_of_lost(socket)).flatten();
    let lost = data.is_some();
    hub.disconnect_socket(socket.membership(), data);
    each(socket, &handlers.disconnect, format_args!("on_disconnect"), |handler| handler(socket, reason));
    if lost {
        hub.handlers_done(socket.membership());
    }
}

/// The data of the socket, to be kept until its client is recovered. `None`: the client cannot be recovered.
fn data_of_lost(socket: &Socket) -> Option<RetainedData> {
    let shared = &socket.session().shared;
    let data = HubData::new(socket.any_data(), &shared.workers, shared.config.max_connections);
    if data.is_none() {
        guard::warn!(
            "socket {}: not kept for recovery, because the data of others is dropped too slowly",
            socket.id()
        );
    }
    data.map(|data| Arc::new(data) as RetainedData)
}
