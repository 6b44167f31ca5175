//! The limits of a server: admission, rates, budgets, and the count of what was refused.
//!
//! Plain types with a lock or an atomic at most. They use nothing of the server but
//! [`Peer`](crate::server::peer::Peer). They do no I/O, start no threads and call no code of the application,
//! but for the log of refusals.

pub(crate) mod admission;
pub(crate) mod budget;
pub(crate) mod log_throttle;
pub(crate) mod rate;
pub(crate) mod refusals;
