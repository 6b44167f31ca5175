//! Counters of 64 bits on every processor: those without atomic instructions for them (armv5, mips, 32-bit PowerPC) have
//! them from `portable-atomic`.

#[cfg(not(target_has_atomic = "64"))]
pub(crate) use portable_atomic::AtomicU64;
#[cfg(target_has_atomic = "64")]
pub(crate) use std::sync::atomic::AtomicU64;
