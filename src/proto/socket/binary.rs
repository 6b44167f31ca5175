//! Binary packets: a header, then as many binary messages as it announces (SIO "Binary event").

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Packet, packet::Header};
use crate::proto::Error;

/// Puts binary packets together, one session's, one direction's.
///
/// Bounded: one packet at a time, at most `max_attachments` of them, and at most `max_bytes` for text and
/// attachments together. What is still due after a while is the owner's deadline to set.
#[derive(Debug)]
pub struct Assembler {
    max_attachments: usize,
    max_bytes: usize,
    pending: Option<Complete>,
    missing: usize,
}

/// A binary packet whose attachments are all here.
#[derive(Debug)]
pub struct Complete {
    text: String,
    attachments: Vec<Bytes>,
}

impl Complete {
    /// The packet, decoded.
    ///
    /// # Errors
    /// As [`Packet::decode`].
    pub fn packet(&self) -> Result<Packet<'_>, Error> {
        Packet::decode(&self.text, &self.attachments)
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }
}

impl Assembler {
    /// `max_attachments` a packet (the official default is [`MAX_ATTACHMENTS`](crate::proto::limits::MAX_ATTACHMENTS),
    /// which is also the most that is taken), `max_bytes` a packet.
    #[must_use]
    pub fn new(max_attachments: usize, max_bytes: usize) -> Self {
        Self { max_attachments, max_bytes, pending: None, missing: 0 }
    }

    /// Takes the text of an Engine.IO message. `None`: it was the header of a binary packet, which is kept.
    ///
    /// # Errors
    /// The rule that was broken; the connection is of no use afterwards.
    pub fn text<'a>(&mut self, text: &'a str) -> Result<Option<Packet<'a>>, Error> {
        if self.pending.is_some() {
            return Err(Error::TextWhileReconstructing);
        }
        let header = Header::read(text)?;
        if header.attachments == 0 {
            return header.packet(&[]).map(Some);
        }
        if header.attachments > self.max_attachments {
            return Err(Error::TooManyAttachments);
        }
        self.missing = header.attachments;
        self.pending = Some(Complete { text: text.to_owned(), attachments: Vec::new() });
        self.check_size().map(|()| None)
    }

    /// Takes a binary message. `Some`: it was the last attachment of its packet.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn binary(&mut self, data: Bytes) -> Result<Option<Complete>, Error> {
        let Some(pending) = &mut self.pending else {
            return Err(Error::UnexpectedBinary);
        };
        pending.attachments.push(data);
        self.missing -= 1;
        self.check_size()?;
        Ok(if self.missing == 0 { self.pending.take() } else { None })
    }

    /// Whether attachments are due.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    fn check_size(&self) -> Result<(), Error> {
        match &self.pending {
            Some(pending) if pending.bytes() > self.max_bytes => Err(Error::PacketTooLarge),
            _ => Ok(()),
        }
    }
}

/// Checks every `{"_placeholder":true,"num":k}` in `value`: k is an integer and names one of `count`
/// attachments. The same number twice and a number that nobody names are allowed, as in the official parser.
pub(super) fn check_placeholders(value: &RawValue, count: usize) -> Result<(), Error> {
    let json = value.get();
    // The key could be written with escapes, so only its absence along with theirs is proof.
    if !json.contains("_placeholder") && !json.contains('\\') {
        return Ok(());
    }
    let mut illegal = false;
    let walked =
        Walk { count, illegal: &mut illegal }.deserialize(&mut serde_json::Deserializer::from_str(json));
    match walked {
        _ if illegal => Err(Error::IllegalAttachments),
        Err(_) => Err(Error::BadJson),
        Ok(_) => Ok(()),
    }
}

/// Whether an object is a placeholder, told key by key.
#[derive(Debug, Default)]
pub(super) struct Placeholder {
    marked: bool,
    num: Option<u64>,
}

impl Placeholder {
    pub(super) fn note(&mut self, key: &str, value: Scalar) {
        match (key, value) {
            ("_placeholder", value) => self.marked = value == Scalar::True,
            ("num", Scalar::Uint(num)) => self.num = Some(num),
            ("num", _) => self.num = None,
            _ => {}
        }
    }

    /// `None`: a plain object. `Some`: the attachment it stands for, `usize::MAX` when its number is none.
    pub(super) fn resolve(&self) -> Option<usize> {
        self.marked.then(|| self.num.and_then(|num| num.try_into().ok()).unwrap_or(usize::MAX))
    }
}

/// As much of a JSON value as a placeholder needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    True,
    Uint(u64),
    Other,
}

/// Visits every object of a JSON value, to the depth that `serde_json` allows.
struct Walk<'w> {
    count: usize,
    illegal: &'w mut bool,
}

impl Walk<'_> {
    fn inner(&mut self) -> Walk<'_> {
        Walk { count: self.count, illegal: self.illegal }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Scalar;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Scalar;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(if value { Scalar::True } else { Scalar::Other })
    }
    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Uint(value))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }
    fn visit_str<E>(self, _: &str) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }
    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Scalar, A::Error> {
        while seq.next_element_seed(self.inner())?.is_some() {}
        Ok(Scalar::Other)
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Scalar, A::Error> {
        let mut placeholder = Placeholder::default();
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            let value = map.next_value_seed(self.inner())?;
            placeholder.note(&key, value);
        }
        *self.illegal |= placeholder.resolve().is_some_and(|num| num >= self.count);
        Ok(Scalar::Other)
    }
}
