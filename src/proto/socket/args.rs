//! The arguments of an event or an acknowledgement: raw JSON and attachments, parsed when a handler asks for a
//! type.

use std::{borrow::Cow, fmt, marker::PhantomData};

use bytes::Bytes;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor},
    ser::{SerializeTupleStruct, Serializer},
};
use serde_json::value::RawValue;

use super::{
    EncodeError, de,
    list::RawList,
    placeholder,
    ser::{self, Attachments},
};

/// The arguments of one packet, borrowed from it.
///
/// They serialise as arguments: `socket.emit("echo", event.args())` forwards them without parsing, binary
/// included.
#[derive(Debug, Clone, Default)]
pub struct Args<'a> {
    values: RawList<'a>,
    attachments: &'a [Bytes],
}

impl<'a> Args<'a> {
    pub(super) fn new(values: RawList<'a>, attachments: &'a [Bytes]) -> Self {
        Self { values, attachments }
    }

    /// Number of arguments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no arguments.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.len() == 0
    }

    /// The argument at `index`, raw. `None` if there are fewer.
    #[must_use]
    pub fn raw(&self, index: usize) -> Option<Arg<'a>> {
        self.values.get(index).map(|json| Arg { json, attachments: self.attachments })
    }

    /// Each argument, raw, in order.
    pub fn iter(&self) -> impl Iterator<Item = Arg<'a>> {
        self.values.iter().map(|json| Arg { json, attachments: self.attachments })
    }

    /// The last argument, if it is a string: borrowed, unless it has escapes.
    pub(crate) fn last_string(&self) -> Option<Cow<'a, str>> {
        let last = self.values.get(self.len().checked_sub(1)?)?.get();
        if last.starts_with('"') { placeholder::unquote(last).ok() } else { None }
    }

    /// Removes the last argument. Attachments keep their numbers.
    pub(crate) fn pop(&mut self) -> Option<Arg<'a>> {
        self.values.pop().map(|json| Arg { json, attachments: self.attachments })
    }

    /// The argument at `index` as a `T`; a missing one is read as `null`, as in JavaScript. Where `T` asks for
    /// bytes ([`bytes::Bytes`], `Vec<u8>`, `[u8; N]`, or without a copy `&[u8]` through `serde_bytes`),
    /// attachments become bytes.
    ///
    /// Attachments inside types with `#[serde(untagged)]`, `#[serde(tag = "…")]` or `#[serde(flatten)]` are an
    /// error, because serde reads their values before it knows that bytes are wanted. Give the bytes an
    /// argument of their own, use an externally tagged enum (serde's default), or read the parts with
    /// [`Arg::member`].
    ///
    /// A string with half of a surrogate pair (`"\ud83d"`) cannot be a `String`: see [`Arg::to_string_lossy`].
    ///
    /// # Errors
    /// When the argument is no `T`.
    pub fn get<T: Deserialize<'a>>(&self, index: usize) -> Result<T, serde_json::Error> {
        self.raw(index).map_or_else(|| serde_json::from_str("null"), |arg| arg.parse())
    }

    /// All arguments as a tuple: `let (room, text): (String, String) = args.parse()?`. Additional ones are
    /// ignored, missing ones are read as `null`.
    ///
    /// # Errors
    /// If an argument has another type.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(de::ArgsDeserializer { args: self })
    }

    /// The attachments of the packet, in order.
    #[must_use]
    pub fn attachments(&self) -> &'a [Bytes] {
        self.attachments
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> OwnedArgs {
        OwnedArgs {
            values: self.values.iter().map(ToOwned::to_owned).collect(),
            attachments: self.attachments.to_vec(),
        }
    }
}

impl Serialize for Args<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_tuple_struct(ser::ARGUMENTS, self.len())?;
        for arg in self.iter() {
            list.serialize_field(&arg)?;
        }
        list.end()
    }
}

/// One argument: its JSON, and the attachments that its placeholders stand for.
///
/// It can be serialised as a part of another value, so a server can forward it without a type:
/// `socket.emit("said", (name, event.args().raw(0)))`.
#[derive(Debug, Clone, Copy)]
pub struct Arg<'a> {
    json: &'a RawValue,
    attachments: &'a [Bytes],
}

impl<'a> Arg<'a> {
    /// A JSON value as an argument without attachments.
    #[must_use]
    pub fn of(json: &'a RawValue) -> Self {
        Self { json, attachments: &[] }
    }

