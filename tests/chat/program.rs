//! The `server` program from outside: flags, exit codes, first lines, listeners, signals.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    time::Duration,
};

use rstest::rstest;

use crate::support::{PATIENCE, Peer, Program, eventually, exchange, request};

/// The contract's bound of a shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

#[test]
fn a_taken_port_is_named() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let (code, out, err) = Program::run(&["--host", "127.0.0.1", "--port", &port]);
    assert_eq!(code, Some(1));
    assert_eq!(err, format!("Port {port} is already in use. Try a different port.\n"));
    assert_eq!(out, "");
}

#[rstest]
#[case(&["--prot", "5000"], "'--prot'")]
#[case(&["--port", "http"], "'http' for '--port")]
#[case(&["--unix", "x", "--unix-mode", "rw"], "permission bits in octal")]
#[case(&["--unix-mode", "660"], "--unix")]
#[case(&["--port", "65536"], "65536")]
#[case(&["--ping-interval", "5"], "time unit")]
#[case(&["--drain", "5"], "time unit")]
#[case(&["--ping-interval", "0s"], "ping_interval must be longer than 0")]
#[case(&["--rate-burst", "0"], "--rate-burst")]
#[case(&["--max-connections", "0"], "--max-connections")]
#[case(&["--accept-burst", "0"], "--accept-burst")]
#[case(&["--byte-burst", "0"], "--byte-burst")]
#[case(&["--max-payload", "1"], "--max-payload")]
#[case(&["--trust-proxy", "10.0.0.0/33"], "range like 10.0.0.0/8")]
#[case(&["--log-level", "loud"], "'loud'")]
#[case(&["--log-format", "xml"], "'xml'")]
#[case(&["--auth-token", ""], "token of --auth-token is empty")]
#[case(&["--auth-token", "a", "--auth-token-file", "b"], "cannot be used with")]
#[case(&["--auth-token-file", "/no/such/file"], "/no/such/file")]
#[case(&["--operator", "nowhere"], "--operator")]
#[case(&["surplus"], "'surplus'")]
fn a_bad_flag_is_explained(#[case] flags: &[&str], #[case] why: &str) {
    let (code, out, err) = Program::run(&[&["--host", "127.0.0.1", "--port", "0"], flags].concat());
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains(why), "{err}");
    assert_eq!(out, "");
}

