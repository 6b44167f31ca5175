//! The `server` program when the system fails it: system calls with errors (by `strace`), a process that sleeps, a
//! full disk.
//!
//! Each row says which call fails, how and when, and what may come of it. `when` counts the calls of each thread on
//! its own, so every connection's thread meets the failure. Afterwards the server must serve all three transports,
//! answer `/health`, and end with 0 on SIGTERM. What needs `strace`, and the permission to trace, is ignored by
//! default: `cargo test --test injection -- --include-ignored`.
#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod peer;
mod program;

use std::{
    fs::OpenOptions,
    sync::mpsc,
    time::{Duration, Instant},
};

use peer::{Living, Transport, talk};
use program::Served;
use rstest::rstest;
use rustix::process::Signal;

const TRANSPORTS: [Transport; 3] = [Transport::WebSocket, Transport::Polling, Transport::Upgrade];

/// How many clients may fail before one must be served: each thread meets a failure at most so often in these rows,
/// and there are a few threads at rest.
const TRIES: usize = 12;

/// What may come of a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// Nobody notices.
    Served,
    /// Whose call it was is let go; the others notice nothing.
    Closed,
}

#[rstest]
#[case::eintr_in_recv("recvfrom:error=EINTR:when=1+2", Outcome::Served)]
#[case::eintr_in_send("sendto:error=EINTR:when=1+2", Outcome::Served)]
#[case::eintr_in_poll("poll,ppoll:error=EINTR:when=1+2", Outcome::Served)]
#[case::eintr_in_epoll("epoll_wait,epoll_pwait,epoll_pwait2:error=EINTR:when=1+2", Outcome::Served)]
#[case::eintr_in_accept("accept4:error=EINTR:when=1+2", Outcome::Served)]
// The first two tell the signals' library whether it writes to a socket.
#[case::kernel_is_full("sendto:error=EAGAIN:when=3+2", Outcome::Served)]
#[case::no_descriptor("accept4:error=EMFILE:when=1..3", Outcome::Closed)]
#[case::no_descriptor_anywhere("accept4:error=ENFILE:when=1..3", Outcome::Closed)]
#[case::peer_gone_before_accept("accept4:error=ECONNABORTED:when=1+2", Outcome::Served)]
#[case::no_buffers_to_accept("accept4:error=ENOBUFS:when=1..3", Outcome::Served)]
#[case::no_memory_to_accept("accept4:error=ENOMEM:when=1..3", Outcome::Served)]
#[case::no_memory_to_poll("poll,ppoll:error=ENOMEM:when=3", Outcome::Closed)]
#[case::no_read_timeout("setsockopt:error=ENOBUFS:when=2", Outcome::Closed)]
#[case::no_buffers_1("sendto:error=ENOBUFS:when=1", Outcome::Closed)]
#[case::no_buffers_2("sendto:error=ENOBUFS:when=2", Outcome::Closed)]
#[case::no_buffers_3("sendto:error=ENOBUFS:when=3", Outcome::Closed)]
#[case::reset_at_send_1("sendto:error=ECONNRESET:when=1", Outcome::Closed)]
#[case::reset_at_send_2("sendto:error=ECONNRESET:when=2", Outcome::Closed)]
#[case::reset_at_send_3("sendto:error=ECONNRESET:when=3", Outcome::Closed)]
#[case::reset_at_send_4("sendto:error=EPIPE:when=4", Outcome::Closed)]
#[case::reset_at_recv_1("recvfrom:error=ECONNRESET:when=1", Outcome::Closed)]
#[case::reset_at_recv_2("recvfrom:error=ECONNRESET:when=2", Outcome::Closed)]
#[case::reset_at_recv_3("recvfrom:error=ECONNRESET:when=3", Outcome::Closed)]
#[case::reset_at_recv_4("recvfrom:error=ETIMEDOUT:when=4", Outcome::Closed)]
#[ignore = "needs strace"]
fn a_failing_call(#[case] injected: &str, #[case] outcome: Outcome) {
    let server = Served::traced(injected, &[]);
    serves(&server, injected, outcome);
    let errors = server.stop();
    assert!(!errors.contains("panicked"), "{injected}: {errors}");
    let refusals = errors.matches("cannot accept connections for now").count();
    assert!(refusals <= 1, "said once, not each time: {errors}");
    let exhausts = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]
        .iter()
        .any(|error| injected.starts_with("accept4") && injected.contains(error));
    assert_eq!(refusals == 1, exhausts, "{errors}");
}

/// What fails only after the start. A thread: for a successor of the leader, or for the end.
#[rstest]
#[case::no_thread_a_few_times("clone3,clone:error=EAGAIN:when=1..3", Outcome::Served)]
#[case::no_thread_at_all("clone3,clone:error=EAGAIN:when=1+", Outcome::Served)]
#[case::epoll_takes_nothing("epoll_ctl:error=ENOSPC:when=1..4", Outcome::Closed)]
#[ignore = "needs strace"]
fn a_failing_call_after_the_start(#[case] injected: &str, #[case] outcome: Outcome) {
    let server = Served::traced_after_start(injected);
    serves(&server, injected, outcome);
    let errors = server.stop();
    assert!(!errors.contains("panicked"), "{injected}: {errors}");
}

/// Clients of all transports are served, after a few failures at most.
fn serves(server: &Served, injected: &str, outcome: Outcome) {
    for transport in TRANSPORTS {
        let mut failures = 0;
        while let Err(failure) = talk(server.port, transport) {
            failures += 1;
            assert!(outcome == Outcome::Closed, "{injected}: {transport:?}: {failure}\n{}", server.errors());
            assert!(
                failures < TRIES,
                "{injected}: {transport:?} is never served: {failure}\n{}",
                server.errors()
            );
        }
    }
}

