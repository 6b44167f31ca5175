//! HTTP/1.1 on the main port: bounded request heads and bodies in, `tiny_http` responses out.
//!
//! Every read has a deadline and every size a bound, because nothing is known of the peer yet.

pub(crate) mod chunked;
pub(crate) mod cors;
pub(crate) mod response;

use std::{
    borrow::Cow,
    io::{self, Cursor},
    mem::MaybeUninit,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use tiny_http::HTTPVersion;
pub use tiny_http::{Header, Method, StatusCode};

use crate::server::{
    config::Config,
    http::chunked::ChunkError,
    http::response::Answer,
    limits::budget::Charge,
    net::adaptive_wait::AdaptiveWait,
    net::connections::Permit,
    net::stream::{Stream, WRITE_PATIENCE},
    peer::Peer,
};
use crate::sys::time::Instant;

/// What a route answers: `tiny_http`'s response with a body in memory.
pub type Response = tiny_http::Response<Cursor<Vec<u8>>>;

/// Headers of one request; Node allows more, browsers send fewer.
const MAX_HEADERS: usize = 100;

/// What is read at once.
pub(crate) const READ_CHUNK: usize = 4 << 10;

/// The head of a request: its bytes, and where everything is in them. Kept as long as its session, so it is small.
#[derive(Debug)]
pub(crate) struct Head {
    bytes: Bytes,
    method: Method,
    path: Span,
    query: Span,
    headers: Box<[(Span, Span)]>,
    /// HTTP/1.1; otherwise 1.0, whose connections end with the response.
    persistent: bool,
    /// `None`: it is said in a way that proxies understand differently.
    framing: Option<Framing>,
}

/// The bytes of a head, looked at once: what is between two of its delimiters is text if all of it is.
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

/// Where something is in a head.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl From<Range<usize>> for Span {
    /// Heads are bounded far below 4 GiB.
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

    /// Whether a header is there with a value that is no UTF-8, which nobody sends in good faith.
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
    fn keeps_alive(&self) -> bool {
        self.persistent && !self.has_token("connection", "close")
    }

    /// Whether the request can become a WebSocket (RFC 9110 7.8): 1.0 knows no upgrade, and what follows a head that
    /// announces a body would be a body to a proxy and frames to us.
    pub(crate) fn may_upgrade(&self) -> bool {
        self.persistent && self.is_whole()
    }

    /// Whether no body follows.
    fn is_whole(&self) -> bool {
        matches!(self.framing, Some(Framing::Length(0)))
    }

    /// Whether it says once, and in a legal way, which host it is for (RFC 9112 3.2): a proxy that takes another `Host` than
    /// we do would be misled. HTTP/1.0 need not say it.
    fn names_its_host(&self) -> bool {
        let mut hosts = self.spans("host");
        match (hosts.next(), hosts.next()) {
            (None, _) => !self.persistent,
            (Some(host), None) => self.str(host).is_some_and(is_host),
            _ => false,
        }
    }

    /// How the body is delimited (RFC 9112 6.3). A request that says it twice is refused: that is how requests are
    /// smuggled past proxies.
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
            // HTTP/1.0 has no chunks, and a proxy that speaks it would pass them on as something else (RFC 9112 6.1).
            (None, _, Some(coding), None) if self.persistent => {
                self.str(coding)?.eq_ignore_ascii_case("chunked").then_some(Framing::Chunked)
            }
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(u64),
    Chunked,
}

/// Why a request cannot be served; the connection ends after the answer.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// 400.
    Malformed,
    /// 431.
    HeadTooLarge,
    /// 413, before the rest of the body is read.
    BodyTooLarge,
    /// 408.
    TooSlow,
    /// 503: `receive_bytes_total` is used up.
    Busy,
    /// The peer is gone, so there is nobody to answer.
    Gone,
}

impl HttpError {
    /// The status to answer with, if anybody is there to read it.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Malformed => Some(400),
            Self::HeadTooLarge => Some(431),
            Self::BodyTooLarge => Some(413),
            Self::TooSlow => Some(408),
            Self::Busy => Some(503),
            Self::Gone => None,
        }
    }
}

impl From<io::Error> for HttpError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TooSlow,
            _ => Self::Gone,
        }
    }
}

/// What a connection brings next.
#[derive(Debug)]
pub(crate) enum NextHead {
    Head(Head),
    /// Nothing: it can wait without a thread.
    Silence,
    /// A request was not begun in time, or the connection is broken.
    None,
    /// The peer has closed its side, and nothing that it sent is unread.
    Over,
}

