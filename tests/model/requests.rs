//! Doors for the fuzz targets to what is private here: HTTP heads and bodies, and WebSocket frames, as a connection
//! reads them.

use std::{io::Cursor, net::Shutdown, sync::Arc, time::Duration};

use tungstenite::protocol::{Role, WebSocketContext};

use super::peer::send_all;
use crate::{
    proto::engine::{Packet, Query},
    server::{
        Config,
        http::{Awaited, Connection, NextHead, Request},
        limits::budget::{Budget, Charge},
        net::connections::Connections,
        net::stream::Stream,
        peer::Peer,
        transport::{websocket_codec, websocket_handshake},
    },
    sys::{net::TcpStream, sim, thread, time::Instant},
};

/// Reads requests, heads and bodies, as long as the connection stands; the kernel hands them over in whatever pieces.
pub(crate) fn http(bytes: &[u8]) {
    let bytes = bytes.to_vec();
    let seed = bytes.iter().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add((*byte).into()));
    super::simulate(seed, move || {
        sim::set_haste(Duration::ZERO);
        let (ours, theirs) = TcpStream::pair();
        let sent = bytes.clone();
        let writer = thread::Builder::new().name("peer".into()).spawn(move || {
            send_all(&theirs, &sent);
            let _ = theirs.shutdown(Shutdown::Write);
            // The answer to an expectation must not fill the kernel.
            while theirs.recv(4096, true).is_ok_and(|bytes| !bytes.is_empty()) {}
        });
        let stream = Arc::new(Stream::tcp(ours));
        let peer = Peer::Tcp(([127, 0, 0, 1], 1).into());
        let permit = Arc::new(Connections::new(1)).permit(&stream, None).expect("the first");
        let mut connection = Connection::new(Arc::clone(&stream), peer, permit);
        let config = Config { max_head_size: 2048, max_http_buffer_size: 4096, ..Config::default() };
        let limits = config.request_limits();
        let budget = Arc::new(Budget::new(1 << 20));
        while connection.keeps_alive() {
            let mut awaited = Awaited::new(Instant::now() + config.head_timeout);
            let head = loop {
                match connection.read_head(&limits, &mut awaited) {
                    Ok(NextHead::Head(head)) => break Some(head),
                    // As the poller would.
                    Ok(NextHead::Later) => _ = stream.has_input_by(awaited.due),
                    Ok(NextHead::None | NextHead::Over) | Err(_) => break None,
                }
            };
            let Some(head) = head else { break };
            let request = Request::new(&head, peer);
            assert!(request.path().len() + request.query().len() <= 2048 + 4096);
            assert!(!request.path().contains('?'));
            let _ =
                (Query::parse(request.query()), request.header("host"), websocket_handshake::accept(&head));
            let mut charge = Charge::new(&budget);
            match connection.read_body(&head, &limits, &mut charge) {
                Ok(body) => assert!(body.len() <= config.max_http_buffer_size),
                Err(error) => drop(error.status()),
            }
        }
        stream.shutdown(Shutdown::Both);
        drop(connection);
        drop(stream);
        writer.expect("a thread").join().expect("the peer");
    });
}

/// Reads frames with the server's settings (`server`) or the client's, and what is in them.
pub(crate) fn websocket(bytes: &[u8], server: bool) {
    const MAX: usize = 4096;
    let config = Config { max_http_buffer_size: MAX, ..Config::default() };
    let role = if server { Role::Server } else { Role::Client };
    let mut codec = WebSocketContext::new(role, Some(websocket_codec::config(config.max_http_buffer_size)));
    let mut stream = Cursor::new(bytes.to_vec());
    let read = bytes.len() as u64;
    // It writes its pongs and closes behind what it reads, so what it has not read must be kept apart.
    let mut io = Both { input: &mut stream, output: Vec::new() };
    while let Ok(message) = codec.read(&mut io) {
        assert!(message.len() <= MAX);
        if let tungstenite::Message::Text(text) = &message {
            let _ = Packet::decode(text.as_str());
        }
    }
    assert!(io.input.position() <= read);
    // At most one answer a frame, and no frame is shorter than two bytes.
    assert!(io.output.len() <= 128 * (bytes.len() + 1));
}

struct Both<'a> {
    input: &'a mut Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl std::io::Read for Both<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.input.read(buffer)
    }
}

impl std::io::Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