/// What the server needs to begin with; without it, it says so and ends with 1.
#[rstest]
#[case::no_epoll("epoll_create1:error=EMFILE:when=1")]
#[case::no_eventfd("eventfd2:error=ENFILE:when=1")]
#[case::no_thread("clone3:error=EAGAIN:when=2")]
#[case::a_sandbox_refuses_the_thread_of_the_log("clone3:error=EPERM:when=1")]
#[case::a_sandbox_refuses_the_thread_of_ctrl_c("clone3:error=EPERM:when=2")]
#[case::a_sandbox_refuses_the_thread_of_signals("clone3:error=EPERM:when=3")]
#[case::a_sandbox_refuses_the_threads_of_the_server("clone3:error=EPERM:when=4")]
#[case::no_socket("socket:error=EACCES:when=1")]
#[case::port_taken("bind:error=EADDRINUSE:when=1")]
#[case::cannot_listen("listen:error=ENOBUFS:when=1")]
#[ignore = "needs strace"]
fn a_start_that_fails(#[case] injected: &str) {
    let (code, errors) = Served::does_not_start(injected);
    assert_eq!(code, Some(1), "{injected}: {errors}");
    assert!(!errors.contains("panicked") && !errors.trim().is_empty(), "{injected}: {errors}");
    // Who is refused threads by a sandbox is told what to look at.
    assert_eq!(errors.contains("system call clone3"), injected.contains("EPERM"), "{errors}");
}

/// A machine that was suspended, or a process that was stopped, for longer than a client has time to answer:
/// deadlines have passed while answers lay unread. Who still answers stays.
#[rstest]
fn a_sleep_that_is_longer_than_the_heartbeat(
    #[values(Transport::WebSocket, Transport::Polling, Transport::Upgrade)] transport: Transport,
    #[values(true, false)] just_pinged: bool,
) {
    let server = Served::new(&["--ping-interval", "500ms", "--ping-timeout", "500ms"]);
    let (pinged, pings) = mpsc::channel();
    let clients: Vec<_> = (0..8).map(|_| Living::new(server.port, transport, pinged.clone())).collect();
    for slept in [700, 1500] {
        if just_pinged {
            // The client that was pinged answers a server that sleeps already.
            let answer = pings.recv_timeout(Duration::from_secs(10)).unwrap();
            server.signal(Signal::STOP);
            drop(answer);
        } else {
            server.signal(Signal::STOP);
        }
        let until = Instant::now() + Duration::from_millis(slept);
        while let Ok(answer) = pings.recv_timeout(until.saturating_duration_since(Instant::now())) {
            drop(answer);
        }
        server.signal(Signal::CONT);
        // Two whole heartbeats in which it could go wrong.
        let until = Instant::now() + Duration::from_millis(2200);
        while let Ok(answer) = pings.recv_timeout(until.saturating_duration_since(Instant::now())) {
            drop(answer);
        }
        let lost = clients.iter().filter(|client| !client.is_alive()).count();
        assert_eq!(lost, 0, "of 8, after {slept} ms\n{}", server.errors());
    }
    // Who does not answer is still found out.
    let silent = peer::silent(server.port);
    assert!(peer::ends_within(silent, Duration::from_secs(10)), "a silent client stays for ever");
    drop(pings);
    server.stop();
}

/// The store's disk is full, or breaks, at the start or later: the server goes on without it, and says so.
#[rstest]
#[case::full("pwrite64:error=ENOSPC:when=40+", 64)]
#[case::full_at_once("pwrite64:error=ENOSPC:when=1+", 1)]
#[case::broken("fdatasync:error=EIO:when=5+", 64)]
#[ignore = "needs strace"]
fn a_store_that_fails(#[case] injected: &str, #[case] clients: usize) {
    let path = std::env::temp_dir().join(format!("tinysio-{}-{}", std::process::id(), injected.len()));
    // It may not be there.
    let _ = std::fs::remove_file(&path);
    let server = Served::traced(injected, &["--store", path.to_str().unwrap(), "--store-optional"]);
    for _ in 0..clients {
        for transport in TRANSPORTS {
            talk(server.port, transport).unwrap();
        }
    }
    let health = peer::health(server.port).unwrap();
    assert!(health.contains(r#""status":"degraded""#) && health.contains(r#""store":"failed: "#), "{health}");
    let errors = server.stop();
    assert!(errors.contains("goes on without it") || errors.contains("starts without it"), "{errors}");
    // A file at the path is what a later try to open the store has begun.
    let aside = [".failed", ".damaged"].map(|suffix| format!("{}{suffix}", path.display()));
    let is_aside = aside.iter().any(|aside| std::path::Path::new(aside).exists());
    assert!(is_aside || clients == 1, "what it has kept until then could be believed: {errors}");
    for path in aside.iter().map(std::path::PathBuf::from).chain([path]) {
        let _ = std::fs::remove_file(path);
    }
}

/// Where the log goes there is no room.
#[rstest]
#[case::text(&["--log-level", "debug"])]
#[case::json(&["--log-level", "debug", "--log-format", "json"])]
fn a_full_disk(#[case] args: &[&str]) {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let server = Served::with_errors_to(full(), args);
    for transport in TRANSPORTS {
        talk(server.port, transport).unwrap();
    }
    server.stop();
}
