//! Writing typed values as arguments: wherever a value gives bytes, an attachment takes its place.

use std::{fmt, io};

use serde::{
    Serialize, Serializer,
    ser::{self, Impossible, SerializeSeq, SerializeTuple},
};
use serde_json::{Error, ser::Formatter};

use super::encoded::{self, Opcode};
use crate::proto::limits;

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
        // More are refused at the end. They are not copied until then: a few kilobytes of placeholders that all name one
        // large attachment would take all memory.
        if num < limits::MAX_ATTACHMENTS {
            encoded::push_frame(&mut self.attachments.frames, Opcode::Binary, value);
        }
        writer.write_all(br#"{"_placeholder":true,"num":"#)?;
        self.write_u64(writer, num as u64)?;
        writer.write_all(b"}")
    }
}

/// Writes `["name",…arguments]`, or `[…arguments]` without a name: a tuple gives one argument an element, `()`
/// gives none, everything else is one argument. `last` follows as one more argument.
pub(super) fn array<T: Serialize + ?Sized>(
    name: Option<&str>,
    value: &T,
    last: Option<&str>,
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
    if let Some(last) = last {
        SerializeSeq::serialize_element(&mut list, last)?;
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
