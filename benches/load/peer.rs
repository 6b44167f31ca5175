//! WebSocket clients by the thousand: blocking while they connect, then all on one epoll.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    thread,
    time::Duration,
};

use rustix::{
    event::{Timespec, epoll},
    fd::OwnedFd,
    net::{AddressFamily, SocketFlags, SocketType},
};

use super::{
    Result,
    frame::{self, Message},
};

/// What one read may bring.
const READ_MAX: usize = 256 << 10;

/// How long a poll waits for input.
const LITTLE: Duration = Duration::from_millis(100);

/// How long clients rest between the last connect and the first message.
const SETTLE: Duration = Duration::from_millis(50);

/// Loopback addresses to connect from: each has ports of its own, so that those of connections just closed do not run
/// out.
const SOURCES: usize = 200;

pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Opens a TCP connection to the server on loopback, the `number`th of this run.
pub(crate) fn dial(port: u16, number: usize, flags: SocketFlags) -> Result<TcpStream> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        flags | SocketFlags::CLOEXEC,
        None,
    )?;
    let source = Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8);
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    match rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connected clients in the namespace `/`.
pub(crate) struct Fleet {
    epoll: OwnedFd,
    streams: Streams,
    /// Of each client: the beginning of a frame whose end has not come.
    partial: Vec<Vec<u8>>,
    scratch: Box<[u8]>,
    events: Vec<epoll::Event>,
}

/// The sending side of a fleet.
pub(crate) struct Streams {
    peers: Vec<(TcpStream, Vec<u8>)>,
    dirty: Vec<usize>,
}

impl Fleet {
    /// Connects one after the other.
    pub(crate) fn connect(port: u16, count: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut peers = Vec::with_capacity(count);
        let mut partial = Vec::with_capacity(count);
        for index in 0..count {
            let (stream, rest) = connect(port, index)?;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            peers.push((stream, Vec::new()));
            partial.push(rest);
        }
        Ok(Self {
            epoll,
            streams: Streams { peers, dirty: Vec::new() },
            partial,
            scratch: vec![0; 2 * READ_MAX].into(),
            events: Vec::with_capacity(1024),
        })
    }

    /// Waits until the server takes events from the last client, too: socketioxide answers a CONNECT first and adds
    /// its handlers then, and drops an event that comes between.
    pub(crate) fn settle(&self) {
        thread::sleep(SETTLE);
    }

    /// To send without having been asked.
    pub(crate) fn streams(&mut self) -> &mut Streams {
        &mut self.streams
    }

    /// Waits a little for input, hands out each message but pings, which it answers, and sends after each client's
    /// messages what they made the caller queue: a client that is alone would do so too.
    pub(crate) fn poll(
        &mut self,
        message: impl FnMut(usize, Message<'_>, &mut Streams) -> Result<()>,
    ) -> Result<()> {
        self.poll_for(LITTLE, message)
    }

    /// The same, and waits no longer than this.
    pub(crate) fn poll_for(
        &mut self,
        most: Duration,
        mut message: impl FnMut(usize, Message<'_>, &mut Streams) -> Result<()>,
    ) -> Result<()> {
        // What the kernel did not take is tried again soon.
        let wait = most.min(if self.streams.dirty.is_empty() { LITTLE } else { LITTLE / 100 });
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        self.events.clear();
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout))?;
        for event in &self.events {
            let index = event.data.u64() as usize;
            let partial = &mut self.partial[index];
            let kept = partial.len();
            self.scratch[..kept].copy_from_slice(partial);
            let Some(read) = read(&self.streams.peers[index].0, &mut self.scratch[kept..])? else { continue };
            let filled = kept + read;
            let mut at = 0;
            while let Some((next, size)) = frame::first(&self.scratch[at..filled]) {
                match next {
                    Message { opcode: frame::TEXT, payload: b"2" } => {
                        self.streams.queue_message(index, frame::TEXT, b"3");
                    }
                    Message { opcode: frame::PING, payload } => {
                        self.streams.queue_message(index, frame::PONG, payload);
                    }
                    next => message(index, next, &mut self.streams)?,
                }
                at += size;
            }
            partial.clear();
            partial.extend_from_slice(&self.scratch[at..filled]);
            if partial.len() > READ_MAX {
                return Err("a message is longer than any that was sent".into());
            }
            self.streams.flush()?;
        }
        self.streams.flush()
    }
}

