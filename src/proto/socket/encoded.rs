//! Outgoing packets: encoded once, shared by all recipients.
//!
//! The encoded form is the server's WebSocket form with frame headers: server frames are not masked (RFC 6455
//! 5.1), so one buffer serves every recipient with one write. Polling, and the client, which masks frames, read
//! it back frame by frame ([`Frames`]).

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::{
    offset::Offset,
    ser::{self, Attachments},
};
use crate::proto::limits;

/// WebSocket frames of one or more packets; immutable, cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded(Bytes);

impl Encoded {
    /// An Engine.IO packet that is text, type digit included.
    #[must_use]
    pub fn text(packet: &str) -> Self {
        Self::frame(Opcode::Text, packet.as_bytes())
    }

    /// A binary message.
    #[must_use]
    pub fn binary(data: &[u8]) -> Self {
        Self::frame(Opcode::Binary, data)
    }

    fn frame(opcode: Opcode, data: &[u8]) -> Self {
        let mut frame = Vec::with_capacity(data.len() + MAX_FRAME_HEADER);
        push_frame(&mut frame, opcode, data);
        Self(frame.into())
    }

    /// Bytes on a WebSocket.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Writes the offset into a packet that was encoded with room for it: into the string at the end of its
    /// text, which is an event's last argument or the last member of a CONNECT's object. Copies the packet if
    /// it is shared.
    pub fn set_offset(&mut self, offset: Offset) {
        let Some(first) = self.frames().next() else { return };
        // The quote and the bracket after it.
        let Some(end) = first.size.checked_sub(2) else { return };
        let Some(start) = end.checked_sub(Offset::LEN) else { return };
        let mut bytes =
            std::mem::take(&mut self.0).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
        bytes[start..end].copy_from_slice(&offset.text());
        self.0 = bytes.freeze();
    }

    /// A copy of an event that was encoded with room for an offset, without that room.
    #[must_use]
    pub fn without_offset(&self) -> Self {
        let mut frames = self.frames();
        let text = frames.next().and_then(|frame| frame.text()).unwrap_or_default();
        // The comma, the quotes, and the bracket, which is written again.
        let end = text.len().checked_sub(Offset::LEN + 4);
        let Some(event) = end.and_then(|end| text.get(..end)) else { return self.clone() };
        let mut buffer = Vec::with_capacity(self.0.len());
        push_frame(&mut buffer, Opcode::Text, format!("{event}]").as_bytes());
        buffer.extend_from_slice(frames.rest);
        Self(buffer.into())
    }

    /// Restores a packet from bytes that were sent or kept.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The frames, for other forms.
    #[must_use]
    pub fn frames(&self) -> Frames<'_> {
        Frames::new(&self.0)
    }

    /// This event of `namespace`, encoded with the acknowledgement id `old`, with the id `new` instead.
    pub(crate) fn renumbered(&self, namespace: &str, old: u64, new: u64) -> Self {
        let mut frames = self.frames();
        let text = frames.next().and_then(|header| header.text()).unwrap_or_default();
        // Before the namespace there are only digits and a dash, and the default namespace, which is not
        // written, has no bracket.
        let name = text.find(namespace).filter(|_| namespace != limits::DEFAULT_NAMESPACE);
        let name_end = name.map_or(0, |at| at + namespace.len());
        let Some((prefix, json)) = text[name_end..].split_once('[') else { return self.clone() };
        let prefix = &text[..name_end + prefix.len() - old.to_string().len()];
        let mut buffer = Vec::with_capacity(self.0.len() + limits::MAX_ACK_DIGITS);
        push_frame(&mut buffer, Opcode::Text, format!("{prefix}{new}[{json}").as_bytes());
        buffer.extend_from_slice(frames.rest);
        Self(buffer.into())
    }
}

/// A Socket.IO packet to encode: everything except its data.
///
/// ```
/// use tinysio::proto::socket::Outgoing;
///
/// let encoded = Outgoing::event("/", "news", None).encode(&("hot", 7)).unwrap();
/// assert_eq!(encoded.frames().next().unwrap().text(), Some(r#"42["news","hot",7]"#));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    kind: Kind<'a>,
    namespace: &'a str,
    id: Option<u64>,
    offset: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind<'a> {
    Connect,
    Disconnect,
    Event(&'a str),
    Ack,
    ConnectError,
}

impl<'a> Outgoing<'a> {
    /// `2` or `5`: an event; with an id, the other side is asked to acknowledge it.
    #[must_use]
    pub const fn event(namespace: &'a str, name: &'a str, id: Option<u64>) -> Self {
        Self { kind: Kind::Event(name), namespace, id, offset: false }
    }

    /// `3` or `6`: the answer to the event of this id.
    #[must_use]
    pub const fn ack(namespace: &'a str, id: u64) -> Self {
        Self { kind: Kind::Ack, namespace, id: Some(id), offset: false }
    }

