//! The server under test, in a process of its own, and the ways in which it can err on purpose.

use std::{
    io::Write,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;
use tinysio::{
    Bytes,
    server::{
        Builder, ConnectionStateRecovery, Durability, Event, FileStore, NamespaceBuilder, Server, Socket,
        StartError, StoreStatus,
    },
};

use crate::{
    Failure,
    audit::{Kind, Place, Verdict},
};

/// How long a start may try to get the port of the one before.
const PORT_WITHIN: Duration = Duration::from_secs(5);

/// What the server keeps of packets: of half a minute, which is long for who is away, and short enough that a run
/// comes to throw some away.
pub(crate) const KEPT_BYTES: usize = 4 << 20;

/// Between two numbers of the ticker.
const TICK: Duration = Duration::from_millis(50);

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Recovers nothing.
    Off,
    /// Has no store, and is killed.
    Forgets,
    /// Acknowledges a message now and then that it does not pass on.
    Drops,
    /// Passes a message on twice now and then.
    Doubles,
    /// Passes a message on behind the next one now and then.
    Swaps,
}

impl Mutant {
    pub(crate) const ALL: [Self; 5] = [Self::Off, Self::Forgets, Self::Drops, Self::Doubles, Self::Swaps];

    /// Whether the audit has found what this one does.
    pub(crate) fn is_seen_in(self, verdict: &Verdict) -> bool {
        let kinds: &[Kind] = match self {
            Self::Off | Self::Forgets => &[Kind::Lost, Kind::NotRecovered],
            Self::Drops => &[Kind::Lost],
            Self::Doubles => &[Kind::Duplicated],
            Self::Swaps => &[Kind::OutOfOrder],
        };
        kinds.iter().all(|kind| verdict.count(*kind) > 0)
    }
}

impl FromStr for Mutant {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        let mutant = Self::ALL.into_iter().find(|mutant| format!("{mutant:?}").eq_ignore_ascii_case(name));
        mutant.ok_or_else(|| format!("no mutant is named {name}").into())
    }
}

/// What the harness says on the command line: `serve PORT LIFE STORE MUTANT`, `-` for none.
struct Orders {
    port: u16,
    /// The how-manieth server this is.
    life: u32,
    store: Option<String>,
    mutant: Option<Mutant>,
}

impl Orders {
    fn read(args: &[String]) -> Result<Self, Failure> {
        let [port, life, store, mutant] = args else { return Err("serve PORT LIFE STORE MUTANT".into()) };
        Ok(Self {
            port: port.parse()?,
            life: life.parse()?,
            store: (store != "-").then(|| store.clone()),
            mutant: (mutant != "-").then(|| mutant.parse()).transpose()?,
        })
    }
}

/// Serves until SIGTERM, and says on standard output when it is there and what memory it promises to stay under.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let orders = Orders::read(args)?;
    env_logger::Builder::new().filter_level(log::LevelFilter::Error).init();
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
    let server = start(&orders)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", server.memory_bound())?;
    out.flush()?;
    // The ticker: numbers that nobody outside has asked for.
    let mut number = 0_u64;
    while !stop.load(Relaxed) {
        thread::sleep(TICK);
        // It would go on without, which is not what is under test.
        if let StoreStatus::Failed(why) = server.store_watch().status() {
            return Err(why.into());
        }
        number += 1;
        if let Some(room) = server.to("ticks") {
            room.emit("tick", (orders.life, number))?;
        }
    }
    if server.shutdown(Duration::from_secs(2)) { Ok(()) } else { Err("a thread is left".into()) }
}