impl Streams {
    /// Notes frames that are built; [`flush`](Self::flush) sends them, with one call a client.
    pub(crate) fn queue(&mut self, index: usize, frames: &[u8]) {
        self.queued(index).extend_from_slice(frames);
    }

    /// The same with a message.
    pub(crate) fn queue_message(&mut self, index: usize, opcode: u8, payload: &[u8]) {
        frame::push(self.queued(index), opcode, payload);
    }

    fn queued(&mut self, index: usize) -> &mut Vec<u8> {
        let output = &mut self.peers[index].1;
        if output.is_empty() {
            self.dirty.push(index);
        }
        output
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        let peers = &mut self.peers;
        let mut failure = None;
        self.dirty.retain(|&index| {
            let (stream, output) = &mut peers[index];
            match stream.write(output) {
                Ok(sent) if sent == output.len() => output.clear(),
                Ok(sent) => drop(output.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => failure = Some(error),
            }
            !output.is_empty()
        });
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Reads once; `None` if there is nothing.
pub(crate) fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> Result<Option<usize>> {
    match stream.read(buffer) {
        Ok(0) => Err("the server closed a connection".into()),
        Ok(size) => Ok(Some(size)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A client in the namespace `/`, and the beginning of the next frame.
fn connect(port: u16, number: usize) -> Result<(TcpStream, Vec<u8>)> {
    let mut stream = dial(port, number, SocketFlags::empty())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let head = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\n";
    stream.write_all(format!("{head}{UPGRADE}").as_bytes())?;
    let mut input = Vec::new();
    let head = loop {
        if let Some(at) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        more(&stream, &mut input)?;
    };
    if !input.starts_with(b"HTTP/1.1 101") {
        return Err(String::from_utf8_lossy(&input).into_owned().into());
    }
    input.drain(..head);
    expect(&mut stream, &mut input, b"0{")?;
    say(&mut stream, b"40")?;
    expect(&mut stream, &mut input, b"40{")?;
    while answer_ping(&mut stream, &mut input)? {}
    stream.set_nonblocking(true)?;
    Ok((stream, input))
}

/// The next message but pings must begin like this.
fn expect(stream: &mut TcpStream, input: &mut Vec<u8>, prefix: &[u8]) -> Result<()> {
    loop {
        if answer_ping(stream, input)? {
            continue;
        }
        if let Some((message, size)) = frame::first(input) {
            if !message.payload.starts_with(prefix) {
                return Err(String::from_utf8_lossy(message.payload).into_owned().into());
            }
            input.drain(..size);
            return Ok(());
        }
        more(stream, input)?;
    }
}

/// Some servers begin with a ping. `true`: there was one.
fn answer_ping(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<bool> {
    let Some((Message { payload: b"2", .. }, size)) = frame::first(input) else { return Ok(false) };
    input.drain(..size);
    say(stream, b"3")?;
    Ok(true)
}

fn say(stream: &mut TcpStream, text: &[u8]) -> Result<()> {
    let mut frame = Vec::new();
    frame::push(&mut frame, frame::TEXT, text);
    Ok(stream.write_all(&frame)?)
}

/// Reads on, blocking.
pub(crate) fn more(stream: &TcpStream, input: &mut Vec<u8>) -> Result<()> {
    let mut buffer = [0; 4096];
    let size = read(stream, &mut buffer)?.ok_or("the server did not answer for 10 s")?;
    input.extend_from_slice(&buffer[..size]);
    Ok(())
}