    /// `0`: data is an object, or `()` for none.
    #[must_use]
    pub const fn connect(namespace: &'a str) -> Self {
        Self { kind: Kind::Connect, namespace, id: None, offset: false }
    }

    /// `4`: data is an object with a `message`.
    #[must_use]
    pub const fn connect_error(namespace: &'a str) -> Self {
        Self { kind: Kind::ConnectError, namespace, id: None, offset: false }
    }

    /// `1`: data is `()`.
    #[must_use]
    pub const fn disconnect(namespace: &'a str) -> Self {
        Self { kind: Kind::Disconnect, namespace, id: None, offset: false }
    }

    /// For an event: with room for its [`Offset`] as one more last argument, which is written when the packet
    /// is sent ([`Encoded::set_offset`]).
    #[must_use]
    pub const fn with_offset(mut self) -> Self {
        self.offset = true;
        self
    }

    /// Encodes the packet with `data`: for events and acks the arguments, for the other types the payload.
    ///
    /// A tuple is a list of arguments, `()` an empty one; [`Args`](super::Args) and
    /// [`OwnedArgs`](super::OwnedArgs) are lists too, also behind references and smart pointers. Every other
    /// value is one argument: a `Vec`, an array, a slice, `Value::Null`, an `Option`, a struct.
    ///
    /// A value that serialises as bytes ([`Bytes`], `serde_bytes`) becomes an attachment. A `Vec<u8>` does not:
    /// for serde it is a list of numbers.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode<T: Serialize + ?Sized>(&self, data: &T) -> Result<Encoded, EncodeError> {
        let mut buffer = Vec::with_capacity(128);
        let range = self.encode_into(data, &mut buffer)?;
        Ok(Encoded(Bytes::from(buffer).slice(range)))
    }

    /// As [`encode`](Self::encode), into a reused buffer, whose old content is lost. The returned range has the
    /// frames.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode_into<T: Serialize + ?Sized>(
        &self,
        data: &T,
        buffer: &mut Vec<u8>,
    ) -> Result<Range<usize>, EncodeError> {
        // The prefix depends on the JSON, so room is left for it, and it is written backwards when its length
        // is known.
        let room = MAX_FRAME_HEADER + MAX_PREFIX + self.namespace.len();
        buffer.clear();
        buffer.resize(room, 0);
        let mut attachments = Attachments::default();
        match self.kind {
            Kind::Event(name) if limits::RESERVED_EVENTS.contains(&name) => {
                return Err(EncodeError::ReservedEvent);
            }
            Kind::Event(name) => {
                let last = self.offset.then_some(Offset::PLACEHOLDER);
                ser::array(Some(name), data, last, buffer, &mut attachments)?;
            }
            Kind::Ack => ser::array(None, data, None, buffer, &mut attachments)?,
            Kind::Connect => payload(data, b"{", buffer)?,
            Kind::ConnectError => payload(data, b"{\"", buffer)?,
            Kind::Disconnect => payload(data, b"", buffer)?,
        }
        let attachments = attachments.finish()?;
        let start = self.write_prefix(&mut buffer[..room], attachments.count);
        let header = FrameHeader::new(Opcode::Text, buffer.len() - start);
        let frame = start - header.bytes().len();
        buffer[frame..start].copy_from_slice(header.bytes());
        buffer.extend_from_slice(&attachments.frames);
        Ok(frame..buffer.len())
    }

    /// Writes `4<type>[<n>-][<namespace>,][<id>]` to the end of `room` and returns where it begins.
    fn write_prefix(&self, room: &mut [u8], attachments: usize) -> usize {
        let mut start = room.len();
        let mut put = |bytes: &[u8]| {
            start -= bytes.len();
            room[start..start + bytes.len()].copy_from_slice(bytes);
        };
        if let Some(id) = self.id {
            let mut digits = [0; limits::MAX_ACK_DIGITS];
            put(decimal(id, &mut digits));
        }
        if self.namespace != limits::DEFAULT_NAMESPACE {
            put(b",");
            put(self.namespace.as_bytes());
        }
        if attachments > 0 {
            put(b"-");
            let mut digits = [0; limits::MAX_ACK_DIGITS];
            put(decimal(attachments as u64, &mut digits));
        }
        put(match (self.kind, attachments) {
            (Kind::Connect, _) => b"40",
            (Kind::Disconnect, _) => b"41",
            (Kind::Event(_), 0) => b"42",
            (Kind::Ack, 0) => b"43",
            (Kind::ConnectError, _) => b"44",
            (Kind::Event(_), _) => b"45",
            (Kind::Ack, _) => b"46",
        });
        start
    }
}

