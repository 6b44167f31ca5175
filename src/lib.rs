//! tinysio: Socket.IO for small Linux boxes, on plain threads.

pub mod proto;

pub use bytes::Bytes;
pub use serde_json::value::RawValue;
