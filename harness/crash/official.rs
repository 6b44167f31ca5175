//! The official client, in a Node process: `tests/interop/crash-clients.mjs`.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Failure,
    audit::{Kind, Ledger, Sender, room_name},
};

/// How long the process may take to end when it is told to.
const DOWN_WITHIN: Duration = Duration::from_secs(10);

/// The transports that official clients take. Polling is in one room only: with every request a connection of its
/// own, of which many are cut, and 16 packets in an answer, it could fall behind for longer than the server keeps
/// what it has missed.
pub(crate) const TRANSPORTS: [&str; 3] = ["polling", "websocket", "upgrade"];

/// What the process is to do.
#[derive(Default)]
pub(crate) struct Plan {
    subscribers: Vec<Value>,
    publishers: Vec<Value>,
}

impl Plan {
    pub(crate) fn subscribe(&mut self, listener: usize, rooms: &[usize]) {
        let transport = TRANSPORTS[self.subscribers.len() % TRANSPORTS.len()];
        let rooms: Vec<String> = rooms.iter().copied().map(room_name).chain(["ticks".to_owned()]).collect();
        self.subscribers.push(json!({ "listener": listener, "transport": transport, "rooms": rooms }));
    }

    pub(crate) fn publish(&mut self, publisher: usize, listener: usize) {
        let transport = TRANSPORTS[self.publishers.len() % TRANSPORTS.len()];
        self.publishers.push(json!({ "publisher": publisher, "listener": listener, "transport": transport }));
    }
}

/// The process. It does not outlive this.
pub(crate) struct Official {
    child: Child,
    orders: Option<ChildStdin>,
    reader: Option<JoinHandle<Result<(), Failure>>>,
    joined: Arc<AtomicUsize>,
}

impl Official {
    pub(crate) fn start(plan: &Plan, ledger: &Arc<Ledger>, port: u16, seed: u64) -> Result<Self, Failure> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
        if !folder.join("node_modules/socket.io-client").is_dir() {
            return Err(
                "no official client: `npm install --ignore-scripts` in tests/interop, or --no-official"
                    .into(),
            );
        }
        let plan = json!({ "subscribers": plan.subscribers, "publishers": plan.publishers });
        let mut child = Command::new("node")
            .arg(folder.join("crash-clients.mjs"))
            .args(["--url", &format!("http://127.0.0.1:{port}"), "--seed", &seed.to_string()])
            .args(["--plan", &plan.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("node: {error}; --no-official does without"))?;
        let out = child.stdout.take().ok_or("no output")?;
        let orders = child.stdin.take();
        let joined = Arc::new(AtomicUsize::new(0));
        let (its, ledger) = (Arc::clone(&joined), Arc::clone(ledger));
        let reader =
            thread::Builder::new().name("official".into()).spawn(move || read(out, &ledger, &its))?;
        Ok(Self { child, orders, reader: Some(reader), joined })
    }

    pub(crate) fn joined(&self) -> usize {
        self.joined.load(SeqCst)
    }

    /// `publish`: the publishers begin. `hush`: they begin nothing new.
    pub(crate) fn tell(&mut self, order: &str) -> Result<(), Failure> {
        let orders = self.orders.as_mut().ok_or("no input")?;
        writeln!(orders, "{order}").map_err(|error| format!("the official clients are gone: {error}"))?;
        Ok(())
    }

    /// Everybody disconnects, and the process ends by itself.
    pub(crate) fn leave(mut self) -> Result<(), Failure> {
        drop(self.orders.take());
        let deadline = Instant::now() + DOWN_WITHIN;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => return Err("the official clients do not end".into()),
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| "the reader of the official clients panicked")??;
        }
        if status.success() { Ok(()) } else { Err(format!("the official clients end with {status}").into()) }
    }
}

impl Drop for Official {
    fn drop(&mut self) {
        // They may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Notes what the clients say, a line each.
fn read(out: ChildStdout, ledger: &Ledger, joined: &AtomicUsize) -> Result<(), Failure> {
    for line in BufReader::new(out).lines() {
        let line = line?;
        let (verb, rest) =
            line.split_once(' ').ok_or_else(|| format!("the official clients say {line:?}"))?;
        let numbers: Vec<u64> = rest.split(' ').map_while(|word| word.parse().ok()).collect();
        match (verb, &numbers[..]) {
            ("joined", _) => drop(joined.fetch_add(1, SeqCst)),
            ("again", &[listener, recovered, away]) => {
                ledger.comes_back(listener as usize, recovered == 1, Duration::from_millis(away));
            }
            ("hears", &[listener, publisher, number]) => {
                ledger.hears(listener as usize, Sender::Publisher(publisher as usize), number);
            }
            ("tick", &[listener, life, number]) => {
                ledger.hears(listener as usize, Sender::Ticker(u32::try_from(life)?), number);
            }
            ("begins", &[publisher, number]) => {
                let expected = ledger.begins(publisher as usize);
                if expected != number {
                    ledger.notice(Kind::Strange, format!("{line:?}, not {expected}"));
                }
            }
            ("acknowledged", &[publisher, number]) => ledger.acknowledged(publisher as usize, number),
            _ => ledger.notice(Kind::Strange, format!("an official client: {line}")),
        }
    }
    Ok(())
}
