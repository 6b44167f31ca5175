//! A connection that speaks HTTP/1.1: it reads heads and bodies, and writes responses.
//!
//! Every read has a deadline and every size a limit, because nothing is known of the peer. It knows no sessions and no
//! routes: `connection`, above, asks it for the next request.

use std::{borrow::Cow, io, sync::Arc, time::Duration};

use tiny_http::{HTTPVersion, Method};

use crate::server::{
    http::chunked::{self, ChunkError},
    http::head::{Framing, Head, parse_head},
    http::response::{self, Answer},
    http::{Response, header, server_header},
    lead,
    limits::budget::Charge,
    net::connections::Permit,
    net::stream::{Stream, WRITE_PATIENCE},
    peer::Peer,
};
use crate::sys::time::Instant;

/// Bytes that are read at once.
pub(crate) const READ_CHUNK: usize = 4 << 10;

/// The limits of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLimits {
    /// Bytes of its head.
    pub(crate) head_size: usize,
    /// From the first byte of the head to its last one.
    pub(crate) head_timeout: Duration,
    /// Bytes of its body.
    pub(crate) body_size: usize,
    pub(crate) body_timeout: Duration,
}

/// Why a request cannot be served. The connection ends after the answer.
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
    /// The peer is gone. There is no answer.
    Gone,
}

impl HttpError {
    /// The status of the answer. `None`: the peer is gone.
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

impl From<ChunkError> for HttpError {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Malformed => Self::Malformed,
            ChunkError::TooLarge => Self::BodyTooLarge,
        }
    }
}

/// A request that is awaited.
#[derive(Debug)]
pub(crate) struct Awaited {
    /// When its first byte is due; when its head has begun, the last one.
    pub(crate) due: Instant,
    begun: bool,
}

impl Awaited {
    /// The first byte is due at this time.
    pub(crate) fn new(due: Instant) -> Self {
        Self { due, begun: false }
    }
}

/// The result of reading a head.
#[derive(Debug)]
pub(crate) enum NextHead {
    Head(Head),
    /// It has not come, or only a part of it.
    Later,
    /// A request was not begun in time, or the connection is broken.
    None,
    /// The peer has closed its side. All that it sent was read.
    Over,
}

/// A connection that speaks HTTP: its stream, and the bytes that were read beyond the last request.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Arc<Stream>,
    pub(crate) peer: Peer,
    input: Vec<u8>,
    /// Another request may follow. Set by each request, and cleared by an answer that ends the connection.
    keep_alive: bool,
    pub(crate) permit: Permit,
}

impl Connection {
    pub(crate) fn new(stream: Arc<Stream>, peer: Peer, permit: Permit) -> Self {
        Self { stream, peer, input: Vec::new(), keep_alive: true, permit }
    }

    pub(crate) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// The connection ends after the next response.
    pub(crate) fn end_after_response(&mut self) {
        self.keep_alive = false;
    }

    /// The bytes that were read beyond the head: a WebSocket client may send its first frames at once.
    pub(crate) fn take_input(&mut self) -> Vec<u8> {
        self.shrink();
        std::mem::take(&mut self.input)
    }

    /// Frees the unused part of the input buffer.
    pub(crate) fn shrink(&mut self) {
        self.input.shrink_to_fit();
    }

    /// Whether bytes beyond the last request were read.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Reads the head of the next request as far as it has come, without waiting.
    pub(crate) fn read_head(
        &mut self,
        limits: &RequestLimits,
        awaited: &mut Awaited,
    ) -> Result<NextHead, HttpError> {
        loop {
            if !self.input.is_empty() && !std::mem::replace(&mut awaited.begun, true) {
                awaited.due = Instant::now() + limits.head_timeout;
            }
            if let Some(head) = parse_head(&mut self.input)? {
                // If the body is not read, it must not be taken for the next request.
                self.keep_alive = head.has_no_body() && head.keeps_alive();
                return Ok(NextHead::Head(head));
            }
            if self.input.len() >= limits.head_size {
                return Err(HttpError::HeadTooLarge);
            }
            let begun = awaited.begun;
            match self.fill_now() {
                Ok(0) if !begun => return Ok(NextHead::Over),
                Ok(0) => return Err(HttpError::Gone),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() < awaited.due {
                        return Ok(NextHead::Later);
                    }
                    // If no request was begun, there is nothing to answer.
                    return if begun { Err(HttpError::TooSlow) } else { Ok(NextHead::None) };
                }
                Err(_) if !begun => return Ok(NextHead::None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads the body. Its bytes are charged to `charge`.
    pub(crate) fn read_body(
        &mut self,
        head: &Head,
        limits: &RequestLimits,
        charge: &mut Charge,
    ) -> Result<Vec<u8>, HttpError> {
        let body = self.read_body_inner(head, limits, charge);
        // After an error it is not known where the next request begins.
        self.keep_alive = body.is_ok() && head.keeps_alive();
        body
    }

    fn read_body_inner(
        &mut self,
        head: &Head,
        limits: &RequestLimits,
        charge: &mut Charge,
    ) -> Result<Vec<u8>, HttpError> {
        let max = limits.body_size;
        let deadline = Instant::now() + limits.body_timeout;
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

    /// Reads what has come. Waits until the deadline if nothing has.
    fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        match self.fill_now() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                lead::before_wait();
                self.stream.limit_reads(deadline)?;
                self.stream.recv_more(&mut self.input)
            }
            read => read,
        }
    }

    fn fill_now(&mut self) -> io::Result<usize> {
        let room = self.input.capacity() - self.input.len();
        if room < READ_CHUNK / 2 {
            self.input.reserve_exact(self.step());
        }
        self.stream.recv_more_now(&mut self.input)
    }

    /// Bytes by which the buffer grows for the next read. A large body needs few reads, and not much more memory than
    /// it has bytes.
    fn step(&self) -> usize {
        READ_CHUNK.max(self.input.len() / 8)
    }

    /// Answers a request of long-polling. `more` are the headers that depend on the request.
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

    /// Sends a response. `tiny_http` prints it. `Connection: close` is added here where it applies, because the server
    /// of `tiny_http` adds it elsewhere.
    pub(crate) fn respond(&mut self, response: Response, head: Option<&Head>) -> io::Result<()> {
        let without_body = head.is_some_and(|head| *head.method() == Method::Head);
        let version = HTTPVersion(1, u8::from(head.is_none_or(|head| head.persistent)));
        let response = response.with_chunked_threshold(usize::MAX).with_header(server_header());
        let mut bytes = Vec::with_capacity(512 + response.data_length().unwrap_or(0));
        response.raw_print(&mut bytes, version, &[], without_body, None)?;
        if !self.keep_alive
            && let Some(line) = bytes.iter().position(|&byte| byte == b'\n')
        {
            bytes.splice(line + 1..line + 1, *b"Connection: close\r\n");
        }
        self.stream.send_all(&bytes, WRITE_PATIENCE)
    }
}
