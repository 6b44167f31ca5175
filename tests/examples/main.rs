//! The examples for users, run: each does what its first lines say.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod auth;
mod bad_network;
mod chat;
mod telemetry;

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use tinysio::{Client, Server};

#[allow(dead_code, reason = "its tests run where it is at home")]
#[path = "../../src/bin/clients/relay.rs"]
mod relay;

#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../../examples/auth.rs"]
mod auth_example;
#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../../examples/bad_network.rs"]
mod bad_network_example;
#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../../examples/chat.rs"]
mod chat_example;
#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../../examples/telemetry.rs"]
mod telemetry_example;

/// The limit of every wait. Only a failure uses it up.
const PATIENCE: Duration = Duration::from_secs(20);

fn url(server: &Server) -> String {
    format!("http://{}", server.local_addr().unwrap())
}

/// A client that is not connected yet, so that handlers can be set.
fn client(server: &Server) -> Client {
    Client::builder(&url(server)).build().unwrap()
}

/// What a handler on another thread has seen.
struct Seen<T>(Receiver<T>);

fn seen<T>() -> (Sender<T>, Seen<T>) {
    let (sender, receiver) = channel();
    (sender, Seen(receiver))
}

impl<T> Seen<T> {
    #[track_caller]
    fn next(&self) -> T {
        self.0.recv_timeout(PATIENCE).unwrap()
    }
}