/// Writes data that begins with one of the bytes `first`, or nothing for `()`.
fn payload<T: Serialize + ?Sized>(data: &T, first: &[u8], buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = buffer.len();
    serde_json::to_writer(&mut *buffer, data)?;
    if &buffer[start..] == b"null" {
        buffer.truncate(start);
    }
    let fits = buffer.get(start).is_none_or(|byte| first.contains(byte));
    if fits { Ok(()) } else { Err(EncodeError::InvalidPayload) }
}

/// `4`, the type, the count with its dash, the comma, the id.
const MAX_PREFIX: usize = 2 + (limits::MAX_ACK_DIGITS + 1) + 1 + limits::MAX_ACK_DIGITS;

/// Writes `number` to the end of `digits` and returns the written part.
fn decimal(mut number: u64, digits: &mut [u8; limits::MAX_ACK_DIGITS]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

/// Why a packet could not be encoded. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// An event's name is one of [`RESERVED_EVENTS`](crate::proto::limits::RESERVED_EVENTS): a receiver would
    /// close the connection.
    #[error("reserved event name")]
    ReservedEvent,
    /// CONNECT carries an object or nothing, CONNECT_ERROR also a string, DISCONNECT nothing.
    #[error("invalid payload for the packet type")]
    InvalidPayload,
    /// The data cannot be JSON: a map with keys that are not strings, or an error of its `Serialize`.
    #[error("not serialisable as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// More binary values than [`MAX_ATTACHMENTS`](crate::proto::limits::MAX_ATTACHMENTS); the official clients
    /// refuse more.
    #[error("{0} binary values in one packet, at most 10 are possible")]
    TooManyAttachments(usize),
}

/// The WebSocket opcodes that packets use (RFC 6455 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// An Engine.IO packet as text.
    Text,
    /// A binary message.
    Binary,
    /// A control frame of the WebSocket; not used on polling.
    Control,
}

/// The longest header of an unmasked frame (RFC 6455 5.2).
const MAX_FRAME_HEADER: usize = 10;

/// The header of an unmasked, final frame.
struct FrameHeader {
    bytes: [u8; MAX_FRAME_HEADER],
    len: usize,
}

impl FrameHeader {
    fn new(opcode: Opcode, payload: usize) -> Self {
        let mut bytes = [0; MAX_FRAME_HEADER];
        bytes[0] = 0x80 | if opcode == Opcode::Text { 1 } else { 2 };
        let len = match payload {
            0..=125 => {
                bytes[1] = payload as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Appends one frame.
pub(super) fn push_frame(buffer: &mut Vec<u8>, opcode: Opcode, data: &[u8]) {
    buffer.reserve(MAX_FRAME_HEADER + data.len());
    buffer.extend_from_slice(FrameHeader::new(opcode, data.len()).bytes());
    buffer.extend_from_slice(data);
}

/// One frame of an [`Encoded`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The kind of the frame.
    pub opcode: Opcode,
    /// The payload.
    pub data: &'a [u8],
    /// Bytes of header and payload.
    pub size: usize,
}

impl<'a> Frame<'a> {
    /// The payload of a text frame.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        if self.opcode == Opcode::Text { std::str::from_utf8(self.data).ok() } else { None }
    }
}

/// The frames in bytes that this module wrote, in order. Ends at the first byte that does not begin a whole,
/// final, unmasked frame.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Reads `bytes`, which begin at the start of a frame.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;
    fn next(&mut self) -> Option<Frame<'a>> {
        let (first, short) = (*self.rest.first()?, *self.rest.get(1)?);
        if first & 0xf0 != 0x80 {
            return None;
        }
        let (header, len): (usize, usize) = match short {
            0..=125 => (2, short.into()),
            126 => (4, u16::from_be_bytes(self.rest.get(2..4)?.try_into().ok()?).into()),
            127 => (10, u64::from_be_bytes(self.rest.get(2..10)?.try_into().ok()?).try_into().ok()?),
            _ => return None,
        };
        let size = header.checked_add(len)?;
        let data = self.rest.get(header..size)?;
        self.rest = &self.rest[size..];
        let opcode = match first & 0x0f {
            1 => Opcode::Text,
            2 => Opcode::Binary,
            _ => Opcode::Control,
        };
        Some(Frame { opcode, data, size })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    fn renumbered_is_encoded_with_the_new_id(#[values("/", "/chat", "/4[2-17[", "/12")] namespace: &str) {
        for (old, new) in [(0, 1), (9, 10), (999, 1_000), (42, 43)] {
            for attachment in [&[][..], &[0; 10], &[1; 120], &[2; 70_000]] {
                let attachment = (!attachment.is_empty()).then(|| Bytes::from_static(attachment));
                let event =
                    |id| Outgoing::event(namespace, "e[1", Some(id)).encode(&("[0]", &attachment)).unwrap();
                assert_eq!(event(old).renumbered(namespace, old, new), event(new));
            }
        }
    }
}
