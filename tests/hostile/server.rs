//! The server under attack: this test program again, as a child, so that what `/proc` tells of it is the server's
//! alone.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tinysio::server::{
    Builder, ConnectionStateRecovery, Cors, EmitError, Message, NamespaceBuilder, Response, Server,
};

/// How the server is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// As it is by default.
    Plain,
    /// With deadlines of a moment, for those who let them pass.
    Hasty,
    /// A few sessions, connections and bytes.
    Small,
    /// Few open files: less than it may have connections.
    FewFiles,
    /// Polling and WebSocket from one origin only.
    Choosy,
    /// With recovery, of little.
    Recovering,
}

/// The one origin of [`Kind::Choosy`].
pub(crate) const ORIGIN: &str = "http://good.example";

/// What the server says of itself when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) sessions: usize,
    /// Why sockets have left since the last question, but for those of clients who said that they are control clients.
    pub(crate) reasons: Vec<String>,
    pub(crate) panics: usize,
    /// Lines of the log at "error".
    pub(crate) errors: usize,
    /// Lines of the log that hold what a log must not: control characters, the whole id of a session, the `pid` or
    /// the `rid` of the client that came last.
    pub(crate) unfit: usize,
}

/// What the server's process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) threads: usize,
    /// Open sockets.
    pub(crate) sockets: usize,
    /// Open files of every other kind.
    pub(crate) files: usize,
    /// KiB.
    pub(crate) resident: usize,
    /// The most that was ever resident.
    pub(crate) peak: usize,
}

/// A child that serves until it is dropped.
pub(crate) struct Subject {
    pub(crate) addr: SocketAddr,
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

const ROLE: &str = "TINYSIO_HOSTILE_SERVER";

impl Subject {
    pub(crate) fn start(kind: Kind) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server::serves_until_its_input_ends", "--ignored", "--nocapture"])
            .env(ROLE, serde_json::to_string(&kind).unwrap())
            // Memory that the allocator keeps for later would hide what the server keeps.
            .env("MALLOC_ARENA_MAX", "2")
            .env("MALLOC_TRIM_THRESHOLD_", "65536")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = said(&mut output, "at ").parse().unwrap();
        Self { addr, child, input, output }
    }

    /// Asks it.
    pub(crate) fn report(&mut self) -> Report {
        self.input.as_mut().unwrap().write_all(b"report\n").expect("the server lives");
        serde_json::from_str(&said(&mut self.output, "report ")).unwrap()
    }

    /// Looks at its process.
    pub(crate) fn usage(&self) -> Usage {
        let proc = format!("/proc/{}", self.child.id());
        let list = |what: &str| std::fs::read_dir(format!("{proc}/{what}")).unwrap().map_while(Result::ok);
        let threads = list("task").count();
        let opened: Vec<PathBuf> = list("fd").filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
        let sockets = opened.iter().filter(|file| file.to_string_lossy().starts_with("socket:")).count();
        let files = opened.len() - sockets;
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
        let size = |name: &str| -> usize {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
            value.expect("a size in kB").parse().unwrap()
        };
        Usage { threads, sockets, files, resident: size("VmRSS:"), peak: size("VmHWM:") }
    }

    /// The processor time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name in brackets, user and system time are the twelfth and thirteenth, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(10 * ticks)
    }
}

/// The rest of the next line that begins like this.
fn said(output: &mut Lines<BufReader<ChildStdout>>, prefix: &str) -> String {
    loop {
        let line = output.next().expect("the server lives").unwrap();
        if let Some(rest) = line.strip_prefix(prefix) {
            return rest.to_owned();
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        drop(self.input.take());
        // A server that does not end now hangs, and then this does too; the test runner says which test it was.
        let ended = self.child.wait();
        if !std::thread::panicking() {
            assert!(ended.unwrap().success(), "the server ends in good order");
        }
    }
}

/// What is counted while it serves.
#[derive(Debug, Default)]
struct Tally {
    reasons: Mutex<Vec<String>>,
    panics: AtomicUsize,
}

static ERRORS: AtomicUsize = AtomicUsize::new(0);
static UNFIT: AtomicUsize = AtomicUsize::new(0);
/// By what the client that came last is recovered, and by what it is answered.
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Counts what the library logs as an error, and every line at whatever level that is unfit for a log.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        let tells_a_secret = text.split_once("session ").is_some_and(|(_, rest)| {
            // An id is twenty characters, and speaks for its session.
            rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)).count() >= 20
        });
        let tells_a_secret =
            tells_a_secret || SECRETS.lock().unwrap().iter().any(|secret| text.contains(secret));
        if record.target().starts_with("tinysio") && (tells_a_secret || text.contains(char::is_control)) {
            UNFIT.fetch_add(1, SeqCst);
        }
        if record.level() == log::Level::Error {
            ERRORS.fetch_add(1, SeqCst);
            eprintln!("{text:?}");
        }
    }
    fn flush(&self) {}
}

