//! What a client makes of a server's first answer: a session, or an error in words.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((status, body)) = bytes.split_first_chunk() else { return };
    tinysio::fuzzing::client_open(if status == &[0, 0] { 200 } else { u16::from_be_bytes(*status) }, body);
});
