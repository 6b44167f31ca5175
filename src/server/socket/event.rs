//! An event from a client, and the right to acknowledge it.

use std::cell::Cell;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Socket;
use crate::{
    proto::socket::{Arg, Args, Outgoing},
    server::error::EmitError,
};

/// An event from a client, on its way through the handlers.
#[derive(Debug)]
pub struct Event<'a> {
    socket: &'a Socket,
    name: &'a str,
    args: &'a Args<'a>,
    /// Empty when the acknowledgement was taken; all handlers of the event share it.
    id: &'a Cell<Option<u64>>,
    /// The number of this attempt, if the client sends its events with `retries`.
    attempt: Option<u64>,
}

impl<'a> Event<'a> {
    pub(crate) fn new(
        socket: &'a Socket,
        name: &'a str,
        args: &'a Args<'a>,
        id: &'a Cell<Option<u64>>,
    ) -> Self {
        Self { socket, name, args, id, attempt: None }
    }

    /// The same event, for another handler.
    pub(crate) fn again(&self) -> Self {
        let &Self { socket, name, args, id, attempt } = self;
        Self { socket, name, args, id, attempt }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// Its arguments, raw.
    #[must_use]
    pub fn args(&self) -> &Args<'a> {
        self.args
    }

    /// The argument at `index`, raw. `None` when fewer came.
    #[must_use]
    pub fn raw(&self, index: usize) -> Option<Arg<'a>> {
        self.args.raw(index)
    }

    /// The argument at `index` as a `T`; a missing one is read as `null`.
    ///
    /// # Errors
    /// When it is no `T`.
    pub fn arg<T: DeserializeOwned>(&self, index: usize) -> Result<T, serde_json::Error> {
        self.args.get(index)
    }

    /// All arguments as a tuple: `let (x, y): (i32, i32) = event.parse()?;`
    ///
    /// # Errors
    /// When one is not of its type.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, serde_json::Error> {
        self.args.parse()
    }

    /// Whether the client wants an acknowledgement that it has not got yet.
    #[must_use]
    pub fn wants_ack(&self) -> bool {
        self.id.get().is_some()
    }

    /// The ack id, if the client sends its events with `retries`.
    pub(crate) fn retried_id(&self) -> Option<u64> {
        self.socket.rid().and(self.id.get())
    }

    /// The acknowledgement of the event must be kept for retries. `attempt` is the number of this attempt.
    pub(crate) fn set_retried(&mut self, attempt: u64) {
        self.attempt = Some(attempt);
    }

    /// Acknowledges the event, with arguments as [`Socket::emit`] takes them. Without effect when the client asked
    /// for no acknowledgement, or has got it.
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn ack(&self, args: impl Serialize) -> Result<(), EmitError> {
        match self.take_ack() {
            Some(ack) => ack.send(args),
            None => Ok(()),
        }
    }

    /// The acknowledgement, to be sent later or by another thread. `None` as [`ack`](Self::ack) is without effect.
    #[must_use]
    pub fn take_ack(&self) -> Option<Ack> {
        let id = self.id.take()?;
        if let Some(attempt) = self.attempt {
            self.socket.namespace().0.retried.taken(self.socket, attempt);
        }
        Some(Ack { socket: self.socket.clone(), id, attempt: self.attempt })
    }
}

/// The right to acknowledge an event, once.
#[derive(Debug)]
pub struct Ack {
    socket: Socket,
    id: u64,
    /// The number of the attempt that this acknowledges. `None`: the event is not retried, or was acknowledged.
    attempt: Option<u64>,
}

impl Ack {
    /// Sends the acknowledgement, with arguments as [`Socket::emit`] takes them.
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn send(mut self, args: impl Serialize) -> Result<(), EmitError> {
        let packet = Outgoing::ack(self.socket.namespace().name(), self.id);
        let Some(attempt) = self.attempt else {
            return self.socket.send(&packet, &args, false);
        };
        let answer = packet.encode(&args)?;
        self.socket.session().shared.hub.check_size(answer.bytes().len())?;
        self.attempt = None;
        self.socket.namespace().0.retried.answered(&self.socket, attempt, &answer)
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt {
            self.socket.namespace().0.retried.end(&self.socket, attempt, true);
        }
    }
}
