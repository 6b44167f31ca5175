//! The head of a request: parsed once, and checked against what proxies and servers must agree on.
//!
//! A pure function of the bytes. It uses httparse, and does no I/O.

use std::{mem::MaybeUninit, ops::Range};

use tiny_http::Method;

use crate::server::http::connection::HttpError;

/// Headers of one request. Node allows more; browsers send fewer.
const MAX_HEADERS: usize = 100;

/// The head of a request: its bytes, and the places of its parts in them. A session keeps the head of its first
/// request, so it is small.
#[derive(Debug)]
pub(crate) struct Head {
    bytes: Bytes,
    method: Method,
    path: Span,
    query: Span,
    headers: Box<[(Span, Span)]>,
    /// HTTP/1.1. A connection of HTTP/1.0 ends with the response.
    pub(super) persistent: bool,
    /// `None`: the headers are ambiguous, so that a proxy may understand them differently.
    pub(super) framing: Option<Framing>,
}

/// The bytes of a head. If all of them are UTF-8, each part between two delimiters is too.
#[derive(Debug)]
enum Bytes {
    Text(Box<str>),
    Raw(Box<[u8]>),
}

impl Bytes {
    fn new(bytes: &[u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::Raw(bytes.into()), |text| Self::Text(text.into()))
    }
}

/// The place of a part of the head.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl From<Range<usize>> for Span {
    /// A head is much smaller than 4 GiB: `max_head_size` has a bound.
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start as u32, end: range.end as u32 }
    }
}

impl Head {
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn path(&self) -> &str {
        self.str(self.path).unwrap_or_default()
    }

    pub(crate) fn query(&self) -> &str {
        self.str(self.query).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.spans(name).next().and_then(|value| self.str(value))
    }

