//! What counts in thousands, in full: ignored by default, and run by
//! `cargo test --release --test hostile long -- --ignored`.

use std::time::Duration;

use Transport::{Polling, WebSocket};
use rstest::rstest;

use crate::{
    floods,
    scenario::{scenario, scenario_of},
    server::Kind,
    support::Transport,
    upgrades::{self, Stop},
};

#[rstest]
#[ignore = "100,000 packets, twice"]
fn a_hundred_thousand_pongs(#[values(Polling, WebSocket)] transport: Transport) {
    scenario().ends(&["transport close"]).rounds(2).run(|addr| floods::signs(addr, transport, "3", 100_000));
}

#[test]
#[ignore = "10,000 requests, twice"]
fn ten_thousand_octet_streams() {
    scenario().rounds(2).run(|addr| floods::octet_streams(addr, 10_000));
}

#[rstest]
#[ignore = "10,000 namespaces, twice"]
fn ten_thousand_namespaces(#[values(Polling, WebSocket)] transport: Transport) {
    scenario().ends(&["transport close"]).rounds(2).run(|addr| floods::namespaces(addr, transport, 10_000));
}

#[test]
#[ignore = "10,000 upgrades, twice"]
fn ten_thousand_half_upgrades() {
    scenario().ends_anyhow().rounds(2).run(|addr| upgrades::half_upgrades(addr, 10_000));
}

#[rstest]
#[ignore = "1,000,000 frames, twice"]
#[case::of_nothing(0, 1_000_000)]
#[ignore = "900,000 frames, twice"]
#[case::of_a_byte(1, 900_000)]
fn a_million_fragments(#[case] size: usize, #[case] count: usize) {
    scenario().ends(&["transport close"]).rounds(2).run(|addr| floods::fragments(addr, size, count));
}

#[test]
#[ignore = "10,000 connections, twice"]
fn ten_thousand_connections() {
    scenario().ends_anyhow().rounds(2).run(|addr| floods::comings_and_goings(addr, 10_000));
}

#[rstest]
#[ignore = "every byte of both handshakes"]
fn handshakes_that_stop_after_every_byte(#[values(Stop::Reset, Stop::HalfClose, Stop::Close)] how: Stop) {
    scenario_of(Kind::Hasty).ends_anyhow().rounds(2).run(|addr| upgrades::handshakes_that_stop(addr, how, 1));
}

#[rstest]
#[ignore = "every byte of an upgrade"]
fn upgrades_that_stop_after_every_byte(#[values(Stop::Reset, Stop::HalfClose, Stop::Close)] how: Stop) {
    scenario().ends_anyhow().rounds(2).run(|addr| upgrades::upgrades_that_stop(addr, how, 1));
}

/// 1e5 ids of the operating system's randomness, all different.
#[test]
#[ignore = "100,000 sessions"]
fn a_hundred_thousand_ids() {
    scenario().rounds(2).run(|addr| upgrades::ids(addr, 50_000));
}

#[test]
#[ignore = "waits for half a minute, twice"]
fn a_server_full_of_abandoned_sessions() {
    let scenario = scenario_of(Kind::Hasty).rounds(2).patience(Duration::from_secs(60));
    scenario.run(|addr| floods::abandoned_handshakes(addr, 1_500));
}
