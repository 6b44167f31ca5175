//! The handlers of one namespace.

use std::{collections::HashMap, sync::Arc};

use super::{Error, Event, Socket, guard::Guarded};
use crate::proto::CloseReason;

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

/// Each list is replaced when it grows, and shared with the call that is under way: a handler may set and remove handlers.
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
