//! WebSocket clients by the hundred: blocking while they connect, then all on one epoll.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use rustix::{
    event::{Timespec, epoll},
    fd::OwnedFd,
};

use super::Result;

/// Connected clients in the namespace `/`.
pub(crate) struct Fleet {
    epoll: OwnedFd,
    peers: Vec<Peer>,
    dirty: Vec<usize>,
    events: Vec<epoll::Event>,
}

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Fleet {
    /// Connects one after the other.
    pub(crate) fn connect(port: u16, count: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut peers = Vec::with_capacity(count);
        for index in 0..count {
            let peer = Peer::connect(port)?;
            epoll::add(&epoll, &peer.stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            peers.push(peer);
        }
        Ok(Self { epoll, peers, dirty: Vec::new(), events: Vec::with_capacity(1024) })
    }

    /// Sends a text message now.
    pub(crate) fn send(&mut self, index: usize, text: &str) -> Result<()> {
        self.queue(index, text);
        self.flush()
    }

    /// Notes a text message; [`flush`](Self::flush) sends it, with one call a client.
    pub(crate) fn queue(&mut self, index: usize, text: &str) {
        let output = &mut self.peers[index].output;
        if output.is_empty() {
            self.dirty.push(index);
        }
        push_frame(output, text.as_bytes());
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        for index in std::mem::take(&mut self.dirty) {
            let peer = &mut self.peers[index];
            let mut rest = peer.output.as_slice();
            while !rest.is_empty() {
                match (&peer.stream).write(rest) {
                    Ok(sent) => rest = &rest[sent..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                    Err(error) => return Err(error.into()),
                }
            }
            peer.output.clear();
        }
        Ok(())
    }

    /// Waits a little for input and hands out each message but pings, which it answers.
    pub(crate) fn poll(&mut self, mut message: impl FnMut(usize, &[u8])) -> Result<()> {
        self.events.clear();
        let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout))?;
        let mut pinged = Vec::new();
        for event in &self.events {
            let index = event.data.u64() as usize;
            let peer = &mut self.peers[index];
            peer.read()?;
            let mut at = 0;
            while let Some((payload, size)) = frame(&peer.input[at..]) {
                if payload == b"2" {
                    pinged.push(index);
                } else {
                    message(index, payload);
                }
                at += size;
            }
            peer.input.drain(..at);
        }
        for index in pinged {
            self.send(index, "3")?;
        }
        Ok(())
    }
}

impl Peer {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        (&stream).write_all(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
              Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        let mut peer = Self { stream, input: Vec::new(), output: Vec::new() };
        let head = loop {
            if let Some(at) = peer.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            peer.read()?;
        };
        if !peer.input.starts_with(b"HTTP/1.1 101") {
            return Err(String::from_utf8_lossy(&peer.input).into_owned().into());
        }
        peer.input.drain(..head);
        peer.expect(b"0")?;
        let mut connect = Vec::new();
        push_frame(&mut connect, b"40");
        (&peer.stream).write_all(&connect)?;
        peer.expect(b"40")?;
        peer.stream.set_nonblocking(true)?;
        Ok(peer)
    }

    /// The next message must begin like this.
    fn expect(&mut self, prefix: &[u8]) -> Result<()> {
        loop {
            if let Some((payload, size)) = frame(&self.input) {
                if !payload.starts_with(prefix) {
                    return Err(String::from_utf8_lossy(payload).into_owned().into());
                }
                self.input.drain(..size);
                return Ok(());
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<()> {
        let filled = self.input.len();
        self.input.resize(filled + 64 * 1024, 0);
        let read = self.stream.read(&mut self.input[filled..]);
        self.input.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err("the server closed a connection".into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A masked text frame; the mask is zero, so the payload is what it is.
fn push_frame(output: &mut Vec<u8>, payload: &[u8]) {
    output.push(0x81);
    match payload.len() {
        len @ 0..=125 => output.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            output.push(0x80 | 126);
            output.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            output.push(0x80 | 127);
            output.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    output.extend_from_slice(&[0; 4]);
    output.extend_from_slice(payload);
}

/// The first whole frame's payload, and its size with the header.
fn frame(input: &[u8]) -> Option<(&[u8], usize)> {
    let (header, len) = match *input.get(1)? & 0x7f {
        126 => (4, u16::from_be_bytes(input.get(2..4)?.try_into().ok()?).into()),
        127 => (10, u64::from_be_bytes(input.get(2..10)?.try_into().ok()?) as usize),
        len => (2, len.into()),
    };
    Some((input.get(header..header + len)?, header + len))
}