    /// The JSON as received. Binary values are placeholders in it.
    #[must_use]
    pub fn json(&self) -> &'a str {
        self.json.get()
    }

    /// The same as a [`RawValue`].
    #[must_use]
    pub fn raw(&self) -> &'a RawValue {
        self.json
    }

    /// The argument as a `T`.
    ///
    /// # Errors
    /// When it is no `T`.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, serde_json::Error> {
        self.parse_seed(PhantomData)
    }

    pub(super) fn parse_seed<T: DeserializeSeed<'a>>(&self, seed: T) -> Result<T::Value, serde_json::Error> {
        de::from_raw(seed, self.json, self.attachments)
    }

    /// A member of an object, raw. If the name occurs more than once, the last one counts. `None`: no such
    /// member, or not an object.
    ///
    /// ```
    /// use tinysio::proto::socket::{Body, Packet};
    ///
    /// let packet = Packet::decode(r#"2["join",{"room":"lobby"}]"#, &[]).unwrap();
    /// let Body::Event { args, .. } = packet.body else { panic!() };
    /// let request = args.raw(0).unwrap();
    /// assert_eq!(request.member("room").unwrap().json(), r#""lobby""#);
    /// assert!(request.member("rooms").is_none());
    /// ```
    #[must_use]
    pub fn member(&self, key: &str) -> Option<Self> {
        let member = MemberNamed(key).deserialize(&mut serde_json::Deserializer::from_str(self.json.get()));
        member.ok().flatten().map(|json| Self { json, attachments: self.attachments })
    }

    /// The string, with U+FFFD for each unpaired half of a surrogate pair, as a JavaScript program shows it.
    /// `None`: not a string. A Rust `String` cannot hold such a half: [`parse`](Self::parse) as a `String`
    /// fails, and [`json`](Self::json) has it as received.
    ///
    /// ```
    /// use tinysio::proto::socket::{Body, Packet};
    ///
    /// let packet = Packet::decode(r#"2["say","half \ud83d","whole \ud83d\ude00"]"#, &[]).unwrap();
    /// let Body::Event { args, .. } = packet.body else { panic!() };
    /// assert!(args.get::<String>(0).is_err());
    /// assert_eq!(args.raw(0).unwrap().to_string_lossy().unwrap(), "half \u{fffd}");
    /// assert_eq!(args.raw(1).unwrap().to_string_lossy().unwrap(), "whole \u{1f600}");
    /// ```
    #[must_use]
    pub fn to_string_lossy(&self) -> Option<Cow<'a, str>> {
        let json = self.json();
        if !json.starts_with('"') {
            return None;
        }
        placeholder::unquote(json).ok().or_else(|| Some(Cow::Owned(without_halves(json)?)))
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.json() == "null"
    }

    /// Whether it contains, or may contain, a binary value.
    #[must_use]
    pub fn has_binary(&self) -> bool {
        !self.attachments.is_empty()
    }
}

impl Serialize for Arg<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.attachments.is_empty() {
            self.json.serialize(serializer)
        } else {
            // Placeholders must be renumbered for the new packet.
            placeholder::transcode(self.json, self.attachments, serializer)
        }
    }
}

/// The content of a JSON string, with U+FFFD for each half of a surrogate pair. `serde_json` also reads strings
/// into bytes, and then writes such a half as three bytes (WTF-8).
fn without_halves(json: &str) -> Option<String> {
    let wtf8 = serde_json::from_str::<WtfBytes>(json).ok()?.0;
    let mut text = String::with_capacity(wtf8.len());
    let mut rest = &wtf8[..];
    loop {
        match std::str::from_utf8(rest) {
            Ok(last) => {
                text.push_str(last);
                return Some(text);
            }
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(good).ok()?);
                text.push(char::REPLACEMENT_CHARACTER);
                rest = bad.get(3..)?;
            }
        }
    }
}

struct WtfBytes(Vec<u8>);

