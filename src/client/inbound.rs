//! The packets that come from the server: what each means for the state and the handlers.
//!
//! Owns the decoder of one session. Uses `core`, `membership` and `emit`. It must not write, or call a handler.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::{
    Error,
    core::Core,
    end::End,
    event_queue::{Incoming, Item},
    namespaces::{Membership, NamespaceState},
    recovery::ConnectAnswer,
    state::State,
};
use crate::proto::{
    self,
    engine::{self, Data},
    limits,
    socket::{Args, Assembler, Body, Encoded, Packet},
};

/// The receiving half of one session. One thread at a time owns it: `poll` while polling, `link` on WebSocket.
pub(super) struct Inbound {
    core: Arc<Core>,
    epoch: u64,
    assembler: Assembler,
    /// The last polling answer, and how much of it was processed. Its events wait for room in the event queue.
    payload: String,
    done: usize,
}

impl Inbound {
    pub(super) fn new(core: Arc<Core>, epoch: u64) -> Self {
        let config = &core.config;
        let assembler =
            Assembler::new(limits::MAX_ATTACHMENTS, config.max_message).with_max_depth(config.max_depth);
        Self { core, epoch, assembler, payload: String::new(), done: 0 }
    }

    /// A text message of a WebSocket.
    pub(super) fn text(&mut self, text: &str) -> Result<(), End> {
        let packet = engine::Packet::decode(text)?;
        self.engine(packet, text.len())
    }

    /// A binary message of a WebSocket.
    pub(super) fn binary(&mut self, bytes: Bytes) -> Result<(), End> {
        let size = bytes.len();
        self.engine(engine::Packet::Message(Data::Binary(bytes)), size)
    }

    /// Takes the body of a polling answer. [`next`](Self::next) processes one packet at a time, but pings are
    /// answered at once.
    pub(super) fn payload(&mut self, payload: String) -> Result<(), End> {
        let mut pings =
            payload.split(engine::payload::SEPARATOR).filter_map(|packet| packet.strip_prefix('2'));
        if let Some(last) = pings.next_back() {
            self.pong(last);
        }
        (self.payload, self.done) = (payload, 0);
        Ok(())
    }

    /// Whether packets of the last polling answer are left.
    pub(super) fn has_rest(&self) -> bool {
        !self.payload.is_empty()
    }

    /// Processes the next packet of the last polling answer.
    pub(super) fn next(&mut self) -> Result<(), End> {
        let payload = std::mem::take(&mut self.payload);
        let rest = &payload[self.done..];
        let packet = rest.split(engine::payload::SEPARATOR).next().unwrap_or(rest);
        self.done += packet.len() + engine::payload::SEPARATOR.len_utf8();
        let result = self.polled(packet);
        if self.done < payload.len() {
            self.payload = payload;
        }
        result
    }

    fn polled(&mut self, packet: &str) -> Result<(), End> {
        let packet = engine::payload::decode(packet).next().transpose()?;
        let size = match &packet {
            // Answered already.
            None | Some(engine::Packet::Ping(_)) => return Ok(()),
            Some(engine::Packet::Message(Data::Text(text))) => text.len(),
            Some(engine::Packet::Message(Data::Binary(bytes))) => bytes.len(),
            Some(_) => 0,
        };
        packet.map_or(Ok(()), |packet| self.engine(packet, size))
    }

    fn engine(&mut self, packet: engine::Packet<'_>, size: usize) -> Result<(), End> {
        match packet {
            engine::Packet::Ping(data) => {
                self.pong(data);
                Ok(())
            }
            engine::Packet::Message(Data::Text(text)) => {
                match unless_ack(self.assembler.text(&text))?.flatten() {
                    Some(packet) => self.route(packet, size),
                    None => Ok(()),
                }
            }
            engine::Packet::Message(Data::Binary(bytes)) => match self.assembler.binary(bytes)? {
                Some(complete) => {
                    let Some(packet) = unless_ack(complete.packet())? else { return Ok(()) };
                    let size = match &packet.body {
                        Body::Event { args, .. } | Body::Ack { args, .. } => bytes_of(args),
                        _ => 0,
                    };
                    self.route(packet, size)
                }
                None => Ok(()),
            },
            engine::Packet::Close => Err(End::closed_by_server()),
            // Not expected in an open session. The official client ignores them too.
            engine::Packet::Open(_)
            | engine::Packet::Pong(_)
            | engine::Packet::Upgrade
            | engine::Packet::Noop => Ok(()),
        }
    }

    /// Answers a ping (EIO "Heartbeat"), before the packets in the send queue. One answer is enough for several
    /// pings: a server waits for one at a time.
    fn pong(&self, data: &str) {
        let mut state = self.core.lock();
        if let Some(session) = state.connection.session_of(self.epoch) {
            session.queue.set_pong(Encoded::text(&format!("3{data}")));
            self.core.wake_link(session);
        }
    }

