//! Attacks on what there is little of: files, places, bytes that wait.

use std::time::Duration;

use Transport::{Polling, WebSocket};
use rstest::rstest;

use crate::{
    scenario::{goodbye, scenario_of},
    server::{FILES_LEFT, Kind},
    support::{Client, Http, Transport, Ws, eventually, socket_target},
};

/// tiny_http and other servers stop accepting for ever when the files run out. Here new connections are refused with an
/// answer, the log has one line, and the server goes on.
#[test]
fn no_files_are_left() {
    scenario_of(Kind::FewFiles).ends_anyhow().may_log_errors().run_with(|subject| {
        let mut crowd: Vec<Http> = (0..2 * FILES_LEFT).map(|_| Http::connect(subject.addr)).collect();
        eventually("the server says that it has no files", || subject.report().errors > 0);
        for http in &mut crowd[FILES_LEFT as usize..] {
            let refused = http.response("the refusal");
            assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
            http.ends("a connection for which there is no file");
        }
        // Long enough to say it again, and again.
        std::thread::sleep(Duration::from_millis(300));
        assert!(subject.report().errors <= 2, "it says so again and again");
        drop(crowd);
        eventually("there are files again", || Http::connect(subject.addr).get("/health").body == "ok");
        eventually("nothing is left of the crowd", || subject.usage().sockets < FILES_LEFT as usize / 2);
        goodbye(Client::connected(subject.addr, WebSocket));
    });
}

/// A held GET has a descriptor of its own while a thread waits for it; without one it is parked at once.
#[test]
fn polls_are_held_when_no_files_are_left() {
    scenario_of(Kind::FewFiles).ends_anyhow().may_log_errors().run_with(|subject| {
        let mut clients: Vec<Client> = (0..4).map(|_| Client::new(subject.addr, Polling)).collect();
        let crowd: Vec<Http> = (0..FILES_LEFT).map(|_| Http::connect(subject.addr)).collect();
        eventually("the server says that it has no files", || subject.report().errors > 0);
        for client in &mut clients {
            client.join("/", "");
            client.ask();
            client.send(r#"420["echo",1]"#);
            client.expect("430[1]");
        }
        drop(crowd);
        clients.into_iter().for_each(goodbye);
    });
}

/// As many connections as there are places; the next ones hear it at once.
#[test]
fn no_connections_are_left() {
    scenario_of(Kind::Small).run(|addr| {
        // Three places are the control clients'; one of these may be the first that is turned away.
        let mut crowd: Vec<Http> = (0..60).map(|_| Http::connect(addr)).collect();
        for http in &mut crowd[40..] {
            let refused = http.response("the refusal");
            assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
            http.ends("a refused connection");
        }
        drop(crowd);
        eventually("there is room again", || Http::connect(addr).get("/health").status == 200);
    });
}

/// As many sessions as there are seats; the next ones hear it, and once the others have gone there is room.
#[rstest]
fn no_sessions_are_left(#[values(Polling, WebSocket)] transport: Transport) {
    scenario_of(Kind::Small).ends(&["transport close"; 18]).run(|addr| {
        let seated: Vec<Client> = (0..18).map(|_| Client::connected(addr, transport)).collect();
        for _ in 0..5 {
            let refused = match transport {
                Polling => Http::connect(addr).get(&socket_target("polling", "")),
                _ => Ws::try_open(addr, &socket_target("websocket", ""), "").err().expect("a refusal"),
            };
            assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
        }
        seated.into_iter().for_each(goodbye);
    });
}

/// Readers that never read, as many as may be: what waits for all of them together has a bound too.
#[rstest]
fn no_memory_is_left(#[values(Polling, WebSocket)] transport: Transport) {
    // The kernel's own buffers, some megabytes a connection, are not the process's.
    scenario_of(Kind::Small).ends_anyhow().peak(6 << 10).run(|addr| {
        let mut clients: Vec<Client> = (0..12).map(|_| Client::connected(addr, transport)).collect();
        for _ in 0..30 {
            for client in &mut clients {
                if transport == Polling {
                    let target = client.target("polling");
                    Http::connect(addr).post(&target, r#"42["give",9000,3]"#);
                } else {
                    client.send(r#"42["give",90000,3]"#);
                }
            }
        }
    });
}
