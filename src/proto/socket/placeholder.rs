//! Placeholders: the objects in a packet's JSON that represent its attachments (SIO "Binary event").
//!
//! `{"_placeholder":true,"num":k}` is one, with or without other members; if `_placeholder` is not exactly
//! `true`, it is plain data. JSON that `serde_json` has accepted is scanned here byte by byte, once, without
//! recursion and without interpreting other values.

use std::borrow::Cow;

use bytes::Bytes;
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::proto::{Error, limits};

/// Checks every placeholder in `value`: `num` is an integer and names one of `count` attachments. Repeated and
/// unused numbers are allowed, as in the official parser.
pub(super) fn check(value: &RawValue, count: usize) -> Result<(), Error> {
    let illegal = |node: &Node| node.attachment.is_some_and(|num| num >= count);
    if find(value.get()).iter().any(illegal) { Err(Error::IllegalAttachments) } else { Ok(()) }
}

/// An array, object or placeholder in a JSON text, and its position.
#[derive(Debug)]
struct Node {
    start: usize,
    end: usize,
    /// The attachment of a placeholder, `usize::MAX` if its number is invalid. `None`: an array or object that
    /// contains placeholders.
    attachment: Option<usize>,
}

/// The number of a placeholder in the form that every encoder writes.
fn usual(json: &str) -> Option<usize> {
    json.strip_prefix(r#"{"_placeholder":true,"num":"#)?.strip_suffix('}')?.parse().ok()
}

/// The placeholders in `json` and the arrays and objects around them, outermost first.
fn find(json: &str) -> Nodes {
    if let Some(num) = usual(json) {
        return Nodes::from_iter([Node { start: 0, end: json.len(), attachment: Some(num) }]);
    }
    let mut scan = Scan { json, found: Nodes::new(), open: SmallVec::new() };
    // The key may be written with escapes, so both must be absent.
    if !json.contains("_placeholder") && !json.contains('\\') {
        return scan.found;
    }
    let (mut at, mut string) = (0, 0..0);
    while let Some(byte) = json.as_bytes().get(at) {
        match byte {
            b'"' => {
                string = at..string_end(json, at);
                at = string.end - 1;
            }
            b'[' | b'{' => scan.open(at),
            b':' => scan.key(&json[string.clone()], at),
            b',' => scan.value(at),
            b']' | b'}' => scan.close(at),
            _ => {}
        }
        at += 1;
    }
    scan.found
}

/// The error for an argument that is too deep for recursion.
pub(super) const TOO_DEEP: &str =
    "an argument of a packet with bytes has more than 64 levels of arrays and objects";

/// How deep the nodes are nested.
fn levels(nodes: &[Node]) -> usize {
    let (mut ends, mut most) = (Vec::new(), 0);
    for node in nodes {
        while ends.pop_if(|end| *end <= node.start).is_some() {}
        ends.push(node.end);
        most = most.max(ends.len());
    }
    most
}

/// Whether `json` has more than `max` levels of arrays and objects. Invalid JSON gets an answer too.
pub(super) fn is_deeper(json: &str, max: usize) -> bool {
    // Each level has two brackets, so most texts are too short. Counting all brackets is far cheaper than
    // following the JSON, and decides for most long texts.
    if json.len() / 2 <= max || json.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() <= max {
        return false;
    }
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = json.as_bytes().get(at) {
        match byte {
            b'"' => at = string_end(json, at) - 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > max {
            return true;
        }
        at += 1;
    }
    false
}

/// Most packets have few attachments at a small depth, which need no allocation.
type Nodes = SmallVec<[Node; 4]>;

struct Scan<'a> {
    json: &'a str,
    found: Nodes,
    open: SmallVec<[Open; 4]>,
}

/// An array or object whose end was not reached yet.
struct Open {
    node: usize,
    key: Key,
    value: usize,
    marked: bool,
    num: Option<usize>,
}

enum Key {
    Marker,
    Num,
    Other,
}

impl Scan<'_> {
    fn open(&mut self, start: usize) {
        let node = self.found.len();
        self.open.push(Open { node, key: Key::Other, value: start, marked: false, num: None });
        self.found.push(Node { start, end: start, attachment: None });
    }

    /// After a key, at its colon.
    fn key(&mut self, string: &str, colon: usize) {
        let Some(object) = self.open.last_mut() else { return };
        object.value = colon + 1;
        object.key = match unquote(string).as_deref() {
            Ok("_placeholder") => Key::Marker,
            Ok("num") => Key::Num,
            _ => Key::Other,
        };
    }

    /// After a value. Of two equal keys the later one counts, as in JavaScript.
    fn value(&mut self, end: usize) {
        let Some(object) = self.open.last_mut() else { return };
        let text = || self.json[object.value..end].trim();
        match object.key {
            Key::Marker => object.marked = text() == "true",
            Key::Num => object.num = text().parse().ok(),
            Key::Other => {}
        }
    }

    /// Keeps the array or object if it is, or contains, a placeholder; the content of a placeholder is ignored.
    fn close(&mut self, at: usize) {
        self.value(at);
        let Some(Open { node, marked, num, .. }) = self.open.pop() else { return };
        self.found[node].end = at + 1;
        if marked {
            self.found.truncate(node + 1);
            self.found[node].attachment = Some(num.unwrap_or(usize::MAX));
        } else if self.found.len() == node + 1 {
            self.found.pop();
        }
    }
}

