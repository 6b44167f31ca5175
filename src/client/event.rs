//! The event that a handler gets, and its acknowledgement.
//!
//! Uses `proto` for the arguments and [`Socket`] for the acknowledgement. The server's event has the same methods
//! over the same [`Args`]; each is one line, so a shared type would not be shorter.

use std::{cell::Cell, fmt};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Error, Socket};
use crate::proto::socket::Args;

/// An event from the server.
pub struct Event<'a> {
    socket: &'a Socket,
    name: &'a str,
    args: Args<'a>,
    /// The session that brought it.
    epoch: u64,
    /// The id of its acknowledgement, until a handler takes it. Shared by all handlers of the event.
    ack: &'a Cell<Option<u64>>,
}

impl<'a> Event<'a> {
    pub(super) fn new(
        socket: &'a Socket,
        name: &'a str,
        args: Args<'a>,
        (epoch, ack): (u64, &'a Cell<Option<u64>>),
    ) -> Self {
        Self { socket, name, args, epoch, ack }
    }

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Its arguments, as raw JSON.
    #[must_use]
    pub fn args(&self) -> &Args<'a> {
        &self.args
    }

    /// The argument at `index` as a `T`; a missing one is read as `null`.
    ///
    /// # Errors
    /// When the argument is no `T`.
    pub fn arg<T: DeserializeOwned>(&self, index: usize) -> Result<T, serde_json::Error> {
        self.args.get(index)
    }

    /// All arguments as a tuple: `let (room, text): (String, String) = event.parse()?`. Surplus ones are ignored,
    /// missing ones are read as `null`.
    ///
    /// # Errors
    /// When an argument is not of its type.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, serde_json::Error> {
        self.args.parse()
    }

    /// Whether the server waits for an acknowledgement that was not taken yet.
    #[must_use]
    pub fn wants_ack(&self) -> bool {
        self.ack.get().is_some()
    }

    /// Acknowledges the event, with `args` as [`Socket::emit`] takes them.
    /// Does nothing when the server asked for no acknowledgement, or it was taken.
    ///
    /// # Errors
    /// As [`Socket::emit`]; an acknowledgement is never buffered, because it belongs to its connection.
    pub fn ack(&self, args: impl Serialize) -> Result<(), Error> {
        self.take_ack().map_or(Ok(()), |ack| ack.send(args))
    }

    /// Takes the acknowledgement, to be sent later and from any thread. `None` when the server asked for none, or it
    /// was taken.
    #[must_use]
    pub fn take_ack(&self) -> Option<Ack> {
        let id = self.ack.take()?;
        Some(Ack { socket: self.socket.clone(), epoch: self.epoch, id })
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("name", &self.name)
            .field("args", &self.args)
            .field("wants_ack", &self.wants_ack())
            .finish_non_exhaustive()
    }
}

/// The acknowledgement of one event. If it is dropped unsent, the server waits for its timeout.
#[derive(Debug)]
pub struct Ack {
    socket: Socket,
    epoch: u64,
    id: u64,
}

impl Ack {
    /// Acknowledges the event, with `args` as [`Socket::emit`] takes them.
    ///
    /// # Errors
    /// As [`Event::ack`]; [`Error::NotConnected`] when the connection that brought the event is gone.
    pub fn send(self, args: impl Serialize) -> Result<(), Error> {
        self.socket.answer(self.epoch, self.id, args)
    }
}
