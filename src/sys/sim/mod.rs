//! A simulated system for the model checker: the names of `real`, with shuttle's scheduler under them.
//!
//! ```text
//!   server ─► sys::sync, channel, thread, os ─► Ticket (kernel): woken, or its time has come ─► shuttle's scheduler
//! ```
//! All threads of an execution are coroutines on one thread of the system; they change places at locks, atomics,
//! waits and system calls. **The clock** stands while anybody can run, and then goes to the next deadline; with
//! [`set_haste`] it also goes on by itself, as it does for a thread that got no processor. When nobody can run and no
//! deadline is left, shuttle reports a deadlock. **The kernel** takes and gives as few bytes as it likes, says EINTR
//! and EAGAIN at will, and closes like Linux.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a checker fails loudly")]

pub(crate) mod channel;
pub(crate) mod epoll;
pub(crate) mod fd;
mod kernel;
pub(crate) mod net;
pub(crate) mod os;
mod pipe;
pub(crate) mod sync;
pub(crate) mod thread;
#[path = "../wait.rs"]
pub(crate) mod wait;

pub(crate) use kernel::{Faults, begin, set_faults, set_haste, threads, time};
pub(crate) use thread::thread_local;
