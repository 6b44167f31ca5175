//! Frames to the server and to a client: tungstenite with our settings.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((side, frames)) = bytes.split_first() else { return };
    tinysio::fuzzing::websocket(frames, side % 2 == 0);
});