    fn route(&self, packet: Packet<'_>, size: usize) -> Result<(), End> {
        let mut state = self.core.lock();
        let state = &mut *state;
        if state.connection.session_of(self.epoch).is_none() {
            return Ok(());
        }
        // A packet of a namespace that was never asked for is ignored.
        let Some(of) = state.namespaces.find(packet.namespace) else { return Ok(()) };
        let (index, joined) = (of.namespace().index, of.is_joined());
        let asked = *of.membership() == Membership::Asked;
        let early = asked && of.recovery.is_possible();
        match packet.body {
            Body::Connect(data) => {
                let answer: Option<ConnectAnswer> =
                    data.and_then(|data| serde_json::from_str(data.get()).ok());
                match answer {
                    Some(answer) => self.core.joined(state, index, answer),
                    // Reported, and the connection goes on, as in the official client.
                    None => self.core.joined_without_id(state, index),
                }
            }
            Body::ConnectError(_) if *of.membership() == Membership::Leaving => {
                self.core.refused_after_leaving(state, index);
            }
            Body::ConnectError(data) if joined || asked => {
                let error = refusal(&of.namespace().name, data.get());
                self.core.refused(state, index, &error);
            }
            Body::Disconnect if joined => self.core.removed(state, index),
            Body::Event { name, args, id } if joined => self.event(state, index, (&name, args, id), size),
            Body::Event { name, args, id: None } if early => {
                self.early_event(state, index, (&name, args), size);
            }
            Body::Ack { id, args } if joined => {
                state.stats.received += 1;
                self.core.acknowledged(state, index, id, args.to_owned());
            }
            // The namespace was left meanwhile.
            _ => {}
        }
        Ok(())
    }

    fn event(&self, state: &mut State, index: usize, event: (&str, Args<'_>, Option<u64>), bytes: usize) {
        let (name, mut args, ack) = event;
        state.stats.received += 1;
        let of = &mut state.namespaces[index];
        // Recorded before the next packet is read, so that a queued event never counts as missed when the connection is
        // lost.
        if ack.is_none()
            && let Some(offset) = of.recovery.read(&mut args)
        {
            of.recovery.note(&offset);
        }
        self.core.events.push(Item::Event(Box::new(self.incoming(of, (name, &args, ack), bytes))));
    }

    /// An event before the answer to CONNECT. The answer tells whether it was missed in the last session.
    fn early_event(&self, state: &mut State, index: usize, (name, mut args): (&str, Args<'_>), bytes: usize) {
        state.stats.received += 1;
        let of = &mut state.namespaces[index];
        let offset = of.recovery.read(&mut args).map(Cow::into_owned);
        let event = self.incoming(of, (name, &args, None), bytes);
        let (events, bytes) = of.recovery.keep_early(event, bytes, offset);
        // Too many to be missed events. In the event queue, they slow the server down.
        if self.core.events.is_full_with(events, bytes) {
            self.core.deliver_early(of.recovery.take_early());
        }
    }

    fn incoming(&self, of: &NamespaceState, event: (&str, &Args<'_>, Option<u64>), bytes: usize) -> Incoming {
        let (name, args, ack) = event;
        Incoming {
            namespace: of.namespace().clone(),
            epoch: self.epoch,
            name: name.to_owned(),
            args: args.to_owned(),
            ack,
            bytes,
        }
    }
}

/// An acknowledgement without an id answers nothing: it is ignored, as in the official client.
fn unless_ack<T>(decoded: Result<T, proto::Error>) -> Result<Option<T>, proto::Error> {
    match decoded {
        Err(proto::Error::AckWithoutId) => Ok(None),
        decoded => decoded.map(Some),
    }
}

/// The bytes of the arguments of a binary packet.
fn bytes_of(args: &Args<'_>) -> usize {
    let json: usize = args.iter().map(|arg| arg.json().len()).sum();
    json + args.attachments().iter().map(Bytes::len).sum::<usize>()
}

/// A CONNECT_ERROR as an error: its payload is `{"message", "data"?}`, or a string.
fn refusal(namespace: &Arc<str>, json: &str) -> Error {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Reason {
        Text(String),
        Object { message: Option<String> },
    }
    #[derive(serde::Deserialize)]
    struct Data {
        // Not an `Option`, which would read `null` as `None`.
        data: Box<serde_json::value::RawValue>,
    }
    let message = match serde_json::from_str(json) {
        Ok(Reason::Text(text) | Reason::Object { message: Some(text) }) => text,
        _ => json.to_owned(),
    };
    let data = serde_json::from_str::<Data>(json).ok().map(|data| data.data);
    Error::Refused { namespace: namespace.clone(), message: message.into(), data: data.map(Into::into) }
}
