//! The official clients against the `server` program: see `tests/interop/README.md`.
//!
//! They need Node, Python and their packages, and so they are ignored by default:
//! `cargo test --test official_clients -- --ignored`.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rstest::rstest;
use tinysio::{Client, OwnedArgs, RawValue, proto::limits, server::Server};

/// One official client at a time: each keeps both cores of a small machine busy.
static BENCH: Mutex<()> = Mutex::new(());

/// The folder of the official clients.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");

/// Runs a script of an official client. An interpreter with a path is one of the folder, a bare name one of `PATH`.
fn run(interpreter: &str, args: &[&str]) -> Output {
    let program =
        if interpreter.contains('/') { Path::new(FOLDER).join(interpreter) } else { interpreter.into() };
    Command::new(program)
        .current_dir(FOLDER)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{interpreter}: {error}: see tests/interop/README.md"))
}

/// The address of a server for a client.
fn url(server: &Server) -> String {
    format!("http://{}", server.local_addr().expect("a TCP server"))
}

#[rstest]
#[case::socket_io_client("node", "node_modules/socket.io-client", "official.mjs")]
#[case::python_asyncio(".venv/bin/python", ".venv/bin/python", "official_asyncio.py")]
#[case::python_threaded(".venv/bin/python", ".venv/bin/python", "official_threaded.py")]
#[ignore = "needs Node and Python"]
fn every_scenario(#[case] interpreter: &str, #[case] needs: &str, #[case] script: &str) {
    assert!(Path::new(FOLDER).join(needs).exists(), "{script} needs {needs}: see tests/interop/README.md");
    let _turn = BENCH.lock();
    let output = run(interpreter, &[script, "--server", env!("CARGO_BIN_EXE_server")]);
    let text = String::from_utf8_lossy(&output.stdout);
    let failures: Vec<&str> = text.lines().filter(|line| line.starts_with("FAIL")).collect();
    let verdict = text.lines().last().unwrap_or("no output");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {verdict}\n{}\n{errors}", failures.join("\n"));
    println!("{script}: {verdict}");
    assert!(verdict.contains("passed"), "{script} ended without a verdict: {text}\n{errors}");
}

/// A handler may block, for however long: its client's heartbeat goes on, and the acknowledgement arrives.
#[rstest]
#[case::socket_io_client("node", "slow-handler.mjs")]
#[case::python(".venv/bin/python", "slow_handler.py")]
#[ignore = "needs Node and Python"]
fn a_handler_runs_for_longer_than_the_heartbeat_allows_silence(
    #[case] interpreter: &str,
    #[case] script: &str,
    #[values("polling", "websocket", "upgrade")] transport: &str,
) {
    let server = Server::builder()
        .ping_interval(Duration::from_millis(300))
        .ping_timeout(Duration::from_millis(500))
        .namespace("/", |ns| {
            ns.on("echo", |_, event| event.ack(event.args()));
            ns.on("sleep", |_, event| {
                std::thread::sleep(Duration::from_millis(event.arg(0).expect("a number")));
                event.ack(event.args())
            });
        })
        .listen("127.0.0.1:0")
        .expect("the server starts");
    let url = url(&server);
    let _turn = BENCH.lock();
    let output = run(interpreter, &[script, &url, transport, "3000"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// As deep as the default allows, from the official client: plain, with bytes, and in the auth payload.
#[rstest]
#[ignore = "needs Node"]
fn deep_json_keeps_the_connection(#[values("polling", "websocket", "upgrade")] transport: &str) {
    let server = Server::builder()
        .namespace("/", |ns| {
            ns.on("echo", |_, event| event.ack(event.args()));
            ns.on("deep", |_, event| {
                let length = event.raw(0).map_or(0, |arg| arg.json().len());
                event.ack([event.args().attachments().len(), length])
            });
        })
        .listen("127.0.0.1:0")
        .expect("the server starts");
    let url = url(&server);
    let _turn = BENCH.lock();
    let output = run("node", &["deep-values.mjs", &url, transport, &limits::MAX_JSON_DEPTH.to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Random JSON from the official client through our server, back to it, and on to the `client` program and the client
/// library: halves of emojis, 401 digits, equal keys, two thousand levels, names that are empty, digits or half an
/// emoji.
#[rstest]
#[ignore = "needs Node"]
fn random_values_arrive_unchanged(
    #[values("polling", "websocket", "upgrade")] transport: &str,
    #[values(1, 2)] seed: u32,
) {
    const TURNS: usize = 150;
    let said = Arc::new(Mutex::new(Vec::new()));
    let its = said.clone();
    let server = Server::builder()
        .namespace("/", move |ns| {
            for name in ["echo", "7", r"\ud83d"] {
                let its = its.clone();
                ns.on(name, move |socket, event| {
                    let args: Vec<_> = event.args().iter().map(|arg| arg.json().to_owned()).collect();
                    its.lock().push(format!(r#"{{"event":"said","args":[{}]}}"#, args.join(",")));
                    socket.broadcast().emit("said", event.args())?;
                    event.ack(event.args())
                });
            }
        })
        .listen("127.0.0.1:0")
        .expect("the server starts");
    let url = url(&server);
    let _turn = BENCH.lock();
    // Each turn sends two events.
    let mut listener = Command::new(env!("CARGO_BIN_EXE_client"))
        .args([&url, "listen", "--json", "--count", &(2 * TURNS).to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the client starts");
    let until = Instant::now() + Duration::from_secs(10);
    while server.of("/").expect("served").is_empty() {
        assert!(Instant::now() < until, "the listener has not connected");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (seed, turns) = (seed.to_string(), TURNS.to_string());
    let client = run("node", &["random-values.mjs", &url, transport, &seed, &turns]);
    if !client.status.success() {
        // It waits for events that will not come.
        let _ = listener.kill();
    }
    let printed = listener.wait_with_output().expect("the listener ends");
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    let said = said.lock().clone();
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(printed.lines().eq(said.iter()), "seed {seed}: what was printed differs from what was said");

    let client = Client::builder(&url).build().expect("a good URL");
    let socket = client.socket("/");
    client.connect().expect("the server is there");
    for line in &said {
        let args = &line[r#"{"event":"said","args":"#.len()..line.len() - 1];
        let mut sent = OwnedArgs::default();
        for value in serde_json::from_str::<Vec<Box<RawValue>>>(args).expect("a list") {
            sent.push(&value).expect("JSON");
        }
        let back = socket.emit_with_ack("echo", &sent, Duration::from_secs(10)).expect("an answer");
        let json = |args: &OwnedArgs| args.args().iter().map(|arg| arg.json().to_owned()).collect::<Vec<_>>();
        assert_eq!(json(&back), json(&sent), "seed {seed}");
    }
    client.disconnect();
}
