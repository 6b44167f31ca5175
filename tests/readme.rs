//! The README's snippets for official clients, run as they are printed against the `server` program.
//!
//! They need Node or Python and their packages, and so they are ignored by default:
//! `cargo test --test readme -- --ignored`.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use tinysio::Client;

/// Bound of every wait; only a failure uses it up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the snippets look for the server.
const URL: &str = "http://localhost:5000";

/// A program that runs until it is dropped, and its lines.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn new(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| {
            panic!("{command:?}: {error}; tests/interop/README.md says how to install it")
        });
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        thread::Builder::new()
            .name("lines".into())
            .spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)))
            .expect("a thread");
        Self { child, lines }
    }

    /// Waits until it has printed all of these, in any order, and gives the last one that came.
    fn prints(&self, wanted: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        let (mut missing, mut seen) = (wanted.to_vec(), Vec::new());
        while !missing.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("{missing:?} was not printed; there was {seen:?}"));
            missing.retain(|wanted| !line.contains(wanted));
            seen.push(line);
        }
        seen.pop().unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server program, and where it is.
fn server() -> (Running, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    let running = Running::new(command.args(["--host", "127.0.0.1", "--port", "0"]).stderr(Stdio::null()));
    let line = running.prints(&["Starting Socket.IO server on "]);
    let url = line.rsplit(' ').next().expect("the last word").to_owned();
    (running, url)
}

/// The first block of code in this language, and the name of the file that its first line gives.
fn snippet(language: &str, url: &str) -> (String, String) {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a README");
    let (_, rest) = readme.split_once(&format!("```{language}\n")).expect("a block in this language");
    let (code, _) = rest.split_once("```").expect("the end of the block");
    assert_eq!(code.matches(URL).count(), 1, "the one place to change");
    let name = code.lines().next().and_then(|line| line.split([' ', ':']).nth(1)).expect("a file's name");
    (name.to_owned(), code.replace(URL, url))
}

fn interop() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// A folder of its own with the snippet in it.
fn folder(name: &str, code: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("readme-{}-{name}", std::process::id()));
    // It may not be there.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join(name), code).expect("a file");
    folder
}

#[test]
#[ignore = "needs Node"]
fn the_javascript_snippet_runs_as_printed() {
    let (_server, url) = server();
    let (name, code) = snippet("js", &url);
    let folder = folder(&name, &code);
    symlink(interop().join("node_modules"), folder.join("node_modules")).expect("a link");
    let script = Running::new(Command::new("node").arg(&name).current_dir(&folder));
    script.prints(&["Welcome! You are connected to the server.", "the server has it"]);
    let client = Client::builder(&url).build().expect("a client");
    client.connect().expect("the server");
    client.socket("/").emit("message", "hello from Rust").expect("it is connected");
    script.prints(&["hello from Rust"]);
    drop(script);
    fs::remove_dir_all(folder).expect("the folder");
}

#[test]
#[ignore = "needs Python"]
fn the_python_snippet_prints_the_message_of_the_room() {
    let (_server, url) = server();
    let (name, code) = snippet("python", &url);
    let folder = folder(&name, &code);
    let python = interop().join(".venv/bin/python");
    // A pipe is no terminal: Python would keep its lines.
    let script = Running::new(Command::new(python).arg("-u").arg(&name).current_dir(&folder));
    script.prints(&["Welcome! You are connected to the server.", "lobby hello"]);
    drop(script);
    fs::remove_dir_all(folder).expect("the folder");
}
