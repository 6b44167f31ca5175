//! The client library against the official server, against python-socketio, and against peers that misbehave.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on ends its test")]

mod fake;
mod handlers;
mod heartbeat;
mod hostile;
mod interop;
mod lifecycle;
mod membership;
mod reconnection;
mod recovery;
mod recovery_official;
mod recovery_own;
mod sending;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod values;
