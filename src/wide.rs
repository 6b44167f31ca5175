//! 64-bit atomic counters on every processor: for server and client. Processors without the instructions (armv5, mips,
//! 32-bit PowerPC) use `portable-atomic`.

#[cfg(not(target_has_atomic = "64"))]
pub(crate) use portable_atomic::AtomicU64;
#[cfg(target_has_atomic = "64")]
pub(crate) use std::sync::atomic::AtomicU64;
