//! Engine.IO v4: sessions, transports, heartbeat, upgrade.
//!
//! ```text
//!            handshake                  2probe/3probe, 5
//!   client ───────────► session(polling) ───────────────► session(websocket) ──► closed
//!            handshake ──────────────────────────────────►        ▲
//!                                                     ping ───────┘ pong
//! ```

mod handshake;
mod heartbeat;
mod packet;
pub mod payload;
mod upgrade;

pub use handshake::{HandshakeError, Open, Query, TransportKind};
pub use heartbeat::{Beat, Heard, Heartbeat};
pub use packet::{Data, Packet};
pub use upgrade::{ProbeStep, UpgradeProbe};
