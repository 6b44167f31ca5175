//! What the tests share: peers as child processes, and waits that have a bound and say what they waited for.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use tinysio::client::{Builder, Client, TransportKind};

/// The bound of every wait: generous, because the machine may be busy.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Which implementation is the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Node,
    Python,
}

/// How the connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Polling,
    Websocket,
    /// Polling, then the upgrade.
    Upgrade,
}

impl Way {
    pub(crate) fn set(self, builder: Builder) -> Builder {
        match self {
            Self::Polling => builder.transports(&[TransportKind::Polling]),
            Self::Websocket => builder.transports(&[TransportKind::Websocket]),
            Self::Upgrade => builder,
        }
    }
}

/// A server in another process; ended when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts one on a port of its own. Tests that do so are ignored by default: they need what
    /// `tests/interop/README.md` says how to install.
    pub(crate) fn start(peer: Peer, options: &[&str]) -> Self {
        Self::start_at(peer, 0, options)
    }

    pub(crate) fn start_at(peer: Peer, port: u16, options: &[&str]) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
        let (program, script, needs): (PathBuf, _, _) = match peer {
            Peer::Node => ("node".into(), "peer-server.mjs", dir.join("node_modules/socket.io")),
            Peer::Python => {
                let python = dir.join(".venv/bin/python");
                (python.clone(), "peer_server.py", python)
            }
        };
        assert!(needs.exists(), "{} is missing: see tests/interop/README.md", needs.display());
        let mut child = Command::new(&program)
            .arg(dir.join(script))
            .args(["--port", &port.to_string()])
            .args(options)
            .current_dir(&dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: see tests/interop/README.md", program.display()));
        let stdout = child.stdout.take().unwrap();
        let line = BufReader::new(stdout).lines().next().expect("the peer ended at once").unwrap();
        let port = line.strip_prefix("PORT ").unwrap().parse().unwrap();
        Self { child, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stops it in the middle of whatever it does, as a machine that has lost its network.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Ends it, without a goodbye, and waits until it has.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client with fast reconnection.
pub(crate) fn quick(url: &str) -> Builder {
    Client::builder(url)
        .reconnection_delay(Duration::from_millis(20))
        .reconnection_delay_max(Duration::from_millis(100))
}

/// A channel for what handlers report.
#[derive(Debug)]
pub(crate) struct Heard<T>(Receiver<T>, &'static str);

/// A channel: the sender for a handler, the receiver for the test.
pub(crate) fn hear<T>(what: &'static str) -> (Sender<T>, Heard<T>) {
    let (sender, receiver) = channel();
    (sender, Heard(receiver, what))
}

impl<T> Heard<T> {
    /// The next thing that was heard.
    #[track_caller]
    pub(crate) fn next(&self) -> T {
        match self.0.recv_timeout(LONG) {
            Ok(heard) => heard,
            Err(error) => panic!("waited {LONG:?} for {}: {error}", self.1),
        }
    }

    /// What comes within a short time, if anything.
    pub(crate) fn within(&self, time: Duration) -> Option<T> {
        self.0.recv_timeout(time).ok()
    }
}

/// Waits until `done`.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LONG, "waited {LONG:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A thread that nobody waits for: it ends with its peer, or with the tests.
pub(crate) fn in_thread(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().spawn(run).unwrap();
}

/// Processor time of this process' threads whose names begin so.
pub(crate) fn cpu_of_threads(prefix: &str) -> Duration {
    threads(prefix)
        .iter()
        .map(|path| {
            let stat = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            Duration::from_nanos(stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
        })
        .sum()
}

/// This process' threads whose names begin so.
pub(crate) fn threads(prefix: &str) -> Vec<PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let named = |path: &PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with(prefix))
    };
    tasks.filter_map(|task| Some(task.ok()?.path())).filter(named).collect()
}

/// Runs the test that calls this in a process of its own, so that it can count the process' threads and its processor
/// time. `false`: that has been done; `true`: this is that process.
pub(crate) fn alone() -> bool {
    const MARK: &str = "TINYSIO_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    print!("{said}");
    assert!(child.status.success(), "{test}: {}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("1 passed"), "{test} did not run");
    false
}

/// Runs `what`, and asserts that it took less than a second.
#[track_caller]
pub(crate) fn prompt<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = run();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{what} took {took:?}");
    result
}

/// A server of ours in this process: acknowledges `echo` with its arguments, answers `shout` with `shouted`, never
/// acknowledges `silent`, disconnects on `kick`, sends `n` as often as `flood` says.
pub(crate) fn own_server(address: &str) -> tinysio::Server {
    let mut server = None;
    // A port that was free a moment ago may be some connection's own for a while.
    until("the port", || {
        server = try_own_server(address);
        server.is_some()
    });
    server.unwrap()
}

fn try_own_server(address: &str) -> Option<tinysio::Server> {
    tinysio::Server::builder()
        .namespace("/", |ns| {
            ns.on("echo", |_, event| event.ack(event.args()))
                .on("shout", |socket, event| socket.emit("shouted", event.args()))
                .on("silent", |_, event| drop(event.take_ack()))
                .on("kick", |socket, _| socket.disconnect(false))
                .on("flood", |socket, event| {
                    for n in 0..event.arg(0).unwrap_or(0) {
                        let _ = socket.emit("n", n);
                    }
                });
        })
        .listen(address)
        .inspect_err(|error| println!("{error}"))
        .ok()
}

/// Its URL.
pub(crate) fn url_of(server: &tinysio::Server) -> String {
    format!("http://{}", server.local_addr().unwrap())
}
