//! The responses to polling requests.
//!
//! Two of them are most of the responses. They are written here, with the same headers in the same order as by
//! `tiny_http`, at a tenth of the cost. `tiny_http` writes all others.

use std::{
    cell::Cell,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::server::http::Response;
use crate::sys::thread_local;

/// The response to a request of a polling session, or to the request that opens it.
pub(crate) enum Answer {
    /// 200, with packets.
    Payload(String),
    /// 200 `ok`: a POST has been handled.
    Received,
    /// Anything else.
    Other(Response),
}

impl Answer {
    /// Bytes of its body.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Payload(body) => body.len(),
            Self::Received => RECEIVED.len(),
            Self::Other(response) => response.data_length().unwrap_or(0),
        }
    }
}

/// The body of the official server for a POST that has been handled.
pub(super) const RECEIVED: &str = "ok";

/// The headers that each of the two always has.
pub(super) const OF_A_PAYLOAD: &str =
    "Content-Type: text/plain; charset=UTF-8\r\nCache-Control: no-store\r\n";
pub(super) const OF_RECEIVED: &str = "Content-Type: text/html\r\n";

/// A complete response with status 200. `kind` are the headers of its kind, `more` those that depend on the request.
pub(super) fn print<'h>(
    kind: &str,
    body: &str,
    more: impl Iterator<Item = (&'static str, &'h str)>,
    persistent: bool,
    close: bool,
) -> Vec<u8> {
    let mut text = String::with_capacity(256 + body.len());
    text.push_str(if persistent { "HTTP/1.1 200 OK\r\n" } else { "HTTP/1.0 200 OK\r\n" });
    if close {
        text.push_str("Connection: close\r\n");
    }
    push_date(&mut text);
    text.push_str(kind);
    for (name, value) in more {
        for part in [name, ": ", value, "\r\n"] {
            text.push_str(part);
        }
    }
    text.push_str("Server: tinysio\r\nContent-Length: ");
    text.push_str(&body.len().to_string());
    text.push_str("\r\n\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// The length of a date as HTTP writes it (RFC 9110 5.6.7).
const DATE: usize = 29;

thread_local! {
    /// The second of the last response of this thread, and its date as text.
    static LAST: Cell<(u64, [u8; DATE])> = const { Cell::new((0, [0; DATE])) };
}

fn push_date(text: &mut String) {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let written = LAST.with(|last| match last.get() {
        (at, written) if at == second => written,
        _ => {
            let mut written = [b' '; DATE];
            let date = httpdate::fmt_http_date(now);
            written[..date.len()].copy_from_slice(date.as_bytes());
            last.set((second, written));
            written
        }
    });
    text.push_str("Date: ");
    text.push_str(std::str::from_utf8(&written).unwrap_or_default());
    text.push_str("\r\n");
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::server::{
        http::cors::Cors,
        http::{self, header},
    };

    /// The response as `tiny_http` writes it.
    fn by_tiny_http(response: Response, cors: &Cors, persistent: bool) -> String {
        let more = cors.headers(Some("http://a")).map(|(name, value)| header(name, value));
        let response = more.fold(response, Response::with_header).with_header(header("Server", "tinysio"));
        let mut bytes = Vec::new();
        let version = tiny_http::HTTPVersion(1, u8::from(persistent));
        response.raw_print(&mut bytes, version, &[], false, None).expect("a vector takes all");
        String::from_utf8(bytes).expect("text")
    }

    /// The response without its date, and without the line that ends the connection.
    fn compared(printed: &str, close: bool) -> String {
        let closes = if close { "Connection: close\r\nDate: " } else { "Date: " };
        let (head, rest) = printed.split_once(closes).expect("a date at its place");
        let (date, rest) = rest.split_at(DATE);
        assert!(date.ends_with(" GMT"), "{date}");
        format!("{head}Date: {rest}")
    }

    #[rstest]
    fn what_is_written_here_is_what_tiny_http_writes(
        #[values("", "4a", "4\u{fe0f}\u{1e}2")] body: &str,
        #[values(Cors::SameOrigin, Cors::Any, Cors::AnyWithCredentials, Cors::List(vec!["http://a".into()]))]
        cors: Cors,
        #[values(true, false)] persistent: bool,
        #[values(true, false)] close: bool,
    ) {
        let payload = http::text(200, "text/plain; charset=UTF-8", body)
            .with_header(header("Cache-Control", "no-store"));
        let received = http::text(200, "text/html", body);
        for (kind, response) in [(OF_A_PAYLOAD, payload), (OF_RECEIVED, received)] {
            let ours = print(kind, body, cors.headers(Some("http://a")), persistent, close);
            let ours = String::from_utf8(ours).expect("text");
            assert_eq!(compared(&ours, close), compared(&by_tiny_http(response, &cors, persistent), false));
        }
    }
}
