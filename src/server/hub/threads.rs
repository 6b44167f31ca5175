//! What this thread is to the hub: the hub's own thread, the store's, or any other.
//!
//! The first two must not wait for the hub: the hub would wait for itself, or for the store, which waits for it. So the
//! hub's own thread keeps its commands here until it takes them, and commands of the store's thread may be dropped.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use crate::server::hub::command::Command;
use crate::sys::thread_local;

/// What a thread is to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The hub's own thread.
    Hub,
    /// The thread that runs the store's methods.
    Store,
    /// Any other. It may wait for the hub.
    Other,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Other) };
    /// The commands that the hub's own thread has sent and not taken yet.
    static OWN: RefCell<VecDeque<Command>> = RefCell::default();
}

/// This thread has this role from now on.
pub(super) fn set_role(role: Role) {
    ROLE.set(role);
}

/// The role of this thread.
pub(super) fn role() -> Role {
    ROLE.get()
}

/// Whether this thread may wait for the hub.
pub(super) fn may_wait() -> bool {
    role() == Role::Other
}

/// Keeps a command that the hub's own thread has sent.
pub(super) fn push_own(command: Command) {
    OWN.with_borrow_mut(|own| own.push_back(command));
}

/// The next command that the hub's own thread has sent.
pub(super) fn next_own() -> Option<Command> {
    OWN.with_borrow_mut(VecDeque::pop_front)
}
