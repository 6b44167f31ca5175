//! A batch: commands that a thread collects, so that the hub gets them as one command.
//!
//! It may use the commands only. It never sends: that is the handle's work.

use std::cell::RefCell;

use bytes::Bytes;

use crate::server::hub::command::Command;
use crate::sys::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread_local,
};

/// A batch with more bytes is sent in parts.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The bytes that the batches of all threads may hold. Beyond it a thread sends its batch early.
pub(crate) const BATCH_BYTES_TOTAL: usize = 8 << 20;

/// The bytes that a command takes beside its packet.
const COMMAND_COST: usize = 256;

/// The commands that a thread has collected.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) commands: Vec<Command>,
    pub(super) bytes: usize,
}

thread_local! {
    /// The open batch of this thread. `None`: commands are sent at once.
    static BATCH: RefCell<Option<Batch>> = const { RefCell::new(None) };
}

/// Opens a batch on this thread.
pub(super) fn begin() {
    BATCH.with_borrow_mut(|batch| *batch = Some(Batch::default()));
}

/// Whether this thread has an open batch.
pub(super) fn is_open() -> bool {
    BATCH.with_borrow(Option::is_some)
}

/// Takes the commands out of this thread's batch, which stays open.
pub(super) fn take() -> Batch {
    BATCH.with_borrow_mut(|batch| batch.as_mut().map(std::mem::take)).unwrap_or_default()
}

/// Closes this thread's batch, which must be empty.
pub(super) fn end() {
    BATCH.with_borrow_mut(|batch| *batch = None);
}

/// The result of [`add`].
pub(super) enum Added {
    /// The command is in the batch.
    Batched,
    /// This thread has no open batch.
    NoBatch(Command),
    /// The command does not fit, or cannot be in a batch. The batch must be sent before it.
    Full(Command),
}

/// Adds a command to this thread's batch. `total`: the bytes in the batches of all threads.
pub(super) fn add(command: Command, total: &AtomicUsize) -> Added {
    BATCH.with_borrow_mut(|batch| {
        let Some(batch) = batch else { return Added::NoBatch(command) };
        let bytes = COMMAND_COST
            + match &command {
                Command::Emit { packet, .. } | Command::Direct { packet, .. } => packet.bytes().len(),
                Command::StoreAnswer(answer, _) => answer.frames.len(),
                Command::StoreData(_, data, _) => data.as_ref().map_or(0, Bytes::len),
                Command::Join(..) | Command::Leave(..) | Command::AckDeadline(..) => 0,
                _ => return Added::Full(command),
            };
        if batch.bytes + bytes > BATCH_BYTES_MAX || total.load(Relaxed) + bytes > BATCH_BYTES_TOTAL {
            return Added::Full(command);
        }
        total.fetch_add(bytes, Relaxed);
        batch.bytes += bytes;
        batch.commands.push(command);
        Added::Batched
    })
}
