//! The protocol core, tested from outside. The rows are in `tests/wire`.
#![allow(clippy::unwrap_used, reason = "a helper that cannot go on ends its test")]

mod args;
mod engine;
mod frames;
mod heartbeat;
mod hostile;
mod properties;
mod reference;
mod socket;
mod wire;
