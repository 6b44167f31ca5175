//! Sockets of the system: streams, the listener, the permits of connections, and the poller, where they wait.
//!
//! It uses `sys` and the admission of `limits`. It knows no protocol, no session and no option of the server, and it
//! calls no code of the application.

pub(crate) mod adaptive_wait;
pub(crate) mod connections;
pub(crate) mod listener;
pub(crate) mod poller;
pub(crate) mod stream;
pub(crate) mod unix_socket;
