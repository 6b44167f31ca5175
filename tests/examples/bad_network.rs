//! `examples/bad_network.rs`: every measurement arrives once and in order over a network that is cut again and again.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tinysio::server::{ConnectionStateRecovery, HandlerResult, Server};

use crate::{PATIENCE, bad_network_example as example, relay::Relay, seen, url};

const COUNT: u64 = 100;

#[test]
fn every_measurement_arrives_once_and_in_order() {
    let (sender, measurements) = seen();
    let server = Server::builder()
        .connection_state_recovery(ConnectionStateRecovery::new())
        .namespace("/", move |ns| {
            ns.on("message", move |_, event| -> HandlerResult {
                sender.send(event.arg::<Value>(0)?)?;
                Ok(event.ack(())?)
            });
        })
        .listen("127.0.0.1:0")
        .unwrap();
    let mut relay = Relay::to(&url(&server)).unwrap().unwrap();
    let through_relay = relay.url(&url(&server));
    let client = thread::Builder::new()
        .spawn(move || example::run(&through_relay, COUNT, Duration::from_millis(20)))
        .unwrap();
    let mut numbers = Vec::new();
    for cut in 1..=2 {
        while numbers.len() < cut * 20 {
            numbers.push(measurements.next());
        }
        relay.cut();
        thread::sleep(Duration::from_millis(50));
        mend(&mut relay);
    }
    while numbers.len() <= COUNT as usize {
        numbers.push(measurements.next());
    }
    client.join().unwrap().unwrap();
    let end = numbers.pop().unwrap();
    assert_eq!(end["end"], COUNT);
    let numbers: Vec<u64> =
        numbers.iter().map(|measurement| measurement["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=COUNT).collect::<Vec<_>>());
}

/// Its port may be taken for a moment.
fn mend(relay: &mut Relay) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = relay.mend() {
        assert!(Instant::now() < deadline, "{error}");
        thread::sleep(Duration::from_millis(5));
    }
}
