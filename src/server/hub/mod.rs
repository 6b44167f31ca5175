//! The hub: one thread that owns who is where, and every deadline that belongs to no connection.
//!
//! ```text
//!   handles ──commands──► inbox ──► apply … apply ──► flush: one send a recipient ──► deadlines ──► wait
//!              (bounded)            (what is there already, at most BATCH_MAX)
//! ```
//! It works in batches: it blocks for one command, takes what has gathered behind it, notes for each recipient
//! which packets are due, and then writes each recipient's packets with one call. It waits for nobody: a full socket is
//! the drain thread's affair, and no handler runs here.

pub(crate) mod actor;
pub(crate) mod backpressure;
pub(crate) mod batch;
pub(crate) mod command;
mod delivery;
pub(crate) mod handle;
pub(crate) mod held;
pub(crate) mod in_flight;
mod members;
pub(crate) mod membership;
pub(crate) mod rooms;
pub(crate) mod session;
mod sessions;
pub(crate) mod sockets;
mod timers;

pub(crate) use actor::{BATCH_MAX, start};
pub(crate) use backpressure::INFLIGHT_MAX;
pub(crate) use batch::BATCH_BYTES_TOTAL;
pub(crate) use command::{Command, INFLIGHT_MIN, Question, Selection, Signal};
pub(crate) use handle::{HubHandle, Signaller, mark_store_thread};
pub(crate) use in_flight::{Unfinished, caught_up, unfinished};
pub(crate) use session::HubSession;
pub(crate) use sockets::REPLAY_MAX;
