//! Messages that come back: `echo`, `ack`, `binary`, `broadcast`, `rooms` and `slow`.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    PATIENCE, Result,
    frame::{self, DIGITS, Expected, Message, Numbered},
    options::{Mode, Options, ROOM},
    peer::{Fleet, Streams},
    report::Meter,
};

/// The text of a binary event; the bytes follow in a frame of their own.
const BINARY_EVENT: &[u8] = br#"451-["echo",{"_placeholder":true,"num":0}]"#;

/// Where an acknowledgement has its id.
const ACK_ID: std::ops::Range<usize> = 2..5;

pub(crate) fn run(options: &Options) -> Result<String> {
    let mut fleet = Fleet::connect(options.port, options.connections)?;
    fleet.settle();
    if options.mode == Mode::Rooms {
        join(&mut fleet, options.connections, |index| index / ROOM)?;
    }
    Run::new(options).drive(&mut fleet)
}

/// The first `connections` join the rooms of these numbers.
pub(crate) fn join(fleet: &mut Fleet, connections: usize, room: impl Fn(usize) -> usize) -> Result<()> {
    // A join has no answer; an echo behind it has, and the server works in order.
    for index in 0..connections {
        let join = format!(r#"42["join","room{}"]"#, room(index));
        fleet.streams().queue_message(index, frame::TEXT, join.as_bytes());
        fleet.streams().queue_message(index, frame::TEXT, br#"42["echo","joined"]"#);
    }
    fleet.streams().flush()?;
    let mut missing = connections;
    let begun = Instant::now();
    while missing > 0 {
        fleet.poll(|_, _, _| {
            missing -= 1;
            Ok(())
        })?;
        if begun.elapsed() > PATIENCE {
            return Err("not everybody could join a room within 10 s".into());
        }
    }
    Ok(())
}

/// A group of connections of which the first sends; for echoes, one connection.
struct Group {
    first: usize,
    packet: Numbered,
    /// Sent, with the time and the number of members that do not have it.
    flying: VecDeque<(Instant, usize)>,
    sent: u64,
    done: u64,
}

/// Which numbers a connection has had: all below `due`, and some of those from there on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Had {
    due: u64,
    ahead: u64,
}

impl Had {
    /// Fails if it has it already, if it is further ahead than any window, or if its turn has not come and the order
    /// matters.
    pub(crate) fn take(&mut self, number: u64, any_order: bool) -> Result<()> {
        let due = self.due;
        let place = number.checked_sub(due).filter(|&place| place == 0 || (any_order && place < 64));
        let Some(place) = place.filter(|place| self.ahead >> place & 1 == 0) else {
            return Err(format!("{number} came where {due} was due").into());
        };
        self.ahead |= 1 << place;
        let run = self.ahead.trailing_ones();
        self.due += u64::from(run);
        self.ahead = self.ahead.checked_shr(run).unwrap_or_default();
        Ok(())
    }
}

struct Run<'o> {
    options: &'o Options,
    /// Connections of a group.
    size: usize,
    groups: Vec<Group>,
    expected: Expected,
    /// The answer to `slow`.
    slow: Expected,
    /// What each connection has had.
    had: Vec<Had>,
    /// Who has had the text of a binary event, and not its bytes.
    half: Vec<bool>,
    latencies: Vec<u32>,
    deliveries: u64,
    /// Messages that may still be sent.
    left: u64,
    flying: usize,
}

impl<'o> Run<'o> {
    fn new(options: &'o Options) -> Self {
        let size = match options.mode {
            Mode::Broadcast => options.connections,
            Mode::Rooms => ROOM,
            _ => 1,
        };
        let group = |first| Group {
            first,
            packet: packet(options, first),
            flying: VecDeque::with_capacity(options.window),
            sent: 0,
            done: 0,
        };
        Self {
            options,
            size,
            groups: (0..options.connections).step_by(size).map(group).collect(),
            expected: expected(options),
            slow: event(options, "slow"),
            had: vec![Had::default(); options.connections],
            half: vec![false; options.connections],
            latencies: Vec::with_capacity(4 << 20),
            deliveries: 0,
            left: options.messages.unwrap_or(u64::MAX),
            flying: 0,
        }
    }

    fn drive(mut self, fleet: &mut Fleet) -> Result<String> {
        for group in 0..self.groups.len() {
            for _ in 0..self.options.window {
                self.send(fleet.streams(), group);
            }
        }
        let mut meter = Meter::start(self.options.pid);
        let mut begun = Instant::now();
        fleet.streams().flush()?;
        if self.options.messages.is_none() {
            let seconds = Duration::from_secs_f64(self.options.seconds);
            self.until(fleet, Some(begun + seconds / 4))?;
            (self.deliveries, meter, begun) = (0, Meter::start(self.options.pid), Instant::now());
            self.latencies.clear();
            self.until(fleet, Some(begun + seconds))?;
        } else {
            self.until(fleet, None)?;
        }
        let took = begun.elapsed();
        let latencies = std::mem::take(&mut self.latencies);
        let report = meter.stop(self.options, self.deliveries, took, latencies)?;
        // What is still in flight must come, too.
        self.left = 0;
        self.until(fleet, None)?;
        Ok(report)
    }

