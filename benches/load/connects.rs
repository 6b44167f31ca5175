//! Connections opened and closed: `connects` and `upgrades`.
//!
//! ```text
//! connects   WS     GET upgrade ► 101, 0{…} ── 40 ► 40{…}   closed
//!
//! upgrades   GETS   GET ► 0{…} ── GET ► 40{…} ── GET ► 6 ──────────┐ none is open any more
//!            POSTS              ── POST 40 ► ok ───────────────────┤
//!            WS                 ── GET upgrade ► 101 ── 2probe ► 3probe ── 5, echo ► echo   closed
//! ```
//! The second is what the official client does by default, and it is done when the echo is back.

use std::{io::Write, net::TcpStream, time::Instant};

use rustix::{
    event::{Timespec, epoll},
    fd::OwnedFd,
    net::SocketFlags,
};

use super::{
    PATIENCE, Result, frame, http,
    options::{Mode, Options},
    peer::{self, UPGRADE},
    report::Meter,
};

/// Connections of a run unless `--messages` says otherwise.
const TOTAL: u64 = 10_000;

const ECHO: &[u8] = br#"42["echo","upgraded"]"#;

// The wires of a client.
const GETS: usize = 0;
const POSTS: usize = 1;
const WS: usize = 2;
const WIRES: usize = 3;

pub(crate) fn run(options: &Options) -> Result<String> {
    let total = options.messages.unwrap_or(TOTAL);
    let mut crowd = Crowd::new(options)?;
    let meter = Meter::start(options.pid);
    let begun = Instant::now();
    for slot in 0..crowd.slots.len() {
        crowd.begin(slot)?;
    }
    let (mut last, mut done) = (begun, 0);
    while done < total {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        crowd.events.clear();
        epoll::wait(&crowd.epoll, rustix::buffer::spare_capacity(&mut crowd.events), Some(&timeout))?;
        if !crowd.events.is_empty() {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            return Err("nothing arrived for 10 s: a connection hangs".into());
        }
        for at in 0..crowd.events.len() {
            let place = crowd.events[at].data.u64() as usize;
            done += u64::from(crowd.advance(place / WIRES, place % WIRES, total)?);
        }
    }
    meter.stop(options, done, begun.elapsed(), crowd.latencies)
}

/// The clients at one time, each in its slot.
struct Crowd {
    mode: Mode,
    port: u16,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    slots: Vec<Option<Client>>,
    begun: u64,
    latencies: Vec<u32>,
}

struct Client {
    since: Instant,
    number: usize,
    sid: String,
    wires: [Option<Wire>; WIRES],
    /// Requests without an answer.
    polling: bool,
    posting: bool,
    /// The CONNECT is answered.
    connected: bool,
    /// The answer to the probe is here.
    probed: bool,
    /// A ping came on polling: its pong follows the upgrade, long before it is due.
    pinged: bool,
    /// The WebSocket is the transport.
    upgraded: bool,
}

struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    /// Frames, and no longer HTTP.
    open: bool,
}

impl Crowd {
    fn new(options: &Options) -> Result<Self> {
        let total = options.messages.unwrap_or(TOTAL) as usize;
        Ok(Self {
            mode: options.mode,
            port: options.port,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(1024),
            slots: (0..total.min(options.window)).map(|_| None).collect(),
            begun: 0,
            latencies: Vec::with_capacity(total),
        })
    }

    fn begin(&mut self, slot: usize) -> Result<()> {
        self.slots[slot] = Some(Client {
            since: Instant::now(),
            number: self.begun as usize,
            sid: String::new(),
            wires: [None, None, None],
            polling: false,
            posting: false,
            connected: false,
            probed: false,
            pinged: false,
            upgraded: false,
        });
        self.begun += 1;
        if self.mode == Mode::Connects {
            let request =
                format!("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}");
            self.dial(slot, WS, request.as_bytes())
        } else {
            let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", http::PATH);
            self.dial(slot, GETS, request.as_bytes())
        }
    }

    /// Opens a wire and says the first thing on it.
    fn dial(&mut self, slot: usize, part: usize, request: &[u8]) -> Result<()> {
        let Some(client) = &mut self.slots[slot] else { return Ok(()) };
        let mut stream = peer::dial(self.port, client.number, SocketFlags::empty())?;
        stream.set_nonblocking(true)?;
        stream.write_all(request)?;
        let place = epoll::EventData::new_u64((slot * WIRES + part) as u64);
        epoll::add(&self.epoll, &stream, place, epoll::EventFlags::IN)?;
        client.wires[part] = Some(Wire { stream, input: Vec::new(), open: false });
        Ok(())
    }

