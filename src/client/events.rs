//! The `events` thread: runs the user's handlers, one at a time and in order.
//!
//! Empties the event queue, and expires acknowledgements. Uses the API's types, and `core`. It must not hold a lock
//! while a handler runs.

use std::{cell::Cell, fmt, sync::Arc};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Error, Event, Handle, Outcome, Socket,
    acks::Callback,
    core::Core,
    event_queue::{Incoming, Item, Next},
    guard::Guarded,
    handlers::List,
    namespace::Namespace,
};
use crate::{outcome::catch, proto::socket::OwnedArgs};

/// The thread.
pub(super) fn run(client: &Handle) {
    let core = client.core();
    let _ = core.events_thread.set(std::thread::current().id());
    loop {
        match core.events.next(core.next_ack_deadline()) {
            Next::Item(item) => deliver(client, item),
            Next::Deadlines => core.expire_acks(),
            Next::Exit => return,
        }
    }
}

/// The socket that a handler gets.
fn socket(client: &Handle, namespace: &Arc<Namespace>) -> Socket {
    Socket::new(client.clone(), namespace.clone())
}

fn deliver(client: &Handle, item: Item) {
    let (core, handlers) = (client.core(), client.handlers());
    match item {
        Item::Event(event) => deliver_event(client, &event),
        Item::Ack(namespace, callback, result) => {
            let Some(Callback { event, call: callback }) = callback.take() else { return };
            call(core, format_args!("callback of {event:?}"), Some(&namespace), || callback(result));
        }
        Item::Connect(namespace) => {
            let list = handlers.of_socket(&namespace).connect.clone();
            each(core, "connect", Some(&namespace), &list, |handler| handler(&socket(client, &namespace)));
            deliver_reserved(client, &namespace, "connect", None::<&()>);
        }
        Item::Disconnect(namespace, reason) => {
            let list = handlers.of_socket(&namespace).disconnect.clone();
            each(core, "disconnect", Some(&namespace), &list, |handler| {
                handler(&socket(client, &namespace), reason);
            });
            deliver_reserved(client, &namespace, "disconnect", Some(&reason.as_str()));
        }
        Item::ConnectError(namespace, error) => {
            let list = handlers.of_socket(&namespace).connect_error.clone();
            each(core, "connect_error", Some(&namespace), &list, |handler| {
                handler(&socket(client, &namespace), &error);
            });
            deliver_reserved(client, &namespace, "connect_error", Some(&Reason::of(&error)));
        }
        Item::Scheduled(attempt, delay) => {
            let list = handlers.of_client().scheduled.clone();
            each(core, "reconnect_scheduled", None, &list, |handler| handler(client, attempt, delay));
        }
        Item::Attempt(attempt) => {
            let list = handlers.of_client().attempt.clone();
            each(core, "reconnect_attempt", None, &list, |handler| handler(client, attempt));
        }
        Item::Reconnect(attempt) => {
            let list = handlers.of_client().reconnect.clone();
            each(core, "reconnect", None, &list, |handler| handler(client, attempt));
        }
        Item::ReconnectError(error) => {
            let list = handlers.of_client().error.clone();
            each(core, "reconnect_error", None, &list, |handler| handler(client, &error));
        }
        Item::ReconnectFailed => {
            let list = handlers.of_client().failed.clone();
            each(core, "reconnect_failed", None, &list, |handler| handler(client));
        }
    }
}

fn deliver_event(client: &Handle, event: &Incoming) {
    let socket = socket(client, &event.namespace);
    let (any, named) = {
        let handlers = client.handlers().of_socket(&event.namespace);
        (handlers.any.clone(), handlers.named.get(&event.name).cloned())
    };
    let ack = Cell::new(event.ack);
    let made = || Event::new(&socket, &event.name, event.args.args(), (event.epoch, &ack));
    each(client.core(), &event.name, Some(&event.namespace), &any, |handler| handler(&socket, &made()));
    if let Some(named) = &named {
        each(client.core(), &event.name, Some(&event.namespace), named, |handler| handler(&socket, made()));
    }
}

/// Calls the handlers that [`Socket::on`](super::Socket::on) has set for `connect`, `disconnect` or `connect_error`.
fn deliver_reserved(client: &Handle, namespace: &Arc<Namespace>, name: &str, arg: Option<&impl Serialize>) {
    let Some(named) = client.handlers().of_socket(namespace).named.get(name).cloned() else {
        return;
    };
    let mut args = OwnedArgs::default();
    // Cannot fail: text always has a JSON form, and the server's data is JSON.
    if let Some(Err(error)) = arg.map(|arg| args.push(arg)) {
        log::error!(
            "{}: no argument for the handlers of {name:?}: {error}",
            client.core().place(Some(namespace))
        );
    }
    let (socket, ack) = (socket(client, namespace), Cell::new(None));
    each(client.core(), name, Some(namespace), &named, |handler| {
        handler(&socket, Event::new(&socket, name, args.args(), (0, &ack)))
    });
}

/// The argument of the handlers of `connect_error`: the official client's error, as far as it is JSON.
#[derive(Serialize)]
struct Reason<'a> {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

impl<'a> Reason<'a> {
    fn of(error: &'a Error) -> Self {
        match error {
            Error::Refused { message, data, .. } => {
                Self { message: (**message).to_owned(), data: data.as_deref() }
            }
            error => Self { message: error.to_string(), data: None },
        }
    }
}

/// Calls each handler of a list.
fn each<T, R: Outcome>(
    core: &Core,
    name: &str,
    namespace: Option<&Namespace>,
    handlers: &List<T>,
    give: impl Fn(&T) -> R,
) {
    for handler in handlers.iter().filter_map(Guarded::get) {
        call(core, format_args!("handler of {name:?}"), namespace, || give(handler));
    }
}

/// Calls a closure of the user. A panic ends this call only.
fn call<R: Outcome>(
    core: &Core,
    what: fmt::Arguments<'_>,
    namespace: Option<&Namespace>,
    closure: impl FnOnce() -> R,
) {
    match catch(|| closure().into_result()) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => {
            log::warn!("{}: the {what} failed: {error}", core.place(namespace));
        }
        Err(panic) => {
            log::error!("{}: the {what} panicked: {panic}", core.place(namespace));
        }
    }
    core.lock().stats.errors += 1;
}