/// The index after the string that begins at `start`.
fn string_end(json: &str, start: usize) -> usize {
    let mut at = start + 1;
    loop {
        match json.as_bytes().get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') => return at + 1,
            Some(_) => at += 1,
            None => return json.len(),
        }
    }
}

/// The content of a JSON string: borrowed, unless it has escapes.
pub(super) fn unquote(string: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    match string.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => serde_json::from_str(string).map(Cow::Owned),
    }
}

/// Writes `value` with its placeholders as bytes, so that they are renumbered. The rest is written as it is.
pub(super) fn transcode<S: Serializer>(
    value: &RawValue,
    attachments: &[Bytes],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let nodes = find(value.get());
    if levels(&nodes) > limits::MAX_READ_DEPTH {
        return Err(S::Error::custom(TOO_DEEP));
    }
    if nodes.is_empty() {
        return value.serialize(serializer);
    }
    Part::Node { json: value.get(), nodes: &nodes, attachments }.serialize(serializer)
}

/// A part of an outgoing argument.
enum Part<'a> {
    /// No placeholder inside.
    Plain(&'a RawValue),
    /// The first node, which always exists; the others are inside it.
    Node { json: &'a str, nodes: &'a [Node], attachments: &'a [Bytes] },
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (json, nodes, attachments) = match *self {
            Self::Plain(json) => return json.serialize(serializer),
            Self::Node { json, nodes, attachments } => (json, nodes, attachments),
        };
        if let Some(num) = nodes[0].attachment {
            let bytes = attachments.get(num).ok_or_else(|| S::Error::custom(Error::IllegalAttachments))?;
            return serializer.serialize_bytes(bytes);
        }
        let mut children = Children { json, at: nodes[0].start + 1, nodes: &nodes[1..], attachments };
        if json[nodes[0].start..].starts_with('[') {
            let mut seq = serializer.serialize_seq(None)?;
            while !children.at_end() {
                seq.serialize_element(&children.value::<S::Error>()?)?;
            }
            seq.end()
        } else {
            let mut map = serializer.serialize_map(None)?;
            while !children.at_end() {
                let key = unquote(children.plain::<S::Error>()?.get()).map_err(S::Error::custom)?;
                map.serialize_entry(&key, &children.value::<S::Error>()?)?;
            }
            map.end()
        }
    }
}

/// Reads the direct content of an array or object from left to right. Children with placeholders are skipped,
/// because their end is known: every byte is read once at any depth.
struct Children<'a> {
    json: &'a str,
    at: usize,
    nodes: &'a [Node],
    attachments: &'a [Bytes],
}

impl<'a> Children<'a> {
    /// Moves to the next key or value; false if there is one.
    fn at_end(&mut self) -> bool {
        let rest = self.json[self.at..].trim_start_matches([' ', '\t', '\r', '\n', ',', ':']);
        self.at = self.json.len() - rest.len();
        rest.is_empty() || rest.starts_with([']', '}'])
    }

    fn value<E: serde::ser::Error>(&mut self) -> Result<Part<'a>, E> {
        self.at_end();
        let end = match self.nodes.first() {
            Some(node) if node.start == self.at => node.end,
            _ => return self.plain().map(Part::Plain),
        };
        let (child, rest) = self.nodes.split_at(self.nodes.partition_point(|node| node.start < end));
        (self.at, self.nodes) = (end, rest);
        Ok(Part::Node { json: self.json, nodes: child, attachments: self.attachments })
    }

    fn plain<E: serde::ser::Error>(&mut self) -> Result<&'a RawValue, E> {
        let mut values = serde_json::Deserializer::from_str(&self.json[self.at..]).into_iter();
        let value = values.next().ok_or_else(|| E::custom(Error::BadJson))?.map_err(E::custom)?;
        self.at += values.byte_offset();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::usual(r#"{"_placeholder":true,"num":3}"#, Some(3))]
    #[case::the_later_number_counts(r#"{"_placeholder":true,"num":3,"num":4}"#, Some(4))]
    #[case::the_later_marker_counts(r#"{"_placeholder":true,"num":3,"_placeholder":false}"#, None)]
    #[case::more_than_a_number(r#"{"_placeholder":true,"num":3,"x":{}}"#, Some(3))]
    #[case::no_integer(r#"{"_placeholder":true,"num":3.0}"#, Some(usize::MAX))]
    #[case::another_order(r#"{"num":3,"_placeholder":true}"#, Some(3))]
    #[case::a_space(r#"{"_placeholder":true,"num": 3}"#, Some(3))]
    fn one_object_is_one_placeholder_or_none(#[case] json: &str, #[case] attachment: Option<usize>) {
        let found = find(json);
        let nodes: Vec<_> = found.iter().map(|node| (node.start, node.end, node.attachment)).collect();
        let expected: Vec<_> = attachment.iter().map(|_| (0, json.len(), attachment)).collect();
        assert_eq!(nodes, expected);
    }
}
