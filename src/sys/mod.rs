//! What the server takes from the system: locks, threads, queues, the clock, sockets.
//!
//! One door, so that there can be another system behind it. In every ordinary build this module is a list of names
//! and costs nothing. With `--cfg shuttle` the same names are a simulated system (`sim`): a model checker decides
//! which thread runs, the clock moves when nobody can, the kernel takes as little as it likes, and the real server,
//! unchanged, runs on it (`docs/TESTING.md`).

pub(crate) mod real;
#[cfg(shuttle)]
pub(crate) mod sim;

#[cfg(not(shuttle))]
pub(crate) use real::{channel, fd, net, os, sync, thread, thread_local, time, wait};
#[cfg(shuttle)]
pub(crate) use sim::{channel, fd, net, os, sync, thread, thread_local, time, wait};
