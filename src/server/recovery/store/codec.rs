//! The encoding of packets, sessions and answers in the file: numbers in LEB128, everything else with its length
//! before it.
//!
//! ```text
//!   batch    floor, count, then for each packet: offset, namespace, only, rooms, except, skip, frames
//!   session  sid, namespace, entered, blind, stays (room, from, to), data, last, known
//!   answer   id, frames
//! ```
//! An optional value is a list of one or none. Decoding trusts nothing: it returns `None` for anything else.

use std::sync::Arc;

use bytes::Bytes;

use super::{KeptAnswer, KeptPacket, KeptSession, Stay};

/// The packets of one commit, and the floor as of it.
pub(super) fn encode_batch(floor: u64, packets: &[&KeptPacket]) -> Vec<u8> {
    let frames: usize = packets.iter().map(|packet| packet.frames.len() + 64).sum();
    let mut out = Vec::with_capacity(frames);
    number(&mut out, floor);
    list(&mut out, packets, |out, packet| {
        number(out, packet.offset);
        text(out, &packet.namespace);
        list(out, packet.only.as_slice(), text);
        list(out, &packet.rooms, text);
        list(out, &packet.except, text);
        list(out, packet.skip.as_slice(), text);
        blob(out, &packet.frames);
    });
    out
}

/// The frames of the packets share the memory of `batch`.
pub(super) fn decode_batch(batch: &Bytes) -> Option<(u64, Vec<KeptPacket>)> {
    let mut input = Input { all: batch, rest: batch };
    let floor = input.number()?;
    let packets = input.list(|input| {
        Some(KeptPacket {
            offset: input.number()?,
            namespace: input.text()?,
            only: input.list(Input::text)?.pop(),
            rooms: input.list(Input::text)?,
            except: input.list(Input::text)?,
            skip: input.list(Input::text)?.pop(),
            frames: input.blob()?,
        })
    })?;
    input.rest.is_empty().then_some((floor, packets))
}

pub(super) fn encode_session(session: &KeptSession) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, &session.sid);
    text(&mut out, &session.namespace);
    number(&mut out, session.entered);
    number(&mut out, session.blind);
    list(&mut out, &session.stays, |out, stay| {
        text(out, &stay.room);
        number(out, stay.from);
        number(out, stay.to);
    });
    list(&mut out, session.data.as_slice(), |out, data| blob(out, data));
    number(&mut out, session.last);
    number(&mut out, session.known);
    out
}

pub(super) fn decode_session(pid: &str, value: &[u8]) -> Option<KeptSession> {
    let value = Bytes::copy_from_slice(value);
    let mut input = Input { all: &value, rest: &value };
    let session = KeptSession {
        pid: pid.into(),
        sid: input.text()?,
        namespace: input.text()?,
        entered: input.number()?,
        blind: input.number()?,
        stays: input
            .list(|input| Some(Stay { room: input.text()?, from: input.number()?, to: input.number()? }))?,
        data: input.list(Input::blob)?.pop(),
        last: input.number()?,
        known: input.number()?,
    };
    input.rest.is_empty().then_some(session)
}

pub(super) fn encode_answer(answer: &KeptAnswer) -> Vec<u8> {
    let mut out = Vec::new();
    number(&mut out, answer.id);
    blob(&mut out, &answer.frames);
    out
}

pub(super) fn decode_answer(client: &str, namespace: &str, value: &[u8]) -> Option<KeptAnswer> {
    let value = Bytes::copy_from_slice(value);
    let mut input = Input { all: &value, rest: &value };
    let (client, namespace) = (client.into(), namespace.into());
    let answer = KeptAnswer { client, namespace, id: input.number()?, frames: input.blob()? };
    input.rest.is_empty().then_some(answer)
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn blob(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn text(out: &mut Vec<u8>, text: &Arc<str>) {
    blob(out, text.as_bytes());
}

fn list<T>(out: &mut Vec<u8>, items: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    number(out, items.len() as u64);
    for item in items {
        each(out, item);
    }
}

/// The rest of a value that is to be decoded.
struct Input<'a> {
    all: &'a Bytes,
    rest: &'a [u8],
}

impl Input<'_> {
    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&[u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn blob(&mut self) -> Option<Bytes> {
        let all = self.all;
        Some(all.slice_ref(self.bytes()?))
    }

    fn text(&mut self) -> Option<Arc<str>> {
        Some(str::from_utf8(self.bytes()?).ok()?.into())
    }

    /// Each item takes at least one byte. So a count that is too large fails before it takes memory.
    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.number()?).ok().filter(|&count| count <= self.rest.len())?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(each(self)?);
        }
        Some(items)
    }
}
