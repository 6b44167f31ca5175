//! The rows of `tests/wire`, and the notation of their right side.

use std::fmt::Debug;

use tinysio::{
    Bytes,
    proto::{
        Error,
        engine::{self, Data},
        socket::{Assembler, Body, Complete, Packet},
    },
};

/// One line: what is on the wire, what it means, and whether that would be written in the same way.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) line: usize,
    pub(crate) wire: String,
    pub(crate) expected: String,
    pub(crate) canonical: bool,
}

/// The rows of a file in `tests/wire`. `␠` is a space and `␞` the record separator.
pub(crate) fn rows(file: &str) -> Vec<Row> {
    let path = format!("{}/tests/wire/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(line, text)| row(line, text)).collect()
}

fn row(line: usize, text: &str) -> Row {
    let (canonical, arrow) = if text.contains(" ~> ") { (false, " ~> ") } else { (true, " => ") };
    let (wire, expected) = text.split_once(arrow).unwrap_or_else(|| panic!("line {line} has no arrow"));
    let wire = wire.replace('␠', " ").replace('␞', "\u{1e}");
    Row { line, wire, expected: expected.into(), canonical }
}

/// One message as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Binary(Bytes),
}

/// The messages of a row: text, or `<hex>`, between ` | `.
pub(crate) fn messages(wire: &str) -> Vec<Message> {
    let message = |part: &str| match part.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
        Some(hex) => Message::Binary(unhex(hex)),
        None => Message::Text(part.into()),
    };
    wire.split(" | ").map(message).collect()
}

fn unhex(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a whole message gave: a packet that can still be borrowed from, or the wish for more.
#[derive(Debug)]
pub(crate) enum Taken {
    Text(String),
    Binary(Complete),
    Wait,
}

impl Taken {
    pub(crate) fn packet(&self) -> Option<Packet<'_>> {
        match self {
            Self::Text(text) => Some(Packet::decode(text, &[]).unwrap()),
            Self::Binary(complete) => Some(complete.packet().unwrap()),
            Self::Wait => None,
        }
    }
}

/// Feeds one message, completes what it completes, and says what came of it.
pub(crate) fn take(assembler: &mut Assembler, message: &Message) -> Result<Taken, Error> {
    match message {
        Message::Text(text) => Ok(assembler.text(text)?.map_or(Taken::Wait, |_| Taken::Text(text.clone()))),
        Message::Binary(data) => match assembler.binary(data.clone())? {
            None => Ok(Taken::Wait),
            Some(complete) => complete.packet().map(|_| ()).map(|()| Taken::Binary(complete)),
        },
    }
}

/// An outcome in the notation of the files.
pub(crate) fn verdict<T>(result: &Result<T, Error>, show: impl Fn(&T) -> String) -> String {
    match result {
        Ok(value) => show(value),
        Err(error) => rejection(error),
    }
}

pub(crate) fn rejection(error: &impl Debug) -> String {
    format!("!{error:?}")
}

pub(crate) fn show_engine(packet: &engine::Packet<'_>) -> String {
    let line = match packet {
        engine::Packet::Open(json) => format!("OPEN {json}"),
        engine::Packet::Close => "CLOSE".into(),
        engine::Packet::Ping(data) => format!("PING {data}"),
        engine::Packet::Pong(data) => format!("PONG {data}"),
        engine::Packet::Message(Data::Text(text)) => format!("TEXT {text}"),
        engine::Packet::Message(Data::Binary(data)) => format!("BINARY {}", hex(data)),
        engine::Packet::Upgrade => "UPGRADE".into(),
        engine::Packet::Noop => "NOOP".into(),
    };
    line.trim_end().into()
}

pub(crate) fn show_socket(packet: &Packet<'_>) -> String {
    let namespace = packet.namespace;
    match &packet.body {
        Body::Connect(None) => format!("CONNECT {namespace}"),
        Body::Connect(Some(data)) => format!("CONNECT {namespace} {data}"),
        Body::Disconnect => format!("DISCONNECT {namespace}"),
        Body::ConnectError(data) => format!("CONNECT_ERROR {namespace} {data}"),
        Body::Event { name, args, id } => {
            let id = id.map_or("-".into(), |id| id.to_string());
            let args: Vec<_> = args.iter().map(|arg| arg.json()).collect();
            let name = serde_json::to_string(name).unwrap();
            format!("EVENT {namespace} {id} {name} [{}]", args.join(","))
        }
        Body::Ack { id, args } => {
            let args: Vec<_> = args.iter().map(|arg| arg.json()).collect();
            format!("ACK {namespace} {id} [{}]", args.join(","))
        }
    }
}
