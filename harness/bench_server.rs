//! The server that load generators are pointed at; its peers in the benchmarks have the same handlers.
//!
//! `cargo run --release --example bench_server -- PORT [--recovery | --store FILE [--every MILLISECONDS]]`
//!
//! | event | answer |
//! |---|---|
//! | `echo` x | `echo` x to the sender |
//! | `ack_echo` x, with ack | acked with x |
//! | `broadcast` x | `broadcast` x to all |
//! | `join` room | – |
//! | `room_msg` room x | `room_msg` x to the room |
//! | `slow` x | `slow` x to the sender, after 50 ms |

use std::{thread, time::Duration};

use tinysio::server::{Builder, ConnectionStateRecovery, Cors, Server};
#[cfg(feature = "store")]
use tinysio::server::{Durability, FileStore};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long the handler of `slow` sleeps.
const SLOW: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().ok_or("which port?")?.parse()?;
    let server = with_recovery(Server::builder(), &args.collect::<Vec<_>>())?
        .cors(Cors::Any)
        .max_connections(20_000)
        .namespace("/", |ns| {
            ns.on("echo", |socket, event| socket.emit("echo", event.args()));
            ns.on("ack_echo", |_, event| event.ack(event.args()));
            ns.on("broadcast", |socket, event| socket.namespace().emit("broadcast", event.args()));
            ns.on("join", |socket, event| event.arg::<String>(0).map(|room| socket.join(&room)));
            ns.on("room_msg", |socket, event| -> Result<()> {
                let room: String = event.arg(0)?;
                socket.namespace().to(&room).emit("room_msg", event.raw(1))?;
                Ok(())
            });
            ns.on("slow", |socket, event| {
                thread::sleep(SLOW);
                socket.emit("slow", event.args())
            });
        })
        .listen(format!("127.0.0.1:{port}"))?;
    println!("listening on {}", server.local_addr().ok_or("no address")?);
    server.wait();
    Ok(())
}

/// As the arguments behind the port say.
fn with_recovery(builder: Builder, args: &[String]) -> Result<Builder> {
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let recovers = |builder: Builder| builder.connection_state_recovery(ConnectionStateRecovery::new());
    match args[..] {
        [] => Ok(builder),
        ["--recovery"] => Ok(recovers(builder)),
        #[cfg(feature = "store")]
        ["--store", file] => Ok(recovers(builder).store(FileStore::new(file), Durability::EveryPacket)),
        #[cfg(feature = "store")]
        ["--store", file, "--every", ms] => {
            let every = Durability::Every(Duration::from_millis(ms.parse()?));
            Ok(recovers(builder).store(FileStore::new(file), every))
        }
        _ => Err("usage: bench_server PORT [--recovery | --store FILE [--every MILLISECONDS]]".into()),
    }
}
