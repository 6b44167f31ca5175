//! What is decoded as an Engine.IO packet is written as the same text again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinysio::proto::engine::{Packet, UpgradeProbe};

fuzz_target!(|text: &str| {
    let Ok(packet) = Packet::decode(text) else { return };
    assert_eq!(packet.text().as_deref(), Some(text));
    let _ = UpgradeProbe::default().step(&packet);
    let _ = UpgradeProbe::Probed.step(&packet);
});
