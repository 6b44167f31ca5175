//! A raw HTTP peer: it sends what it is told to, well-formed or not, and reads responses.

use std::{
    cell::Cell,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream},
};

use rustix::net::{AddressFamily, SocketType};

use super::PATIENCE;

thread_local! {
    /// The address that this thread's connections come from. All of 127.0.0.0/8 is this machine.
    static SOURCE: Cell<Ipv4Addr> = const { Cell::new(Ipv4Addr::LOCALHOST) };
}

/// Does it as somebody at this loopback address would.
pub(crate) fn from<T>(source: Ipv4Addr, what: impl FnOnce() -> T) -> T {
    let before = SOURCE.replace(source);
    let result = what();
    SOURCE.set(before);
    result
}

fn dial(addr: SocketAddr) -> TcpStream {
    let source = SOURCE.get();
    if source == Ipv4Addr::LOCALHOST {
        return TcpStream::connect(addr).expect("the server accepts");
    }
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0)).unwrap();
    rustix::net::connect(&socket, &addr).expect("the server accepts");
    socket.into()
}

/// One TCP connection to the server.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    pub(crate) input: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Http {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = dial(addr);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new() }
    }

    /// Sends bytes. The server may have closed already, and then its answer says why.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Whether something has come already.
    pub(crate) fn is_answered(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let answered = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).unwrap();
        answered
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, "")
    }

    pub(crate) fn post(&mut self, target: &str, body: &str) -> Response {
        self.request("POST", target, body)
    }

    pub(crate) fn request(&mut self, method: &str, target: &str, body: &str) -> Response {
        self.begin(method, target, body);
        self.read_response(method == "HEAD", &format!("the answer to {method} {target}"))
    }

    /// Sends a request and does not wait for its answer.
    pub(crate) fn begin(&mut self, method: &str, target: &str, body: &str) {
        let length = match body.len() {
            0 if method == "GET" || method == "HEAD" => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}"));
    }

    pub(crate) fn response(&mut self, what: &str) -> Response {
        self.read_response(false, what)
    }

    pub(crate) fn read_response(&mut self, bodiless: bool, what: &str) -> Response {
        let end = loop {
            if let Some(at) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill(what) > 0, "the connection ended instead of {what}");
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).expect("an ASCII head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
        let mut response = Response { status, head, body: String::new() };
        let length: usize = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        if !bodiless && status != 101 {
            while self.input.len() < length {
                assert!(self.fill(what) > 0, "the connection ended within the body of {what}");
            }
            response.body = String::from_utf8(self.input.drain(..length).collect()).expect("a UTF-8 body");
        }
        response
    }

    /// Waits for the end of the connection, which brings nothing more.
    pub(crate) fn ends(&mut self, what: &str) {
        assert_eq!(self.input, b"", "more came instead of the end: {what}");
        let mut rest = [0; 64];
        match self.stream.read(&mut rest) {
            Ok(0) => {}
            Ok(count) => panic!("more came instead of the end: {what}: {:?}", &rest[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("waited in vain for the end: {what}: {error}"),
        }
    }

    /// Nothing more comes from here, but answers are still read.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    pub(crate) fn fill(&mut self, what: &str) -> usize {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(count) => {
                self.input.extend_from_slice(&chunk[..count]);
                count
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("waited in vain for {what}: {error}"),
        }
    }
}
