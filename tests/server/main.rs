//! The server over real sockets: raw peers against servers in this process.
#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod acks;
mod admission;
mod broadcast;
mod churn;
mod conformance;
mod connect;
mod events;
mod http;
mod lead;
mod lifecycle;
mod limits;
mod memory;
mod order;
mod parking;
mod rates;
mod recovery;
mod restarts;
mod retried;
mod store;
mod support;
mod transport;
mod user_code;
mod websocket;
