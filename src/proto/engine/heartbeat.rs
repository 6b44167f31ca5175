//! The server's heartbeat (EIO "Heartbeat"): a peer that is silent for too long is disconnected.
//!
//! ```text
//!            ping_interval            ping_timeout
//!   Resting ──────────────► Waiting ──────────────► Expired
//!      ▲                     │  ▲
//!      └──────── pong ───────┘  ├─ at the deadline, another packet has arrived: one more ping_timeout, once
//!                               └─ one of its events is being handled: another ping after ping_interval, Waiting again
//! ```
//! While an event of the peer is handled, nothing is read from the peer. Its pongs wait unread, but it still
//! expects pings. The client's side is one deadline, [`Open::silence_allowed`](super::Open::silence_allowed)
//! after the last ping.

use std::time::Duration;

use crate::sys::time::Instant;

/// What the caller must do.
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

/// What was received from the peer since the last call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// A pong arrived.
    pub pong: bool,
    /// Some packet arrived.
    pub packet: bool,
    /// One of the peer's events is being handled right now, so nothing is being read.
    pub busy: bool,
}

/// The heartbeat of one session. It has no clock: the caller passes the time.
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

/// Whether a packet other than the pong has extended the deadline, which happens once for each ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grace {
    /// No packet arrived yet.
    None,
    /// A packet arrived.
    Earned,
    /// The deadline was extended.
    Spent,
}

impl Heartbeat {
    /// A heartbeat that pings first one `interval` after `now`.
    #[must_use]
    pub fn new(now: Instant, interval: Duration, timeout: Duration) -> Self {
        Self { interval, timeout, state: State::Resting { ping_at: now + interval } }
    }

    /// Call this at the instant that the last call returned, with what was received since then. A call too
    /// early returns [`Beat::Wait`].
    ///
    /// A peer that sends any packet while its pong is due gets one more `ping_timeout`: it may be busy with a
    /// large upload (engine.io 6.6.12). A peer whose event is being handled is not read, so its pong is not
    /// seen. It is pinged at every `ping_interval`, because its own deadline counts from the last ping, and
    /// gets another `ping_timeout` after each ping.
    pub fn check(&mut self, now: Instant, heard: Heard) -> Beat {
        match self.state {
            State::Resting { ping_at } if now < ping_at => Beat::Wait(ping_at),
            State::Resting { .. } => {
                let expires = now + self.timeout;
                self.state = State::Waiting { pinged: now, expires, grace: Grace::None };
                Beat::Ping(self.next_look(now, now, expires))
            }
            State::Waiting { pinged, .. } if heard.pong => {
                // Counted from the ping, not from the pong, like the client's deadline.
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

    /// When to check for the pong: at the time of the next ping, and after that once an interval, because the
    /// client's deadline does not wait for its own pong.
    fn next_look(&self, now: Instant, pinged: Instant, expires: Instant) -> Instant {
        let next_ping = pinged + self.interval;
        let look = if next_ping > now { next_ping } else { now + self.interval };
        look.min(expires)
    }
}
