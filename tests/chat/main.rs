//! The chat through real sockets: the contract's tables as rows, and the `server` program from outside.

#![allow(clippy::unwrap_used, reason = "a test that fails to unwrap has failed")]

mod answers;
mod auth;
mod errors;
mod flow;
mod health;
mod limits;
mod log;
mod notices;
mod program;
mod rooms;
mod store;
mod support;