    /// Runs until then, or until nothing is in flight.
    fn until(&mut self, fleet: &mut Fleet, end: Option<Instant>) -> Result<()> {
        let (mut last, mut seen) = (Instant::now(), self.deliveries);
        while self.flying > 0 {
            fleet.poll(|connection, message, streams| self.arrived(connection, message, streams))?;
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                break;
            }
            if self.deliveries > seen {
                (last, seen) = (now, self.deliveries);
            } else if now - last > PATIENCE {
                return Err("nothing arrived for 10 s: a message was lost".into());
            }
        }
        Ok(())
    }

    fn arrived(&mut self, connection: usize, message: Message<'_>, streams: &mut Streams) -> Result<()> {
        let Some(number) = self.number(connection, message) else {
            if self.half[connection] {
                return Ok(());
            }
            let text = String::from_utf8_lossy(message.payload);
            return Err(format!("unexpected message, opcode {}: {text}", message.opcode).into());
        };
        let taken = self.had[connection].take(number, self.options.any_order);
        taken.map_err(|error| format!("connection {connection}: {error}"))?;
        let counts = !self.is_slow(connection);
        self.deliveries += u64::from(counts);
        let index = connection / self.size;
        let group = &mut self.groups[index];
        let flight = number.checked_sub(group.done).and_then(|place| group.flying.get_mut(place as usize));
        flight.ok_or("a message came that was not sent")?.1 -= 1;
        while let Some(&(at, 0)) = self.groups[index].flying.front() {
            self.groups[index].flying.pop_front();
            self.groups[index].done += 1;
            self.flying -= 1;
            if counts {
                self.latencies.push((at.elapsed().as_nanos() / 100).try_into().unwrap_or(u32::MAX));
            }
            self.send(streams, index);
        }
        Ok(())
    }

    /// The number of a message that is as it must be. `None` also for the first half of a binary one, which is noted.
    fn number(&mut self, connection: usize, message: Message<'_>) -> Option<u64> {
        match (self.options.mode, message.opcode) {
            (Mode::Binary, frame::TEXT) => {
                self.half[connection] = !self.half[connection] && message.payload == BINARY_EVENT;
                None
            }
            (Mode::Binary, frame::BINARY) => {
                let was_due = std::mem::take(&mut self.half[connection]);
                was_due.then(|| self.expected.number(message.payload, 0))?
            }
            (Mode::Ack, frame::TEXT) => {
                let number = self.expected.number(message.payload, ACK_ID.end)?;
                let id = frame::read_digits(&message.payload[ACK_ID])?;
                (message.payload.starts_with(b"43") && id == frame::ack_id(number)).then_some(number)
            }
            (_, frame::TEXT) if self.is_slow(connection) => self.slow.number(message.payload, 0),
            (_, frame::TEXT) => self.expected.number(message.payload, 0),
            _ => None,
        }
    }

    /// The connection that sends `slow`: neither its messages nor their latencies count.
    fn is_slow(&self, connection: usize) -> bool {
        self.options.mode == Mode::Slow && connection == 0
    }

    fn send(&mut self, streams: &mut Streams, index: usize) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        self.flying += 1;
        self.options.rest();
        let group = &mut self.groups[index];
        let number = group.sent;
        group.sent += 1;
        group.flying.push_back((Instant::now(), self.size));
        streams.queue(group.first, group.packet.with(number));
    }
}

/// The payload of a message with number 0, as it is in JSON; for `binary`, without the quotes.
pub(crate) fn payload(options: &Options) -> String {
    let digits = "0".repeat(DIGITS);
    match options.mode {
        Mode::Binary => digits + &"x".repeat(options.size - DIGITS),
        _ => format!(r#""{digits}{}""#, "x".repeat(options.size - DIGITS - 2)),
    }
}

/// What a group sends.
fn packet(options: &Options, first: usize) -> Numbered {
    let payload = payload(options);
    let mut frames = Vec::new();
    let text = match options.mode {
        Mode::Ack => format!(r#"42999["ack_echo",{payload}]"#),
        Mode::Broadcast => format!(r#"42["broadcast",{payload}]"#),
        Mode::Rooms => format!(r#"42["room_msg","room{}",{payload}]"#, first / ROOM),
        Mode::Slow if first == 0 => format!(r#"42["slow",{payload}]"#),
        _ => format!(r#"42["echo",{payload}]"#),
    };
    if options.mode == Mode::Binary {
        frame::push(&mut frames, frame::TEXT, BINARY_EVENT);
        frame::push(&mut frames, frame::BINARY, payload.as_bytes());
    } else {
        frame::push(&mut frames, frame::TEXT, text.as_bytes());
    }
    Numbered::new(frames)
}

/// What comes back.
fn expected(options: &Options) -> Expected {
    match options.mode {
        Mode::Binary => Expected::new(payload(options).into_bytes(), false),
        Mode::Ack => Expected::new(format!("43000[{}]", payload(options)).into_bytes(), false),
        Mode::Broadcast => event(options, "broadcast"),
        Mode::Rooms => event(options, "room_msg"),
        _ => event(options, "echo"),
    }
}

/// An event that comes back.
pub(crate) fn event(options: &Options, name: &str) -> Expected {
    Expected::new(format!(r#"42["{name}",{}]"#, payload(options)).into_bytes(), options.offsets)
}
