//! Connection state recovery, as far as the application sees it: its options, and the stores.
//!
//! The work is done by the hub (`hub/recovery`), because its thread has the rooms and the order of all packets. This
//! folder is below the hub. It may use the protocol, and `guard` to call a store of the application. It knows no
//! session, no socket and no thread.

mod options;
pub(crate) mod store;

pub use options::ConnectionStateRecovery;
pub(crate) use options::is_recoverable;
