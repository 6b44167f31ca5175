//! The `auto_reconnect_demo` program: a connection that is made, lost and restored.

#[allow(dead_code, reason = "each program uses its part of it")]
#[path = "../clients/mod.rs"]
mod clients;
mod lost_and_found;
mod working;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use clients::{
    common::exit::Failure,
    flags::{Connection, parse_speed},
    stage::Stage,
};

/// Shows how a client restores its connection.
///
/// By default there is no server at first: it tries again and again with growing delays, starts a server, talks
/// to it, kills it, starts it again, and continues when the connection has come back by itself. With `working`
/// it looks for a running server and talks to that.
///
/// Exit codes: 0 the connection worked, or came back; 1 it did not; 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "auto_reconnect_demo", version, max_term_width = 100)]
pub(crate) struct Flags {
    /// What to show
    mode: Option<Mode>,

    /// Where `working` looks for a server
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_value = "5000,5002,5001")]
    pub(crate) ports: Vec<u16>,

    /// The port of the other demonstration
    #[arg(long, value_name = "PORT", default_value_t = 5555)]
    pub(crate) port: u16,

    /// Attempts of the manual and of the automatic reconnection
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempts: u32,

    /// Wait for servers that you start and stop yourself, instead of starting one
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
    /// Find a running server and talk to it
    Working,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    run(&flags).unwrap_or_else(Failure::report)
}

fn run(flags: &Flags) -> Result<ExitCode, Failure> {
    let stage = Stage::new(flags.connection.color, flags.speed, false)?;
    match flags.mode {
        Some(Mode::Working) => working::run(flags, &stage),
        None => lost_and_found::run(flags, &stage),
    }
}
