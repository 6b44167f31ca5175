//! The `multiple_clients` program: several people in one chat, each a client of its own, with figures at the end.

mod cast;
#[allow(dead_code, reason = "each program uses its part of it")]
#[path = "../clients/mod.rs"]
mod clients;
mod report;
mod scenes;

use std::process::ExitCode;

use clap::Parser;

use clients::{
    common::{colour::Palette, exit::Failure},
    flags::{Connection, DEFAULT_URL, parse_speed, parse_url},
    stage::Stage,
    stop::Stop,
};

/// Several clients talk to each other through the chat, in three scenes; then a table tells what each of them sent, got
/// and measured. Clients that cannot connect are named, and the others go on.
///
/// Exit codes: 0 done, 1 nobody connected, 2 called wrongly. Ctrl-C ends it after the step that is under way.
#[derive(Debug, Parser)]
#[command(name = "multiple_clients", version, max_term_width = 100)]
pub(crate) struct Flags {
    /// Where the server is
    #[arg(value_name = "URL", default_value = DEFAULT_URL, value_parser = parse_url, env = "TINYSIO_URL")]
    pub(crate) url: String,

    /// How many clients
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) clients: u32,

    /// How often the three scenes are played
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// Print nothing but the figures, as JSON
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
    let stage = Stage {
        palette: Palette::of_stdout(flags.connection.color),
        stop: Stop::on_signals()?,
        speed: flags.speed,
        quiet: flags.json,
    };
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
