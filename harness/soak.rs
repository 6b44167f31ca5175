//! Puts the memory promise to the test: clients that never read, clients that never finish, and a server that must
//! stay under what it promises while everybody else is served as before.
//!
//! `cargo run --release --example soak` (a minute and a half; `-- --short`: half a minute, for CI)
//!
//! The server is a process of its own, so that its memory is its own. Ends with 0 when it stayed under
//! `Server::memory_bound`, when control clients were answered within a second, all but one in a thousand, and when
//! all sessions and connections were gone afterwards; else with 1.

use std::{
    error::Error,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tinysio::{
    Client,
    client::TransportKind,
    server::{Config, Response, Server},
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Payloads that are sent to those who never read.
const SIZES: [usize; 4] = [64, 4 << 10, 100 << 10, 900 << 10];

/// Clients of each bad kind at one time.
const CROWD: usize = 20;

/// What no control client may have to wait.
const BOUND: Duration = Duration::from_secs(1);

/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let run = match argument.as_deref() {
        Some("serve") => serve(),
        Some("--short") => soak(Duration::from_millis(1_500), 500),
        None => soak(Duration::from_secs(11), 10_000),
        Some(_) => Err("usage: soak [--short]".into()),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The server: `x` is acknowledged, `deaf` joins those that `GET /blast?BYTES` sends to.
fn serve() -> Outcome<()> {
    let size = Arc::new(AtomicUsize::new(0));
    let blast = Arc::clone(&size);
    let mut config = Config::default();
    config.max_connections = 300;
    config.outbox_bytes_max = Some(2 << 20);
    config.outbox_bytes_total = Some(8 << 20);
    config.max_packet_size = Some(2 << 20);
    config.receive_bytes_total = Some(8 << 20);
    config.max_pending_acks = 100;
    // Who goes without a word is found out in seconds.
    config.ping_interval = Duration::from_secs(2);
    config.ping_timeout = Duration::from_secs(2);
    let server = Server::builder()
        .config(config)
        .namespace("/", |ns| {
            ns.on("x", |_, event| event.ack(()));
            ns.on("deaf", |socket, _| socket.join("deaf"));
        })
        .route("/blast", move |request| {
            blast.store(request.query().parse().unwrap_or(0), Relaxed);
            Response::from_string("ok")
        })
        .listen("127.0.0.1:0")?;
    println!("{} {}", server.local_addr().ok_or("no address")?, server.memory_bound());
    let io = server.of("/").ok_or("no namespace")?;
    // Until the other end of our standard input goes.
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    thread::Builder::new().name("stdin".into()).spawn(move || {
        for _ in std::io::stdin().lines() {}
        told.store(true, Relaxed);
    })?;
    let mut reported = Instant::now();
    while !over.load(Relaxed) {
        let bytes = size.load(Relaxed);
        if bytes > 0 {
            io.to("deaf").emit("n", "x".repeat(bytes))?;
        }
        thread::sleep(Duration::from_millis(if bytes > 10_000 { 20 } else { 2 }));
        if reported.elapsed() > Duration::from_millis(50) {
            reported = Instant::now();
            println!("{} {}", server.clients_count(), server.connections_count());
        }
    }
    Ok(())
}

/// The server process as the soak sees it.
struct Served {
    child: Child,
    addr: SocketAddr,
    bound: usize,
    /// Sessions and connections.
    counts: Arc<[AtomicUsize; 2]>,
}

impl Served {
    fn start() -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let first = lines.next().ok_or("the server ended")??;
        let (addr, bound) = first.split_once(' ').ok_or("no address")?;
        let (addr, bound) = (addr.parse()?, bound.parse()?);
        let counts: Arc<[AtomicUsize; 2]> = Arc::default();
        let seen = Arc::clone(&counts);
        thread::Builder::new().name("counts".into()).spawn(move || {
            for line in lines.map_while(Result::ok) {
                for (count, word) in seen.iter().zip(line.split(' ')) {
                    count.store(word.parse().unwrap_or(usize::MAX), Relaxed);
                }
            }
        })?;
        Ok(Self { child, addr, bound, counts })
    }

    /// Bytes of memory that it has.
    fn resident(&self) -> Outcome<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages: usize = status.split(' ').nth(1).ok_or("no pages")?.parse()?;
        Ok(pages * 4096)
    }

    fn blast(&self, bytes: usize) -> Outcome<()> {
        let mut stream = connect(self.addr)?;
        get(&mut stream, &format!("/blast?{bytes}"))?;
        Ok(())
    }

    /// Waits until nobody is left but the control clients.
    fn wait_until_alone(&self, sessions: usize) -> Outcome<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let [clients, connections] = self.counts.each_ref().map(|count| count.load(Relaxed));
            if clients == sessions && connections <= 2 * sessions {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{clients} sessions and {connections} connections are left").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    // The server must come to wait as soon as possible.
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4 << 10)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    Ok(stream)
}

/// Reads a response: its head and its body.
fn response(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        text.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&text).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(head + &String::from_utf8_lossy(&body))
}

