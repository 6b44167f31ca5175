//! `examples/telemetry.rs`: readings of the sensor that was asked for, and of no other.

use std::time::Duration;

use crate::{PATIENCE, client, seen, telemetry_example as example, url};

const PERIOD: Duration = Duration::from_millis(20);

#[test]
fn a_client_gets_the_readings_that_it_asked_for() {
    let server = example::start("127.0.0.1:0", PERIOD).unwrap();
    let (sender, readings) = seen();
    let _client = example::watch(&url(&server), "uptime", move |sensor, value| {
        // The test may have seen enough.
        let _ = sender.send((sensor, value));
    });
    let mut before = 0.0;
    for _ in 0..5 {
        let (sensor, value) = readings.next();
        assert_eq!(sensor, "uptime");
        assert!(value > 0.0 && value >= before, "{value} after {before}");
        before = value;
    }
}

#[test]
fn the_acknowledgement_is_the_value_now_or_null() {
    let server = example::start("127.0.0.1:0", PERIOD).unwrap();
    let client = client(&server);
    client.connect().unwrap();
    let ask = |sensor: &str| -> Option<f64> {
        client.socket("/").emit_with_ack("watch", sensor, PATIENCE).unwrap().get(0).unwrap()
    };
    assert!(ask("memory").unwrap() > 0.0);
    assert_eq!(ask("pressure"), None);
}
