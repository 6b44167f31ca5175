//! One Socket.IO packet, decoded (SIO "Packet encoding").
//!
//! ```text
//!   <type>[<n attachments>-][<namespace>,][<ack id>][<JSON>]
//! ```

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Args, list::RawList, placeholder};
use crate::proto::{Error, limits};

/// A Socket.IO packet, borrowed from the message that carried it.
///
/// ```
/// use tinysio::proto::socket::{Body, Packet};
///
/// let packet = Packet::decode(r#"2/chat,12["hello",1]"#, &[]).unwrap();
/// assert_eq!(packet.namespace, "/chat");
/// let Body::Event { name, args, id } = packet.body else { panic!() };
/// assert_eq!((&*name, args.parse::<(u32,)>().unwrap(), id), ("hello", (1,), Some(12)));
/// ```
#[derive(Debug, Clone)]
pub struct Packet<'a> {
    /// The namespace, `/` when the packet names none.
    pub namespace: &'a str,
    /// The content.
    pub body: Body<'a>,
}

/// The content of a packet. Binary events and acknowledgements look like plain ones; [`Args`] has their
/// attachments.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// `0`: from the client, a request to join the namespace with an auth payload; from the server, the answer
    /// with the socket's id.
    Connect(Option<&'a RawValue>),
    /// `1`: the sender leaves the namespace.
    Disconnect,
    /// `2` or `5`.
    Event {
        /// The event's name. A number counts as its digits, as in JavaScript. A text that UTF-8 cannot hold
        /// (half of a surrogate pair) counts as the text between its quotes, with escapes.
        name: Cow<'a, str>,
        /// The rest of the array.
        args: Args<'a>,
        /// Present when the sender wants an acknowledgement.
        id: Option<u64>,
    },
    /// `3` or `6`: the answer to the event that carried this id.
    Ack {
        /// The id of the event.
        id: u64,
        /// The content of the answer.
        args: Args<'a>,
    },
    /// `4`: the server refuses the namespace; a string or an object.
    ConnectError(&'a RawValue),
}

impl<'a> Packet<'a> {
    /// Decodes the text of a packet after all its attachments have arrived.
    ///
    /// # Errors
    /// The broken rule; [`Error::IllegalAttachments`] if the announced count is not `attachments.len()` or a
    /// placeholder names none of them; [`Error::TooDeep`] beyond [`MAX_JSON_DEPTH`](limits::MAX_JSON_DEPTH) (an
    /// [`Assembler`](super::Assembler) can have another limit).
    pub fn decode(text: &'a str, attachments: &'a [Bytes]) -> Result<Self, Error> {
        let header = Header::read(text, limits::MAX_JSON_DEPTH)?;
        if header.attachments != attachments.len() {
            return Err(Error::IllegalAttachments);
        }
        header.packet(attachments)
    }
}

/// The part of a packet before its JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<'a> {
    kind: u8,
    pub(super) attachments: usize,
    namespace: &'a str,
    id: Option<u64>,
    data: &'a str,
}

impl<'a> Header<'a> {
    /// Reads up to the JSON and checks the depth of the JSON. Stricter than the official parser: ids and counts
    /// are digits only, and an empty text is not a packet.
    pub(super) fn read(text: &'a str, max_depth: usize) -> Result<Self, Error> {
        let kind = *text.as_bytes().first().ok_or(Error::UnknownType)?;
        if !(b'0'..=b'6').contains(&kind) {
            return Err(Error::UnknownType);
        }
        let rest = &text[1..];
        let (attachments, rest) = if kind >= b'5' { read_attachments(rest)? } else { (0, rest) };
        let (namespace, rest) = read_namespace(rest)?;
        let (id, data) = read_id(rest)?;
        // The array around the arguments is not a level.
        let around = usize::from(data.starts_with('['));
        if placeholder::is_deeper(data, max_depth.saturating_add(around)) {
            return Err(Error::TooDeep);
        }
        Ok(Self { kind, attachments, namespace, id, data })
    }

    /// The packet, with its JSON checked.
    pub(super) fn packet(self, attachments: &'a [Bytes]) -> Result<Packet<'a>, Error> {
        let body = match self.kind {
            b'0' => Body::Connect(self.connect_data()?),
            b'1' if self.data.is_empty() && self.id.is_none() => Body::Disconnect,
            b'2' | b'5' => self.event(attachments)?,
            b'3' | b'6' => self.ack(attachments)?,
            b'4' if self.id.is_none() => Body::ConnectError(self.connect_error_data()?),
            _ => return Err(Error::InvalidPayload),
        };
        Ok(Packet { namespace: self.namespace, body })
    }

    /// CONNECT carries an object or nothing.
    fn connect_data(&self) -> Result<Option<&'a RawValue>, Error> {
        match (self.id, self.data) {
            (Some(_), _) => Err(Error::InvalidPayload),
            (None, "") => Ok(None),
            (None, json) => payload(json, &['{']).map(Some),
        }
    }

