//! The `final_reconnect_demo` program: all ways to lose a connection, and the result of each.

#[allow(dead_code, reason = "each program uses its part of it")]
#[path = "../clients/mod.rs"]
mod clients;
mod scenarios;
mod success;
mod world;

use std::process::ExitCode;

use clap::Parser;

use clients::{
    common::exit::Failure,
    flags::{Connection, parse_speed, parse_url},
    stage::Stage,
};

/// Runs all scenarios of losing and restoring a connection, and prints which ones passed.
///
/// By default it starts, kills and restarts its own servers. With a URL it interrupts the connection to that
/// server, which must be the chat of the `server` program. With `success` it only uses a running server: a
/// message, a disconnection, a manual reconnection, a message; on port 5000 of this machine, or at the URL
/// after it.
///
/// Exit codes: 0 all passed; 1 not all; 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "final_reconnect_demo", version, max_term_width = 100)]
pub(crate) struct Flags {
    /// `success`, or the server to use
    #[arg(value_name = "success|URL", value_parser = parse_what)]
    what: Option<What>,

    /// The server for `success`
    #[arg(value_name = "URL", value_parser = parse_url)]
    url: Option<String>,

    #[command(flatten)]
    pub(crate) connection: Connection,

    /// Shorten the pauses
    #[arg(long, hide = true, default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
}

#[derive(Debug, Clone)]
enum What {
    Success,
    Url(String),
}

fn parse_what(text: &str) -> Result<What, String> {
    match text {
        "success" => Ok(What::Success),
        url => parse_url(url).map(What::Url).map_err(|_| "neither `success` nor a URL".to_owned()),
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    run(&flags).unwrap_or_else(Failure::report)
}

fn run(flags: &Flags) -> Result<ExitCode, Failure> {
    let stage = Stage::new(flags.connection.color, flags.speed, false)?;
    let verdicts = match (&flags.what, &flags.url) {
        (Some(What::Success), url) => success::run(flags, url.as_deref(), &stage)?,
        (_, Some(_)) => return Err(Failure::Usage("a second argument belongs to `success` only".into())),
        (Some(What::Url(url)), None) => scenarios::run(flags, Some(url), &stage)?,
        (None, None) => scenarios::run(flags, None, &stage)?,
    };
    verdicts.print(&stage);
    Ok(if verdicts.all_passed(&stage) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
