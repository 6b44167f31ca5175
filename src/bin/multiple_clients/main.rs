//! The `multiple_clients` program: several clients in one chat, with statistics at the end.

mod cast;
#[allow(dead_code, reason = "each program uses its part of it")]
#[path = "../clients/mod.rs"]
mod clients;
mod report;
mod scenes;

use std::process::ExitCode;

use clap::Parser;

use clients::{
    common::exit::Failure,
    flags::{Connection, DEFAULT_URL, parse_speed, parse_url},
    stage::Stage,
};

/// Several clients send messages in three scenes; then a table shows what each of them sent, received and
/// measured. Clients that cannot connect are reported, and the others continue.
///
/// Exit codes: 0 done, 1 no client connected, 2 wrong usage. Ctrl-C ends it after the current step.
#[derive(Debug, Parser)]
#[command(name = "multiple_clients", version, max_term_width = 100)]
pub(crate) struct Flags {
    /// Address of the server
    #[arg(value_name = "URL", default_value = DEFAULT_URL, value_parser = parse_url, env = "TINYSIO_URL")]
    pub(crate) url: String,

    /// Number of clients
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) clients: u32,

    /// Repetitions of the three scenes
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// Print only the statistics, as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) connection: Connection,

    /// Shorten the pauses
    #[arg(long, hide = true, default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    run(&flags).unwrap_or_else(Failure::report)
}

fn run(flags: &Flags) -> Result<ExitCode, Failure> {
    let stage = Stage::new(flags.connection.color, flags.speed, flags.json)?;
    let cast = cast::connect_all(flags, &stage)?;
    let somebody = cast.iter().any(|actor| actor.is_present());
    let mut scenes = Vec::new();
    if somebody {
        for round in 1..=flags.rounds {
            if flags.rounds > 1 {
                stage.info(format!("\nRound {round} of {}", flags.rounds));
            }
            scenes.extend(scenes::play_all(&cast, &stage, flags.connection.timeout));
        }
    }
    let report = report::Report::of(&cast, &flags.url, &scenes);
    cast::disconnect_all(&cast, &stage);
    report.print(&stage)?;
    Ok(if somebody { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
