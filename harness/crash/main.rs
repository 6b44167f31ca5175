//! Kills the server hundreds of times, cuts the network at random bytes, and counts what that has cost: nothing, or
//! it fails.
//!
//! `cargo run --release --example crash -- --kills 200 --seed 1`, and `-- --short` for CI
//!
//! ```text
//!   publishers of our library, retries ─┐
//!   subscribers of our library ─────────┤                                ┌─► this program again, as the server: `serve`
//!                                       ├─► relay that cuts, stalls, ────┤     killed, started again at the same address,
//!   the official client in Node, the    │   delays, closes all at once   └─►   its sessions in a file
//!   same two (crash-clients.mjs) ───────┘
//! ```
//! Every message has its publisher and number, which say where it belongs: to a room, or back to its publisher. Every
//! client logs what it hears. The audit goes over all logs: what was acknowledged has arrived at everybody to whom it
//! was due, once (from an official publisher: at least once), in the order of its publisher; nobody hears another
//! room; a number of the server's own ticker that one client has heard is heard by all; every session is recovered
//! whatever happened to it. And the server's memory and its file stay under their bounds, and every process, thread
//! and file of the run is gone after it.
//!
//! | option | meaning, default |
//! |---|---|
//! | `--kills N` | so often the server dies, one in ten times by SIGTERM, some of them while it starts; 200 |
//! | `--cuts N` | at least so many connections are cut; 0: as many as it comes to |
//! | `--memory` | the server has no store; without kills |
//! | `--publishers N`, `--subscribers N` | of our library; 4 and 8, of which a quarter wanders between rooms |
//! | `--no-official` | without Node |
//! | `--seed N` | the same fates; how they meet is the scheduler's |
//! | `--mutant NAME` | the server errs on purpose, and the run must fail: `off`, `forgets`, `drops`, `doubles`, `swaps` |
//! | `--short` | all mutants, then cuts in memory, then kills, in a minute |

mod audit;
mod listen;
mod official;
mod ours;
#[path = "../chaos/random.rs"]
mod random;
#[path = "../chaos/relay.rs"]
mod relay;
mod serve;
mod storm;
#[path = "../chaos/usage.rs"]
mod usage;
mod victim;

use std::{process::ExitCode, time::SystemTime};

use serve::Mutant;
use storm::Storm;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("serve") => serve::run(&args[1..]),
        _ => wishes(&args).and_then(run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line says.
struct Wishes {
    storm: Storm,
    short: bool,
}

fn wishes(args: &[String]) -> Result<Wishes, Failure> {
    let mut storm = Storm { seed: SystemTime::UNIX_EPOCH.elapsed()?.as_secs(), ..Storm::default() };
    let mut short = false;
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
        match &**name {
            "--kills" => storm.kills = value()?.parse()?,
            "--cuts" => storm.cuts = value()?.parse()?,
            "--memory" => storm.store = false,
            "--publishers" => storm.publishers = value()?.parse()?,
            "--subscribers" => storm.subscribers = value()?.parse()?,
            "--no-official" => storm.official = false,
            "--seed" => storm.seed = value()?.parse()?,
            "--mutant" => storm.mutant = Some(value()?.parse()?),
            "--short" => short = true,
            _ => return Err(format!("{name}? The options are in harness/crash/main.rs").into()),
        }
    }
    if !storm.store && storm.kills > 0 && storm.mutant != Some(Mutant::Forgets) {
        storm.kills = 0;
        storm.cuts = if storm.cuts > 0 { storm.cuts } else { 1_000 };
    }
    Ok(Wishes { storm, short })
}

fn run(Wishes { storm, short }: Wishes) -> Result<(), Failure> {
    if !short {
        return match storm.mutant {
            Some(mutant) => must_fail(&storm, mutant),
            None => storm.rage("storm")?.result(),
        };
    }
    // An audit that never finds a fault proves nothing.
    for mutant in Mutant::ALL {
        let (kills, cuts) = if mutant == Mutant::Forgets { (2, 0) } else { (0, 30) };
        must_fail(&Storm { kills, cuts, publishers: 2, subscribers: 4, ..storm }, mutant)?;
    }
    Storm { kills: 0, cuts: 200, store: false, ..storm }.rage("cuts, in memory")?.result()?;
    Storm { kills: 12, ..storm }.rage("kills")?.result()
}

/// A storm over a server that errs: it must be condemned, for what it does.
fn must_fail(storm: &Storm, mutant: Mutant) -> Result<(), Failure> {
    let (kills, store) = match mutant {
        Mutant::Forgets => (storm.kills.max(1), false),
        _ => (0, false),
    };
    let storm = Storm { kills, store, official: false, mutant: Some(mutant), ..*storm };
    let verdict = storm.rage(&format!("mutant {mutant:?}"))?;
    if mutant.is_seen_in(&verdict) {
        return Ok(());
    }
    Err(format!("the audit does not see that the server {mutant:?}").into())
}
