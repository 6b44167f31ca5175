//! The limits of the chat, for both sides.

use crate::server::Rate;

/// Limits that the server enforces, and that the client programs check before sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Characters of a message or room message: of a string, or else of the JSON text. Bytes of binary values
    /// count as characters. Default 10,000.
    pub message: usize,
    /// Bytes of a custom event's JSON. Default 50,000.
    pub custom_event: usize,
    /// Characters of a room name, after trimming. Default 100.
    pub room_name: usize,
    /// Rooms that one client may be in. Default 100.
    pub rooms: usize,
}

impl Limits {
    /// The defaults, for constant expressions.
    pub const DEFAULT: Self = Self { message: 10_000, custom_event: 50_000, room_name: 100, rooms: 100 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Default rate of the events of one client.
pub const RATE: Rate = Rate { per_second: 50, burst: 200 };

/// Default maximum number of clients.
pub const CONNECTIONS: usize = 1_000;

/// Default maximum of bytes in one WebSocket message or polling body.
pub const PAYLOAD: usize = 1_000_000;
