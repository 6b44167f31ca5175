//! The clients of our own library.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tinysio::client::{Client, Handle, TransportKind};

use crate::{
    Failure,
    audit::{Kind, Ledger, ROOMS, room_name},
    listen::listen,
    random::Random,
};

/// Longer than any run: every message is repeated until it is acknowledged.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// Messages that one publisher may have in its queue.
const IN_QUEUE: u64 = 8;

/// Microseconds of rest between two messages of a publisher, at most. All together must not say more than a polling
/// client can follow that gets 16 packets with each request, and loses every fourth of them.
const REST: usize = 40_000;

/// A client that wanders is in one room at a time, for up to so many milliseconds.
const STAY: usize = 600;

/// All of them.
pub(crate) struct Crowd {
    clients: Vec<Client>,
    threads: Vec<JoinHandle<Result<(), Failure>>>,
    shared: Arc<Shared>,
    port: u16,
    seed: u64,
}

struct Shared {
    ledger: Arc<Ledger>,
    /// Messages may be said.
    open: AtomicBool,
    over: AtomicBool,
    /// Subscribers whose rooms have been joined for the first time.
    joined: AtomicUsize,
}

impl Crowd {
    /// They will connect to this port.
    pub(crate) fn new(ledger: &Arc<Ledger>, port: u16, seed: u64) -> Self {
        let ledger = Arc::clone(ledger);
        let shared = Arc::new(Shared {
            ledger,
            open: AtomicBool::new(false),
            over: AtomicBool::new(false),
            joined: AtomicUsize::new(0),
        });
        Self { clients: Vec::new(), threads: Vec::new(), shared, port, seed }
    }

    /// How many of its subscribers are in their rooms.
    pub(crate) fn joined(&self) -> usize {
        self.shared.joined.load(SeqCst)
    }

    fn client(&self, number: usize) -> Result<Client, Failure> {
        Ok(Client::builder(&format!("http://127.0.0.1:{}", self.port))
            .transports(transports(number))
            .timeout(Duration::from_secs(3))
            .reconnection_delay(Duration::from_millis(40))
            .reconnection_delay_max(Duration::from_millis(300))
            .retries(u32::MAX)
            // Sooner than a stall of the relay ends, so that a message is there twice.
            .ack_timeout(Duration::from_millis(1_500))
            .build()?)
    }

    /// One that stays in these rooms.
    pub(crate) fn subscribe(&mut self, listener: usize, rooms: &[usize]) -> Result<(), Failure> {
        let client = self.client(listener)?;
        let rooms: Vec<String> = rooms.iter().copied().map(room_name).chain(["ticks".to_owned()]).collect();
        let (shared, first) = (Arc::clone(&self.shared), AtomicBool::new(true));
        listen(&client.socket("/"), &self.shared.ledger, listener, move |socket| {
            let (shared, first) = (Arc::clone(&shared), first.swap(false, SeqCst));
            let joining = socket.emit_with_callback("join", (&rooms,), FOREVER, move |_, answer| {
                shared.expect(answer.map(drop), "a join");
                shared.joined.fetch_add(usize::from(first), SeqCst);
            });
            joining.map(drop).unwrap_or_else(|error| panic!("join: {error}"));
        });
        client.start()?;
        self.clients.push(client);
        Ok(())
    }

    /// One that goes from room to room, and nowhere twice in a row.
    pub(crate) fn wander(&mut self, listener: usize) -> Result<(), Failure> {
        let client = self.client(listener)?;
        listen(&client.socket("/"), &self.shared.ledger, listener, |_| ());
        client.start()?;
        let (shared, handle) = (Arc::clone(&self.shared), client.handle().clone());
        let random = Random::new(self.seed, 10_000 + listener as u64);
        self.clients.push(client);
        self.spawn("wanderer", move || shared.wander(&handle, listener, random))
    }

    /// A publisher, which says nothing yet.
    pub(crate) fn publish(&mut self, publisher: usize, listener: usize) -> Result<(), Failure> {
        let client = self.client(publisher)?;
        listen(&client.socket("/"), &self.shared.ledger, listener, |_| ());
        client.start()?;
        let (shared, handle) = (Arc::clone(&self.shared), client.handle().clone());
        let random = Random::new(self.seed, 20_000 + publisher as u64);
        self.clients.push(client);
        self.spawn("publisher", move || shared.publish(&handle, publisher, random))
    }

    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        self.threads.push(thread::Builder::new().name(name.into()).spawn(work)?);
        Ok(())
    }

    /// The publishers begin.
    pub(crate) fn begin(&self) {
        self.shared.open.store(true, SeqCst);
    }

    /// Nobody begins anything new.
    pub(crate) fn hush(&mut self) -> Result<(), Failure> {
        self.shared.over.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "a client's thread panicked")??;
        }
        Ok(())
    }
}

fn transports(number: usize) -> &'static [TransportKind] {
    use TransportKind::{Polling, Websocket};
    match number % 3 {
        0 => &[Websocket],
        1 => &[Polling, Websocket],
        _ => &[Polling],
    }
}

impl Shared {
    fn expect(&self, done: Result<(), tinysio::client::Error>, what: &str) {
        if let Err(error) = done {
            self.ledger.notice(Kind::Strange, format!("{what} fails: {error}"));
        }
    }

    fn publish(
        self: &Arc<Self>,
        client: &Handle,
        publisher: usize,
        mut random: Random,
    ) -> Result<(), Failure> {
        // What is said before all are in their rooms would be nobody's.
        while !self.over.load(SeqCst) {
            if self.open.load(SeqCst) && self.ledger.unsure_of(publisher) < IN_QUEUE {
                let number = self.ledger.begins(publisher);
                let its = Arc::clone(self);
                client.socket("/").emit_with_callback(
                    "publish",
                    (publisher, number),
                    FOREVER,
                    move |_, answer| {
                        its.expect(answer.map(drop), "a message");
                        its.ledger.acknowledged(publisher, number);
                    },
                )?;
            }
            thread::sleep(Duration::from_micros(random.below(REST) as u64));
        }
        Ok(())
    }

    fn wander(self: &Arc<Self>, client: &Handle, listener: usize, mut random: Random) -> Result<(), Failure> {
        let mut room = random.below(ROOMS);
        loop {
            if !self.ask(client, "join", vec![room_name(room)])? {
                return Ok(());
            }
            self.ledger.has_joined(listener, room);
            thread::sleep(Duration::from_millis(random.below(STAY) as u64));
            if self.over.load(Relaxed) {
                return Ok(());
            }
            self.ledger.leaves(listener, room);
            if !self.ask(client, "leave", room_name(room))? {
                return Ok(());
            }
            room = (room + 1 + random.below(ROOMS - 1)) % ROOMS;
        }
    }

    /// Waits for the answer; `false`: the end comes sooner.
    fn ask(&self, client: &Handle, what: &str, args: impl serde::Serialize) -> Result<bool, Failure> {
        let (sender, answered) = crossbeam_channel::bounded(1);
        client.socket("/").emit_with_callback(what, (args,), FOREVER, move |_, answer| {
            // Nobody may be waiting any more.
            let _ = sender.try_send(answer.map(drop));
        })?;
        while !self.over.load(SeqCst) {
            if let Ok(answer) = answered.recv_timeout(Duration::from_millis(50)) {
                answer?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
