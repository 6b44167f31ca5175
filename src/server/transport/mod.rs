//! What is between a session and its connection: the packets that wait for a client, and the parts of WebSocket.
//!
//! It uses `http` and `net`, and the budgets of `limits`. It knows nothing of sessions. The readers of both transports
//! are in `connection`, above.

mod backlog;
pub(crate) mod frame_meter;
pub(crate) mod outbox;
pub(crate) mod websocket_codec;
pub(crate) mod websocket_handshake;
