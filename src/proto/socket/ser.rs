//! Writing typed values as arguments: wherever a value gives bytes, an attachment takes its place.

use std::{borrow::Cow, fmt, io};

use bytes::Bytes;
use serde::{
    Serialize, Serializer,
    de::{Deserialize, Deserializer, MapAccess, Visitor},
    ser::{self, Error as _, Impossible, SerializeMap, SerializeSeq, SerializeTuple},
};
use serde_json::{Error, ser::Formatter, value::RawValue};

use super::{
    binary::{Placeholder, Scalar},
    encoded::{self, Opcode},
};

/// The attachments of a packet that is being written, as WebSocket frames that will follow its text.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    pub(super) frames: Vec<u8>,
    pub(super) count: usize,
}

/// `serde_json`'s compact form, but bytes become placeholders.
struct BinaryFormatter<'a> {
    attachments: &'a mut Attachments,
}

impl Formatter for BinaryFormatter<'_> {
    fn write_byte_array<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        let num = self.attachments.count;
        self.attachments.count += 1;
        encoded::push_frame(&mut self.attachments.frames, Opcode::Binary, value);
        write!(writer, r#"{{"_placeholder":true,"num":{num}}}"#)
    }
}

/// Writes `["name",…arguments]`, or `[…arguments]` without a name: a tuple gives one argument an element, `()`
/// gives none, everything else is one argument.
pub(super) fn array<T: Serialize + ?Sized>(
    name: Option<&str>,
    value: &T,
    json: &mut Vec<u8>,
    attachments: &mut Attachments,
) -> Result<(), Error> {
    let formatter = BinaryFormatter { attachments };
    let mut serializer = serde_json::Serializer::with_formatter(json, formatter);
    let mut list = serializer.serialize_seq(None)?;
    if let Some(name) = name {
        SerializeSeq::serialize_element(&mut list, name)?;
    }
    match value.serialize(Spread { list: &mut list }) {
        Ok(()) => {}
        Err(Probe::OneArgument) => SerializeSeq::serialize_element(&mut list, value)?,
        Err(Probe::Json(error)) => return Err(error),
    }
    SerializeSeq::end(list)
}

/// Writes the elements of a tuple into `list`, and refuses whatever is no tuple with [`Probe::OneArgument`] before
/// anything is written: only a value itself knows what it is.
struct Spread<'l, L> {
    list: &'l mut L,
}

#[derive(Debug)]
enum Probe {
    OneArgument,
    Json(Error),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneArgument => f.write_str("one argument"),
            Self::Json(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Probe {}

impl ser::Error for Probe {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Json(Error::custom(message))
    }
}

impl<L: SerializeSeq<Ok = (), Error = Error>> SerializeTuple for Spread<'_, L> {
    type Ok = ();
    type Error = Probe;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Probe> {
        self.list.serialize_element(value).map_err(Probe::Json)
    }
    fn end(self) -> Result<(), Probe> {
        Ok(())
    }
}

macro_rules! one_argument {
    ($($method:ident$(<$generic:ident>)?($($kind:ty),*) -> $ok:ty;)*) => {$(
        fn $method$(<$generic: Serialize + ?Sized>)?(self, $(_: $kind),*) -> Result<$ok, Probe> {
            Err(Probe::OneArgument)
        }
    )*};
}

impl<L: SerializeSeq<Ok = (), Error = Error>> Serializer for Spread<'_, L> {
    type Ok = ();
    type Error = Probe;
    type SerializeSeq = Impossible<(), Probe>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Impossible<(), Probe>;
    type SerializeTupleVariant = Impossible<(), Probe>;
    type SerializeMap = Impossible<(), Probe>;
    type SerializeStruct = Impossible<(), Probe>;
    type SerializeStructVariant = Impossible<(), Probe>;

    fn serialize_tuple(self, _: usize) -> Result<Self, Probe> {
        Ok(self)
    }
    fn serialize_unit(self) -> Result<(), Probe> {
        Ok(())
    }
    one_argument! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_i128(i128) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_u128(u128) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_some<T>(&T) -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_newtype_struct<T>(&'static str, &T) -> ();
        serialize_newtype_variant<T>(&'static str, u32, &'static str, &T) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }
}

/// Raw JSON with placeholders, written on with its attachments as bytes, so that they are numbered anew.
///
/// One level is parsed at a time, so a value costs its size times its depth, which
/// [`MAX_JSON_DEPTH`](crate::proto::limits::MAX_JSON_DEPTH) bounds for every packet that has attachments.
pub(super) struct Transcode<'a> {
    json: &'a RawValue,
    attachments: &'a [Bytes],
}

impl<'a> Transcode<'a> {
    pub(super) fn new(json: &'a RawValue, attachments: &'a [Bytes]) -> Self {
        Self { json, attachments }
    }

    fn inner(&self, json: &'a RawValue) -> Self {
        Self { json, attachments: self.attachments }
    }
}

impl Serialize for Transcode<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = self.json.get();
        if !json.contains("_placeholder") && !json.contains('\\') {
            return self.json.serialize(serializer);
        }
        if json.starts_with('[') {
            let values: Vec<&RawValue> = serde_json::from_str(json).map_err(S::Error::custom)?;
            return serializer.collect_seq(values.into_iter().map(|value| self.inner(value)));
        }
        if !json.starts_with('{') {
            return self.json.serialize(serializer);
        }
        let Entries(entries) = serde_json::from_str(json).map_err(S::Error::custom)?;
        if let Some(num) = placeholder(&entries) {
            let attachment =
                self.attachments.get(num).ok_or_else(|| S::Error::custom("illegal attachments"))?;
            return serializer.serialize_bytes(attachment);
        }
        let mut map = serializer.serialize_map(Some(entries.len()))?;
        for (key, value) in entries {
            map.serialize_entry(&key, &self.inner(value))?;
        }
        map.end()
    }
}

/// The last member of that name. `None`: there is none, or `json` is no object.
pub(super) fn member<'a>(json: &'a RawValue, key: &str) -> Option<&'a RawValue> {
    if !json.get().starts_with('{') {
        return None;
    }
    let Entries(entries) = serde_json::from_str(json.get()).ok()?;
    entries.into_iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn placeholder(entries: &[(Cow<'_, str>, &RawValue)]) -> Option<usize> {
    let mut placeholder = Placeholder::default();
    for (key, value) in entries {
        let scalar = match value.get() {
            "true" => Scalar::True,
            number => number.parse().map_or(Scalar::Other, Scalar::Uint),
        };
        placeholder.note(key, scalar);
    }
    placeholder.resolve()
}

/// The entries of an object in their order.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}
