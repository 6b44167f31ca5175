//! The load generator: many WebSocket clients on one thread, cheaper than any server it drives.
//!
//! It speaks frames and parses no JSON. Every payload carries a sequence number, and what arrives is checked for order and
//! completeness; a message lost, doubled or out of order ends the run with an error.
//!
//! `cargo bench --bench load -- echo --port 3000 --connections 64 --window 1 --size 64 --seconds 3`
//!
//! | mode | what it does | what is counted |
//! |---|---|---|
//! | `echo` | each connection keeps `window` echoes in flight | echoes |
//! | `ack` | the same with acknowledgements | acknowledgements |
//! | `broadcast` | the first connection keeps `window` broadcasts in flight; one is done when all have it | deliveries |
//! | `rooms` | `connections` in rooms of 16, the first of each room keeps `window` in flight | deliveries |
//!
//! It prints one line of JSON: rate a second, p50 and p99 in microseconds.

mod peer;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use peer::Fleet;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Members of a room in `rooms`.
const ROOM: usize = 16;

fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mut fleet = Fleet::connect(options.port, options.connections)?;
    if options.mode == "rooms" {
        for index in 0..options.connections {
            fleet.send(index, &format!(r#"42["join","room{}"]"#, index / ROOM))?;
        }
        // A join has no answer; an echo behind it has, and the server works in order.
        for index in 0..options.connections {
            fleet.send(index, r#"42["echo","joined"]"#)?;
        }
        let mut missing = options.connections;
        while missing > 0 {
            fleet.poll(|_, _| missing -= 1)?;
        }
    }
    let mut run = Run::new(&options);
    let report = run.drive(&mut fleet)?;
    println!("{report}");
    Ok(())
}

struct Options {
    mode: String,
    port: u16,
    connections: usize,
    window: usize,
    size: usize,
    seconds: f64,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options =
            Self { mode: "echo".into(), port: 3000, connections: 64, window: 1, size: 64, seconds: 3.0 };
        let mut args = args.filter(|arg| arg != "--bench");
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--port" => options.port = value()?.parse()?,
                "--connections" => options.connections = value()?.parse()?,
                "--window" => options.window = value()?.parse()?,
                "--size" => options.size = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "echo" | "ack" | "broadcast" | "rooms" => options.mode = arg,
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        Ok(options)
    }
}

/// A group of connections of which the first sends; for `echo` and `ack`, one connection.
struct Group {
    first: usize,
    size: usize,
    /// Sent, with the time, and not yet with all members.
    flying: VecDeque<(Instant, usize)>,
    sent: u64,
    done: u64,
}

struct Run<'o> {
    options: &'o Options,
    groups: Vec<Group>,
    /// The sequence number that each connection must see next.
    expected: Vec<u64>,
    padding: String,
    latencies: Vec<u32>,
    deliveries: u64,
}

impl<'o> Run<'o> {
    fn new(options: &'o Options) -> Self {
        let size = match options.mode.as_str() {
            "broadcast" => options.connections,
            "rooms" => ROOM,
            _ => 1,
        };
        let groups = (0..options.connections)
            .step_by(size)
            .map(|first| Group { first, size, flying: VecDeque::new(), sent: 0, done: 0 })
            .collect();
        Self {
            options,
            groups,
            expected: vec![0; options.connections],
            padding: "x".repeat(options.size.saturating_sub(12)),
            latencies: Vec::new(),
            deliveries: 0,
        }
    }

    fn drive(&mut self, fleet: &mut Fleet) -> Result<String> {
        for group in 0..self.groups.len() {
            for _ in 0..self.options.window {
                self.send(fleet, group)?;
            }
        }
        fleet.flush()?;
        let warm = Instant::now() + Duration::from_secs_f64(self.options.seconds / 4.0);
        self.until(fleet, warm)?;
        (self.deliveries, self.latencies) = (0, Vec::new());
        let begun = Instant::now();
        self.until(fleet, begun + Duration::from_secs_f64(self.options.seconds))?;
        let seconds = begun.elapsed().as_secs_f64();
        self.latencies.sort_unstable();
        let percentile = |p: f64| {
            let index = (self.latencies.len() as f64 * p) as usize;
            f64::from(
                self.latencies.get(index.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or(0),
            ) / 10.0
        };
        Ok(format!(
            r#"{{"mode":"{}","connections":{},"window":{},"size":{},"rate":{:.0},"p50_us":{:.1},"p99_us":{:.1}}}"#,
            self.options.mode,
            self.options.connections,
            self.options.window,
            self.options.size,
            self.deliveries as f64 / seconds,
            percentile(0.5),
            percentile(0.99)
        ))
    }

    fn until(&mut self, fleet: &mut Fleet, end: Instant) -> Result<()> {
        let mut arrived: Vec<(usize, u64)> = Vec::new();
        let patience = Duration::from_secs(10);
        let mut last = Instant::now();
        while Instant::now() < end {
            let mut broken = None;
            fleet.poll(|connection, payload| match sequence(payload) {
                Some(number) => arrived.push((connection, number)),
                None => broken = Some(String::from_utf8_lossy(payload).into_owned()),
            })?;
            if let Some(text) = broken {
                return Err(format!("unexpected packet: {text}").into());
            }
            if arrived.is_empty() {
                if last.elapsed() > patience {
                    return Err("nothing arrived for 10 s: a message was lost".into());
                }
                continue;
            }
            last = Instant::now();
            for (connection, number) in std::mem::take(&mut arrived) {
                self.arrived(fleet, connection, number)?;
            }
            fleet.flush()?;
        }
        Ok(())
    }

    fn arrived(&mut self, fleet: &mut Fleet, connection: usize, number: u64) -> Result<()> {
        if self.expected[connection] != number {
            let expected = self.expected[connection];
            return Err(format!("connection {connection}: {number} came where {expected} was due").into());
        }
        self.expected[connection] += 1;
        self.deliveries += 1;
        let index = connection / self.groups[0].size;
        let group = &mut self.groups[index];
        let flight = (number - group.done) as usize;
        group.flying[flight].1 -= 1;
        // Messages are done in the order of their sending: the order of each member's deliveries was just checked.
        while let Some(&(at, 0)) = self.groups[index].flying.front() {
            self.groups[index].flying.pop_front();
            self.groups[index].done += 1;
            self.latencies.push((at.elapsed().as_nanos() / 100).try_into().unwrap_or(u32::MAX));
            self.send(fleet, index)?;
        }
        Ok(())
    }

    fn send(&mut self, fleet: &mut Fleet, group: usize) -> Result<()> {
        let group = &mut self.groups[group];
        let (number, padding) = (group.sent, &self.padding);
        let packet = match self.options.mode.as_str() {
            "echo" => format!(r#"42["echo","{number:010}{padding}"]"#),
            "ack" => format!(r#"42{}["ack_echo","{number:010}{padding}"]"#, number % 1000),
            "broadcast" => format!(r#"42["broadcast","{number:010}{padding}"]"#),
            _ => format!(r#"42["room_msg","room{}","{number:010}{padding}"]"#, group.first / ROOM),
        };
        group.sent += 1;
        group.flying.push_back((Instant::now(), group.size));
        fleet.queue(group.first, &packet);
        Ok(())
    }
}

/// The ten digits behind the last quote but one of an event or an acknowledgement.
fn sequence(payload: &[u8]) -> Option<u64> {
    let end = payload.len().checked_sub(2)?;
    let start = payload[..end].iter().rposition(|&byte| byte == b'"')? + 1;
    std::str::from_utf8(payload.get(start..start + 10)?).ok()?.parse().ok()
}