/// On the port that the last one had.
fn start(orders: &Orders) -> Result<Server, Failure> {
    let deadline = Instant::now() + PORT_WITHIN;
    loop {
        let mutant = orders.mutant;
        let server = recovering(Server::builder(), orders)
            .ping_interval(Duration::from_millis(1_000))
            .ping_timeout(Duration::from_millis(2_000))
            .connect_timeout(Duration::from_secs(3))
            .upgrade_timeout(Duration::from_secs(3))
            .head_timeout(Duration::from_secs(3))
            .body_timeout(Duration::from_secs(3))
            .close_timeout(Duration::from_secs(1))
            // Parking is part of the storm.
            .park_after(Duration::from_millis(100))
            .namespace("/", |ns| install(ns, mutant))
            .listen(format!("127.0.0.1:{}", orders.port));
        match server {
            Err(StartError::Bind { .. }) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            server => return Ok(server?),
        }
    }
}

/// Connection state recovery, in memory or with the store.
fn recovering(builder: Builder, orders: &Orders) -> Builder {
    if orders.mutant == Some(Mutant::Off) {
        return builder;
    }
    // Nothing of a run is beyond these bounds, so nobody has an excuse.
    let recovery = ConnectionStateRecovery::new()
        .max_disconnection_duration(Duration::from_secs(600))
        .max_bytes(KEPT_BYTES);
    let builder = builder.connection_state_recovery(recovery);
    match &orders.store {
        Some(path) => builder.store(FileStore::new(path), Durability::EveryPacket),
        None => builder,
    }
}

fn install(ns: &mut NamespaceBuilder, mutant: Option<Mutant>) {
    ns.on("join", |socket, event| -> Result<(), Failure> {
        for room in event.arg::<Vec<String>>(0)? {
            socket.join(&room);
        }
        Ok(event.ack(())?)
    });
    ns.on("leave", |socket, event| -> Result<(), Failure> {
        socket.leave(&event.arg::<String>(0)?);
        Ok(event.ack(())?)
    });
    let press = Press { mutant, count: AtomicU64::new(0), held: Mutex::new(None) };
    ns.on("publish", move |socket, event| press.publish(socket, &event));
}

/// A message under way.
#[derive(Clone)]
struct Message {
    socket: Socket,
    place: Place,
    publisher: usize,
    number: u64,
}

/// Passes messages on.
struct Press {
    mutant: Option<Mutant>,
    count: AtomicU64,
    /// What `Swaps` holds back.
    held: Mutex<Option<Message>>,
}

impl Press {
    fn publish(&self, socket: &Socket, event: &Event<'_>) -> Result<(), Failure> {
        let (publisher, number) = event.parse::<(usize, u64)>()?;
        let message =
            Message { socket: socket.clone(), place: Place::of(publisher, number), publisher, number };
        let errs = self.count.fetch_add(1, Relaxed) % 5 == 4;
        match self.mutant {
            Some(Mutant::Drops) if errs => {}
            Some(Mutant::Doubles) if errs => {
                message.pass_on()?;
                message.pass_on()?;
            }
            Some(Mutant::Swaps) if errs => *self.held.lock() = Some(message),
            Some(Mutant::Swaps) => {
                // Only behind one of its own publisher is it in another order.
                let held = self.held.lock().take_if(|held| held.publisher == message.publisher);
                message.pass_on()?;
                held.map_or(Ok(()), |held| held.pass_on())?;
            }
            _ => message.pass_on()?,
        }
        Ok(event.ack(())?)
    }
}

impl Message {
    fn pass_on(&self) -> Result<(), Failure> {
        let name = self.place.name();
        let args = (&name, self.publisher, self.number, Body::of(self.number));
        match self.place {
            Place::Own => self.socket.emit("note", args)?,
            Place::Room(_) => self.socket.namespace().to(&name).emit("news", args)?,
        }
        Ok(())
    }
}

/// What a message carries, which its number says.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Body {
    Text(String),
    Binary(Bytes),
}

impl Body {
    fn of(number: u64) -> Self {
        let text = "x".repeat(Self::len(number));
        if Self::is_binary(number) { Self::Binary(text.into()) } else { Self::Text(text) }
    }

    pub(crate) fn is_binary(number: u64) -> bool {
        number.is_multiple_of(7)
    }

    /// Of all sizes, so that pieces of the network end everywhere in a message.
    pub(crate) fn len(number: u64) -> usize {
        (number * 37 % 700) as usize
    }
}
