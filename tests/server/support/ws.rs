//! A raw WebSocket peer: frames by hand, so that it can send bad ones.

use std::net::{Shutdown, SocketAddr};

use super::{Http, Response};

/// What came from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// The connection ended.
    End,
}

impl Frame {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }
}

pub(crate) struct Ws {
    pub(crate) http: Http,
}

impl Ws {
    /// The server must take it.
    pub(crate) fn open(addr: SocketAddr, target: &str) -> Self {
        Self::try_open(addr, target, "")
            .unwrap_or_else(|response| panic!("no WebSocket at {target}: {response:?}"))
    }

    /// `headers`: lines that each end with CRLF.
    pub(crate) fn try_open(addr: SocketAddr, target: &str, headers: &str) -> Result<Self, Response> {
        let mut http = Http::connect(addr);
        http.send(Self::request(target, headers));
        let response = http.response(&format!("the WebSocket handshake at {target}"));
        if response.status == 101 { Ok(Self { http }) } else { Err(response) }
    }

    /// The request that opens a WebSocket.
    pub(crate) fn request(target: &str, headers: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.http.send(Self::frame(0x81, text.as_bytes()));
    }

    pub(crate) fn send_close(&mut self) {
        self.http.send(Self::frame(0x88, &1000u16.to_be_bytes()));
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.http.send(bytes);
    }

    /// A masked frame with this first byte.
    pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// Waits for a frame.
    pub(crate) fn next(&mut self, what: &str) -> Frame {
        loop {
            if let Some(frame) = self.take() {
                return frame;
            }
            if self.http.fill(what) == 0 {
                return Frame::End;
            }
        }
    }

    /// Waits for text that is no ping.
    pub(crate) fn text(&mut self, what: &str) -> String {
        match self.next(what) {
            Frame::Text(text) if text == "2" => {
                self.send("3");
                self.text(what)
            }
            Frame::Text(text) => text,
            other => panic!("{other:?} came instead of {what}"),
        }
    }

    pub(crate) fn expect(&mut self, text: &str) {
        assert_eq!(self.text(text), text);
    }

    /// Waits for the end, hangs up, and tells the code of the close frame: `None` when there was no frame, `Some(None)`
    /// when it had no code.
    pub(crate) fn closed(&mut self, what: &str) -> Option<Option<u16>> {
        let mut close = None;
        loop {
            match self.next(what) {
                Frame::End => {
                    // The server may have been faster.
                    let _ = self.http.stream.shutdown(Shutdown::Both);
                    return close;
                }
                Frame::Close(code) => {
                    close = Some(code);
                    self.send_close();
                }
                _ => {}
            }
        }
    }

    /// A whole frame that has arrived.
    fn take(&mut self) -> Option<Frame> {
        let input = &self.http.input;
        let (first, second) = (*input.first()?, *input.get(1)?);
        assert_eq!(first & 0xf0, 0x80, "servers send whole frames");
        assert_eq!(second & 0x80, 0, "servers do not mask");
        let (header, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(input.get(2..10)?.try_into().unwrap()) as usize),
            length => (2, usize::from(length)),
        };
        let payload = input.get(header..header + length)?.to_vec();
        self.http.input.drain(..header + length);
        Some(match first & 0x0f {
            1 => Frame::Text(String::from_utf8(payload).expect("UTF-8 text")),
            2 => Frame::Binary(payload),
            8 => Frame::Close(payload.get(..2).map(|code| u16::from_be_bytes(code.try_into().unwrap()))),
            9 => Frame::Ping(payload),
            10 => Frame::Pong(payload),
            opcode => panic!("opcode {opcode} from the server"),
        })
    }
}
