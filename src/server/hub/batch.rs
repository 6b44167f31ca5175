//! Commands that a thread collects, so that the hub gets them as one.

use std::cell::RefCell;

use bytes::Bytes;

use crate::server::hub::command::Command;
use crate::sys::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread_local,
};

thread_local! {
    /// What this thread gathers.
    pub(super) static TOGETHER: RefCell<Option<Together>> = const { RefCell::new(None) };
}

/// What a thread has gathered for the hub.
#[derive(Default)]
pub(super) struct Together {
    pub(super) commands: Vec<Command>,
    pub(super) bytes: usize,
}

/// A thread that gathers more bytes sends them in parts.
const TOGETHER_MAX: usize = 1 << 20;

/// Bytes that all threads together may gather; beyond it they send what they have.
pub(crate) const TOGETHER_TOTAL: usize = 8 << 20;

/// What a command takes beside its packet.
const COMMAND_COST: usize = 256;

/// What became of a command of a thread that may be gathering.
pub(super) enum Gathering {
    Off(Command),
    Kept,
    /// What was gathered goes first.
    Full(Command),
}

pub(super) fn gather(command: Command, total: &AtomicUsize) -> Gathering {
    TOGETHER.with_borrow_mut(|together| {
        let Some(together) = together else { return Gathering::Off(command) };
        let bytes = COMMAND_COST
            + match &command {
                Command::Emit { packet, .. } | Command::Direct { packet, .. } => packet.bytes().len(),
                Command::Remember(answer, _) => answer.frames.len(),
                Command::Data(_, data, _) => data.as_ref().map_or(0, Bytes::len),
                Command::Join(..) | Command::Leave(..) | Command::AckDeadline(..) => 0,
                _ => return Gathering::Full(command),
            };
        if together.bytes + bytes > TOGETHER_MAX || total.load(Relaxed) + bytes > TOGETHER_TOTAL {
            return Gathering::Full(command);
        }
        total.fetch_add(bytes, Relaxed);
        together.bytes += bytes;
        together.commands.push(command);
        Gathering::Kept
    })
}
