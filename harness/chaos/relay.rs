//! The network between: a relay that gives each connection a fate.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{Failure, random::Random};

/// How often the relay looks whether it is to end.
const LOOK: Duration = Duration::from_millis(10);

/// What becomes of one direction of a connection.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Nothing.
    Peace,
    /// After so many bytes both ends are closed (`false`), or reset (`true`).
    Cut(usize, bool),
    /// After so many bytes there is silence for so long, and then it goes on.
    Stall(usize, Duration),
    /// Every piece is late by up to so much, and small.
    Late(Duration),
}

impl Fate {
    fn draw(random: &mut Random, calm: usize) -> Self {
        if random.percent(calm) {
            return Self::Peace;
        }
        // Small numbers fall into handshakes and upgrades, large ones into the talk.
        let bytes = 1 << random.below(16);
        let at = 1 + random.below(bytes);
        match random.below(100) {
            0..12 => Self::Cut(at, true),
            12..24 => Self::Cut(at, false),
            24..30 => Self::Stall(at, Duration::from_millis(100 + random.below(4_000) as u64)),
            30..45 => Self::Late(Duration::from_millis(1 + random.below(30) as u64)),
            _ => Self::Peace,
        }
    }
}

#[derive(Default)]
struct Shared {
    /// Of a hundred directions, so many are left in peace whatever the seed says.
    calm: usize,
    ending: AtomicBool,
    merciful: AtomicBool,
    cuts: AtomicUsize,
    stalls: AtomicUsize,
    /// Both ends of every connection, by its number, and the threads between them.
    streams: Mutex<HashMap<u64, [TcpStream; 2]>>,
    pumps: Mutex<Vec<JoinHandle<()>>>,
}

/// A running relay.
pub(crate) struct Relay {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Relays to this port of the machine. Of a hundred directions, `calm` are left in peace whatever the seed says.
    pub(crate) fn start(target: u16, seed: u64, calm: usize) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared { calm, ..Shared::default() });
        let its = Arc::clone(&shared);
        let accepting = thread::Builder::new().name("relay".into()).spawn(move || {
            let mut connections = 0;
            while !its.ending.load(SeqCst) {
                match listener.accept() {
                    Ok((near, _)) => {
                        connections += 1;
                        // The server may be away; the client sees its connection closed.
                        let _ =
                            join(connections, near, target, Random::new(seed, 1_000_000 + connections), &its);
                    }
                    Err(_) => thread::sleep(LOOK),
                }
                if connections % 64 == 0 {
                    its.pumps.lock().retain(|pump| !pump.is_finished());
                }
            }
        })?;
        Ok(Self { port, shared, accepting })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing happens to new connections, and the old ones begin anew.
    pub(crate) fn have_mercy(&self) {
        self.shared.merciful.store(true, SeqCst);
        self.cut_all();
    }

    /// Closes every connection; how many there were.
    pub(crate) fn cut_all(&self) -> usize {
        close_all(&self.shared)
    }

    /// How many were cut at their byte, and how many stalled.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.shared.cuts.load(SeqCst), self.shared.stalls.load(SeqCst))
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        self.shared.ending.store(true, SeqCst);
        let _ = self.accepting.join();
        close_all(&self.shared);
        for pump in self.shared.pumps.lock().drain(..) {
            let _ = pump.join();
        }
    }
}

fn close_all(shared: &Shared) -> usize {
    let ends = std::mem::take(&mut *shared.streams.lock());
    for end in ends.values().flatten() {
        let _ = end.shutdown(Shutdown::Both);
    }
    ends.len()
}

fn join(
    number: u64,
    near: TcpStream,
    target: u16,
    mut random: Random,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    near.set_nonblocking(false)?;
    let far = TcpStream::connect(("127.0.0.1", target))?;
    let fates = if shared.merciful.load(SeqCst) {
        [Fate::Peace; 2]
    } else {
        [(); 2].map(|()| Fate::draw(&mut random, shared.calm))
    };
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    shared.streams.lock().insert(number, [near.try_clone()?, far.try_clone()?]);
    let ways = [(near.try_clone()?, far.try_clone()?), (far, near)];
    for ((from, to), fate) in ways.into_iter().zip(fates) {
        let (its, random) = (Arc::clone(shared), random.clone());
        let pump = thread::Builder::new().name("pump".into()).stack_size(128 << 10);
        let pump = pump.spawn(move || {
            let ended = relay(&from, &to, fate, random, &its);
            for stream in [&from, &to] {
                if ended.is_err() {
                    // Closing is then a reset.
                    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
                }
                let _ = stream.shutdown(Shutdown::Both);
            }
            its.streams.lock().remove(&number);
        })?;
        shared.pumps.lock().push(pump);
    }
    Ok(())
}

/// `Err`: it is to end with a reset.
fn relay(
    mut from: &TcpStream,
    mut to: &TcpStream,
    fate: Fate,
    mut random: Random,
    shared: &Shared,
) -> Result<(), ()> {
    let mut passed = 0;
    let mut buffer = [0; 4096];
    loop {
        let size = if let Fate::Late(_) = fate { 1 + random.below(200) } else { buffer.len() };
        let Ok(count @ 1..) = from.read(&mut buffer[..size]) else { return Ok(()) };
        let mut piece = &buffer[..count];
        match fate {
            Fate::Cut(at, resets) if passed + count >= at && !shared.merciful.load(SeqCst) => {
                shared.cuts.fetch_add(1, SeqCst);
                let _ = to.write_all(&piece[..at - passed]);
                return if resets { Err(()) } else { Ok(()) };
            }
            Fate::Stall(at, pause) if (passed..passed + count).contains(&at) => {
                shared.stalls.fetch_add(1, SeqCst);
                let _ = to.write_all(&piece[..at - passed]);
                piece = &piece[at - passed..];
                thread::sleep(pause);
            }
            Fate::Late(most) => thread::sleep(most * random.below(100) as u32 / 100),
            _ => {}
        }
        if to.write_all(piece).is_err() {
            return Ok(());
        }
        passed += count;
    }
}
