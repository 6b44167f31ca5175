//! The packets of a polling payload, built into a payload again, are the same packets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinysio::proto::engine::{Data, Packet, payload};

fuzz_target!(|text: &str| {
    let mut builder = payload::Builder::new();
    let mut packets = Vec::new();
    for packet in payload::decode(text) {
        let Ok(packet) = packet else { return };
        match &packet {
            Packet::Message(Data::Binary(bytes)) => builder.push_binary(bytes),
            packet => builder.push_text(&packet.text().expect("text")),
        }
        packets.push(packet);
    }
    assert_eq!(builder.packets(), packets.len());
    let body = builder.finish();
    let again: Result<Vec<_>, _> = payload::decode(&body).collect();
    assert_eq!(again.as_ref(), Ok(&packets));
});
