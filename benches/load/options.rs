//! What to do, from the command line.

use std::{thread, time::Duration};

use super::Result;

/// Members of a room in `rooms`.
pub(crate) const ROOM: usize = 16;

/// What a run does: the table in `main.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Echo,
    Ack,
    Binary,
    Broadcast,
    Rooms,
    Polling,
    Connects,
    Upgrades,
    Slow,
    Crowd,
    Idle,
}

impl Mode {
    const ALL: [Self; 11] = [
        Self::Echo,
        Self::Ack,
        Self::Binary,
        Self::Broadcast,
        Self::Rooms,
        Self::Polling,
        Self::Connects,
        Self::Upgrades,
        Self::Slow,
        Self::Crowd,
        Self::Idle,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Ack => "ack",
            Self::Binary => "binary",
            Self::Broadcast => "broadcast",
            Self::Rooms => "rooms",
            Self::Polling => "polling",
            Self::Connects => "connects",
            Self::Upgrades => "upgrades",
            Self::Slow => "slow",
            Self::Crowd => "crowd",
            Self::Idle => "idle",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) port: u16,
    pub(crate) connections: usize,
    /// Connections that say something in `crowd`.
    pub(crate) talkers: usize,
    pub(crate) window: usize,
    /// Bytes of a payload: a string's with its quotes.
    pub(crate) size: usize,
    pub(crate) seconds: f64,
    /// For servers that do not keep the order of what one connection sends: all must come, but in any order.
    pub(crate) any_order: bool,
    /// The server has connection state recovery: each event ends with its offset. Not for `binary`.
    pub(crate) offsets: bool,
    /// Ends the run instead of `seconds`. Not for `crowd`.
    pub(crate) messages: Option<u64>,
    /// How long a client rests before each of its messages: of `echo`, `ack`, `binary`, `broadcast`, `rooms` and
    /// `polling`.
    pub(crate) pause: Duration,
    /// The server's process, to read its processor time.
    pub(crate) pid: Option<u32>,
}

impl Options {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            mode: Mode::Echo,
            port: 3000,
            connections: 64,
            talkers: 16,
            window: 1,
            size: 64,
            seconds: 3.0,
            any_order: false,
            offsets: false,
            messages: None,
            pause: Duration::ZERO,
            pid: None,
        };
        let mut args = args.filter(|arg| arg != "--bench");
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--port" => options.port = value()?.parse()?,
                "--connections" => options.connections = value()?.parse()?,
                "--talkers" => options.talkers = value()?.parse()?,
                "--window" => options.window = value()?.parse()?,
                "--size" => options.size = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--any-order" => options.any_order = true,
                "--offsets" => options.offsets = true,
                "--messages" => options.messages = Some(value()?.parse()?),
                "--pause" => options.pause = Duration::from_millis(value()?.parse()?),
                "--pid" => options.pid = Some(value()?.parse()?),
                other => {
                    let mode = Mode::ALL.into_iter().find(|mode| mode.name() == other);
                    options.mode = mode.ok_or(format!("unknown argument {other}"))?;
                }
            }
        }
        if options.size < 12 || options.connections == 0 {
            return Err("--size must be at least 12, --connections at least 1".into());
        }
        if options.mode == Mode::Binary && options.offsets {
            return Err("--offsets is not for binary".into());
        }
        if options.mode == Mode::Crowd && options.messages.is_some() {
            return Err("--messages is not for crowd".into());
        }
        if !(1..=options.connections).contains(&options.talkers) && options.mode == Mode::Crowd {
            return Err("--talkers must be 1 to --connections for crowd".into());
        }
        if options.mode == Mode::Slow && options.connections < 2 {
            return Err("--connections must be at least 2 for slow".into());
        }
        if options.mode == Mode::Rooms && !options.connections.is_multiple_of(ROOM) {
            return Err(format!("--connections must be a multiple of {ROOM} for rooms").into());
        }
        if !(1..=64).contains(&options.window) {
            return Err("--window must be 1 to 64".into());
        }
        Ok(options)
    }

    /// The rest before a message. For one client: all of them share a thread.
    pub(crate) fn rest(&self) {
        if !self.pause.is_zero() {
            thread::sleep(self.pause);
        }
    }
}
