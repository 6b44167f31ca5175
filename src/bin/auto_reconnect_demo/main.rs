//! The `auto_reconnect_demo` program: a connection that is found, lost and found again.

#[allow(dead_code, reason = "each program uses its part of it")]
#[path = "../clients/mod.rs"]
mod clients;
mod lost_and_found;
mod working;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use clients::{
    common::{colour::Palette, exit::Failure},
    flags::{Connection, parse_speed},
    stage::Stage,
    stop::Stop,
};

/// Shows how a client gets its connection back.
///
/// By default it begins where nobody listens: it tries again and again with growing delays, starts a server there, talks
/// to it, kills it, starts it again, and goes on talking once the connection has come back by itself. With `working` it
/// looks for a server that is up, and talks to that.
///
/// Exit codes: 0 the connection worked, or came back; 1 it did not; 2 called wrongly.
#[derive(Debug, Parser)]
#[command(name = "auto_reconnect_demo", version, max_term_width = 100)]
pub(crate) struct Flags {
    /// What to show
    mode: Option<Mode>,

    /// Where `working` looks for a server
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_value = "5000,5002,5001")]
    pub(crate) ports: Vec<u16>,

    /// Where the other demonstration plays
    #[arg(long, value_name = "PORT", default_value_t = 5555)]
    pub(crate) port: u16,

    /// Attempts of the manual and of the automatic reconnection
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempts: u32,

    /// Wait for servers that somebody else starts and stops, instead of starting one
    #[arg(long)]
    pub(crate) external: bool,

    #[command(flatten)]
    pub(crate) connection: Connection,

    /// Shorten the pauses
    #[arg(long, hide = true, default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// Find a server that is up, and talk to it
    Working,
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
        quiet: false,
    };
    match flags.mode {
        Some(Mode::Working) => working::run(flags, &stage),
        None => lost_and_found::run(flags, &stage),
    }
}
