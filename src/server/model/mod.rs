//! The real server under a model checker: every file of it runs as it is, on the simulated system of `crate::sys`.
//!
//! A scene is a program of a few threads. It runs again and again, each time in another order: half of the time by
//! shuttle's random scheduler, half by its probabilistic one (PCT), which holds threads back at few places and long. `.ci/model`
//! runs all scenes; `MODEL_SECONDS` is the time for each, `MODEL_SEED` repeats one that failed, with its schedule as far as hash
//! maps have the same order.

mod emits;
mod gate;
mod outbox;
mod parking;
mod peer;
mod trouble;
mod upgrade;

use std::time::Duration;

use shuttle::{
    Config, FailurePersistence, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler},
};

use super::Server;
use crate::sys::{
    sim::{self, Faults},
    thread::{self, JoinHandle},
    time::Instant,
};

/// Nothing that the server owes takes longer by the simulated clock: it stands while anybody works.
const SOON: Duration = Duration::from_secs(1);

/// An ordinary kernel: interrupts, and takes and gives what it likes.
const MOODY: Faults = Faults { interrupted: 4, again: 16, short: 64, no_buffers: 0, reset: 0, accept: 0 };

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the scene in as many orders as there is time for.
fn check(name: &str, scene: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::default();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(2_000_000);
    config.max_time = Some(Duration::from_millis(500 * setting("MODEL_SECONDS").unwrap_or(4)));
    let seed = setting("MODEL_SEED")
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos().into());
    println!("{name}: MODEL_SEED={seed}");
    let scene = std::sync::Arc::new(scene);
    let run = || {
        let scene = std::sync::Arc::clone(&scene);
        move || {
            sim::begin();
            sim::set_haste(Duration::from_millis(2));
            sim::set_faults(MOODY);
            scene();
        }
    };
    const ENOUGH: usize = 10_000_000;
    let random = Runner::new(RandomScheduler::new_from_seed(seed, ENOUGH), config.clone()).run(run());
    let pct = Runner::new(PctScheduler::new_from_seed(seed, 3, ENOUGH), config).run(run());
    println!("{name}: {random} random schedules, {pct} PCT");
    assert!(random > 0 && pct > 0, "not one schedule was finished");
}

/// A thread of the scene.
fn go<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new().name("scene".into()).spawn(run).expect("a thread")
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
fn numbers_of(letter: char, heard: &[String]) -> Vec<usize> {
    heard.iter().filter_map(|word| word.strip_prefix(letter)?.parse().ok()).collect()
}
