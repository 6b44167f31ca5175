//! Sockets, descriptors, and waiting for them.

pub(crate) mod adaptive_wait;
pub(crate) mod connections;
pub(crate) mod idle;
pub(crate) mod listener;
pub(crate) mod stream;
pub(crate) mod unix_socket;
