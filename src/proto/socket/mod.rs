//! Socket.IO v5: namespaces, events, acknowledgements, binary.
//!
//! ```text
//!   text ──► Assembler::text ──► Packet ─────────────────────────► Packet
//!                          └──► (binary header: waits) ─┐
//!   bytes ─► Assembler::binary ─────────────────────────┴──► Complete ──► Packet
//! ```
//!
//! A packet's arguments stay raw JSON, borrowed from the message, until a handler asks for a type ([`Args`]).

mod args;
mod binary;
mod de;
mod encoded;
mod list;
mod offset;
mod packet;
mod placeholder;
mod ser;

pub use args::{Arg, Args, OwnedArgs};
pub use binary::{Assembler, Complete};
pub use encoded::{EncodeError, Encoded, Frame, Frames, Opcode, Outgoing};
pub use offset::Offset;
pub use packet::{Body, Packet, is_namespace};