    /// Takes what has come on a wire. `true`: this client is done, and the next is on its way.
    fn advance(&mut self, slot: usize, part: usize, total: u64) -> Result<bool> {
        // An event may be older than the client in its slot.
        let Some(client) = &mut self.slots[slot] else { return Ok(false) };
        let Some(wire) = &mut client.wires[part] else { return Ok(false) };
        match wire.read() {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(_) if client.upgraded && part != WS => {
                client.wires[part] = None;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let done = match part {
            GETS if client.sid.is_empty() => return self.opened(slot).map(|()| false),
            GETS => client.got()?,
            POSTS => client.posted()?,
            _ => client.messages(self.mode)?,
        };
        if done {
            let waited = client.since.elapsed().as_nanos() / 100;
            self.latencies.push(waited.try_into().unwrap_or(u32::MAX));
            self.slots[slot] = None;
            if self.begun < total {
                self.begin(slot)?;
            }
        }
        Ok(done)
    }

    /// The polling handshake is answered: everything at once, as the official client has it.
    fn opened(&mut self, slot: usize) -> Result<()> {
        let Some(client) = &mut self.slots[slot] else { return Ok(()) };
        let Some(body) = client.answer(GETS)? else { return Ok(()) };
        client.sid = http::sid(&body)?;
        client.poll()?;
        client.posting = true;
        let post = http::post(&client.sid, "40");
        let upgrade = format!(
            "GET /socket.io/?EIO=4&transport=websocket&sid={} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}",
            client.sid
        );
        self.dial(slot, POSTS, &post)?;
        self.dial(slot, WS, upgrade.as_bytes())
    }
}

impl Client {
    /// The body of the response on a wire, if it is whole.
    fn answer(&mut self, part: usize) -> Result<Option<Vec<u8>>> {
        let Some(wire) = &mut self.wires[part] else { return Ok(None) };
        let Some(response) = http::response(&wire.input)? else { return Ok(None) };
        let (body, size) = (response.body.to_vec(), response.size);
        wire.input.drain(..size);
        Ok(Some(body))
    }

    fn poll(&mut self) -> Result<()> {
        self.polling = true;
        let get = http::get(&self.sid);
        self.say(GETS, &get)
    }

    fn say(&mut self, part: usize, bytes: &[u8]) -> Result<()> {
        let wire = self.wires[part].as_mut().ok_or("there is no such connection")?;
        Ok(wire.stream.write_all(bytes)?)
    }

    fn say_message(&mut self, text: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(64);
        frame::push(&mut frame, frame::TEXT, text);
        self.say(WS, &frame)
    }

    fn got(&mut self) -> Result<bool> {
        let Some(body) = self.answer(GETS)? else { return Ok(false) };
        self.polling = false;
        for packet in body.split(|&byte| byte == 0x1e) {
            match packet {
                b"6" => {}
                b"2" => self.pinged = true,
                packet if packet.starts_with(b"40{") => self.connected = true,
                other => return Err(format!("unexpected packet: {}", String::from_utf8_lossy(other)).into()),
            }
        }
        if !self.probed {
            self.poll()?;
        }
        self.upgrade().map(|()| false)
    }

    fn posted(&mut self) -> Result<bool> {
        if self.answer(POSTS)?.is_some() {
            self.posting = false;
            self.upgrade()?;
        }
        Ok(false)
    }

    /// `true`: the last message has come.
    fn messages(&mut self, mode: Mode) -> Result<bool> {
        if self.wires[WS].as_ref().is_some_and(|wire| !wire.open) {
            if self.answer(WS)?.is_none() {
                return Ok(false);
            }
            if mode == Mode::Upgrades {
                self.say_message(b"2probe")?;
            }
        }
        let Some(wire) = &mut self.wires[WS] else { return Ok(false) };
        wire.open = true;
        let input = std::mem::take(&mut wire.input);
        let mut at = 0;
        while let Some((message, size)) = frame::first(&input[at..]) {
            at += size;
            match message.payload {
                b"6" => {}
                b"2" => self.say_message(b"3")?,
                b"3probe" => self.probed = true,
                ECHO => return Ok(true),
                payload if payload.starts_with(b"0{") => self.say_message(b"40")?,
                payload if payload.starts_with(b"40{") && mode == Mode::Connects => return Ok(true),
                payload if payload.starts_with(b"40{") => {
                    self.connected = true;
                    self.say_message(ECHO)?;
                }
                other => return Err(format!("unexpected message: {}", String::from_utf8_lossy(other)).into()),
            }
        }
        if let Some(wire) = &mut self.wires[WS] {
            wire.input.extend_from_slice(&input[at..]);
        }
        self.upgrade().map(|()| false)
    }

    /// Goes over to the WebSocket, when the probe is answered and no request is open any more.
    fn upgrade(&mut self) -> Result<()> {
        if self.probed && !self.upgraded && !self.polling && !self.posting {
            self.upgraded = true;
            self.say_message(b"5")?;
            if self.pinged {
                self.say_message(b"3")?;
            }
            if self.connected {
                self.say_message(ECHO)?;
            }
        }
        Ok(())
    }
}

impl Wire {
    /// Reads once; `false` if there is nothing.
    fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        let Some(size) = peer::read(&self.stream, &mut buffer)? else { return Ok(false) };
        self.input.extend_from_slice(&buffer[..size]);
        Ok(true)
    }
}