    pub(crate) fn header_values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        self.spans(name).filter_map(|value| self.str(value))
    }

    /// Whether a header has a value that is not UTF-8.
    pub(crate) fn is_illegible(&self, name: &str) -> bool {
        self.spans(name).any(|value| self.str(value).is_none())
    }

    fn spans<'h>(&'h self, name: &'h str) -> impl Iterator<Item = Span> {
        // Most names differ in length already.
        let long = move |key: Span| (key.end - key.start) as usize == name.len();
        let named = move |key| self.str(key).is_some_and(|key| is_same_name(key, name));
        self.headers.iter().filter(move |&&(key, _)| long(key) && named(key)).map(|&(_, value)| value)
    }

    /// Whether a header that is a list of tokens has this one (RFC 9110 5.6.1).
    pub(crate) fn has_token(&self, header: &str, token: &str) -> bool {
        self.header_values(header)
            .flat_map(|list| list.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    fn str(&self, span: Span) -> Option<&str> {
        let range = span.start as usize..span.end as usize;
        match &self.bytes {
            Bytes::Text(text) => text.get(range),
            Bytes::Raw(bytes) => std::str::from_utf8(bytes.get(range)?).ok(),
        }
    }

    /// Whether the connection may serve another request afterwards (RFC 9112 9.3).
    pub(super) fn keeps_alive(&self) -> bool {
        self.persistent && !self.has_token("connection", "close")
    }

    /// Whether the request can become a WebSocket (RFC 9110 7.8). HTTP/1.0 has no upgrade. What follows a head that
    /// announces a body would be a body to a proxy and frames to us.
    pub(crate) fn may_upgrade(&self) -> bool {
        self.persistent && self.has_no_body()
    }

    /// Whether no body follows.
    pub(super) fn has_no_body(&self) -> bool {
        matches!(self.framing, Some(Framing::Length(0)))
    }

    /// Whether there is one legal `Host` header (RFC 9112 3.2). With several, a proxy could use another one than we
    /// do. HTTP/1.0 need not have one.
    fn names_its_host(&self) -> bool {
        let mut hosts = self.spans("host");
        match (hosts.next(), hosts.next()) {
            (None, _) => !self.persistent,
            (Some(host), None) => self.str(host).is_some_and(is_host),
            _ => false,
        }
    }

    /// How the body is delimited (RFC 9112 6.3). A request that says it twice is refused, because it could be used to
    /// smuggle another request past a proxy.
    fn read_framing(&self) -> Option<Framing> {
        let mut lengths = self.spans("content-length");
        let mut codings = self.spans("transfer-encoding");
        let said = (lengths.next(), lengths.next(), codings.next(), codings.next());
        match said {
            (None, _, None, _) => Some(Framing::Length(0)),
            (Some(length), None, None, _) => {
                let length = self.str(length).filter(|length| !length.is_empty())?;
                // A number too large for the type is also too large for the limit.
                let number = || length.parse().unwrap_or(u64::MAX);
                length.bytes().all(|byte| byte.is_ascii_digit()).then(|| Framing::Length(number()))
            }
            // HTTP/1.0 has no chunks. A proxy that speaks it would not understand them (RFC 9112 6.1).
            (None, _, Some(coding), None) if self.persistent => {
                self.str(coding)?.eq_ignore_ascii_case("chunked").then_some(Framing::Chunked)
            }
            _ => None,
        }
    }
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// Removes a complete head from `input`. `None`: it is not complete yet.
pub(super) fn parse_head(input: &mut Vec<u8>) -> Result<Option<Head>, HttpError> {
    if input.is_empty() {
        return Ok(None);
    }
    let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(input, &mut slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::HeadTooLarge),
        Err(_) => return Err(HttpError::Malformed),
    };
    let base = input.as_ptr() as usize;
    let range = |bytes: &[u8]| {
        let start = bytes.as_ptr() as usize - base;
        start..start + bytes.len()
    };
    let target = range(request.path.unwrap_or_default().as_bytes());
    let question = input[target.clone()].iter().position(|&byte| byte == b'?');
    let (path, query) = match question {
        Some(at) => (target.start..target.start + at, target.start + at + 1..target.end),
        None => (target.clone(), target.end..target.end),
    };
    let headers =
        request.headers.iter().map(|field| (range(field.name.as_bytes()).into(), range(field.value).into()));
    let headers = headers.collect();
    let method = request.method.unwrap_or_default().parse().map_err(|()| HttpError::Malformed)?;
    let persistent = request.version == Some(1);
    let bytes = Bytes::new(&input[..length]);
    input.drain(..length);
    let (path, query) = (path.into(), query.into());
    let mut head = Head { bytes, method, path, query, headers, persistent, framing: None };
    head.framing = head.read_framing();
    if head.names_its_host() { Ok(Some(head)) } else { Err(HttpError::Malformed) }
}

/// `eq_ignore_ascii_case` in a third of the instructions. Every request compares a dozen names.
fn is_same_name(one: &str, other: &str) -> bool {
    let is_same = |(one, other): (u8, u8)| one == other || (one ^ other == 0x20 && one.is_ascii_alphabetic());
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(is_same)
}

/// Whether the value of a `Host` header is legal: `uri-host [ ":" port ]` (RFC 9110 7.2, RFC 3986 3.2.2), or empty.
fn is_host(value: &str) -> bool {
    fn is_of_name(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || matches!(byte, b'!' | b'$'..=b'.' | b';' | b'=' | b'_' | b'~')
    }
    fn is_of_address(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'-' | b'_' | b'~')
    }
    fn end(value: &[u8], is_part: impl Fn(u8) -> bool) -> usize {
        value.iter().position(|&byte| !is_part(byte)).unwrap_or(value.len())
    }
    let value = value.as_bytes();
    let rest = match value.strip_prefix(b"[") {
        Some(address) => match address.split_at(end(address, is_of_address)) {
            ([_, ..], [b']', rest @ ..]) => rest,
            _ => return false,
        },
        None => &value[end(value, is_of_name)..],
    };
    match rest {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parse(text: &str) -> Result<Option<Head>, HttpError> {
        parse_head(&mut text.as_bytes().to_vec())
    }

    #[test]
    fn a_head_is_taken_off_and_the_rest_stays() {
        let mut input = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nX: 1\r\nx: 2\r\n\r\nrest".to_vec();
        let head = parse_head(&mut input).expect("a good head").expect("a complete head");
        assert_eq!((head.path(), head.query(), input.as_slice()), ("/a", "b=c", &b"rest"[..]));
        assert_eq!((head.header("X"), head.header_values("x").count()), (Some("1"), 2));
        assert!(head.keeps_alive() && head.has_no_body() && head.may_upgrade());
    }

    #[test]
    fn every_beginning_of_a_head_is_incomplete() {
        let whole = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n";
        for length in 0..whole.len() {
            assert!(matches!(parse(&whole[..length]), Ok(None)), "{length}");
        }
        assert!(matches!(parse(whole), Ok(Some(_))));
    }

    #[rstest]
    #[case::no_body("", Some(Framing::Length(0)))]
    #[case::a_length("Content-Length: 12\r\n", Some(Framing::Length(12)))]
    #[case::more_than_the_type_holds(
        "Content-Length: 99999999999999999999\r\n",
        Some(Framing::Length(u64::MAX))
    )]
    #[case::chunked("Transfer-Encoding: CHUNKED\r\n", Some(Framing::Chunked))]
    #[case::two_lengths("Content-Length: 1\r\nContent-Length: 1\r\n", None)]
    #[case::a_length_and_chunks("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", None)]
    #[case::a_sign("Content-Length: +1\r\n", None)]
    #[case::no_number("Content-Length: \r\n", None)]
    #[case::another_coding("Transfer-Encoding: gzip, chunked\r\n", None)]
    fn a_body_is_delimited_in_one_way_or_refused(#[case] headers: &str, #[case] framing: Option<Framing>) {
        let head = parse(&format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n"));
        assert_eq!(head.expect("a good head").expect("a complete head").framing, framing);
    }

    #[rstest]
    #[case::a_name("1.1", "Host: a.example:80\r\n", true)]
    #[case::ipv6("1.1", "Host: [::1]:80\r\n", true)]
    #[case::empty("1.1", "Host: \r\n", true)]
    #[case::none("1.1", "", false)]
    #[case::none_in_http_1_0("1.0", "", true)]
    #[case::two("1.1", "Host: a\r\nHost: a\r\n", false)]
    #[case::a_path("1.1", "Host: a/b\r\n", false)]
    #[case::an_empty_address("1.1", "Host: []\r\n", false)]
    #[case::a_port_that_is_no_number("1.1", "Host: a:b\r\n", false)]
    fn a_head_names_one_host(#[case] version: &str, #[case] headers: &str, #[case] good: bool) {
        assert_eq!(parse(&format!("GET / HTTP/{version}\r\n{headers}\r\n")).is_ok(), good);
    }
}
