//! A client on a bad network: it sends every measurement, in order, through any number of lost connections.
//!
//! ```console
//! $ cargo run -- --recovery 2m                                           # terminal 1: the server
//! $ cargo run --bin client listen broadcast_message                      # terminal 2: shows what arrives
//! $ cargo run --example bad_network -- http://127.0.0.1:5000 60          # terminal 3: 60 measurements, one a second
//! ```
//! Stop the server in terminal 1 and start it again, or pull the network cable.
//!
//! | what can go wrong | what helps |
//! |---|---|
//! | the connection is lost before the acknowledgement | `retries`: the event is sent again until it is acknowledged |
//! | the event was handled, but the acknowledgement is lost | a server with recovery does not handle it again |
//! | there is no connection for a long time | `offline_buffer`: events wait in memory, within a limit |
//! | the limit is reached | `emit` returns `Error::BufferFull`; this program waits; yours may drop old values |
//! | all clients lost the same server | the delay between attempts grows, and is random |
//! | the token has expired meanwhile | `auth_with` is called for every connection |
//!
//! The measurements are in memory until they are acknowledged: they do not survive the end of this program.

use std::{thread, time::Duration};

use serde_json::json;
use tinysio::{Client, client::Error};

/// The event that carries a measurement. The program `server` acknowledges it; a server of your own must do that too.
const EVENT: &str = "message";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "http://127.0.0.1:5000".into());
    let count = args.next().map_or(Ok(60), |count| count.parse())?;
    run(&url, count, Duration::from_secs(1))?;
    println!("all {count} measurements are acknowledged");
    Ok(())
}

/// Sends `count` measurements, one every `period`, and returns when the server has acknowledged all of them.
pub(crate) fn run(url: &str, count: u64, period: Duration) -> Result<(), Error> {
    let client = client(url)?;
    // Unlike `connect`, `start` does not fail when the server cannot be reached yet.
    client.start()?;
    let socket = client.socket("/");
    for number in 1..=count {
        let measurement = json!({ "number": number });
        while let Err(error) = socket.emit(EVENT, &measurement) {
            match error {
                Error::BufferFull { .. } => thread::sleep(period),
                error => return Err(error),
            }
        }
        thread::sleep(period);
    }
    // Events are sent in order, each after the acknowledgement of the one before. So the acknowledgement of this last
    // event means that all others are acknowledged too.
    socket.emit_with_ack(EVENT, json!({ "end": count }), Duration::from_secs(3600))?;
    client.disconnect();
    Ok(())
}

fn client(url: &str) -> Result<Client, Error> {
    let client = Client::builder(url)
        // Without end: an event leaves the queue only when it is acknowledged.
        .retries(u32::MAX)
        // A try without an answer for this long has failed.
        .ack_timeout(Duration::from_secs(10))
        // 10,000 events and 4 MiB may wait for a connection.
        .offline_buffer(10_000, 4 << 20)
        // The first delay is about 0.5 s, later ones are about 10 s.
        .reconnection_delay(Duration::from_millis(500))
        .reconnection_delay_max(Duration::from_secs(10))
        // Called for every connection, so the token is a fresh one.
        .auth_with(|_namespace| json!({ "token": fresh_token() }))
        .build()?;
    client.on_reconnect_scheduled(|_, attempt, delay| println!("attempt {attempt} in {delay:.1?}"));
    let socket = client.socket("/");
    socket.on_connect(|socket| {
        let how = if socket.recovered() { "connected again, nothing was missed" } else { "connected" };
        println!("{how}");
    });
    socket.on_disconnect(|socket, reason| {
        println!("disconnected: {reason}; {} events wait", socket.client().status().buffered);
    });
    // A refusal by the server is final: the client does not try again by itself.
    socket.on_connect_error(|_, error| println!("no connection: {error}"));
    Ok(client)
}

/// Your program would read a file, or ask a login service. This may block.
fn fresh_token() -> String {
    "a token".into()
}
