//! The server's heartbeat (EIO "Heartbeat"): who is silent for too long is gone.
//!
//! ```text
//!            ping_interval            ping_timeout
//!   Resting ──────────────► Waiting ──────────────► Expired
//!      ▲                     │  ▲
//!      └──────── pong ───────┘  ├─ at the deadline, another packet was heard: one more ping_timeout, once
//!                               └─ one of its events is being handled: another ping after ping_interval, and Waiting anew
//! ```
//! While the peer's event is handled, nothing is read from the peer. Its pongs wait unread, but it still expects pings.
//! The client's side is one deadline, [`Open::silence_allowed`](super::Open::silence_allowed) after the last ping.

use std::time::Duration;

use crate::sys::time::Instant;

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
    Waiting { pinged: Instant, expires: Instant, grace: Grace },
}

/// Whether another packet than the pong puts the deadline off; it does so once a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grace {
    /// No packet was heard yet.
    None,
    /// One was.
    Earned,
    /// The deadline was put off.
    Spent,
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
    /// be seen. It is pinged at every `ping_interval` all the same, because its own deadline counts from the last ping,
    /// and it has another `ping_timeout` from each ping on.
    pub fn check(&mut self, now: Instant, heard: Heard) -> Beat {
        match self.state {
            State::Resting { ping_at } if now < ping_at => Beat::Wait(ping_at),
            State::Resting { .. } => {
                let expires = now + self.timeout;
                self.state = State::Waiting { pinged: now, expires, grace: Grace::None };
                Beat::Ping(self.next_look(now, now, expires))
            }
            State::Waiting { pinged, .. } if heard.pong => {
                // Counted from the ping, not from the pong: the client's own deadline counts from pings.
                let ping_at = pinged + self.interval;
                self.state = State::Resting { ping_at };
                self.check(now, Heard::default())
            }
            State::Waiting { pinged, .. } if heard.busy && now >= pinged + self.interval => {
                self.state = State::Resting { ping_at: now };
                self.check(now, Heard::default())
            }
            State::Waiting { pinged, expires, grace } => {
                let grace = if heard.packet && grace == Grace::None { Grace::Earned } else { grace };
                let (expires, grace) = match grace {
                    _ if now < expires => (expires, grace),
                    _ if heard.busy => (now + self.timeout, grace),
                    Grace::Earned => (now + self.timeout, Grace::Spent),
                    Grace::None | Grace::Spent => return Beat::Expired,
                };
                self.state = State::Waiting { pinged, expires, grace };
                Beat::Wait(self.next_look(now, pinged, expires))
            }
        }
    }

    /// When to look for the pong: at the next ping's time, and once an interval when that has passed, because the
    /// client's own deadline waits for no answer of its own.
    fn next_look(&self, now: Instant, pinged: Instant, expires: Instant) -> Instant {
        let next_ping = pinged + self.interval;
        let look = if next_ping > now { next_ping } else { now + self.interval };
        look.min(expires)
    }
}
