//! What the tests stand on: servers on port 0, raw HTTP and WebSocket peers, a client that takes any of the three
//! transports, and waits that say what they waited for.

mod client;
#[path = "../../../harness/conformance.rs"]
#[allow(dead_code, reason = "it is a program too")]
mod conformance;
pub(crate) mod gate;
mod http;
pub(crate) mod recovery;
pub(crate) mod stores;
mod ws;

use std::{
    net::{SocketAddr, TcpStream},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use tinysio::server::{Builder, NamespaceBuilder, Server};

pub(crate) use client::{Client, Transport, socket_target};
pub(crate) use http::{Http, Response, from};
pub(crate) use ws::{Frame, Ws};

/// How long anything may take. Never reached but by a failure, so it is generous.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a free port. With `TEST_PARK_AFTER` in the environment, in milliseconds, its connections are parked
/// after so long: the same stories, told by servers whose clients rest at every step. `TEST_LEADERS`: the leaders.
pub(crate) fn serve(set_up: impl FnOnce(Builder) -> Builder) -> Server {
    let mut builder = Server::builder();
    if let Ok(silence) = std::env::var("TEST_PARK_AFTER") {
        let silence = silence.parse().expect("TEST_PARK_AFTER is a number of milliseconds");
        builder = builder.park_after(Duration::from_millis(silence));
    }
    if let Ok(leaders) = std::env::var("TEST_LEADERS") {
        builder = builder.leaders(leaders.parse().expect("TEST_LEADERS is a number"));
    }
    set_up(builder).listen("127.0.0.1:0").expect("the server starts")
}

/// A server whose namespace `/` is set up like this, and nothing else.
pub(crate) fn serve_root(set_up: impl FnOnce(&mut NamespaceBuilder)) -> Server {
    serve(|builder| builder.namespace("/", set_up))
}

pub(crate) fn addr(server: &Server) -> SocketAddr {
    server.local_addr().expect("a TCP server")
}

/// The server of `harness/conformance.rs`, with this heartbeat in milliseconds.
pub(crate) fn conformance_with_heartbeat(interval: u64, timeout: u64) -> Server {
    let heartbeat = (Duration::from_millis(interval), Duration::from_millis(timeout));
    serve(|builder| conformance::set_up(builder, heartbeat, Duration::ZERO))
}

/// The same with the usual heartbeat, which no test lives to see.
pub(crate) fn conformance() -> Server {
    conformance_with_heartbeat(25_000, 20_000)
}

/// Waits until `check` holds.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The next thing that a handler reports.
pub(crate) fn next<T>(reports: &Receiver<T>, what: &str) -> T {
    reports.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits for something that may hang, for not longer than a test may take.
pub(crate) fn in_time<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    std::thread::Builder::new().spawn(move || done.send(run())).unwrap();
    result.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} does not end"))
}

/// Waits until the server has nothing left of any session.
pub(crate) fn all_gone(server: &Server) {
    eventually("no session is left", || server.clients_count() == 0);
}

/// Ends a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}
