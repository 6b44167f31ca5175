//! The hub: one thread that owns the rooms, the order of broadcasts, and the deadlines of all sessions.
//!
//! ```text
//!   handles ──commands──► inbox ──► apply … apply ──► flush: one send a recipient ──► deadlines ──► wait
//!              (bounded)            (what is there already, at most BATCH_MAX)
//! ```
//! The hub works in batches. It waits for one command, takes those that are in the queue behind it, notes for each
//! recipient which packets it gets, and then writes the packets of each recipient with one call. It never waits for a
//! socket (the drain thread does), and runs no code of the application.
//!
//! **A broadcast to a room**, from the handler to the socket:
//!
//! | step | thread | file |
//! |---|---|---|
//! | `Broadcast::emit` encodes it once | the emitting thread | `socket/broadcast.rs` |
//! | `HubHandle::emit` puts a command into the inbox | the same | [`handle`] |
//! | `Hub::emit` selects the recipients | hub | [`sockets`], [`members`] |
//! | `Delivery::share` notes the packet in their slots | hub | [`delivery`] |
//! | `Delivery::flush` pushes the packets of each recipient | hub | [`delivery`], [`session`], `session/for_hub.rs` |
//! | `Outbox::push` calls `Stream::send_now`, or keeps them for a GET or the drain thread | hub | `transport/outbox` |
//!
//! **A handler cannot block the hub.** Worker threads run the handlers, and the hub runs none: it gives them to the
//! workers as a session's tasks. It has weak references to sockets, and what it keeps of a lost client's data is in a
//! `HubData`, which a worker drops. So it runs no `Drop` of the application. No lock is held while a handler runs. It
//! sends with a non-blocking `send`. Only the opposite happens: a handler that emits waits while the inbox is full.
//!
//! | file | what it has |
//! |---|---|
//! | [`handle`] | what other modules call |
//! | [`command`], [`batch`], [`in_flight`], [`backpressure`], [`threads`] | between the handle and the thread |
//! | [`actor`] | the thread: the loop, and which command does what |
//! | [`sessions`], [`sockets`] | the commands about sessions and about sockets |
//! | [`members`], [`rooms`], [`slots`], [`timers`], [`delivery`], [`held`] | the tables: plain types with own tests |
//! | [`mod@recovery`] | connection state recovery: what the hub keeps of packets and clients |
//! | [`session`], [`membership`] | what the hub knows of a session and of a socket |
//!
//! It may use the outboxes, the protocol, the configuration and the stores. It must not use sockets, dispatch, or the
//! sessions' module: the hub knows slots, ids and outboxes, and no data of the application.

mod actor;
mod backpressure;
mod batch;
mod command;
mod delivery;
mod handle;
pub(crate) mod held;
mod in_flight;
mod members;
pub(crate) mod membership;
pub(crate) mod recovery;
mod rooms;
mod session;
mod sessions;
mod slots;
mod sockets;
mod threads;
mod timers;

pub(crate) use actor::{BATCH_MAX, start};
pub(crate) use backpressure::INFLIGHT_MAX;
pub(crate) use batch::BATCH_BYTES_TOTAL;
pub(crate) use command::{INFLIGHT_MIN, Selection};
pub(crate) use handle::{HubHandle, Inbox};
pub(crate) use in_flight::{Unfinished, caught_up, unfinished};
pub(crate) use session::HubSession;
pub(crate) use sockets::REPLAY_MAX;