impl From<ChunkError> for HttpError {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Malformed => Self::Malformed,
            ChunkError::TooLarge => Self::BodyTooLarge,
        }
    }
}

/// A connection that speaks HTTP: its stream, and what was read beyond the last request.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Arc<Stream>,
    pub(crate) peer: Peer,
    input: Vec<u8>,
    /// The last request allows another one, and its answer did not take that back.
    keep_alive: bool,
    adaptive_wait: AdaptiveWait,
    pub(crate) permit: Permit,
}

impl Connection {
    pub(crate) fn new(stream: Arc<Stream>, peer: Peer, permit: Permit) -> Self {
        Self {
            stream,
            peer,
            input: Vec::new(),
            keep_alive: true,
            adaptive_wait: AdaptiveWait::default(),
            permit,
        }
    }

    pub(crate) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// After the next response the connection ends: the rest of its input is of no use.
    pub(crate) fn end_after_response(&mut self) {
        self.keep_alive = false;
    }

    /// What was read beyond the head: the first frames of a hasty WebSocket client.
    pub(crate) fn take_input(&mut self) -> Vec<u8> {
        self.shrink();
        std::mem::take(&mut self.input)
    }

    /// Frees the unused part of the input buffer.
    pub(crate) fn shrink(&mut self) {
        self.input.shrink_to_fit();
    }

    /// Lets other threads run before this one waits for what they bring.
    pub(crate) fn pause(&mut self) {
        self.adaptive_wait.pause();
    }

