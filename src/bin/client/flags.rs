//! The flags of the `client` program.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use tinysio::client::Builder;

use crate::clients::{
    common::exit::Failure,
    flags::{Connection, DEFAULT_URL, parse_speed, parse_url},
};

/// A Socket.IO client for people and for scripts.
///
/// Without a command it is interactive: it uses the chat of the `server` program and prints all events. If
/// standard input is a pipe, each line is a command, and the exit code says whether all of them were done.
/// `help` lists the commands.
#[derive(Debug, Clone, Parser)]
#[command(name = "client", version, max_term_width = 100, subcommand_precedence_over_arg = true,
          subcommand_help_heading = "Commands for scripts", after_help = AFTER_HELP)]
pub(crate) struct Flags {
    /// Address of the server: http://, https://, ws://, wss:// or unix:///path; a path in it is the namespace
    #[arg(value_name = "URL", default_value = DEFAULT_URL, value_parser = parse_url, env = "TINYSIO_URL")]
    pub(crate) url: String,

    #[command(flatten)]
    pub(crate) connection: Connection,

    /// Reconnections before it gives up; 0 for no limit. Default 5; `listen` has no limit
    #[arg(long, global = true, value_name = "N", help_heading = "Connection")]
    max_attempts: Option<u32>,

    /// Shorten all pauses
    #[arg(long, global = true, hide = true, default_value_t = 1.0, value_parser = parse_speed)]
    pub(crate) speed: f64,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done          1  no connection, or it failed     2  called wrongly
  3  the server refused it                            4  no answer in time

Examples:
  client                                            talk to the chat on this machine
  echo 'msg Hello' | client                         send, wait until it is confirmed, leave
  client emit message '\"Hello\"' --ack
  client emit room_message 'lunch?' --room team
  client box.local:5000 listen broadcast_message --json --count 1
  client health && echo up";

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Emit one event, and end when it is delivered
    Emit(Emit),
    /// Print each event on one line, over any number of connections
    Listen(Listen),
    /// Ask the server for its health (GET /health). Ends with 0 if it is healthy or degraded
    Health,
    /// Show the features of the chat, in six steps
    Demo,
    /// Check connecting, sending and reconnecting against a running server, with timings
    Validate,
    /// Send everything that the server must refuse, check its answers, then put it under load
    Errors(Errors),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Emit {
    /// Its name
    pub(crate) event: String,
    /// Its arguments: JSON, or plain text, which may not begin with { [ or "
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    pub(crate) args: Vec<String>,
    /// Wait for the server's acknowledgement and print it
    #[arg(long)]
    pub(crate) ack: bool,
    /// Join this room first. A room_message is sent to it
    #[arg(long, value_name = "ROOM")]
    pub(crate) room: Option<String>,
    /// One more argument: the bytes of this file; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Vec<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Listen {
    /// Only events with these names
    #[arg(value_name = "EVENT")]
    pub(crate) events: Vec<String>,
    /// Print each as a JSON object: {"event": NAME, "args": [...]}; bytes as {"base64": TEXT}
    #[arg(long)]
    pub(crate) json: bool,
    /// End after this number of events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Join this room first, and again after a loss
    #[arg(long, value_name = "ROOM")]
    pub(crate) room: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Errors {
    /// Clients of the stress test
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) clients: u32,
    /// Messages of each client
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) messages: u32,
}

impl Flags {
    /// A client of the server at `url`, configured by the flags.
    pub(crate) fn builder(&self, url: &str) -> Result<Builder, Failure> {
        let paced = |seconds: f64| Duration::from_secs_f64(seconds / self.speed);
        let builder = self.connection.builder(url)?;
        // The official defaults, unless the pauses are shortened.
        Ok(builder.reconnection_delay(paced(1.0)).reconnection_delay_max(paced(5.0)))
    }

    /// Reconnections before it gives up; `None`: no limit.
    pub(crate) fn max_attempts(&self) -> Option<u32> {
        let default = if matches!(self.command, Some(Command::Listen(_))) { 0 } else { 5 };
        Some(self.max_attempts.unwrap_or(default)).filter(|&attempts| attempts > 0)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, clap::Error> {
        Flags::try_parse_from(std::iter::once(&"client").chain(args))
    }

    #[test]
    fn the_definition_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn a_url_comes_before_a_command_or_not_at_all() {
        let flags = parse(&[]).unwrap();
        assert_eq!((flags.url.as_str(), flags.command.is_none()), (DEFAULT_URL, true));
        let flags = parse(&["box:5001", "demo"]).unwrap();
        assert!(matches!(flags.command, Some(Command::Demo)));
        assert_eq!(flags.url, "http://box:5001");
        assert_eq!(flags.max_attempts(), Some(5));
        assert_eq!(parse(&["listen"]).unwrap().max_attempts(), None);
        assert_eq!(parse(&["listen", "--max-attempts", "7"]).unwrap().max_attempts(), Some(7));
        let flags = parse(&["demo", "--max-attempts", "0"]).unwrap();
        assert_eq!((flags.url.as_str(), flags.max_attempts()), (DEFAULT_URL, None));
        assert!(parse(&["demmo"]).is_err());
    }

    #[test]
    fn arguments_of_emit() {
        let flags = parse(&["http://x", "emit", "message", "{}", "-1", "--ack", "--room", "r"]);
        let Some(Command::Emit(emit)) = flags.unwrap().command else { panic!("not emit") };
        assert_eq!((emit.event.as_str(), emit.args), ("message", vec!["{}".to_owned(), "-1".to_owned()]));
        assert_eq!((emit.ack, emit.room.as_deref()), (true, Some("r")));
    }
}
