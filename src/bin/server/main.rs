//! The `server` program: the chat on a TCP port or a Unix-domain socket, with its log, until a signal.

#[allow(dead_code, reason = "each program uses its part of it")]
#[path = "../common/mod.rs"]
mod common;
mod flags;
mod operator;

use std::{
    io::{self, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::Parser;
use crossbeam_channel::{Receiver, RecvTimeoutError, TrySendError, bounded};
use log::Level;
use rustix::process::{Resource, getrlimit, setrlimit};
use tinysio::{
    chat::Chat,
    server::{Server, StartError},
};

use common::{
    exit::{Explained, Failure},
    logging, signals,
};
use flags::Flags;
use operator::Operator;

/// How long clients may take to fetch pending packets. The library may use it twice: running handlers are
/// awaited for the same time again.
const SHUTDOWN_DEADLINE: Duration = Duration::from_millis(1_500);

/// When the program ends in any case, after the clients have been disconnected.
const LAST_DEADLINE: Duration = Duration::from_secs(4);

/// Maximum time over which clients are disconnected.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 3600);

fn main() -> ExitCode {
    let flags = Flags::parse();
    logging::end(logging::start(flags.log_level, flags.log_format).and_then(|()| run(&flags)))
}

/// A client needs one descriptor, on polling up to three; the usual soft limit is 1,024, the hard limit far
/// higher.
fn raise_descriptor_limit(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < enough) {
        limit.current = Some(enough);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            log::warn!("cannot raise the limit of open files: {error}");
        }
    }
    if enough < wanted {
        log::warn!(
            "the limit of open files is {enough}; for so many connections it should be {wanted} (ulimit -n)"
        );
    }
}

fn run(flags: &Flags) -> Result<(), Failure> {
    raise_descriptor_limit(3 * u64::from(flags.max_connections) + 64);
    let chat = Chat::new(flags.options()?);
    let signals = signals()?;
    let server = listen(flags, &chat)?;
    chat.watch(&server);
    let operator = match flags.operator {
        Some(address) => Some(Operator::start(address, &chat)?),
        None => None,
    };
    announce(flags, &server, operator.as_ref().map(|(_, address)| address.to_string()));
    wait_for_signal(flags, &chat, &signals);
    shut_down(&chat, &server, flags.drain);
    Ok(())
}

/// The first signal is sent on the channel; the second ends the program at once.
fn signals() -> Result<Receiver<()>, Failure> {
    let (sender, receiver) = bounded(1);
    let mut asked = false;
    signals::handle(move || {
        let again = std::mem::replace(&mut asked, true);
        if again || matches!(sender.try_send(()), Err(TrySendError::Disconnected(()))) {
            logging::exit(130);
        }
    })?;
    Ok(receiver)
}

fn listen(flags: &Flags, chat: &Chat) -> Result<Server, Failure> {
    let builder = chat.install(flags.builder());
    let started = match &flags.unix {
        Some(path) => builder.listen_unix(path),
        None => builder.listen(authority(&flags.host, flags.port)),
    };
    started.map_err(|error| match error {
        StartError::Config(_) => Failure::Usage(error.to_string()),
        StartError::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            Failure::Failed(match &flags.unix {
                Some(path) => format!("{} is already in use. Try a different path.", path.display()),
                None => format!("Port {} is already in use. Try a different port.", flags.port),
            })
        }
        StartError::Store(_) => Failure::Failed(format!("{error} (--store-optional serves without it)")),
        StartError::System(error) => Failure::Failed(format!("cannot start: {}", Explained(&error))),
        error => Failure::Failed(error.to_string()),
    })
}

/// An IPv6 address needs brackets before its port.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Prints the addresses on standard output.
fn announce(flags: &Flags, server: &Server, operator: Option<String>) {
    let (address, health) = match (&flags.unix, server.local_addr()) {
        (None, Some(bound)) => {
            // "All interfaces" is not an address for a client.
            let host = if bound.ip().is_unspecified() { "localhost" } else { &flags.host };
            let health = format!("http://{}/health", authority(host, bound.port()));
            (format!("http://{}", authority(&flags.host, bound.port())), health)
        }
        (path, _) => {
            let path = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            (format!("unix:{path}"), format!("GET /health on unix:{path}"))
        }
    };
    let mut lines = format!("Starting Socket.IO server on {address}\nHealth check: {health}\n");
    if let Some(operator) = operator {
        lines += &format!("Operator: http://{operator}/metrics\n");
    }
    lines += "Press Ctrl+C to stop the server";
    let mut out = io::stdout();
    // Output may be closed.
    let _ = out.write_all(&logging::told(Level::Info, &lines)).and_then(|()| out.flush());
}

/// Logs the counters periodically until the signal comes.
fn wait_for_signal(flags: &Flags, chat: &Chat, signals: &Receiver<()>) {
    let interval = flags.counters_interval.max(Duration::from_millis(10));
    while signals.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let counters = chat.counters();
        log::info!(
            "counters: clients {}, rooms {}, connects {}, disconnects {}, events in {}, out {}, refused {} ({} too \
             fast), unauthorized {}, connections refused {}",
            counters.clients(),
            chat.rooms(),
            counters.connects(),
            counters.disconnects(),
            counters.events_in(),
            counters.events_out(),
            counters.refusals(),
            counters.rate_limited(),
            counters.unauthorized(),
            chat.stats().map_or(0, |stats| stats.refused.total()),
        );
    }
}

/// Notifies the clients, disconnects them over a time, sends pending packets, and closes everything.
fn shut_down(chat: &Chat, server: &Server, drain: Duration) {
    let drain = drain.min(DRAIN_MAX);
    // A hanging handler or a log that is not read must not keep the program running.
    let watchdog = thread::Builder::new().name("watchdog".into()).spawn(move || {
        thread::sleep(drain + LAST_DEADLINE);
        logging::exit(0);
    });
    if let Err(error) = watchdog {
        log::warn!("cannot start the thread that limits the shutdown time: {error}");
    }
    log::info!("shutting down, {} clients", chat.counters().clients());
    chat.announce_shutdown(server);
    let all_gone = server.shutdown_spread(drain, SHUTDOWN_DEADLINE);
    log::info!("stopped{}", if all_gone { "" } else { ", with handlers still running" });
}
