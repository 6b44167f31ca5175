//! Requests on a connection, heads and bodies, as the front door reads them, in whatever pieces they arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tinysio::fuzzing::http(bytes));
