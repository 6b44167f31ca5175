//! The `server` program, traced or not.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

/// Fails where system calls cannot be made to fail.
fn check_strace() {
    static CAN_TRACE: LazyLock<bool> = LazyLock::new(|| {
        let tried =
            Command::new("strace").args(["-qq", "-o", "/dev/null", "-e", "trace=none", "true"]).output();
        tried.is_ok_and(|tried| tried.status.success())
    });
    assert!(*CAN_TRACE, "strace is missing, or ptrace is not permitted here");
}

pub(crate) struct Served {
    /// The tracer, or the server itself.
    child: Child,
    server: Pid,
    /// A tracer that came later. It ends with the server.
    tracer: Option<Child>,
    pub(crate) port: u16,
    errors: Arc<Mutex<String>>,
}

const ARGS: [&str; 6] = ["--host", "127.0.0.1", "--port", "0", "--counters-interval", "1h"];

fn command(injected: Option<&str>) -> Command {
    let server = env!("CARGO_BIN_EXE_server");
    let mut command = match injected {
        None => Command::new(server),
        Some(injected) => {
            let mut strace = strace(injected);
            strace.arg("-qq").arg(server);
            strace
        }
    };
    command.args(ARGS).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn strace(injected: &str) -> Command {
    check_strace();
    let calls = injected.split(':').next().unwrap_or_default();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e"]);
    strace.arg(format!("inject={injected}"));
    strace
}

impl Served {
    pub(crate) fn new(args: &[&str]) -> Self {
        Self::begin(command(None).args(args), false)
    }

    pub(crate) fn traced(injected: &str, args: &[&str]) -> Self {
        Self::begin(command(Some(injected)).args(args), true)
    }

    /// The calls of each thread are counted from here on, when the server has started.
    pub(crate) fn traced_after_start(injected: &str) -> Self {
        let mut server = Self::new(&[]);
        let mut strace = strace(injected);
        strace.args(["-p", &server.server.to_string()]).stdin(Stdio::null()).stderr(Stdio::piped());
        let tracer = server.tracer.insert(strace.spawn().unwrap());
        let mut said = BufReader::new(tracer.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(said.any(|line| line.contains("attached")), "strace does not trace the server");
        spawn(move || said.for_each(drop));
        server
    }

    pub(crate) fn with_errors_to(file: File, args: &[&str]) -> Self {
        Self::begin(command(None).args(args).stderr(file), false)
    }

    /// The exit code of a server that cannot begin, and what it said.
    pub(crate) fn does_not_start(injected: &str) -> (Option<i32>, String) {
        let mut child = command(Some(injected)).stdout(Stdio::null()).spawn().unwrap();
        let code = wait(&mut child);
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (code, errors)
    }

    fn begin(command: &mut Command, traced: bool) -> Self {
        let mut child = command.spawn().unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = child.stderr.take() {
            let errors = Arc::clone(&errors);
            spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    errors.lock().unwrap().push_str(&format!("{line}\n"));
                }
            });
        }
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("Starting Socket.IO server on http://127.0.0.1:")?;
            // In JSON there is more behind it.
            port.split('"').next()?.parse().ok()
        });
        spawn(move || lines.for_each(drop));
        let port = port.unwrap_or_else(|| panic!("no port: {}", errors.lock().unwrap()));
        let id = child.id();
        let server = if traced { child_of(id) } else { id };
        let server = Pid::from_raw(server.try_into().unwrap()).unwrap();
        Self { child, server, tracer: None, port, errors }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.server, signal).unwrap();
    }

    pub(crate) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// SIGTERM: it ends with 0. What it had to say.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let code = wait(&mut self.child);
        assert_eq!(code, Some(0), "{}", self.errors());
        self.errors()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // After `stop` there is nobody any more.
        let _ = kill_process(self.server, Signal::KILL);
        let _ = self.child.wait();
        if let Some(tracer) = &mut self.tracer {
            let _ = tracer.wait();
        }
    }
}

fn child_of(tracer: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).unwrap();
    children.split_whitespace().next().expect("the traced server").parse().unwrap()
}

fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("the server does not end");
}

pub(crate) fn spawn(run: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("injection".into()).spawn(run).unwrap();
}
