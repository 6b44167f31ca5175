//! Attacks on a server in a process of its own, each followed by the same three questions.
//!
//! *Did the attacker get the documented answer?* Each row asserts that itself, with the reason that the server's
//! handlers were told. *Was everybody else served?* Two control clients, one a transport, exchange an echo all the
//! time, and none may take a second. *Did everything come back?* Sessions, threads, open files and resident memory of
//! the server's process are where they were before.
//!
//! The rows are those of `docs/HOSTILE.md`. What counts in thousands does so in the tests of `long`, which are
//! ignored by default: `cargo test --release --test hostile long -- --ignored`.
#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]
#![allow(dead_code, unused_imports, reason = "the support module is shared with the other tests")]

mod control_client;
mod floods;
mod frames;
mod heads;
mod long;
mod packets;
mod polls;
mod returns;
mod scarce;
mod scenario;
mod server;
mod slow;
#[path = "../server/support/mod.rs"]
mod support;
mod upgrades;
