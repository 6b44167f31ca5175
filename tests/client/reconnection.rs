//! Reconnection: how often, how long until the next attempt, and when it ends.

use std::{net::TcpListener, time::Duration};

use rstest::rstest;
use tinysio::client::{Client, CloseReason, ConnectionState, TransportKind};

use crate::{
    hostile::{OPEN, says},
    support::{LONG, Way, cpu_of_threads, hear, own_server, quick, until, url_of},
};

#[rstest]
fn a_loop_of_attempts_costs_nothing(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = way
        .set(Client::builder(&format!("http://127.0.0.1:{port}")))
        .reconnection_delay(Duration::from_millis(300))
        .randomization_factor(0.0)
        .reconnection_delay_max(Duration::from_millis(300))
        .build()
        .unwrap();
    let _ = client.connect();
    let (before, attempts) = (cpu_of_threads("sio-"), client.stats().attempts);
    std::thread::sleep(Duration::from_secs(2));
    let (spent, tried) = (cpu_of_threads("sio-").saturating_sub(before), client.stats().attempts - attempts);
    assert!((4..=7).contains(&tried), "{tried} attempts in 2 s");
    // All clients of this process together: other tests run beside this one.
    println!("{spent:?} of processor time in 2 s, {tried} attempts");
}

#[test]
fn a_crowd_of_attempts_that_open_and_fail_is_slowed_down_too() {
    // Opens each session, and ends it before anybody could join.
    let url = says(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{OPEN}\u{1e}1", OPEN.len() + 2));
    let client = Client::builder(&url)
        .transports(&[TransportKind::Polling])
        .reconnection_delay(Duration::from_millis(50))
        .reconnection_delay_max(Duration::from_secs(5))
        .randomization_factor(0.0)
        .build()
        .unwrap();
    assert!(client.connect().is_err());
    std::thread::sleep(Duration::from_secs(1));
    // 50, 100, 200, 400 ms …; without the doubling it would be twenty.
    let attempts = client.stats().attempts;
    assert!((4..=6).contains(&attempts), "{attempts} attempts in 1 s");
}

#[test]
fn the_attempts_are_used_up() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = quick(&format!("http://127.0.0.1:{port}")).reconnection_attempts(3).build().unwrap();
    let (said, heard) = hear("the story of the attempts");
    let tell = said.clone();
    client.on_reconnect_attempt(move |_, n| tell.send(format!("attempt {n}")).unwrap());
    let tell = said.clone();
    client.on_reconnect_error(move |_, _| tell.send("error".into()).unwrap());
    let tell = said.clone();
    client.on_reconnect_failed(move |_| tell.send("failed".into()).unwrap());
    client.socket("/").on_connect_error(move |_, _| said.send("connect_error".into()).unwrap());
    assert!(client.connect().is_err());
    assert!(client.wait_connected(LONG).is_err());
    let story: Vec<_> = std::iter::from_fn(|| heard.within(Duration::from_millis(300))).collect();
    let mut expected = vec!["connect_error".to_owned()];
    for n in 1..=3 {
        expected.extend([format!("attempt {n}"), "connect_error".into(), "error".into()]);
    }
    expected.push("failed".into());
    assert_eq!(story, expected);
    assert_eq!(client.stats().attempts, 4);
    // From anew.
    client.reconnect_now();
    until("new attempts", || client.stats().attempts == 8);
}

#[test]
fn a_delay_can_be_cut_short() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = Client::builder(&format!("http://127.0.0.1:{port}"))
        .reconnection_delay(Duration::from_secs(3_600))
        .reconnection_delay_max(Duration::from_secs(3_600))
        .build()
        .unwrap();
    assert!(client.connect().is_err());
    until("the delay", || client.status().state == ConnectionState::Reconnecting);
    assert!(client.status().next_attempt_in.unwrap() > Duration::from_secs(1_000));
    for n in 2..5 {
        client.reconnect_now();
        until("the next attempt", || client.stats().attempts == n);
    }
    client.disconnect();
    assert_eq!(client.status().state, ConnectionState::Disconnected);
    assert_eq!(client.wait().unwrap(), Some(CloseReason::IoClientDisconnect));
}

#[test]
fn durations_without_end_are_no_trap() {
    let server = own_server("127.0.0.1:0");
    let client = Client::builder(&url_of(&server))
        .timeout(Duration::MAX)
        .reconnection_delay(Duration::MAX)
        .reconnection_delay_max(Duration::MAX)
        .ack_timeout(Duration::MAX)
        .build()
        .unwrap();
    client.connect().unwrap();
    client.socket("/").emit_with_ack("echo", (), Duration::MAX).unwrap();
    client.wait_connected(Duration::MAX).unwrap();
    drop(server);
    until("the delay", || client.status().state == ConnectionState::Reconnecting);
    client.disconnect_within(Duration::MAX).unwrap();
}
