//! The server that load generators are pointed at; its peers in the benchmarks have the same handlers.
//!
//! `cargo run --release --example bench_server -- PORT`
//!
//! | event | answer |
//! |---|---|
//! | `echo` x | `echo` x to the sender |
//! | `ack_echo` x, with ack | acked with x |
//! | `broadcast` x | `broadcast` x to all |
//! | `join` room | – |
//! | `room_msg` room x | `room_msg` x to the room |

use tinysio::server::{Cors, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: bench_server PORT")?.parse()?;
    let server = Server::builder()
        .cors(Cors::Any)
        .max_connections(20_000)
        .namespace("/", |ns| {
            ns.on("echo", |socket, event| socket.emit("echo", event.args()));
            ns.on("ack_echo", |_, event| event.ack(event.args()));
            ns.on("broadcast", |socket, event| socket.namespace().emit("broadcast", event.args()));
            ns.on("join", |socket, event| event.arg::<String>(0).map(|room| socket.join(&room)));
            ns.on("room_msg", |socket, event| -> Result<(), Box<dyn std::error::Error>> {
                let room: String = event.arg(0)?;
                socket.namespace().to(&room).emit("room_msg", event.raw(1))?;
                Ok(())
            });
        })
        .listen(format!("127.0.0.1:{port}"))?;
    println!("listening on {}", server.local_addr().ok_or("no address")?);
    server.wait();
    Ok(())
}