    /// CONNECT_ERROR has a string or an object; no data counts as an empty object, as in the official parser.
    fn connect_error_data(&self) -> Result<&'a RawValue, Error> {
        payload(if self.data.is_empty() { "{}" } else { self.data }, &['{', '"'])
    }

    fn event(&self, attachments: &'a [Bytes]) -> Result<Body<'a>, Error> {
        let array: EventArray<'a> = payload(self.data, &['['])?;
        let name = match array.name {
            None => return Err(Error::InvalidPayload),
            Some(EventName::Other) => return Err(Error::BadEventName),
            Some(EventName::Name(name)) => name,
        };
        if limits::RESERVED_EVENTS.contains(&&*name) {
            return Err(Error::ReservedEvent);
        }
        let args = self.args(array.args, attachments)?;
        Ok(Body::Event { name, args, id: self.id })
    }

    fn ack(&self, attachments: &'a [Bytes]) -> Result<Body<'a>, Error> {
        let Some(id) = self.id else {
            // An ignored packet must be valid all the same.
            if !self.data.is_empty() {
                payload::<RawArray<'a>>(self.data, &['['])?;
            }
            return Err(Error::AckWithoutId);
        };
        let values: RawArray<'a> = payload(self.data, &['['])?;
        Ok(Body::Ack { id, args: self.args(values.0, attachments)? })
    }

    fn args(&self, values: RawList<'a>, attachments: &'a [Bytes]) -> Result<Args<'a>, Error> {
        if self.kind >= b'5' {
            for value in values.iter() {
                placeholder::check(value, attachments.len())?;
            }
        }
        Ok(Args::new(values, attachments))
    }
}

/// `<n>-`, where n has no leading zero and is at least 1.
fn read_attachments(text: &str) -> Result<(usize, &str), Error> {
    let (digits, rest) = text.split_at(digits(text));
    let rest = rest.strip_prefix('-').ok_or(Error::BadAttachmentCount)?;
    if digits.is_empty() || digits.starts_with('0') {
        return Err(Error::BadAttachmentCount);
    }
    // A number too large for the type is also above the limit.
    let count = digits.parse().unwrap_or(usize::MAX);
    if count > limits::MAX_ATTACHMENTS { Err(Error::TooManyAttachments) } else { Ok((count, rest)) }
}

/// `/name,`, or `/name` up to the end, or nothing for the default namespace.
fn read_namespace(text: &str) -> Result<(&str, &str), Error> {
    if !text.starts_with('/') {
        return Ok((limits::DEFAULT_NAMESPACE, text));
    }
    // Searched within the limit only: a name of a megabyte must not cost a search of a megabyte.
    let window = &text.as_bytes()[..text.len().min(limits::MAX_NAMESPACE + 1)];
    let (name, rest) = match window.iter().position(|&byte| byte == b',') {
        Some(comma) => (&text[..comma], &text[comma + 1..]),
        None if text.len() <= limits::MAX_NAMESPACE => (text, ""),
        None => return Err(Error::NamespaceTooLong),
    };
    if name.contains(JSON_BEGINS) { Err(Error::BadNamespace) } else { Ok((name, rest)) }
}

/// Characters that begin the JSON of a packet are not allowed in a name: otherwise JSON without its comma would
/// become part of the name.
const JSON_BEGINS: [char; 3] = ['{', '[', '"'];

/// Whether a namespace may have this name: it begins with `/`, has at most
/// [`MAX_NAMESPACE`](limits::MAX_NAMESPACE) bytes, and no `,`, `?`, `{`, `[` or `"`. A client can connect to
/// every such name. A received name may also have a `?`; there is no such namespace, so the CONNECT is refused.
///
/// ```
/// use tinysio::proto::socket::is_namespace;
///
/// assert!(is_namespace("/chat]"));
/// assert!(!is_namespace("chat") && !is_namespace("/a[b") && !is_namespace("/a,b"));
/// ```
#[must_use]
pub fn is_namespace(name: &str) -> bool {
    name.starts_with('/')
        && name.len() <= limits::MAX_NAMESPACE
        && !name.contains([',', '?'])
        && !name.contains(JSON_BEGINS)
}

fn read_id(text: &str) -> Result<(Option<u64>, &str), Error> {
    let (digits, rest) = text.split_at(digits(text));
    if digits.is_empty() {
        return Ok((None, rest));
    }
    if digits.len() > limits::MAX_ACK_DIGITS {
        return Err(Error::BadAckId);
    }
    Ok((Some(digits.parse().map_err(|_| Error::BadAckId)?), rest))
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// One JSON value, whose first character shows its type, with nothing after it and no space before it.
fn payload<'a, T: Deserialize<'a>>(json: &'a str, first: &[char]) -> Result<T, Error> {
    if json.starts_with(first) {
        return serde_json::from_str(json).map_err(|_| Error::BadJson);
    }
    let is_json = || serde_json::from_str::<IgnoredAny>(json).is_ok();
    Err(if json.is_empty() || is_json() { Error::InvalidPayload } else { Error::BadJson })
}

/// `["name", …]` read in one pass.
struct EventArray<'a> {
    name: Option<EventName<'a>>,
    args: RawList<'a>,
}

enum EventName<'a> {
    Name(Cow<'a, str>),
    Other,
}

impl<'de> Deserialize<'de> for EventName<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        Ok(match raw.as_bytes().first() {
            Some(b'"') => {
                Self::Name(placeholder::unquote(raw).unwrap_or_else(|_| raw[1..raw.len() - 1].into()))
            }
            Some(b'-' | b'0'..=b'9') => Self::Name(raw.into()),
            _ => Self::Other,
        })
    }
}

impl<'de> Deserialize<'de> for EventArray<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EventVisitor;
        impl<'de> Visitor<'de> for EventVisitor {
            type Value = EventArray<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array that begins with the event's name")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let name = seq.next_element()?;
                Ok(EventArray { name, args: rest(seq)? })
            }
        }
        deserializer.deserialize_seq(EventVisitor)
    }
}

/// `[…]` as raw values.
struct RawArray<'a>(RawList<'a>);

impl<'de> Deserialize<'de> for RawArray<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ArrayVisitor;
        impl<'de> Visitor<'de> for ArrayVisitor {
            type Value = RawArray<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                rest(seq).map(RawArray)
            }
        }
        deserializer.deserialize_seq(ArrayVisitor)
    }
}

fn rest<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<RawList<'de>, A::Error> {
    let mut values = RawList::default();
    while let Some(value) = seq.next_element()? {
        values.push(value);
    }
    Ok(values)
}
