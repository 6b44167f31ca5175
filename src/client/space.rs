//! The handlers of one namespace.

use std::{collections::HashMap, sync::Arc};

use super::{Error, Event, Socket};
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

/// Each list is replaced when it grows, and shared with the call that is under way: a handler may set and remove handlers.
#[derive(Default)]
pub(super) struct Handlers {
    pub(super) named: HashMap<String, Arc<Vec<OnEvent>>>,
    pub(super) any: Arc<Vec<OnAny>>,
    pub(super) connect: Arc<Vec<OnConnect>>,
    pub(super) disconnect: Arc<Vec<OnDisconnect>>,
    pub(super) connect_error: Arc<Vec<OnError>>,
}

/// Appends to a shared list.
pub(super) fn add<T: Clone>(list: &mut Arc<Vec<T>>, handler: T) {
    Arc::make_mut(list).push(handler);
}