impl<'de> Deserialize<'de> for WtfBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = WtfBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<WtfBytes, E> {
                Ok(WtfBytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

/// Finds the last member with that name in an object.
struct MemberNamed<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for MemberNamed<'_> {
    type Value = Option<&'de RawValue>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MemberNamed<'_> {
    type Value = Option<&'de RawValue>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        // Raw, because a name may hold half of a surrogate pair.
        while let Some(name) = map.next_key::<&RawValue>()? {
            if placeholder::unquote(name.get()).is_ok_and(|name| name == self.0) {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Owned arguments: the content of an acknowledgement, or a list whose length is known only at run time.
///
/// When emitted, they spread like a tuple:
///
/// ```
/// use tinysio::proto::socket::{Outgoing, OwnedArgs};
///
/// let mut args = OwnedArgs::default();
/// for word in ["to", "be"] {
///     args.push(word).unwrap();
/// }
/// let encoded = Outgoing::event("/", "say", None).encode(&args).unwrap();
/// assert_eq!(encoded.frames().next().unwrap().text(), Some(r#"42["say","to","be"]"#));
/// ```
#[derive(Debug, Clone, Default)]
pub struct OwnedArgs {
    values: Vec<Box<RawValue>>,
    attachments: Vec<Bytes>,
}

impl OwnedArgs {
    /// The arguments, borrowed.
    #[must_use]
    pub fn args(&self) -> Args<'_> {
        Args::new(self.values.iter().map(|json| &**json).collect(), &self.attachments)
    }

    /// Appends one argument. Bytes in it become attachments; a [`RawValue`] is kept as it is.
    ///
    /// # Errors
    /// [`EncodeError::Json`], [`EncodeError::TooManyAttachments`]; then nothing is appended.
    pub fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let (mut json, mut attachments) = (Vec::new(), Attachments::after(self.attachments.len()));
        ser::value(value, &mut json, &mut attachments)?;
        let attachments = attachments.finish()?;
        self.values.push(serde_json::from_slice(&json)?);
        self.attachments.extend(attachments.into_bytes());
        Ok(())
    }

    /// The argument at `index` as a `T`; a missing one is read as `null`.
    ///
    /// # Errors
    /// When the argument is no `T`.
    pub fn get<'a, T: Deserialize<'a>>(&'a self, index: usize) -> Result<T, serde_json::Error> {
        self.args().get(index)
    }
}

impl Serialize for OwnedArgs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.args().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::proto::socket::{Body, Packet};

    fn args<'a>(text: &'a str, attachments: &'a [Bytes]) -> Args<'a> {
        let Body::Event { args, .. } = Packet::decode(text, attachments).unwrap().body else {
            panic!("{text}")
        };
        args
    }

    #[rstest]
    #[case::none(r#"2["e"]"#, None)]
    #[case::one(r#"2["e","a"]"#, Some("a"))]
    #[case::the_last_of_two(r#"2["e","a" , "b" ]"#, Some("b"))]
    #[case::beyond_the_inline_ones(r#"2["e",1,2,3,4,5,"f"]"#, Some("f"))]
    #[case::escapes(r#"2["e","\u0061\""]"#, Some("a\""))]
    #[case::empty(r#"2["e",""]"#, Some(""))]
    #[case::a_number(r#"2["e","a",1]"#, None)]
    #[case::an_object(r#"2["e",{"a":"b"}]"#, None)]
    #[case::null(r#"2["e",null]"#, None)]
    fn the_last_string(#[case] text: &str, #[case] last: Option<&str>) {
        assert_eq!(args(text, &[]).last_string().as_deref(), last);
    }

    #[test]
    fn a_plain_string_is_borrowed() {
        assert!(matches!(args(r#"2["e","AAAAAAAAAAA"]"#, &[]).last_string(), Some(Cow::Borrowed(_))));
    }

    #[test]
    fn taken_off_one_by_one() {
        let mut args = args(r#"2["e",0,1,2,3,4,5]"#, &[]);
        for n in (0..6).rev() {
            assert_eq!(args.pop().unwrap().json(), n.to_string());
            assert_eq!(args.len(), n);
            let left: Vec<_> = args.iter().map(|arg| arg.json().to_owned()).collect();
            assert_eq!(left, (0..n).map(|n| n.to_string()).collect::<Vec<_>>());
        }
        assert!(args.pop().is_none() && args.is_empty() && args.last_string().is_none());
    }

    #[test]
    fn what_is_taken_off_leaves_the_attachments() {
        let bytes = [Bytes::from_static(b"\x01")];
        let mut args = args(r#"51-["e",{"_placeholder":true,"num":0},"AAAAAAAAAAA"]"#, &bytes);
        assert_eq!(args.last_string().as_deref(), Some("AAAAAAAAAAA"));
        args.pop();
        assert_eq!((args.len(), args.get::<Bytes>(0).unwrap()), (1, bytes[0].clone()));
        assert_eq!(args.attachments(), bytes);
    }
}
