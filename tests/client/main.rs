//! The client library against the official server, against python-socketio, and against peers that misbehave.

mod hostile;
mod interop;
mod support;
