//! The rude clients: raw, and none of them stays to the end of what it began.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{Failure, random::Random};

/// Starts so many, until there is peace.
pub(crate) fn start(
    count: usize,
    port: u16,
    seed: u64,
    peace: &Arc<AtomicBool>,
) -> Result<Vec<JoinHandle<()>>, Failure> {
    let hooligan = |number: usize| {
        let peace = Arc::clone(peace);
        let mut random = Random::new(seed, 1_000 + number as u64);
        thread::Builder::new().name("hooligan".into()).stack_size(256 << 10).spawn(move || {
            while !peace.load(SeqCst) {
                // Whatever happens to it, it has earned.
                let _ = misbehave(port, &mut random);
                thread::sleep(Duration::from_millis(random.below(500) as u64));
            }
        })
    };
    Ok((0..count).map(hooligan).collect::<io::Result<_>>()?)
}

/// The beginning of a WebSocket.
const HANDSHAKE: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

fn misbehave(port: u16, random: &mut Random) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    match random.below(7) {
        // Noise.
        0 => {
            let noise: Vec<u8> = (0..1 + random.below(2_000)).map(|_| random.below(256) as u8).collect();
            stream.write_all(&noise)?;
        }
        // A session that nobody comes back for.
        1 => stream.write_all(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n")?,
        // Joins, asks for much, and does not read.
        2 => {
            stream.write_all(HANDSHAKE.as_bytes())?;
            stream.write_all(&frame(0x81, b"40"))?;
            for _ in 0..random.below(200) {
                stream.write_all(&frame(0x81, br#"42["give"]"#))?;
            }
        }
        // Joins a room that it talks nonsense in.
        3 => {
            stream.write_all(HANDSHAKE.as_bytes())?;
            for packet in [&b"40"[..], br#"420["join","room 0"]"#, br#"42["say","nobody","nothing"]"#] {
                stream.write_all(&frame(0x81, packet))?;
            }
        }
        // A frame that breaks a rule, after good ones.
        4 => {
            stream.write_all(HANDSHAKE.as_bytes())?;
            stream.write_all(&frame(0x81, b"40"))?;
            stream.write_all(&frame(0x80 | random.below(128) as u8, &[random.below(256) as u8; 3]))?;
        }
        // Half of anything.
        5 => {
            let half = random.below(HANDSHAKE.len());
            stream.write_all(&HANDSHAKE.as_bytes()[..half])?;
        }
        // Half an upgrade.
        _ => half_an_upgrade(&mut stream, port, random)?,
    }
    thread::sleep(Duration::from_millis(random.below(1_500) as u64));
    if random.percent(50) {
        // It does not even say that it goes.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    }
    Ok(())
}

fn half_an_upgrade(stream: &mut TcpStream, port: u16, random: &mut Random) -> io::Result<()> {
    stream.write_all(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = [0; 1_000];
    let count = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..count]);
    let Some((_, rest)) = answer.split_once(r#""sid":""#) else { return Ok(()) };
    let sid = rest.split('"').next().unwrap_or_default();
    let mut websocket = TcpStream::connect(("127.0.0.1", port))?;
    websocket
        .write_all(HANDSHAKE.replace("websocket HTTP", &format!("websocket&sid={sid} HTTP")).as_bytes())?;
    for packet in [&b"2probe"[..], b"5", b"40"].into_iter().take(random.below(4)) {
        websocket.write_all(&frame(0x81, packet))?;
        thread::sleep(Duration::from_millis(random.below(20) as u64));
    }
    Ok(())
}
