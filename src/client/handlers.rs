//! The user's handlers: of each namespace, and of the client itself.
//!
//! Owns the tables. Uses the API's types, which the handlers get. It calls no handler: `events` does, with no table
//! locked.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::{Error, Event, Handle, Socket, guard::Guarded, namespace::Namespace};
use crate::proto::CloseReason;

/// All handlers of one client.
#[derive(Default)]
pub(super) struct Handlers {
    client: Mutex<ClientHandlers>,
    /// By the index of the namespace.
    sockets: Mutex<Vec<SocketHandlers>>,
}

impl Handlers {
    /// Those of the client itself.
    pub(super) fn of_client(&self) -> MutexGuard<'_, ClientHandlers> {
        self.client.lock()
    }

    /// Those of a namespace.
    pub(super) fn of_socket(&self, namespace: &Namespace) -> MappedMutexGuard<'_, SocketHandlers> {
        MutexGuard::map(self.sockets.lock(), |sockets| {
            if sockets.len() <= namespace.index {
                sockets.resize_with(namespace.index + 1, SocketHandlers::default);
            }
            &mut sockets[namespace.index]
        })
    }
}

/// A handler of events.
pub(super) type OnEvent = Arc<dyn Fn(&Socket, Event<'_>) -> Result<(), String> + Send + Sync>;
/// A handler of all events.
pub(super) type OnAny = Arc<dyn Fn(&Socket, &Event<'_>) + Send + Sync>;
/// A handler of `connect`.
pub(super) type OnConnect = Arc<dyn Fn(&Socket) + Send + Sync>;
/// A handler of `disconnect`.
pub(super) type OnDisconnect = Arc<dyn Fn(&Socket, CloseReason) + Send + Sync>;
/// A handler of `connect_error`.
pub(super) type OnError = Arc<dyn Fn(&Socket, &Error) + Send + Sync>;

/// Handlers in the order in which they were set. A list is replaced when it grows, and shared with a call in progress,
/// so that a handler may add and remove handlers.
pub(super) type List<T> = Arc<Vec<Guarded<T>>>;

/// The handlers of one namespace.
#[derive(Default)]
pub(super) struct SocketHandlers {
    pub(super) named: HashMap<String, List<OnEvent>>,
    pub(super) any: List<OnAny>,
    pub(super) connect: List<OnConnect>,
    pub(super) disconnect: List<OnDisconnect>,
    pub(super) connect_error: List<OnError>,
}

/// A handler of reconnections, called with the attempt's number.
type OnAttempt = Arc<dyn Fn(&Handle, u32) + Send + Sync>;
/// A handler of delays, called with the attempt's number and the delay.
type OnScheduled = Arc<dyn Fn(&Handle, u32, Duration) + Send + Sync>;
/// A handler of failed reconnections.
type OnClientError = Arc<dyn Fn(&Handle, &Error) + Send + Sync>;
/// A handler of the end of all reconnections.
type OnFailed = Arc<dyn Fn(&Handle) + Send + Sync>;

/// The handlers of the client itself.
#[derive(Default)]
pub(super) struct ClientHandlers {
    pub(super) scheduled: List<OnScheduled>,
    pub(super) attempt: List<OnAttempt>,
    pub(super) reconnect: List<OnAttempt>,
    pub(super) error: List<OnClientError>,
    pub(super) failed: List<OnFailed>,
}

/// Appends to a shared list.
pub(super) fn add<T: Clone>(list: &mut List<T>, handler: T) {
    Arc::make_mut(list).push(Guarded::new(handler));
}
