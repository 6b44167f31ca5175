//! The server over real sockets: raw peers against servers in this process.
#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod conformance;
mod support;
