//! The server's heartbeat (EIO "Heartbeat"): who is silent for too long is gone.
//!
//! ```text
//!            ping_interval            ping_timeout
//!   Resting ──────────────► Waiting ──────────────► Expired
//!      ▲                     │   │ any packet but the pong: once more ping_timeout
//!      └───── pong ──────────┘   └──┐
//!                            ▲──────┘
//! ```
//! The client's side is one deadline, [`Open::silence_allowed`](super::Open::silence_allowed) after the last ping.

use std::time::{Duration, Instant};

/// What the owner of the clock has to do at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Nothing before this instant.
    Wait(Instant),
    /// Send a ping, then ask again at this instant.
    Ping(Instant),
    /// No sign of life within the deadline: end the session with
    /// [`CloseReason::PingTimeout`](crate::proto::CloseReason::PingTimeout).
    Expired,
}

/// What was heard from the peer since the last question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// A pong arrived.
    pub pong: bool,
    /// Some packet arrived.
    pub packet: bool,
    /// One of the peer's events is being handled right now, so nothing is being read.
    pub busy: bool,
}

/// The heartbeat of one session. It has no clock: [`check`](Self::check) is told the time.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Resting { ping_at: Instant },
    Waiting { pinged: Instant, expires: Instant, extended: bool },
}

impl Heartbeat {
    /// A heartbeat that pings first one `interval` after `now`.
    #[must_use]
    pub fn new(now: Instant, interval: Duration, timeout: Duration) -> Self {
        Self { interval, timeout, state: State::Resting { ping_at: now + interval } }
    }

    /// To be called at the instant that the last call named (a call too early is answered with
    /// [`Beat::Wait`]), with what was heard since the last call.
    ///
    /// A peer that sends anything while its pong is due gets one more `ping_timeout`: it may be busy with a
    /// large upload (engine.io 6.6.12). A peer whose event is being handled is not being read, so its pong cannot
    /// be seen: it is given another `ping_timeout` for as long as that lasts.
    pub fn check(&mut self, now: Instant, heard: Heard) -> Beat {
        match self.state {
            State::Resting { ping_at } if now < ping_at => Beat::Wait(ping_at),
            State::Resting { .. } => {
                let expires = now + self.timeout;
                self.state = State::Waiting { pinged: now, expires, extended: false };
                Beat::Ping(self.next_look(now, now, expires))
            }
            State::Waiting { pinged, .. } if heard.pong => {
                // Counted from the ping, not from the pong: the client's own deadline counts from pings.
                let ping_at = pinged + self.interval;
                self.state = State::Resting { ping_at };
                self.check(now, Heard::default())
            }
            State::Waiting { pinged, expires, .. } if now < expires => {
                Beat::Wait(self.next_look(now, pinged, expires))
            }
            State::Waiting { pinged, extended, .. } if heard.busy || (heard.packet && !extended) => {
                let expires = now + self.timeout;
                self.state = State::Waiting { pinged, expires, extended: !heard.busy };
                Beat::Wait(self.next_look(now, pinged, expires))
            }
            State::Waiting { .. } => Beat::Expired,
        }
    }

    /// When to look for the pong: at the next ping's time if that comes before the deadline.
    fn next_look(&self, now: Instant, pinged: Instant, expires: Instant) -> Instant {
        let next_ping = pinged + self.interval;
        if next_ping > now { next_ping.min(expires) } else { expires }
    }
}