/// No test but what [`Subject`] runs.
#[test]
#[ignore = "the server that the other tests attack; without their word it has nothing to do"]
fn serves_until_its_input_ends() {
    let Some(kind) = std::env::var(ROLE).ok().and_then(|kind| serde_json::from_str(&kind).ok()) else {
        return;
    };
    static LOG: Log = Log;
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let tally = Arc::new(Tally::default());
    let panics = Arc::clone(&tally);
    std::panic::set_hook(Box::new(move |info| {
        panics.panics.fetch_add(1, SeqCst);
        eprintln!("{info}");
    }));
    let server = set_up(kind, &tally).listen("127.0.0.1:0").unwrap();
    println!("\nat {}", server.local_addr().unwrap());
    if kind == Kind::FewFiles {
        // Counted from what is open: the three streams, the listener, eventfds, and a few connections.
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let limit =
            rustix::process::Rlimit { current: Some(open + FILES_LEFT), maximum: Some(open + FILES_LEFT) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    }
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        let report = Report {
            sessions: server.clients_count(),
            reasons: std::mem::take(&mut tally.reasons.lock().unwrap()),
            panics: tally.panics.load(SeqCst),
            errors: ERRORS.load(SeqCst),
            unfit: UNFIT.load(SeqCst),
        };
        println!("report {}", serde_json::to_string(&report).unwrap());
        line.clear();
    }
    assert!(server.shutdown(Duration::from_secs(1)), "every thread ends");
}

/// How many files [`Kind::FewFiles`] may open beyond those that it needs.
pub(crate) const FILES_LEFT: u64 = 40;

fn set_up(kind: Kind, tally: &Arc<Tally>) -> Builder {
    let moment = Duration::from_millis(150);
    let builder = Server::builder();
    let builder = match kind {
        Kind::Plain => builder,
        Kind::Hasty => builder
            // A client that is told to wait by a busy machine must not miss it.
            .head_timeout(Duration::from_secs(1))
            .body_timeout(moment)
            .upgrade_timeout(moment)
            // Those of the others that join do so in this time, on a busy machine too.
            .connect_timeout(Duration::from_millis(1_500))
            .keep_alive_timeout(Duration::from_secs(2))
            .close_timeout(moment)
            // Control clients on a busy machine must not miss it.
            .ping_interval(Duration::from_millis(300))
            .ping_timeout(Duration::from_millis(1_500)),
        Kind::Small => builder
            .max_http_buffer_size(10_000)
            .outbox_bytes_max(100_000)
            .outbox_bytes_total(300_000)
            .max_connections(20)
            .max_tcp_connections(40),
        Kind::FewFiles => builder.max_connections(500),
        Kind::Choosy => builder.cors(Cors::List(vec![ORIGIN.into()])),
        Kind::Recovering => builder
            .max_connections(400)
            .connection_state_recovery(ConnectionStateRecovery::new().max_bytes(256 << 10)),
    };
    builder
        .namespace("/", |ns| namespace(ns, tally))
        .namespace("/n", |ns| namespace(ns, tally))
        .engine("/engine.io/", |engine| {
            engine.on_message(|session, message: Message<'_>| {
                // A session that is closed meanwhile needs no echo.
                let _ = session.send(&message);
            });
        })
        .route("/health", |_| Response::from_string("ok"))
}

fn namespace(ns: &mut NamespaceBuilder, tally: &Arc<Tally>) {
    let tally = Arc::clone(tally);
    ns.on_connect(|socket| {
        let auth = socket.auth_as::<Value>().unwrap_or_default();
        let pid = auth["pid"].as_str().filter(|_| socket.recovered());
        let secrets = pid.into_iter().chain(auth["rid"].as_str()).filter(|secret| !secret.is_empty());
        *SECRETS.lock().unwrap() = secrets.map(str::to_owned).collect();
    });
    ns.on("echo", |_, event| event.ack(event.args()));
    ns.on("echo_back", |socket, event| socket.emit("echo_back", event.args()));
    ns.on("join", |socket, event| event.arg::<String>(0).map(|room| socket.join(&room)));
    ns.on("leave", |socket, event| event.arg::<String>(0).map(|room| socket.leave(&room)));
    // As many bytes as the client wants, as many times as it wants.
    ns.on("give", |socket, event| -> Result<(), Box<dyn std::error::Error>> {
        let (size, times): (usize, usize) = event.parse()?;
        let bytes = "x".repeat(size);
        for _ in 0..times {
            socket.emit("given", &bytes)?;
        }
        Ok(())
    });
    ns.on("quote", |_, event| -> Result<(), String> { Err(event.arg::<String>(0).unwrap_or_default()) });
    // What the scenarios must notice.
    ns.on("leak", |_, _| std::mem::forget(vec![1u8; 8 << 20]));
    ns.on("panic", |_, _| -> () { panic!("as the client wanted") });
    ns.on("ask", |socket, _| {
        socket.emit_with_callback("question", (), Duration::from_millis(200), |_, _| ())
    });
    ns.on("control", |socket, event| {
        socket.set_data(ControlClient);
        event.ack(())
    });
    ns.on_disconnect(move |socket, reason| {
        if socket.data::<ControlClient>().is_none() {
            tally.reasons.lock().unwrap().push(reason.as_str().into());
        }
    });
}

/// The data of a socket whose end is not of interest.
struct ControlClient;
