//! A query and an open packet: any bytes are answered, and what is understood is written as it was understood.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinysio::proto::engine::{Open, Query};

fuzz_target!(|text: &str| {
    let query = Query::parse(text);
    let _ = (query.transport(), query.version());
    if let Some(sid) = query.sid() {
        assert!(!sid.is_empty() && (sid == "?" || text.contains(sid)));
    }
    if let Ok(open) = serde_json::from_str::<Open>(text) {
        let packet = open.packet();
        assert_eq!(serde_json::from_str::<Open>(&packet[1..]).expect("our own"), open);
        let _ = open.silence_allowed();
    }
});
