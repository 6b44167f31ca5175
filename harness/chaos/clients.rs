//! The polite clients: of our own library, on every transport, a few threads driving all of them.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use tinysio::client::{Client, TransportKind};

use crate::{
    Failure, eventually,
    ledger::{Ledger, Listener},
    random::Random,
};

/// Threads that drive the clients.
const DRIVERS: usize = 8;

/// Messages that one client may have on their way.
const IN_FLIGHT: usize = 4;

/// How long an acknowledgement may take before it counts as unsure.
const ACK_WITHIN: Duration = Duration::from_secs(3);

/// How long the crowd may take to be whole again.
const ROLL_WITHIN: Duration = Duration::from_secs(30);

/// One client, and what it has done and heard so far, however often it was built.
struct Member {
    name: usize,
    client: Option<Client>,
    said: u64,
    in_flight: Arc<AtomicUsize>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    listener: Listener,
    /// Who was heard since the roll was called.
    roll: HashSet<usize>,
}

/// All of them.
pub(crate) struct Crowd {
    members: Arc<Vec<Mutex<Member>>>,
    over: Arc<AtomicBool>,
    drivers: Mutex<Vec<JoinHandle<Result<(), String>>>>,
    port: u16,
}

impl Crowd {
    pub(crate) fn start(ledger: &Arc<Ledger>, port: u16, seed: u64) -> Result<Self, Failure> {
        let member =
            |name| Member { name, client: None, said: 0, in_flight: Arc::default(), heard: Arc::default() };
        let members = Arc::new((0..ledger.len()).map(|name| Mutex::new(member(name))).collect::<Vec<_>>());
        let over = Arc::new(AtomicBool::new(false));
        let mut drivers = Vec::new();
        for number in 0..DRIVERS {
            let (members, ledger, over) = (Arc::clone(&members), Arc::clone(ledger), Arc::clone(&over));
            let mut random = Random::new(seed, number as u64);
            let driver = thread::Builder::new().name("driver".into()).spawn(move || {
                while !over.load(SeqCst) {
                    let name = DRIVERS * random.below(members.len().div_ceil(DRIVERS)) + number;
                    if let Some(member) = members.get(name) {
                        let acted = member.lock().act(&ledger, port, &mut random);
                        acted.map_err(|error| format!("client {name}: {error}"))?;
                    }
                    thread::sleep(Duration::from_micros(random.below(8_000) as u64));
                }
                Ok(())
            })?;
            drivers.push(driver);
        }
        Ok(Self { members, over, drivers: Mutex::new(drivers), port })
    }

    /// Everybody is there, says one thing, and is heard by everybody of its room.
    pub(crate) fn call_the_roll(&self, ledger: &Arc<Ledger>) -> Result<(), Failure> {
        self.over.store(true, SeqCst);
        for driver in self.drivers.lock().drain(..) {
            driver.join().map_err(|_| "a driver panicked")??;
        }
        for member in &*self.members {
            member.lock().come(ledger, self.port)?;
        }
        for member in &*self.members {
            let member = member.lock();
            let client = member.client.as_ref().ok_or("no client")?;
            client.wait_connected(ROLL_WITHIN).map_err(|error| format!("client {}: {error}", member.name))?;
            let room = ledger.room_of(member.name);
            client.socket("/").emit_with_ack("join", room, ROLL_WITHIN)?;
        }
        for member in &*self.members {
            member.lock().heard.lock().roll.clear();
        }
        for member in &*self.members {
            let mut member = member.lock();
            eventually("what was on its way has come", ROLL_WITHIN, || member.in_flight.load(SeqCst) == 0)?;
            member.say(ledger)?;
        }
        for member in &*self.members {
            let member = member.lock();
            let expected: HashSet<usize> = ledger.members(member.name).collect();
            let what = format!("client {} hears all of its room", member.name);
            eventually(&what, ROLL_WITHIN, || member.heard.lock().roll == expected)?;
            eventually("its own word is acknowledged", ROLL_WITHIN, || member.in_flight.load(SeqCst) == 0)?;
        }
        println!("the roll: {} clients, each heard by all of its room", self.members.len());
        Ok(())
    }

    /// Everybody leaves in good order.
    pub(crate) fn leave(self) -> Result<(), Failure> {
        for member in &*self.members {
            if let Some(client) = member.lock().client.take() {
                client.disconnect();
            }
        }
        Ok(())
    }
}

impl Member {
    fn act(&mut self, ledger: &Arc<Ledger>, port: u16, random: &mut Random) -> Result<(), Failure> {
        self.come(ledger, port)?;
        match random.below(1_000) {
            // Goes and comes again; or goes without a word, and another one comes in its place.
            0..8 => {
                if let Some(client) = &self.client {
                    client.disconnect_within(Duration::from_millis(50)).ok();
                    client.start()?;
                }
            }
            8..12 => self.client = None,
            _ if self.in_flight.load(SeqCst) < IN_FLIGHT => self.say(ledger)?,
            _ => {}
        }
        Ok(())
    }

    /// Builds the client, if it is not there.
    fn come(&mut self, ledger: &Arc<Ledger>, port: u16) -> Result<(), Failure> {
        if self.client.is_some() {
            return Ok(());
        }
        use TransportKind::{Polling, Websocket};
        let transports: &[TransportKind] = match self.name % 3 {
            0 => &[Polling],
            1 => &[Websocket],
            _ => &[Polling, Websocket],
        };
        let client = Client::builder(&format!("http://127.0.0.1:{port}"))
            .transports(transports)
            .timeout(Duration::from_secs(4))
            .reconnection_delay(Duration::from_millis(100))
            .reconnection_delay_max(Duration::from_millis(1_000))
            .build()?;
        let (name, socket) = (self.name, client.socket("/"));
        let room = ledger.room_of(name);
        socket.on_connect(move |socket| {
            // A connection that is lost before the answer is followed by another one.
            let _ = socket.emit_with_callback("join", &room, ACK_WITHIN, |_, _| ());
        });
        let (ledger, heard) = (Arc::clone(ledger), Arc::clone(&self.heard));
        socket.on("said", move |_, event| -> Result<(), serde_json::Error> {
            let (room, sender, place, _): (String, usize, usize, u64) = event.parse()?;
            let mut heard = heard.lock();
            ledger.listens(name, &mut heard.listener, &room, sender, place);
            heard.roll.insert(sender);
            Ok(())
        });
        client.start()?;
        self.client = Some(client);
        Ok(())
    }

    /// Says the next thing, and notes what becomes of it.
    fn say(&mut self, ledger: &Arc<Ledger>) -> Result<(), Failure> {
        let Some(client) = &self.client else { return Ok(()) };
        self.said += 1;
        let (name, number) = (self.name, self.said);
        let (its_ledger, in_flight) = (Arc::clone(ledger), Arc::clone(&self.in_flight));
        in_flight.fetch_add(1, SeqCst);
        let said =
            client.socket("/").emit_with_callback("say", (name, number), ACK_WITHIN, move |_, answer| {
                match answer {
                    Ok(answer) => its_ledger.acknowledged(name, number, answer.get(0).ok()),
                    Err(_) => its_ledger.unsure(name),
                }
                in_flight.fetch_sub(1, SeqCst);
            });
        if said.is_err() {
            // Refused, with no callback to come: its buffer is full of what it could not say before.
            self.in_flight.fetch_sub(1, SeqCst);
            ledger.unsure(name);
        }
        Ok(())
    }
}
