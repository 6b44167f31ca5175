//! The two protocols as pure functions: Engine.IO v4 and Socket.IO v5.
//!
//! ```text
//!   WebSocket message ─┐                                   ┌─► Event, Ack, Connect …
//!                      ├─► engine::Packet ─► socket::Assembler
//!   polling payload ───┘                                   └─► Error (the rule that was broken)
//!
//!   Event, Ack, … ─► socket::Encoded ─► one WebSocket write, or packets of a polling payload
//! ```
//!
//! Owns: every rule of the two protocols, for server and client, beside the clause it follows. Uses no socket,
//! thread, channel or clock: bytes and `Instant`s go in, values come out. "EIO" in comments is the Engine.IO
//! protocol document, revision 4; "SIO" is the Socket.IO protocol document, revision 5.

#![cfg_attr(shuttle, deny(clippy::disallowed_types, reason = "no thread, lock, channel, socket or clock"))]

mod close;
pub mod engine;
mod error;
pub mod limits;
pub mod socket;

pub use close::CloseReason;
pub use error::Error;