fn get(stream: &mut TcpStream, target: &str) -> std::io::Result<String> {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")?;
    response(stream)
}

fn post(stream: &mut TcpStream, target: &str, body: &str) -> std::io::Result<String> {
    write!(stream, "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    response(stream)
}

/// A masked frame, whose mask is nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | 127];
    frame.extend((payload.len() as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// What a client does that a server must survive.
#[derive(Debug, Clone, Copy)]
enum Vice {
    DeafWebSocket,
    /// Its packets are fetched, and the answer is not read.
    DeafPoll,
    /// Its packets are not fetched.
    NoPoll,
    HalfABody,
    FragmentsWithoutEnd,
    /// Two large fragments, and then silence.
    LargeFragments,
}

const VICES: [Vice; 6] = [
    Vice::DeafWebSocket,
    Vice::DeafPoll,
    Vice::NoPoll,
    Vice::HalfABody,
    Vice::FragmentsWithoutEnd,
    Vice::LargeFragments,
];

fn indulge(addr: SocketAddr, vice: Vice) -> std::io::Result<TcpStream> {
    let mut stream = connect(addr)?;
    match vice {
        Vice::DeafWebSocket => {
            upgrade(&mut stream, "")?;
            stream.write_all(&frame(0x81, b"42[\"deaf\"]"))?;
        }
        Vice::FragmentsWithoutEnd => {
            upgrade(&mut stream, "")?;
            for at in 0..14 {
                stream.write_all(&frame(if at == 0 { 0x01 } else { 0 }, &[b'4'; 60_000]))?;
            }
        }
        Vice::LargeFragments => {
            upgrade(&mut stream, "")?;
            stream.write_all(&frame(0x01, format!("42[\"x\",\"{}", "x".repeat(600_000)).as_bytes()))?;
            stream.write_all(&frame(0x80, format!("{}\"]", "x".repeat(300_000)).as_bytes()))?;
        }
        Vice::DeafPoll | Vice::NoPoll | Vice::HalfABody => {
            let target = open_polling(&mut stream)?;
            post(&mut stream, &target, "40")?;
            get(&mut stream, &target)?;
            post(&mut stream, &target, "42[\"deaf\"]")?;
            match vice {
                Vice::DeafPoll => write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")?,
                Vice::HalfABody => {
                    write!(
                        stream,
                        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"
                    )?;
                    stream.write_all(&vec![b'4'; 800_000])?;
                }
                _ => {}
            }
        }
    }
    Ok(stream)
}

fn open_polling(stream: &mut TcpStream) -> std::io::Result<String> {
    let open = get(stream, "/socket.io/?EIO=4&transport=polling")?;
    let sid = open.split_once("\"sid\":\"").and_then(|(_, rest)| rest.split('"').next());
    let sid = sid.ok_or(ErrorKind::ConnectionRefused)?;
    Ok(format!("/socket.io/?EIO=4&transport=polling&sid={sid}"))
}

fn upgrade(stream: &mut TcpStream, sid: &str) -> std::io::Result<()> {
    write!(
        stream,
        "GET /socket.io/?EIO=4&transport=websocket{sid} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: \
         Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    response(stream)?;
    if sid.is_empty() {
        stream.write_all(&frame(0x81, b"40"))?;
    }
    Ok(())
}

/// A thread of bad clients of one kind: those that were thrown out are followed by new ones.
fn misbehave(addr: SocketAddr, vice: Vice, over: &AtomicBool) -> usize {
    let mut crowd: Vec<TcpStream> = Vec::new();
    let mut all = 0;
    while !over.load(Relaxed) {
        match indulge(addr, vice) {
            Ok(stream) => {
                all += 1;
                crowd.push(stream);
            }
            // Refused, or thrown out on the way: it is what this is about.
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
        if crowd.len() >= CROWD {
            thread::sleep(Duration::from_millis(200));
            crowd.drain(..CROWD / 4);
        }
    }
    all
}

/// Echoes' times, sorted.
struct Latency(Vec<Duration>);

impl Latency {
    fn at(&self, part: f64) -> Duration {
        let index = (self.0.len() as f64 * part) as usize;
        self.0.get(index.min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [median, most, longest] = [0.5, 0.99, 1.0].map(|part| self.at(part).as_secs_f64() * 1e3);
        write!(f, "median {median:.2} ms, 99 % {most:.2} ms, longest {longest:.1} ms of {}", self.0.len())
    }
}

/// Asks the server again and again for so long, and looks at its memory: the times, and the most memory.
fn observe(served: &Served, control_clients: &[Client], span: Duration) -> Outcome<(Latency, usize)> {
    let (begun, mut most) = (Instant::now(), 0);
    let mut times = Vec::new();
    while begun.elapsed() < span {
        for control_client in control_clients {
            let asked = Instant::now();
            control_client.socket("/").emit_with_ack("x", "how are you", PATIENCE)?;
            times.push(asked.elapsed());
        }
        most = most.max(served.resident()?);
        thread::sleep(Duration::from_millis(2));
    }
    times.sort();
    Ok((Latency(times), most))
}

fn control_clients(addr: SocketAddr) -> Outcome<Vec<Client>> {
    let clients = [TransportKind::Websocket, TransportKind::Polling]
        .map(|transport| Client::builder(&format!("http://{addr}")).transports(&[transport]).build());
    let clients = clients.into_iter().collect::<Result<Vec<_>, _>>()?;
    for client in &clients {
        client.connect()?;
    }
    Ok(clients)
}

/// Upgrades that are given up.
fn abort_upgrades(addr: SocketAddr, count: usize) -> Outcome<()> {
    for at in 0..count {
        let mut stream = connect(addr)?;
        let Ok(target) = open_polling(&mut stream) else {
            // As many as there may be wait for their heartbeat to find out.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let sid = target.rsplit_once('&').map_or("", |(_, sid)| sid).to_owned();
        let mut upgrading = connect(addr)?;
        upgrade(&mut upgrading, &format!("&{sid}"))?;
        if at % 2 == 0 {
            upgrading.write_all(&frame(0x81, b"2probe"))?;
        }
        rustix::net::sockopt::set_socket_linger(&upgrading, Some(Duration::ZERO))?;
        if at % 20 > 0 {
            // Most take leave, and do not wait for the answer; the rest are for the heartbeat to find.
            write!(stream, "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")?;
        }
    }
    Ok(())
}

fn soak(span: Duration, upgrades: usize) -> Outcome<()> {
    let served = Served::start()?;
    let clients = control_clients(served.addr)?;
    let (quiet, idle) = observe(&served, &clients, span)?;
    println!("promise {} KiB; at rest {} KiB, {quiet}", served.bound >> 10, idle >> 10);
    let mut failed = Vec::new();
    for size in SIZES {
        served.blast(size)?;
        let over = AtomicBool::new(false);
        let (seen, bad) = thread::scope(|scope| -> Outcome<_> {
            let (addr, over) = (served.addr, &over);
            let crowds = VICES.map(|vice| scope.spawn(move || misbehave(addr, vice, over)));
            let seen = observe(&served, &clients, span);
            over.store(true, Relaxed);
            let bad: usize = crowds.into_iter().map(|crowd| crowd.join().unwrap_or(0)).sum();
            Ok((seen?, bad))
        })?;
        served.blast(0)?;
        let (latency, most) = seen;
        println!("{size:>7} bytes: {bad} bad clients, at most {} KiB, {latency}", most >> 10);
        if most > served.bound {
            failed.push(format!("{most} bytes are more than the promised {}", served.bound));
        }
        // One in a thousand may be the machine's: it has other things to do.
        if latency.at(0.999) > BOUND {
            failed.push(format!("at {size} bytes control clients waited {:?}", latency.at(0.999)));
        }
        served.wait_until_alone(clients.len())?;
    }
    abort_upgrades(served.addr, upgrades)?;
    served.wait_until_alone(clients.len())?;
    println!("{upgrades} upgrades given up; nobody is left; {} KiB at the end", served.resident()? >> 10);
    for client in &clients {
        client.disconnect();
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}