    /// Reads the next request's head, whose first byte is due by `due`.
    /// After `silence` without one, the connection can wait without a thread.
    pub(crate) fn read_head(
        &mut self,
        config: &Config,
        due: Instant,
        silence: Option<Duration>,
    ) -> Result<NextHead, HttpError> {
        let mut deadline = due;
        let mut begun = false;
        loop {
            if !self.input.is_empty() && !std::mem::replace(&mut begun, true) {
                deadline = Instant::now() + config.head_timeout;
            }
            if let Some(head) = parse_head(&mut self.input)? {
                // A body that nobody reads must not be taken for the next request.
                self.keep_alive = head.is_whole() && head.keeps_alive();
                return Ok(NextHead::Head(head));
            }
            if self.input.len() >= config.head_size() {
                return Err(HttpError::HeadTooLarge);
            }
            if !begun {
                self.adaptive_wait.pause();
            }
            let parks_at = silence.filter(|_| !begun).map(|silence| Instant::now() + silence);
            let parks_at = parks_at.filter(|&at| at < deadline);
            match self.fill(parks_at.unwrap_or(deadline)) {
                Ok(0) if !begun => return Ok(NextHead::Over),
                Ok(0) => return Err(HttpError::Gone),
                Ok(_) => {}
                Err(error) if parks_at.is_some() && error.kind() == io::ErrorKind::TimedOut => {
                    return Ok(NextHead::Silence);
                }
                // Nobody is waiting for an answer to a request that was never begun.
                Err(_) if !begun => return Ok(NextHead::None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads the body, at most `max` bytes of it, as far as `charge` goes.
    pub(crate) fn read_body(
        &mut self,
        head: &Head,
        config: &Config,
        charge: &mut Charge,
    ) -> Result<Vec<u8>, HttpError> {
        let body = self.read_body_inner(head, config, charge);
        // After a failure, where the next request would begin is unknown.
        self.keep_alive = body.is_ok() && head.keeps_alive();
        body
    }

    fn read_body_inner(
        &mut self,
        head: &Head,
        config: &Config,
        charge: &mut Charge,
    ) -> Result<Vec<u8>, HttpError> {
        let max = config.max_http_buffer_size;
        let deadline = Instant::now() + config.body_timeout;
        let framing = head.framing.ok_or(HttpError::Malformed)?;
        if let Framing::Length(length) = framing
            && length > max as u64
        {
            return Err(HttpError::BodyTooLarge);
        }
        if head.has_token("expect", "100-continue") {
            self.stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n", WRITE_PATIENCE)?;
        }
        match framing {
            Framing::Length(length) => self.read_exact(length as usize, deadline, charge),
            Framing::Chunked => self.read_chunks(max, deadline, charge),
        }
    }

    fn read_exact(
        &mut self,
        length: usize,
        deadline: Instant,
        charge: &mut Charge,
    ) -> Result<Vec<u8>, HttpError> {
        while self.input.len() < length {
            charge.hold(self.input.len() + self.step()).map_err(|_| HttpError::Busy)?;
            if self.fill(deadline)? == 0 {
                return Err(HttpError::Gone);
            }
        }
        if length < READ_CHUNK {
            // The buffer stays with the connection.
            let body = self.input[..length].to_vec();
            self.input.drain(..length);
            return Ok(body);
        }
        let rest = self.input.split_off(length);
        Ok(std::mem::replace(&mut self.input, rest))
    }

    fn read_chunks(
        &mut self,
        max: usize,
        deadline: Instant,
        charge: &mut Charge,
    ) -> Result<Vec<u8>, HttpError> {
        let mut decoder = chunked::Decoder::new(max);
        loop {
            let taken = decoder.decode(&self.input)?;
            self.input.drain(..taken);
            if decoder.is_done() {
                return Ok(decoder.into_body());
            }
            charge.hold(decoder.len() + READ_CHUNK).map_err(|_| HttpError::Busy)?;
            if self.fill(deadline)? == 0 {
                return Err(HttpError::Gone);
            }
        }
    }

    fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        self.stream.limit_reads(deadline)?;
        let room = self.input.capacity() - self.input.len();
        if room < READ_CHUNK / 2 {
            self.input.reserve_exact(self.step());
        }
        self.stream.recv_more(&mut self.input)
    }

    /// How far the buffer grows for the next read: so that a large body needs few, and never has much more memory than bytes.
    fn step(&self) -> usize {
        READ_CHUNK.max(self.input.len() / 8)
    }

    /// Answers a request of long-polling; `more` are the headers that depend on the request.
    pub(crate) fn answer<'h>(
        &mut self,
        answer: Answer,
        more: impl Iterator<Item = (&'static str, &'h str)>,
        head: Option<&Head>,
    ) -> io::Result<()> {
        let (kind, body) = match answer {
            Answer::Payload(body) => (response::OF_A_PAYLOAD, Cow::Owned(body)),
            Answer::Received => (response::OF_RECEIVED, Cow::Borrowed(response::RECEIVED)),
            Answer::Other(response) => {
                let more = more.map(|(name, value)| header(name, value));
                return self.respond(more.fold(response, Response::with_header), head);
            }
        };
        let persistent = head.is_none_or(|head| head.persistent);
        let bytes = response::print(kind, &body, more, persistent, !self.keep_alive);
        self.stream.send_all(&bytes, WRITE_PATIENCE)
    }

    /// Answers. The response is written as `tiny_http` writes it, and `Connection: close` added where it applies,
    /// which `tiny_http` leaves to its own server.
    pub(crate) fn respond(&mut self, response: Response, head: Option<&Head>) -> io::Result<()> {
        let silent = head.is_some_and(|head| *head.method() == Method::Head);
        let version = HTTPVersion(1, u8::from(head.is_none_or(|head| head.persistent)));
        let response = response.with_chunked_threshold(usize::MAX).with_header(server_header());
        let mut bytes = Vec::with_capacity(512 + response.data_length().unwrap_or(0));
        response.raw_print(&mut bytes, version, &[], silent, None)?;
        if !self.keep_alive
            && let Some(line) = bytes.iter().position(|&byte| byte == b'\n')
        {
            bytes.splice(line + 1..line + 1, *b"Connection: close\r\n");
        }
        self.stream.send_all(&bytes, WRITE_PATIENCE)
    }
}

/// Our name in place of `tiny_http`'s.
fn server_header() -> Header {
    header("Server", "tinysio")
}

/// A header whose name and value are known to be fine; anything else becomes an empty one of that name.
pub(crate) fn header(name: &'static str, value: &str) -> Header {
    Header::from_bytes(name.as_bytes(), value.as_bytes())
        .unwrap_or_else(|()| unreachable!("header names are ASCII literals, and values were checked: {name}"))
}

/// A response with a text body.
pub(crate) fn text(status: u16, content_type: &str, body: impl Into<String>) -> Response {
    Response::from_string(body)
        .with_status_code(StatusCode(status))
        .with_header(header("Content-Type", content_type))
}

/// Takes a whole head off `input`. `None`: it is not whole yet.
fn parse_head(input: &mut Vec<u8>) -> Result<Option<Head>, HttpError> {
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

/// As `eq_ignore_ascii_case`, in a third of its instructions: every request compares a dozen names.
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

/// A request as routes and [`Config::allow_request`] see it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    head: &'a Head,
    peer: Peer,
}

impl<'a> Request<'a> {
    pub(crate) fn new(head: &'a Head, peer: Peer) -> Self {
        Self { head, peer }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        self.head.method()
    }

    /// The path, undecoded.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// The query, undecoded, without `?`.
    #[must_use]
    pub fn query(&self) -> &str {
        self.head.query()
    }

    /// The value of a header, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// Who asks.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }
}