#[test]
fn an_address_that_is_not_ours_is_a_failure() {
    let (code, _, err) = Program::run(&["--host", "203.0.113.1", "--port", "0"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("cannot listen on 203.0.113.1:0"), "{err}");
}

#[test]
fn help_names_every_flag_and_its_variable() {
    let (code, help, err) = Program::run(&["--help"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for flag in [
        "--host",
        "--port",
        "--unix",
        "--unix-mode",
        "--operator",
        "--max-connections",
        "--max-connections-per-ip",
        "--accept-rate",
        "--accept-burst",
        "--byte-rate",
        "--byte-burst",
        "--rate-limit",
        "--rate-burst",
        "--max-message",
        "--max-custom-event",
        "--max-rooms",
        "--max-payload",
        "--ping-interval",
        "--ping-timeout",
        "--cors",
        "--cors-credentials",
        "--auth-token",
        "--auth-token-file",
        "--store",
        "--store-optional",
        "--drain",
        "--log-level",
        "--log-format",
        "--test-events",
    ] {
        let variable = format!("TINYSIO_{}", flag[2..].to_uppercase().replace('-', "_"));
        assert!(help.contains(flag) && help.contains(&variable), "no {flag} with {variable} in {help}");
    }
}

#[test]
fn version_is_the_package() {
    let (code, out, _) = Program::run(&["--version"]);
    assert_eq!((code, out), (Some(0), format!("server {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_first_lines_say_where() {
    let program = Program::start(&[]);
    let url = format!("http://{}", program.address());
    assert_ne!(program.address().port(), 0);
    assert_eq!(
        program.banner,
        format!(
            "Starting Socket.IO server on {url}\nHealth check: {url}/health\nPress Ctrl+C to stop the server\n"
        )
    );
    let (head, body) = request(program.address(), "GET", "/health");
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("\"healthy\""), "{head} {body}");
}

#[test]
fn all_interfaces_are_reached_by_name() {
    let program = Program::spawn(Program::command(&["--port", "0"]));
    let port = program.address().port();
    assert!(program.banner.starts_with("Starting Socket.IO server on http://0.0.0.0:"), "{}", program.banner);
    assert!(program.banner.contains(&format!("Health check: http://localhost:{port}/health\n")));
}

#[rstest]
fn a_signal_ends_it_whatever_the_clients_do(#[values("TERM", "INT")] signal: &str) {
    let mut program = Program::start(&["--rate-limit", "0", "--log-level", "warn"]);
    let address = program.address();
    let mut alice = Peer::connect(address);
    let deaf = Peer::connect(address).never_read_again();
    let half = TcpStream::connect(address).unwrap();
    let silent_poller = request(address, "GET", "/socket.io/?EIO=4&transport=polling").0;
    assert!(silent_poller.starts_with("HTTP/1.1 200"), "{silent_poller}");
    // More than the kernel keeps for one connection, less than counts as a slow consumer.
    let text = format!("\"{}\"", "x".repeat(9_990));
    for _ in 0..300 {
        alice.ask("message", &text, "message_received");
    }
    program.signal(signal);
    assert_eq!(alice.value("server_notification")["type"], "server_shutdown");
    alice.closed();
    let (code, log) = program.ended(SHUTDOWN_MAX);
    assert_eq!(code, Some(0), "{log:?}");
    drop((deaf, half));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut program = Program::start(&[]);
    // A polling client that does not come for its last packets holds the shutdown up for a while.
    let (head, _) = request(program.address(), "GET", "/socket.io/?EIO=4&transport=polling");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    program.signal("TERM");
    program.logged(&["shutting down"]);
    program.signal("TERM");
    assert_eq!(program.ended(PATIENCE).0, Some(130));
}

/// The first client goes at once and the last one is served on, until the second signal.
#[test]
fn a_drain_takes_its_clients_one_by_one() {
    let mut program = Program::start(&["--drain", "10min"]);
    let mut peers: Vec<Peer> = (0..3).map(|_| Peer::connect(program.address())).collect();
    program.signal("TERM");
    for peer in &mut peers {
        assert_eq!(peer.value("server_notification")["type"], "server_shutdown");
    }
    program.logged(&["disconnected", "server shutting down"]);
    let served = peers.iter_mut().filter_map(|peer| peer.try_call("get_server_status", "")).count();
    assert_eq!(served, 2);
    let (head, _) = request(program.address(), "GET", "/socket.io/?EIO=4&transport=polling");
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("Retry-After"), "{head}");
    assert!(request(program.address(), "GET", "/health").0.starts_with("HTTP/1.1 503"));
    program.signal("TERM");
    assert_eq!(program.ended(PATIENCE).0, Some(130));
}

#[test]
fn a_drain_is_over_when_everybody_has_gone() {
    let mut program = Program::start(&["--drain", "10min"]);
    let peers: Vec<Peer> = (0..3).map(|_| Peer::connect(program.address())).collect();
    program.signal("TERM");
    program.logged(&["disconnected", "server shutting down"]);
    drop(peers);
    assert_eq!(program.ended(PATIENCE).0, Some(0));
}

/// Sixty-four files for the whole process, and a hundred connections that say nothing.
#[test]
fn with_few_files_everybody_is_answered() {
    let mut command = Program::wrapped("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_server")]);
    command.args(["--host", "127.0.0.1", "--port", "0"]);
    let mut program = Program::spawn(command);
    program.logged(&["max_tcp_connections is", "instead of 2064", "64 open files", "ulimit -n"]);
    let mut alice = Peer::connect(program.address());
    let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(program.address()).unwrap()).collect();
    alice.ask("message", "\"still there?\"", "message_received");
    // Most that may have a place leave these, in the order in which they came.
    for stream in &crowd[64..] {
        let mut answer = String::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.take(1_000).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer:?}");
    }
    let health = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    eventually("the operator is answered while all others are there", || {
        let mut stream = TcpStream::connect(program.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        // A refused connection may get its answer before it has sent the request.
        let _ = stream.write_all(health.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        answer.starts_with("HTTP/1.1 200")
    });
    alice.ask("message", "\"and now?\"", "message_received");
    drop(crowd);
    program.signal("TERM");
    let (code, log) = program.ended(SHUTDOWN_MAX);
    let again = log.iter().filter(|line| line.contains("cannot accept")).count();
    assert_eq!((code, again), (Some(0), 0), "{log:?}");
}

#[test]
fn a_unix_socket_serves_the_same() {
    let path = temporary("sock");
    let flags = ["--unix", path.to_str().unwrap(), "--unix-mode", "660"];
    let mut program = Program::spawn(Program::command(&flags));
    assert!(program.banner.starts_with(&format!("Starting Socket.IO server on unix:{}\n", path.display())));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o660);
    let connect = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let (head, _) = exchange(connect(), "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut alice = Peer::over(connect(), &[]);
    alice.join("");
    program.logged(&["connected from unix"]);
    let (code, _, err) = Program::run(&["--unix", path.to_str().unwrap()]);
    assert_eq!(
        (code, err),
        (Some(1), format!("{} is already in use. Try a different path.\n", path.display()))
    );
    program.signal("TERM");
    assert_eq!(program.ended(SHUTDOWN_MAX).0, Some(0));
    assert!(!path.exists(), "the socket file was left behind");
}

#[test]
fn a_token_file_guards_the_door() {
    let path = temporary("token");
    fs::write(&path, "s3cret\n").unwrap();
    let program = Program::start(&["--auth-token-file", path.to_str().unwrap()]);
    let mut alice = Peer::open(program.address());
    alice.send("40");
    assert_eq!(alice.packet("the refusal").text, r#"44{"message":"Unauthorized"}"#);
    program.logged(&["WARN", "refused 127.0.0.1:", "no token"]);
    alice.join(r#"{"token":"s3cret"}"#);
    fs::remove_file(path).unwrap();
}

#[test]
fn an_empty_token_file_lets_nobody_think_it_is_safe() {
    let path = temporary("empty");
    fs::write(&path, "\n").unwrap();
    let (code, _, err) = Program::run(&["--auth-token-file", path.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(err.contains("is empty"), "{err}");
    fs::remove_file(path).unwrap();
}

#[test]
fn the_environment_speaks_for_flags() {
    let mut command = Program::command(&["--max-message", "7"]);
    command.envs([
        ("TINYSIO_HOST", "127.0.0.1"),
        ("TINYSIO_PORT", "0"),
        ("TINYSIO_AUTH_TOKEN", "t"),
        ("TINYSIO_MAX_MESSAGE", "3"),
        ("TINYSIO_MAX_ROOMS", "1"),
        ("TINYSIO_TEST_EVENTS", "true"),
    ]);
    let program = Program::spawn(command);
    let mut alice = Peer::open(program.address());
    alice.join(r#"{"token":"t"}"#);
    // A flag goes before the environment.
    alice.ask("message", "\"1234567\"", "message_received");
    assert!(alice.ask("message", "\"12345678\"", "error").contains("(max 7 characters)"));
    alice.ask("join_room", r#"{"room":"a"}"#, "room_joined");
    assert!(alice.ask("join_room", r#"{"room":"b"}"#, "error").contains("Too many rooms (max 1)"));
    assert_eq!(alice.call("echo", "1"), "[1]");
}

#[test]
fn the_token_is_not_in_the_help() {
    let mut command = Program::command(&["--help"]);
    let help = command.env("TINYSIO_AUTH_TOKEN", "hunter2").output().unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("hunter2"));
}

/// Which pages may connect, and whether with the user's cookies: only when that is asked for.
#[rstest]
#[case(&[], "https://anywhere.example", Some("*"), false)]
#[case(&["--cors-credentials"], "https://any.example", Some("https://any.example"), true)]
#[case(&["--cors", "https://a.example", "https://b.example"], "https://b.example", Some("https://b.example"), false)]
#[case(&["--cors", "https://a.example", "--cors-credentials"], "https://a.example", Some("https://a.example"), true)]
#[case(&["--cors", "https://a.example"], "https://b.example", None, false)]
fn origins_are_checked(
    #[case] flags: &[&str],
    #[case] origin: &str,
    #[case] allowed: Option<&str>,
    #[case] credentials: bool,
) {
    let program = Program::start(flags);
    let stream = TcpStream::connect(program.address()).unwrap();
    let (head, _) = exchange(
        stream,
        &format!(
            "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n"
        ),
    );
    assert_eq!(head.starts_with("HTTP/1.1 200"), allowed.is_some(), "{head}");
    let given = head.lines().find_map(|line| line.strip_prefix("Access-Control-Allow-Origin: "));
    assert_eq!(given, allowed, "{head}");
    assert_eq!(head.contains("Access-Control-Allow-Credentials: true"), credentials, "{head}");
}

#[test]
fn the_operator_has_a_listener_of_its_own() {
    let mut program = Program::start(&["--operator", "127.0.0.1:0"]);
    let operator = program.operator();
    let mut alice = Peer::connect(program.address());
    alice.ask("message", "null", "error");
    let (head, metrics) = request(operator, "GET", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("version=0.0.4"), "{head}");
    for figure in ["tinysio_clients 1\n", "tinysio_connects_total 1\n", "tinysio_refusals_total 1\n"] {
        assert!(metrics.contains(figure), "{figure} in {metrics}");
    }
    assert!(request(operator, "GET", "/health").1.contains("\"healthy\""));
    assert!(request(operator, "POST", "/metrics").0.starts_with("HTTP/1.1 405"));
    assert!(request(operator, "GET", "/").0.starts_with("HTTP/1.1 404"));
    assert!(request(program.address(), "GET", "/metrics").0.starts_with("HTTP/1.1 404"));
    program.signal("TERM");
    assert_eq!(program.ended(SHUTDOWN_MAX).0, Some(0));
}

/// A storm is let in by and by, and who is not, hears when to come again.
#[test]
fn the_door_has_a_pace_and_an_address_its_share() {
    let program = Program::start(&["--accept-rate", "1", "--accept-burst", "2"]);
    let heads: Vec<String> =
        (0..8).map(|_| request(program.address(), "GET", "/socket.io/?EIO=4&transport=polling").0).collect();
    assert!(heads[0].starts_with("HTTP/1.1 200"), "{heads:?}");
    let refused = heads.iter().filter(|head| head.starts_with("HTTP/1.1 503")).count();
    assert!(refused >= 3 && heads.iter().any(|head| head.contains("Retry-After: 1")), "{heads:?}");
    // This machine is not counted.
    let program = Program::start(&["--max-connections-per-ip", "1"]);
    let _both = [Peer::connect(program.address()), Peer::connect(program.address())];
}

/// Handshakes that join nothing fill the server too; nobody is in the chat, and nobody can come in.
#[test]
fn a_server_full_of_handshakes_is_degraded() {
    let program = Program::start(&["--max-connections", "2", "--operator", "127.0.0.1:0"]);
    let handshake = || request(program.address(), "GET", "/socket.io/?EIO=4&transport=polling").0;
    let health = |address| request(address, "GET", "/health");
    assert!(handshake().starts_with("HTTP/1.1 200") && handshake().starts_with("HTTP/1.1 200"));
    assert!(handshake().starts_with("HTTP/1.1 503"));
    for address in [program.address(), program.operator()] {
        let (head, body) = health(address);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body.contains(r#""status":"degraded","clients":0,"#), "{body}");
        assert!(body.contains("new clients are refused: 2 of 2 sessions"), "{body}");
    }
    let (_, metrics) = request(program.operator(), "GET", "/metrics");
    for figure in [
        "tinysio_sessions 2\n",
        "tinysio_sessions_max 2\n",
        "tinysio_refused_total{reason=\"max_connections\"} 1\n",
        "tinysio_refused_total{reason=\"bad_request\"} 0\n",
    ] {
        assert!(metrics.contains(figure), "{figure} in {metrics}");
    }
}

/// A path of our own, where nothing is yet.
fn temporary(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tinysio-{}-{name}", std::process::id()));
    // It may not be there.
    let _ = fs::remove_file(&path);
    path
}
