//! The client library against the official server, against python-socketio, and against peers that misbehave.

mod hostile;
mod interop;
mod lifecycle;
mod support;
#[cfg(feature = "tls")]
mod tls;
