//! A sequence of operations on sessions and hub, on the simulated system: the first byte is the order of the threads, then two
//! bytes an operation (`tests/model/operations.rs`).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tinysio::fuzzing::operations(bytes));
