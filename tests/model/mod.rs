//! The real server under a model checker: every file of it runs as it is, on the simulated system of `crate::sys`.
//!
//! A scene is a program of a few threads. It runs again and again, each time in another order: half of the time by
//! shuttle's random scheduler, half by its probabilistic one (PCT), which holds threads back at few places and long.
//! `.ci/model` runs all scenes; `MODEL_SECONDS` is the time for each, `MODEL_SEED` repeats one that failed, with its
//! schedule as far as hash maps have the same order.

#[cfg(test)]
mod emits;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod lead;
pub(crate) mod operations;
#[cfg(test)]
mod outbox;
#[cfg(test)]
mod parking;
mod peer;
#[cfg(test)]
mod records;
#[cfg(test)]
mod recovery;
#[cfg(fuzzing)]
pub(crate) mod requests;
#[cfg(test)]
mod retried;
#[cfg(test)]
mod start;
#[cfg(test)]
mod store;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod workers;

#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};
use std::{cell::RefCell, rc::Rc, time::Duration};

#[cfg(test)]
use shuttle::scheduler::PctScheduler;
use shuttle::{Config, FailurePersistence, MaxSteps, Runner, scheduler::RandomScheduler};

use crate::server::Server;
#[cfg(test)]
use crate::server::{Builder, Socket};
#[cfg(test)]
use crate::sys::channel::{Receiver, bounded};
use crate::sys::{
    sim::{self, Faults},
    thread,
    time::Instant,
};

/// Nothing that the server owes takes longer by the simulated clock: it stands while anybody works.
const SOON: Duration = Duration::from_secs(1);

/// An ordinary kernel: interrupts, and takes and gives what it likes.
const MOODY: Faults =
    Faults { interrupted: 4, again: 16, short: 64, no_buffers: 0, reset: 0, accept: 0, thread: 0 };

#[cfg(test)]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn config() -> Config {
    let mut config = Config::default();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(2_000_000);
    config
}

/// What a scene does with the text of a log record.
type Rule = Rc<dyn Fn(&str)>;

std::thread_local! {
    /// Of the execution that runs on this thread of the system.
    static RULE: RefCell<Option<Rule>> = const { RefCell::new(None) };
}

/// The logger of all scenes. What is logged takes the same way in each, whether somebody listens or not.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if let Some(rule) = RULE.with_borrow(Clone::clone) {
            rule(&record.args().to_string());
        }
    }
    fn flush(&self) {}
}

/// Until the execution ends, the logger does this.
#[cfg(test)]
fn log_with(rule: impl Fn(&str) + 'static) {
    RULE.set(Some(Rc::new(rule)));
}

/// An execution begins.
fn set_up() {
    // It is set already, but for the first execution.
    let _ = log::set_logger(&Logger);
    log::set_max_level(log::LevelFilter::Info);
    RULE.set(None);
    sim::begin();
    sim::set_haste(Duration::from_millis(2));
    sim::set_faults(MOODY);
}

/// Runs the scene once, in the order that the seed makes.
#[cfg(fuzzing)]
pub(crate) fn simulate(seed: u64, scene: impl Fn() + Send + Sync + 'static) {
    let run = move || {
        set_up();
        scene();
    };
    Runner::new(RandomScheduler::new_from_seed(seed, 1), config()).run(run);
}

/// Runs the scene in as many orders as there is time for.
#[cfg(test)]
fn check(name: &str, scene: impl Fn() + Send + Sync + 'static) {
    const ENOUGH: usize = 10_000_000;
    let mut config = config();
    config.max_time = Some(Duration::from_millis(500 * setting("MODEL_SECONDS").unwrap_or(4)));
    let seed = setting("MODEL_SEED")
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos().into());
    println!("{name}: MODEL_SEED={seed}");
    let scene = Arc::new(scene);
    let run = || {
        let scene = Arc::clone(&scene);
        move || {
            set_up();
            scene();
        }
    };
    let random = Runner::new(RandomScheduler::new_from_seed(seed, ENOUGH), config.clone()).run(run());
    let pct = Runner::new(PctScheduler::new_from_seed(seed, 3, ENOUGH), config).run(run());
    println!("{name}: {random} random schedules, {pct} PCT");
    assert!(random > 0 && pct > 0, "not one schedule was finished");
}

/// A thread of the scene.
#[cfg(test)]
fn go<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().name("scene".into()).spawn(run).expect("a thread")
}

/// A server whose clients join a room; it hands out each socket that connects, and counts the disconnects.
#[cfg(test)]
fn serve(builder: Builder, ends: &Arc<AtomicUsize>) -> (Server, Receiver<Socket>) {
    let (connected, sockets) = bounded(4);
    let ends = Arc::clone(ends);
    let server = builder
        .namespace("/", move |ns| {
            ns.on_connect(move |socket| {
                socket.join("room");
                connected.send(socket.clone()).expect("the scene waits");
            });
            ns.on("echo", |socket, event| socket.emit("w", event.args()));
            ns.on_disconnect(move |_, _| _ = ends.fetch_add(1, SeqCst));
        })
        .listen("127.0.0.1:1")
        .expect("it starts");
    (server, sockets)
}

/// Waits until `holds`, for not long.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Stops the server; nothing may be left of anything.
fn all_over(server: Server) {
    eventually("no session is left", || server.clients_count() == 0);
    let used = server.outbox_bytes();
    assert_eq!(used, 0, "the account of all outboxes");
    assert!(server.shutdown(Duration::from_secs(1)), "every thread has ended");
}

/// The numbers that follow a letter, in their order: `a0 a1 …` of one emitter.
#[cfg(test)]
fn numbers_of(letter: char, heard: &[String]) -> Vec<usize> {
    heard.iter().filter_map(|word| word.strip_prefix(letter)?.parse().ok()).collect()
}
