//! The load generator: many clients on one thread and one epoll, cheaper than any server it drives.
//!
//! It speaks frames and parses no JSON: what it sends is built before the run, with a sequence number at a fixed
//! place, and what arrives is compared with what must arrive, byte for byte. A message lost, doubled, changed or out
//! of order ends the run with an error.
//!
//! `cargo bench --bench load -- echo --port 3000 --connections 64 --window 1 --size 64 --seconds 3`
//!
//! | mode | what it does | what is counted |
//! |---|---|---|
//! | `echo` | each connection keeps `window` echoes in flight | echoes |
//! | `ack` | the same with acknowledgements | acknowledgements |
//! | `binary` | the same with binary payloads | echoes |
//! | `broadcast` | the first connection keeps `window` broadcasts in flight; one is done when all have it | deliveries |
//! | `rooms` | `connections` in rooms of 16, the first of each room keeps `window` in flight | deliveries |
//! | `polling` | each client long-polls on one connection and posts its echoes, one in flight, on another | echoes |
//! | `connects` | `messages` WebSocket connections, `window` at once: handshake, CONNECT, close | connections |
//! | `upgrades` | the same by the default way: polling first, probe, upgrade, and an echo over the WebSocket | connections |
//! | `slow` | the first connection sends `slow`, which is answered after 50 ms; the others echo | echoes |
//! | `crowd` | of `connections`, `talkers` echo once a second and have ten broadcasts a second | echoes, deliveries |
//! | `idle` | opens `connections` WebSockets, prints a line, and holds them for `seconds` | connections |
//!
//! With `--any-order` the order is not checked, the rest is. With `--offsets` each event must end with an offset of
//! connection state recovery. With `--messages N` a run ends after N messages instead of after `--seconds`, and has
//! no warm-up. With `--pause MS` a client rests before each message. With `--pid P` it also reports the processor
//! time that the server used meanwhile. It prints one line of JSON: rate a second, p50 and p99 in microseconds,
//! seconds, and processor seconds of both sides.

mod connects;
mod crowd;
mod flight;
mod frame;
mod http;
mod options;
mod peer;
mod polling;
mod report;

use std::time::{Duration, Instant};

use options::{Mode, Options};
use peer::Fleet;
use report::Meter;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long nothing may arrive before a message counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let report = match options.mode {
        Mode::Polling => polling::run(&options)?,
        Mode::Connects | Mode::Upgrades => connects::run(&options)?,
        Mode::Crowd => crowd::run(&options)?,
        Mode::Idle => return idle(&options),
        Mode::Echo | Mode::Ack | Mode::Binary | Mode::Broadcast | Mode::Rooms | Mode::Slow => {
            flight::run(&options)?
        }
    };
    println!("{report}");
    Ok(())
}

/// Holds its connections and answers their pings; whoever started it looks at the server meanwhile.
fn idle(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let meter = Meter::start(options.pid);
    let mut fleet = Fleet::connect(options.port, options.connections)?;
    println!("{}", meter.stop(options, options.connections as u64, begun.elapsed(), Vec::new())?);
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    while Instant::now() < end {
        fleet.poll(|_, message, _| {
            Err(format!("unexpected packet: {}", String::from_utf8_lossy(message.payload)).into())
        })?;
    }
    Ok(())
}
