//! The types of the user's handlers, and the lists of them: of one namespace, and of the client itself.
//!
//! Owns no thread and calls nothing: `events` does. Uses the API's types, which the handlers get.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{Error, Event, Handle, Socket, guard::Guarded};
use crate::proto::{CloseReason, socket::OwnedArgs};

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

/// Handlers in the order in which they were set.
pub(super) type List<T> = Arc<Vec<Guarded<T>>>;

/// A list is replaced when it grows, and shared with a call in progress, so that a handler may add and remove handlers.
#[derive(Default)]
pub(super) struct Handlers {
    pub(super) named: HashMap<String, List<OnEvent>>,
    pub(super) any: List<OnAny>,
    pub(super) connect: List<OnConnect>,
    pub(super) disconnect: List<OnDisconnect>,
    pub(super) connect_error: List<OnError>,
}

/// Appends to a shared list.
pub(super) fn add<T: Clone>(list: &mut List<T>, handler: T) {
    Arc::make_mut(list).push(Guarded::new(handler));
}

/// A callback of an acknowledgement.
type OnAck = Box<dyn FnOnce(&Socket, Result<OwnedArgs, Error>) + Send>;

/// What is called with an acknowledgement.
pub(super) struct Callback {
    /// The event that is acknowledged.
    pub(super) event: String,
    pub(super) call: OnAck,
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
pub(super) struct Hooks {
    pub(super) scheduled: List<OnScheduled>,
    pub(super) attempt: List<OnAttempt>,
    pub(super) reconnect: List<OnAttempt>,
    pub(super) error: List<OnClientError>,
    pub(super) failed: List<OnFailed>,
}
