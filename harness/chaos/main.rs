//! Hundreds of clients that come, leave, stall and are cut, a server that is restarted under them, and a checker that
//! counts.
//!
//! `cargo run --release --example chaos -- --seconds 30 --clients 300 --seed 1`
//!
//! ```text
//!   clients of our library ─┐                                  ┌─► server, restarted twice: once in good order, once not
//!                           ├─► relay that cuts, delays, stalls ┘
//!   hooligans, raw ─────────┘
//! ```
//! Every message goes to one room, with its sender and number. At the end: what was acknowledged has arrived once,
//! and in the order in which it was said; nobody has heard another room, nor a sender's messages twice or out of
//! order; after the storm everybody hears everybody of its room again; and when all have gone, the server has no
//! session, and the process no thread and no file more than before. Exit code 0 says that all of this held, 1 that it
//! did not. The same seed makes the same clients, fates and deeds; how they meet is the scheduler's.

mod clients;
mod hooligans;
mod ledger;
mod random;
mod relay;
mod usage;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use tinysio::server::{Server, StartError};

use clients::Crowd;
use ledger::Ledger;
use relay::Relay;
use usage::{Usage, eventually};

/// Members of a room.
const ROOM: usize = 10;

/// The longest time until ended sessions are removed. A polling session whose close packet is not fetched keeps its
/// slot for half a minute.
const GONE_WITHIN: Duration = Duration::from_secs(40);

type Failure = Box<dyn std::error::Error>;

/// What the command line says.
struct Wishes {
    seconds: u64,
    clients: usize,
    seed: u64,
}

fn main() -> ExitCode {
    match wishes().and_then(|wishes| run(&wishes)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn wishes() -> Result<Wishes, Failure> {
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis() as u64;
    let mut wishes = Wishes { seconds: 30, clients: 300, seed };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value: u64 = args.next().ok_or_else(|| format!("{name} needs a number"))?.parse()?;
        match &*name {
            "--seconds" => wishes.seconds = value.max(4),
            "--clients" => wishes.clients = (value as usize).max(3),
            "--seed" => wishes.seed = value,
            _ => return Err(format!("{name}? --seconds N, --clients N, --seed N").into()),
        }
    }
    Ok(wishes)
}

fn run(wishes: &Wishes) -> Result<(), Failure> {
    println!("seed {}, {} clients, {} s", wishes.seed, wishes.clients, wishes.seconds);
    let before = Usage::now()?;
    // Of three clients, one is a hooligan.
    let (polite, rude) = (wishes.clients - wishes.clients / 3, wishes.clients / 3);
    let ledger = Arc::new(Ledger::new(polite, polite.div_ceil(ROOM)));
    let mut server = serve(&ledger, 0)?;
    let port = server.local_addr().ok_or("no address")?.port();
    let relay = Relay::start(port, wishes.seed, 0)?;
    let crowd = Crowd::start(&ledger, relay.port(), wishes.seed)?;
    let peace = Arc::new(AtomicBool::new(false));
    let hooligans = hooligans::start(rude, relay.port(), wishes.seed, &peace)?;

    let begun = Instant::now();
    for (part, in_good_order) in [(1, true), (2, false)] {
        let at = Duration::from_secs(wishes.seconds) * part / 3;
        thread::sleep(at.saturating_sub(begun.elapsed()));
        if in_good_order && !server.shutdown(Duration::from_secs(2)) {
            return Err("the server did not stop in good order".into());
        }
        drop(server);
        server = again(&ledger, port)?;
    }
    thread::sleep(Duration::from_secs(wishes.seconds).saturating_sub(begun.elapsed()));

    // Peace: no more cuts and no more rude clients, and everybody must find everybody again.
    peace.store(true, SeqCst);
    hooligans.into_iter().try_for_each(thread::JoinHandle::join).map_err(|_| "a hooligan panicked")?;
    relay.have_mercy();
    crowd.call_the_roll(&ledger)?;
    crowd.leave()?;
    eventually("no session is left", GONE_WITHIN, || server.clients_count() == 0)?;
    if !server.shutdown(Duration::from_secs(5)) {
        return Err("a thread of the server is left".into());
    }
    drop(server);
    let (cuts, stalls) = relay.counts();
    relay.stop();
    println!("the relay cut {cuts} connections and stalled {stalls}; two restarts");
    ledger.verdict()?;
    eventually("no thread and no file is left", Duration::from_secs(10), || {
        Usage::now().is_ok_and(|now| now.threads <= before.threads && now.files <= before.files)
    })
}

/// Starts the server on the port that the last one had.
fn again(ledger: &Arc<Ledger>, port: u16) -> Result<Server, Failure> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match serve(ledger, port) {
            Ok(server) => return Ok(server),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn serve(ledger: &Arc<Ledger>, port: u16) -> Result<Server, StartError> {
    let ledger = Arc::clone(ledger);
    Server::builder()
        .ping_interval(Duration::from_millis(1_500))
        .ping_timeout(Duration::from_millis(2_500))
        .connect_timeout(Duration::from_secs(3))
        .upgrade_timeout(Duration::from_secs(3))
        .head_timeout(Duration::from_secs(3))
        .body_timeout(Duration::from_secs(5))
        .close_timeout(Duration::from_secs(2))
        // Parking is part of the storm.
        .park_after(Duration::from_millis(100))
        .namespace("/", move |ns| {
            ns.on("join", |socket, event| -> Result<(), Failure> {
                socket.join(&event.arg::<String>(0)?);
                Ok(event.ack(())?)
            });
            ns.on("say", move |socket, event| -> Result<(), Failure> {
                let (sender, number): (usize, u64) = event.parse()?;
                let room = ledger.room_of(sender);
                ledger.hears(sender, number, |place| {
                    // Nobody is there in the last moments of a server.
                    let _ = socket.namespace().to(&room).emit("said", (&room, sender, place, number));
                });
                Ok(event.ack(number)?)
            });
            // For those who will not read it.
            ns.on("give", |socket, _| socket.emit("given", "x".repeat(100_000)));
        })
        .listen(format!("127.0.0.1:{port}"))
}
