//! A plain WebSocket echo over the server's own accept path, reader, codec settings and outbox, for the conformance
//! suite of WebSocket: every message comes back as it came.
//!
//! `cargo run --release --example ws_echo -- 9001`, then a suite against
//! `ws://127.0.0.1:9001/?EIO=4&transport=websocket` (`tests/autobahn/README.md`).

use std::time::Duration;

use tinysio::server::{Message, Server, StartError};

/// The suite's largest message.
const LARGEST: usize = 16 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: ws_echo PORT")?.parse()?;
    let server = start(port)?;
    println!("listening on {}", server.local_addr().ok_or("no address")?);
    server.wait();
    Ok(())
}

/// Starts the echo; the suite's test in this repository does, too.
pub(crate) fn start(port: u16) -> Result<Server, StartError> {
    Server::builder()
        .max_http_buffer_size(LARGEST)
        // Pings are Engine.IO's, which the suite does not know.
        .ping_interval(Duration::from_secs(24 * 3600))
        // A pong is a sign of life there, and a message of one character here.
        .park_after(None)
        .engine("/", |engine| {
            engine.plain_websocket().on_message(|session, message: Message<'_>| {
                // A session that is closed meanwhile needs no echo.
                let _ = session.send(&message);
            });
        })
        .listen(format!("127.0.0.1:{port}"))
}
