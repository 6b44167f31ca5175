//! Echoes over long-polling: a client has one connection on which it always polls and one on which it posts.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::{
    event::{Timespec, epoll},
    fd::OwnedFd,
    net::SocketFlags,
};

use super::{
    PATIENCE, Result,
    frame::{DIGITS, Expected, Numbered},
    http,
    options::Options,
    peer,
    report::Meter,
};

/// Of one response: heads are some 300 bytes.
const RESPONSE_MAX: usize = 64 << 10;

pub(crate) fn run(options: &Options) -> Result<String> {
    let mut run = Run::connect(options)?;
    let mut meter = Meter::start(options.pid);
    let mut begun = Instant::now();
    for index in 0..run.clients.len() {
        run.poll(index)?;
        run.post(index)?;
    }
    if options.messages.is_none() {
        let seconds = Duration::from_secs_f64(options.seconds);
        run.until(Some(begun + seconds / 4))?;
        (run.echoes, meter, begun) = (0, Meter::start(options.pid), Instant::now());
        run.latencies.clear();
        run.until(Some(begun + seconds))?;
    } else {
        run.until(None)?;
    }
    let took = begun.elapsed();
    let latencies = std::mem::take(&mut run.latencies);
    let report = meter.stop(options, run.echoes, took, latencies)?;
    run.left = 0;
    run.until(None)?;
    Ok(report)
}

struct Client {
    gets: Connection,
    posts: Connection,
    get: Vec<u8>,
    /// A POST with one echo, and the same with a pong in front.
    echo: Numbered,
    pong: Numbered,
    sent: u64,
    done: u64,
    since: Instant,
    pinged: bool,
    /// A POST is not answered yet.
    posting: bool,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
}

struct Run<'o> {
    options: &'o Options,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    clients: Vec<Client>,
    expected: Expected,
    latencies: Vec<u32>,
    echoes: u64,
    left: u64,
}

impl<'o> Run<'o> {
    fn connect(options: &'o Options) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let digits = "0".repeat(DIGITS);
        let echo = format!(r#"42["echo","{digits}{}"]"#, "x".repeat(options.size - DIGITS - 2));
        let mut clients = Vec::new();
        for index in 0..options.connections {
            let client = Client::connect(options.port, index, &echo)?;
            for (part, connection) in [&client.gets, &client.posts].into_iter().enumerate() {
                let data = epoll::EventData::new_u64((2 * index + part) as u64);
                epoll::add(&epoll, &connection.stream, data, epoll::EventFlags::IN)?;
            }
            clients.push(client);
        }
        Ok(Self {
            options,
            epoll,
            events: Vec::with_capacity(256),
            clients,
            expected: Expected::new(echo.into_bytes(), options.offsets),
            latencies: Vec::with_capacity(1 << 20),
            echoes: 0,
            left: options.messages.unwrap_or(u64::MAX),
        })
    }

    /// Runs until then, or until nothing is in flight.
    fn until(&mut self, end: Option<Instant>) -> Result<()> {
        let mut last = Instant::now();
        while self.clients.iter().any(|client| client.posting || client.done < client.sent) {
            let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            self.events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout))?;
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                break;
            }
            if !self.events.is_empty() {
                last = now;
            } else if now - last > PATIENCE {
                return Err("nothing arrived for 10 s: a message was lost".into());
            }
            for at in 0..self.events.len() {
                let place = self.events[at].data.u64() as usize;
                if place.is_multiple_of(2) { self.got(place / 2)? } else { self.posted(place / 2)? }
            }
        }
        Ok(())
    }

    /// The GET has something: the echo, and perhaps a ping.
    fn got(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let Some(body) = client.gets.body()? else { return Ok(()) };
        for packet in body.split(|&byte| byte == 0x1e) {
            if packet == b"2" {
                client.pinged = true;
            } else if self.expected.number(packet, 0) == Some(client.done) && client.done < client.sent {
                client.done += 1;
                self.echoes += 1;
                let waited = client.since.elapsed().as_nanos() / 100;
                self.latencies.push(waited.try_into().unwrap_or(u32::MAX));
            } else {
                let (due, text) = (client.done, String::from_utf8_lossy(packet));
                return Err(format!("client {index}: {text} came where {due} was due").into());
            }
        }
        client.gets.filled = 0;
        self.poll(index)?;
        self.post(index)
    }

    fn posted(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let Some(body) = client.posts.body()? else { return Ok(()) };
        if !body.eq_ignore_ascii_case(b"ok") {
            return Err(format!("a POST was answered {}", String::from_utf8_lossy(body)).into());
        }
        client.posts.filled = 0;
        client.posting = false;
        self.post(index)
    }

    fn poll(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        Ok((&client.gets.stream).write_all(&client.get)?)
    }

    /// Posts the next echo, when the one before it is answered and has come back.
    fn post(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        if self.left == 0 || client.posting || client.done < client.sent {
            return Ok(());
        }
        self.left -= 1;
        self.options.rest();
        let packet = if std::mem::take(&mut client.pinged) { &mut client.pong } else { &mut client.echo };
        (&client.posts.stream).write_all(packet.with(client.sent))?;
        client.since = Instant::now();
        client.sent += 1;
        client.posting = true;
        Ok(())
    }
}

impl Client {
    fn connect(port: u16, index: usize, echo: &str) -> Result<Self> {
        let gets = Connection::open(port, index)?;
        let posts = Connection::open(port, index)?;
        let open = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", http::PATH);
        let sid = http::sid(&http::ask(&gets.stream, open.as_bytes())?)?;
        http::ask(&posts.stream, &http::post(&sid, "40"))?;
        let get = http::get(&sid);
        let (mut connected, mut pinged) = (false, false);
        while !connected {
            for packet in http::ask(&gets.stream, &get)?.split(|&byte| byte == 0x1e) {
                match packet {
                    // Some servers begin with a ping.
                    b"2" => pinged = true,
                    packet if packet.starts_with(b"40{") => connected = true,
                    other => return Err(String::from_utf8_lossy(other).into_owned().into()),
                }
            }
        }
        gets.stream.set_nonblocking(true)?;
        posts.stream.set_nonblocking(true)?;
        Ok(Self {
            gets,
            posts,
            get,
            echo: Numbered::new(http::post(&sid, echo)),
            pong: Numbered::new(http::post(&sid, &format!("3\u{1e}{echo}"))),
            sent: 0,
            done: 0,
            since: Instant::now(),
            pinged,
            posting: false,
        })
    }
}

impl Connection {
    fn open(port: u16, number: usize) -> Result<Self> {
        let stream = peer::dial(port, number, SocketFlags::empty())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, input: vec![0; RESPONSE_MAX], filled: 0 })
    }

    /// Reads; the body of the response, when it is whole. There is never more than one.
    fn body(&mut self) -> Result<Option<&[u8]>> {
        let Some(size) = peer::read(&self.stream, &mut self.input[self.filled..])? else { return Ok(None) };
        self.filled += size;
        match http::response(&self.input[..self.filled])? {
            Some(response) if response.size == self.filled => Ok(Some(response.body)),
            Some(_) => Err("a response that nobody asked for".into()),
            None => Ok(None),
        }
    }
}
