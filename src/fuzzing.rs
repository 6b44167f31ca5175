//! Doors for the fuzz targets in `fuzz/` to what is private: there only with `--cfg shuttle --cfg fuzzing`.
#![allow(missing_docs, reason = "one line a door, for our own targets")]

use crate::server::model::{self, operations, requests};

pub fn http(bytes: &[u8]) {
    requests::http(bytes);
}

pub fn websocket(bytes: &[u8], server: bool) {
    requests::websocket(bytes, server);
}

pub fn operations(bytes: &[u8]) {
    let Some((seed, bytes)) = bytes.split_first() else { return };
    let bytes = bytes.to_vec();
    model::simulate((*seed).into(), move || operations::run(&bytes));
}

pub fn client_open(status: u16, body: &[u8]) {
    let _ = crate::client::read_open_for_fuzzing(status, body);
}
