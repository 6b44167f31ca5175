//! The `client` program: an interactive chat client, and Socket.IO for scripts.

#[allow(dead_code, reason = "each program uses its part of it")]
#[path = "../clients/mod.rs"]
mod clients;
mod command;
mod demo;
mod errors;
mod flags;
mod interactive;
mod screen;
mod script;
mod talk;
mod validate;

use std::process::ExitCode;

use clap::Parser;

use clients::common::exit::Failure;
use flags::{Command, Flags};

fn main() -> ExitCode {
    let flags = Flags::parse();
    run(&flags).unwrap_or_else(Failure::report)
}

fn run(flags: &Flags) -> Result<ExitCode, Failure> {
    match &flags.command {
        None => interactive::run(flags),
        Some(Command::Emit(emit)) => script::emit(flags, emit),
        Some(Command::Listen(listen)) => script::listen(flags, listen),
        Some(Command::Health) => script::health(flags),
        Some(Command::Demo) => demo::run(flags),
        Some(Command::Validate) => validate::run(flags),
        Some(Command::Errors(errors)) => errors::run(flags, errors),
    }
}
