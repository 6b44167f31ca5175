//! The WebSocket handshake (RFC 6455 4.2): checks the head of an upgrade request, and makes the response.
//!
//! A pure function of the head. It uses `http` and tungstenite, and does no I/O.

use std::collections::HashSet;

use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use tungstenite::handshake::server::{create_response, write_response};

use crate::server::http::Head;

/// The only version of WebSocket that the server speaks (RFC 6455).
pub(crate) const VERSION: &str = "13";

/// Why a request cannot become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It asks for another version, or for none.
    Version,
    /// It breaks a rule of RFC 6455 4.2.1.
    Malformed,
}

/// The response that accepts an upgrade request.
///
/// # Errors
/// [`Unfit`].
pub(crate) fn accept(head: &Head) -> Result<Vec<u8>, Unfit> {
    if !head.may_upgrade() {
        return Err(Unfit::Malformed);
    }
    let mut versions = head.header_values(SEC_WEBSOCKET_VERSION.as_str());
    if versions.next() != Some(VERSION) || versions.next().is_some() {
        return Err(Unfit::Version);
    }
    answer(head).ok_or(Unfit::Malformed)
}

fn answer(head: &Head) -> Option<Vec<u8>> {
    let mut request = http::Request::builder().method(head.method().as_str()).uri("/");
    // The response depends on these headers only.
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_KEY] {
        for value in head.header_values(name.as_str()) {
            request = request.header(&name, value);
        }
    }
    let mut response = create_response(&request.body(()).ok()?).ok()?;
    if let Some(protocol) = subprotocol(head)? {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol.parse().ok()?);
    }
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, &response).ok()?;
    Some(bytes)
}

/// The first subprotocol that the client offers. The official server picks it too, and clients refuse a response that
/// names none of theirs. Outer `None`: the header is not a list of distinct tokens.
fn subprotocol(head: &Head) -> Option<Option<&str>> {
    if head.is_illegible("sec-websocket-protocol") {
        return None;
    }
    let mut first = None;
    let mut offered = HashSet::new();
    for protocol in head.header_values("sec-websocket-protocol").flat_map(|list| list.split(',')) {
        let protocol = protocol.trim_matches([' ', '\t']);
        if protocol.is_empty() || !protocol.bytes().all(is_token) || !offered.insert(protocol) {
            return None;
        }
        first.get_or_insert(protocol);
    }
    Some(first)
}

/// Whether a token may have this byte (RFC 9110 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
