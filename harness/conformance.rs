//! The server that the two public protocol documents describe for their test suites.
//!
//! `cargo run --release --example conformance -- 3000`, then run the suites of the Engine.IO v4 and Socket.IO v5
//! protocol documents against `localhost:3000`.

use std::{thread, time::Duration};

use serde_json::json;
use tinysio::server::{Builder, Cors, Message, NamespaceBuilder, Server};

/// The suite listens for one message at a time, and misses the second of two that its WebSocket reads at once.
const PAUSE: Duration = Duration::from_millis(50);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: conformance PORT")?.parse()?;
    let heartbeat = (Duration::from_millis(300), Duration::from_millis(200));
    let server = set_up(Server::builder(), heartbeat, PAUSE).listen(format!("127.0.0.1:{port}"))?;
    println!("listening on {}", server.local_addr().ok_or("no address")?);
    server.wait();
    Ok(())
}

/// The server of the suites. `heartbeat`: interval and timeout. `pause`: before it says what a CONNECT carried.
pub(crate) fn set_up(builder: Builder, heartbeat: (Duration, Duration), pause: Duration) -> Builder {
    builder
        .ping_interval(heartbeat.0)
        .ping_timeout(heartbeat.1)
        .connect_timeout(Duration::from_secs(1))
        .max_http_buffer_size(1_000_000)
        .cors(Cors::Any)
        .engine("/engine.io/", |engine| {
            engine.on_message(|session, message: Message<'_>| {
                // A session that is closed meanwhile needs no echo.
                let _ = session.send(&message);
            });
        })
        .namespace("/", move |ns| {
            greet(ns, pause);
            ns.on("message", |socket, event| socket.emit("message-back", event.args()));
            ns.on("message-with-ack", |_, event| event.ack(event.args()));
        })
        .namespace("/custom", move |ns| greet(ns, pause))
}

/// Says on connection what the CONNECT carried.
fn greet(ns: &mut NamespaceBuilder, pause: Duration) {
    ns.on_connect(move |socket| {
        thread::sleep(pause);
        match socket.auth() {
            Some(auth) => socket.emit("auth", auth),
            None => socket.emit("auth", json!({})),
        }
    });
}
