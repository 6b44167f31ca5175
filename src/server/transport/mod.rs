//! Polling and WebSocket, and what waits to be written to them.

pub(crate) mod drain;
pub(crate) mod frame_meter;
pub(crate) mod outbox;
pub(crate) mod polling;
pub(crate) mod websocket;
