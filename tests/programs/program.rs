//! Running a program to its end, with pipes.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How long a program may take. Generous: the machine may be busy.
const BOUND: Duration = Duration::from_secs(40);

pub(crate) const CLIENT: &str = env!("CARGO_BIN_EXE_client");
pub(crate) const MULTIPLE: &str = env!("CARGO_BIN_EXE_multiple_clients");
pub(crate) const AUTO: &str = env!("CARGO_BIN_EXE_auto_reconnect_demo");
pub(crate) const FINAL: &str = env!("CARGO_BIN_EXE_final_reconnect_demo");

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text), "not said: {text:?}\n{self}");
        self
    }

    #[track_caller]
    pub(crate) fn complains(self, text: &str) -> Self {
        assert!(self.err.contains(text), "no complaint: {text:?}\n{self}");
        self
    }

    #[track_caller]
    pub(crate) fn says_not(self, text: &str) -> Self {
        assert!(!self.out.contains(text), "said: {text:?}\n{self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {:?}\n--- out\n{}\n--- err\n{}", self.code, self.out, self.err)
    }
}

/// A program that runs.
pub(crate) struct Running {
    child: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
}

/// Starts a program and gives it all of its input.
pub(crate) fn start(program: &str, args: &[&str], input: &str) -> Running {
    let mut child = Command::new(program)
        .args(args)
        .env_remove("TINYSIO_URL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_owned();
    spawn("input", move || {
        // It may have ended without reading all of it.
        let _ = stdin.write_all(input.as_bytes());
    });
    let out = collect(child.stdout.take().expect("its output"));
    let err = collect(child.stderr.take().expect("its errors"));
    Running { child, out, err }
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, args: &[&str]) -> Ran {
    start(program, args, "").ends()
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn ends(mut self) -> Ran {
        let deadline = Instant::now() + BOUND;
        let status = loop {
            match self.child.try_wait().expect("its status") {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let text = |pipe: &mpsc::Receiver<String>| pipe.recv_timeout(BOUND).unwrap_or_default();
        let ran = Ran { code: status.and_then(|s| s.code()), out: text(&self.out), err: text(&self.err) };
        assert!(status.is_some(), "it did not end within {BOUND:?}\n{ran}");
        ran
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    spawn("output", move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// A thread with a name.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread");
}
