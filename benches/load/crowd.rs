//! Many clients of whom some talk: `crowd`.
//!
//! The load has a rate of its own and waits for no answer. Each talker sends an echo a second, and the seconds of the
//! talkers are spread evenly. The first talker sends ten messages a second to the room that all talkers are in. The
//! other clients only answer pings.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    PATIENCE, Result,
    flight::{self, Had},
    frame::{self, Expected, Message, Numbered},
    options::Options,
    peer::Fleet,
    report::Meter,
};

/// How often a talker sends an echo.
const ECHO_EVERY: Duration = Duration::from_secs(1);

/// How often the first talker sends to the room.
const BROADCAST_EVERY: Duration = Duration::from_millis(100);

const WARM_UP: Duration = Duration::from_secs(2);

pub(crate) fn run(options: &Options) -> Result<String> {
    let mut fleet = Fleet::connect(options.port, options.connections)?;
    fleet.settle();
    flight::join(&mut fleet, options.talkers, |_| 0)?;
    Crowd::new(options).drive(&mut fleet)
}

struct Crowd<'o> {
    options: &'o Options,
    begun: Instant,
    echo: Numbered,
    broadcast: Numbered,
    echoed: Expected,
    delivered: Expected,
    talkers: Vec<Talker>,
    /// Echoes and broadcasts that were sent.
    echoes: u64,
    broadcasts: u64,
    /// Echoes and deliveries that have not come, and those that have.
    flying: usize,
    arrived: u64,
    latencies: Vec<u32>,
}

#[derive(Default)]
struct Talker {
    /// When each of its echoes was sent that has not come back.
    flying: VecDeque<Instant>,
    /// What it has had, of echoes and of broadcasts.
    echoes: Had,
    broadcasts: Had,
}

impl<'o> Crowd<'o> {
    fn new(options: &'o Options) -> Self {
        let payload = flight::payload(options);
        let packet = |event: String| {
            let mut frame = Vec::new();
            frame::push(&mut frame, frame::TEXT, event.as_bytes());
            Numbered::new(frame)
        };
        Self {
            options,
            begun: Instant::now(),
            echo: packet(format!(r#"42["echo",{payload}]"#)),
            broadcast: packet(format!(r#"42["room_msg","room0",{payload}]"#)),
            echoed: flight::event(options, "echo"),
            delivered: flight::event(options, "room_msg"),
            talkers: (0..options.talkers).map(|_| Talker::default()).collect(),
            echoes: 0,
            broadcasts: 0,
            flying: 0,
            arrived: 0,
            latencies: Vec::new(),
        }
    }

    fn drive(mut self, fleet: &mut Fleet) -> Result<String> {
        self.begun = Instant::now();
        self.until(fleet, self.begun + WARM_UP)?;
        (self.arrived, self.latencies) = (0, Vec::new());
        let (meter, begun) = (Meter::start(self.options.pid), Instant::now());
        self.until(fleet, begun + Duration::from_secs_f64(self.options.seconds))?;
        let latencies = std::mem::take(&mut self.latencies);
        let report = meter.stop(self.options, self.arrived, begun.elapsed(), latencies)?;
        self.rest(fleet)?;
        Ok(report)
    }

    /// Sends what is due, until then.
    fn until(&mut self, fleet: &mut Fleet, end: Instant) -> Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let next = self.send(fleet, now)?.min(end);
            let wait = next.saturating_duration_since(Instant::now());
            fleet.poll_for(wait, |connection, message, _| self.arrived(connection, message))?;
        }
    }

    /// What is still in flight must come, too.
    fn rest(&mut self, fleet: &mut Fleet) -> Result<()> {
        let (mut last, mut seen) = (Instant::now(), self.arrived);
        while self.flying > 0 {
            fleet.poll(|connection, message, _| self.arrived(connection, message))?;
            if self.arrived > seen {
                (last, seen) = (Instant::now(), self.arrived);
            } else if last.elapsed() > PATIENCE {
                return Err(format!("nothing arrived for 10 s: {} messages were lost", self.flying).into());
            }
        }
        Ok(())
    }

    /// Sends what is due. Returns when the next is.
    fn send(&mut self, fleet: &mut Fleet, now: Instant) -> Result<Instant> {
        let streams = fleet.streams();
        let count = self.talkers.len();
        let echo = loop {
            let due = self.begun + ECHO_EVERY.mul_f64(self.echoes as f64 / count as f64);
            if due > now {
                break due;
            }
            if now - due > ECHO_EVERY {
                return Err("the generator is a second behind its schedule".into());
            }
            let index = (self.echoes % count as u64) as usize;
            streams.queue(index, self.echo.with(self.echoes / count as u64));
            self.talkers[index].flying.push_back(Instant::now());
            // Each talker for itself, as they would be.
            streams.flush()?;
            self.echoes += 1;
            self.flying += 1;
        };
        let broadcast = loop {
            let due = self.begun + BROADCAST_EVERY.mul_f64(self.broadcasts as f64);
            if due > now {
                break due;
            }
            streams.queue(0, self.broadcast.with(self.broadcasts));
            streams.flush()?;
            self.broadcasts += 1;
            self.flying += count;
        };
        Ok(echo.min(broadcast))
    }

    fn arrived(&mut self, connection: usize, message: Message<'_>) -> Result<()> {
        let of_whom = |error| format!("connection {connection}: {error}");
        let unexpected = || {
            let text = String::from_utf8_lossy(message.payload);
            format!("connection {connection}: unexpected message, opcode {}: {text}", message.opcode)
        };
        let talker = self.talkers.get_mut(connection).filter(|_| message.opcode == frame::TEXT);
        let talker = talker.ok_or_else(unexpected)?;
        if let Some(number) = self.echoed.number(message.payload, 0) {
            talker.echoes.take(number, false).map_err(of_whom)?;
            let at = talker.flying.pop_front().ok_or("an echo came that was not sent")?;
            self.latencies.push((at.elapsed().as_nanos() / 100).try_into().unwrap_or(u32::MAX));
        } else {
            let number = self.delivered.number(message.payload, 0).ok_or_else(unexpected)?;
            talker.broadcasts.take(number, self.options.any_order).map_err(of_whom)?;
            if number >= self.broadcasts {
                return Err("a broadcast came that was not sent".into());
            }
        }
        self.flying -= 1;
        self.arrived += 1;
        Ok(())
    }
}
