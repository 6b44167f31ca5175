//! tinysio: Socket.IO for small Linux boxes, on plain threads.

pub mod chat;
pub mod client;
pub mod proto;
pub mod server;

pub use bytes::Bytes;
pub use serde_json::value::RawValue;
pub use server::Server;
