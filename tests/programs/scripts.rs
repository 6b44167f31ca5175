//! `client emit`, `listen`, `health`: what scripts see of them.

use std::{
    fs,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tinysio::{
    chat::Options,
    server::{Response, Server, StatusCode},
};

use crate::{
    program::{CLIENT, run, start},
    served::{Served, free_port},
};

#[test]
fn emit_delivers() {
    let served = Served::new();
    let url = served.url();
    let listening = start(CLIENT, &[&url, "listen", "broadcast_message", "--json", "--count", "2"], "");
    served.waits_for_clients(1);
    run(CLIENT, &[&url, "emit", "message", "plain text"]).exits(0);
    run(CLIENT, &[&url, "emit", "message", r#"{"z":1,"a":[true,null]}"#, "--transport", "polling"]).exits(0);
    let ran = listening.ends().exits(0);
    let heard: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(heard[0]["event"], "broadcast_message");
    assert_eq!(heard[0]["args"][0]["message"], "plain text");
    assert_eq!(heard[1]["args"][0]["message"], json!({"z": 1, "a": [true, null]}));
}

#[test]
fn acknowledgements_are_printed() {
    let served = Served::new();
    let args = [&served.url(), "emit", "echo", "1", "two", r#"{"three":3}"#, "--ack"];
    assert_eq!(run(CLIENT, &args).exits(0).out, "[1,\"two\",{\"three\":3}]\n");
}

#[test]
fn bytes_go_both_ways() {
    let served = Served::new();
    let file = std::env::temp_dir().join(format!("tinysio-programs-{}", std::process::id()));
    fs::write(&file, b"\0\x01\xff").unwrap();
    let file = file.to_str().unwrap();
    let ran = run(CLIENT, &[&served.url(), "emit", "echo", "name", "--binary", file, "--ack"]).exits(0);
    assert_eq!(ran.out, "[\"name\",{\"base64\":\"AAH/\"}]\n");
    fs::remove_file(file).unwrap();
    let ran =
        start(CLIENT, &[&served.url(), "emit", "echo", "--binary", "-", "--ack"], "abc").ends().exits(0);
    assert_eq!(ran.out, "[{\"base64\":\"YWJj\"}]\n");
}

#[test]
fn a_room_is_joined_before() {
    let served = Served::new();
    let url = served.url();
    let listening = start(CLIENT, &[&url, "listen", "room_broadcast", "--count", "1", "--room", "team"], "");
    served.waits_for_clients(1);
    run(CLIENT, &[&url, "emit", "room_message", "lunch?", "--room", "team", "--ack"]).exits(0);
    listening.ends().exits(0).says("lunch?").says("room_broadcast {");
}

#[test]
fn exit_codes() {
    let served = Served::new();
    let url = served.url();
    run(CLIENT, &[&url, "emit", "join_room", "{}", "--ack"]).exits(3).complains("'room' field required");
    run(CLIENT, &[&url, "emit", "room_message", "x", "--room", "a&b"])
        .exits(3)
        .complains("Room name contains invalid characters");
    run(CLIENT, &[&url, "emit", "message", "{"]).exits(2).complains("no JSON");
    run(CLIENT, &[&url, "emit", "connect"]).exits(2).complains("protocol");
    run(CLIENT, &[&url, "emit", "x", "--binary", "/nonexistent"]).exits(2).complains("/nonexistent");
    run(CLIENT, &["ftp://x", "emit", "x"]).exits(2).complains("scheme");
    run(CLIENT, &["emmit"]).exits(2).complains("neither a command nor a URL");
    run(CLIENT, &[&url, "listen", "--count", "0"]).exits(2);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    run(CLIENT, &[&nobody, "emit", "x"]).exits(1).complains("Connection refused");
    run(CLIENT, &[&nobody, "listen", "--max-attempts", "1", "--speed", "20"]).exits(1);
    run(CLIENT, &[&nobody, "health"]).exits(1).complains("Connection refused");
}

#[test]
fn no_answer_is_4() {
    let server = Server::builder().namespace("/", |_| {}).listen("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    run(CLIENT, &[&url, "emit", "x", "--ack", "--timeout", "300ms"]).exits(4).complains("acknowledgement");
    run(CLIENT, &[&url, "emit", "x"]).exits(0);
    run(CLIENT, &[&url, "health"]).exits(1).complains("HTTP status 404");
}

/// Nobody handles it, so nobody may take it for handled.
#[test]
fn an_unknown_event_gets_no_answer() {
    let served = Served::new();
    let args = [&served.url(), "emit", "nosuch", "1", "--ack", "--timeout", "500ms"];
    let ran = run(CLIENT, &args).exits(4).complains("acknowledgement");
    assert_eq!(ran.out, "");
}

#[test]
fn a_token_opens_the_door() {
    let options = Options { auth_token: Some("sesame".into()), ..Options::default() };
    let served = Served::with(options, |builder| builder);
    let url = served.url();
    run(CLIENT, &[&url, "emit", "message", "x"]).exits(3).complains("Unauthorized");
    run(CLIENT, &[&url, "listen"]).exits(3).complains("Unauthorized");
    run(CLIENT, &[&url, "emit", "message", "x", "--ack", "--auth-token", "sesame"]).exits(0);
}

#[test]
fn listen_survives_a_loss_with_its_room() {
    let mut served = Served::new();
    let url = served.url();
    let args = [&url, "listen", "room_broadcast", "--count", "1", "--room", "team", "--speed", "10"];
    let listening = start(CLIENT, &args, "");
    served.waits_for_clients(1);
    served.kill();
    served.restart();
    served.waits_for_clients(1);
    // Its join may still be on the way, so until it has heard one.
    let (done, is_done) = std::sync::mpsc::channel();
    let speaker = thread::Builder::new().spawn(move || {
        while is_done.recv_timeout(Duration::from_millis(50)).is_err() {
            run(CLIENT, &[&url, "emit", "room_message", "back?", "--room", "team"]);
        }
    });
    listening.ends().exits(0).says("back?");
    done.send(()).unwrap();
    speaker.unwrap().join().unwrap();
}

/// A listener in the background is expected to be there when its server is back, hours later.
#[test]
fn listen_goes_on_after_more_than_five_failures() {
    let broken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", broken.local_addr().unwrap());
    let listening = start(CLIENT, &[&url, "listen", "--speed", "1000"], "");
    broken.set_nonblocking(true).unwrap();
    let (mut attempts, deadline) = (0, Instant::now() + Duration::from_secs(20));
    while attempts < 20 {
        match broken.accept() {
            Ok(_) => attempts += 1,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
        assert!(Instant::now() < deadline, "{attempts} attempts");
    }
    let pid = Pid::from_raw(i32::try_from(listening.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    listening.ends().exits(0);
    run(CLIENT, &[&url, "listen", "--max-attempts", "2", "--speed", "1000", "--timeout", "1s"]).exits(1);
}

#[test]
fn health() {
    let served = Served::new();
    run(CLIENT, &[&served.url(), "health"]).exits(0).says(r#""status":"healthy""#);
}

/// Many a server answers 200 to everything.
#[rstest]
#[case::text(200, "OK", 1, "that is not the health of a tinysio server")]
#[case::other_json(200, r#"{"status":"healthy"}"#, 1, "that is not the health of a tinysio server")]
#[case::degraded(200, &answer("degraded"), 0, "the server is degraded")]
#[case::stopping(503, &answer("shutting_down"), 1, "the server is shutting_down")]
#[case::healthy(200, &answer("healthy"), 0, "")]
fn health_looks_at_the_answer(
    #[case] status: u16,
    #[case] body: &str,
    #[case] code: i32,
    #[case] complaint: &str,
) {
    let answer = body.to_owned();
    let server = Server::builder()
        .namespace("/", |_| {})
        .route("/health", move |_| {
            Response::from_string(answer.as_str()).with_status_code(StatusCode(status))
        })
        .listen("127.0.0.1:0")
        .unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    run(CLIENT, &[&url, "health"]).exits(code).says(body).complains(complaint);
}

fn answer(status: &str) -> String {
    format!(r#"{{"status":"{status}","clients":0,"timestamp":1.0,"uptime":1.0,"version":"0.1.0"}}"#)
}

#[test]
fn through_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("tinysio-programs-{}.sock", std::process::id()));
    let chat = tinysio::chat::Chat::new(Options { test_events: true, ..Options::default() });
    let _server = chat.install(Server::builder()).listen_unix(&path).unwrap();
    let url = format!("unix://{}", path.display());
    assert_eq!(run(CLIENT, &[&url, "emit", "echo", "7", "--ack"]).exits(0).out, "[7]\n");
    run(CLIENT, &[&url, "health"]).exits(0);
}

#[test]
fn help_tells_everything() {
    let ran = run(CLIENT, &["--help"]).exits(0);
    let ran = ran.says("emit").says("listen").says("health").says("demo").says("validate").says("errors");
    ran.says("--max-attempts").says("Exit codes");
    run(CLIENT, &["emit", "--help"]).exits(0).says("--room").says("--binary").says("--ack");
}

/// As many lists around bytes.
struct Around(usize);

impl Serialize for Around {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0 => serializer.serialize_bytes(b"b"),
            levels => [Self(levels - 1)].serialize(serializer),
        }
    }
}

/// As deep as it may come, JSON is printed as it came. Bytes under more levels than can be written are an error on
/// standard error, not a line that says something else.
#[test]
fn deep_json_is_printed_or_an_error() {
    let server = Server::builder()
        .namespace("/", |ns| {
            ns.on("say", |socket, event| {
                socket.broadcast().emit("bytes", Around(64))?;
                socket.broadcast().emit("plain", event.args())?;
                event.ack(event.args())
            });
            ns.on("bytes", |_, event| event.ack(Around(64)));
        })
        .listen("127.0.0.1:0")
        .unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let listening = start(CLIENT, &[&url, "listen", "--json", "--count", "1"], "");
    let until = Instant::now() + Duration::from_secs(20);
    while server.of("/").unwrap().is_empty() {
        assert!(Instant::now() < until, "the listener has not connected");
        thread::sleep(Duration::from_millis(10));
    }
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    let ran = run(CLIENT, &[&url, "emit", "say", &deep, "--ack"]).exits(0);
    assert_eq!(ran.out, format!("[{deep}]\n"));
    let ran = listening.ends().exits(0).complains("more than 64 levels");
    assert_eq!(ran.out, format!("{{\"event\":\"plain\",\"args\":[{deep}]}}\n"));
    let ran = run(CLIENT, &[&url, "emit", "bytes", "--ack"]).exits(1).complains("more than 64 levels");
    assert_eq!(ran.out, "");
}
