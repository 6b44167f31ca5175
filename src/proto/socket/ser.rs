//! Writes typed values as arguments: where a value gives bytes, an attachment takes their place.

use std::{any, fmt, io};

use bytes::Bytes;
use serde::{
    Serialize, Serializer,
    ser::{self, Impossible, SerializeSeq, SerializeTuple, SerializeTupleStruct},
};
use serde_json::{Error, ser::Formatter};

use super::encoded::{self, EncodeError, Frames, Opcode};
use crate::proto::limits;

/// The attachments of a packet that is being written, as WebSocket frames to follow its text.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    pub(super) frames: Vec<u8>,
    pub(super) count: usize,
}

impl Attachments {
    /// Attachments after the first `count` of their packet, which are already written.
    pub(super) fn after(count: usize) -> Self {
        Self { frames: Vec::new(), count }
    }

    /// All attachments, or an error if they are too many.
    pub(super) fn finish(self) -> Result<Self, EncodeError> {
        if self.count > limits::MAX_ATTACHMENTS {
            return Err(EncodeError::TooManyAttachments(self.count));
        }
        Ok(self)
    }

    pub(super) fn into_bytes(self) -> impl Iterator<Item = Bytes> {
        let frames = Bytes::from(self.frames);
        let ranges: Vec<_> = Frames::new(&frames).map(|frame| frames.slice_ref(frame.data)).collect();
        ranges.into_iter()
    }
}

/// `serde_json`'s compact form, but bytes become placeholders.
struct BinaryFormatter<'a> {
    attachments: &'a mut Attachments,
}

impl Formatter for BinaryFormatter<'_> {
    fn write_byte_array<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        let num = self.attachments.count;
        self.attachments.count += 1;
        // More are refused at the end, and not copied until then: a few kilobytes of placeholders for one large
        // attachment would take all memory.
        if num < limits::MAX_ATTACHMENTS {
            encoded::push_frame(&mut self.attachments.frames, Opcode::Binary, value);
        }
        writer.write_all(br#"{"_placeholder":true,"num":"#)?;
        self.write_u64(writer, num as u64)?;
        writer.write_all(b"}")
    }
}

/// Writes one value.
pub(super) fn value<T: Serialize + ?Sized>(
    value: &T,
    json: &mut Vec<u8>,
    attachments: &mut Attachments,
) -> Result<(), Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(json, BinaryFormatter { attachments }))
}

/// The name under which [`Args`](super::Args) and [`OwnedArgs`](super::OwnedArgs) serialise, so that they
/// spread like a tuple. Other serialisers write an array.
pub(super) const ARGUMENTS: &str = "$tinysio::Arguments";

/// Whether `T` is a tuple or `()`, or a reference or a smart pointer to one.
///
/// serde cannot tell: an array `[T; N]` serialises like a tuple, and a type's own `Serialize` may do so too.
/// The name of the type can tell. The standard library does not guarantee its format, so
/// `tests::only_tuples_are_tuples` and `tests/proto/args.rs` check many types; a tuple that is not recognised
/// would be sent as one argument. The compiler evaluates this when it compiles `T`; it costs nothing at run
/// time.
fn is_tuple<T: ?Sized>() -> bool {
    const POINTERS: [&str; 7] = [
        "&mut ",
        "&",
        "'_ ",
        "alloc::boxed::Box<",
        "alloc::rc::Rc<",
        "alloc::sync::Arc<",
        "alloc::borrow::Cow<'_, ",
    ];
    let mut name = any::type_name::<T>();
    while let Some(target) = POINTERS.iter().find_map(|pointer| name.strip_prefix(pointer)) {
        name = target;
    }
    name.starts_with('(')
}

/// Writes `["name",…arguments]`, or `[…arguments]` without a name: a tuple is a list of arguments, `()` an
/// empty one, every other value is one argument. `last` is appended as one more argument.
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
    match value.serialize(Spread { list: &mut list, is_tuple: is_tuple::<T> }) {
        Ok(()) => {}
        Err(Probe::OneArgument) => SerializeSeq::serialize_element(&mut list, value)?,
        Err(Probe::Json(error)) => return Err(error),
    }
    if let Some(last) = last {
        SerializeSeq::serialize_element(&mut list, last)?;
    }
    SerializeSeq::end(list)
}

/// Writes the elements of a tuple, or of [`ARGUMENTS`], into `list`, and refuses other values with
/// [`Probe::OneArgument`] before writing.
struct Spread<'l, L> {
    list: &'l mut L,
    /// Called if the value serialises as a tuple: whether its type is one.
    is_tuple: fn() -> bool,
}

impl<L> Spread<'_, L> {
    fn only(self, spreads: bool) -> Result<Self, Probe> {
        if spreads { Ok(self) } else { Err(Probe::OneArgument) }
    }
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

impl<L: SerializeSeq<Ok = (), Error = Error>> SerializeTupleStruct for Spread<'_, L> {
    type Ok = ();
    type Error = Probe;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Probe> {
        self.serialize_element(value)
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
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Impossible<(), Probe>;
    type SerializeMap = Impossible<(), Probe>;
    type SerializeStruct = Impossible<(), Probe>;
    type SerializeStructVariant = Impossible<(), Probe>;

    fn serialize_tuple(self, _: usize) -> Result<Self, Probe> {
        let is_tuple = (self.is_tuple)();
        self.only(is_tuple)
    }
    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Self, Probe> {
        self.only(name == ARGUMENTS)
    }
    fn serialize_unit(self) -> Result<(), Probe> {
        let is_tuple = (self.is_tuple)();
        self.only(is_tuple).map(drop)
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
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, collections::HashMap, fmt::Debug, rc::Rc, sync::Arc};

    use serde_json::Value;

    use super::is_tuple;

    struct Own<T>(T);
    trait Trait {}

    fn of<T>(_: T) -> bool {
        is_tuple::<T>()
    }

    #[test]
    fn only_tuples_are_tuples() {
        assert!(is_tuple::<()>());
        assert!(is_tuple::<&()>());
        assert!(is_tuple::<(u8,)>());
        assert!(is_tuple::<(u8, [u8; 2])>());
        assert!(is_tuple::<([u8; 2], &str)>());
        assert!(is_tuple::<&&mut &'static (u8, &'static str)>());
        assert!(is_tuple::<Box<(u8, u8)>>());
        assert!(is_tuple::<&Rc<Arc<(u8, u8)>>>());
        assert!(is_tuple::<Cow<'static, (u8, u8)>>());
        assert!(is_tuple::<((u8, u8), (u8, u8))>());
        assert!(is_tuple::<(Box<dyn Debug + Send>,)>());
        assert!(of((1, "a")) && of(&(1, "a")) && of(&&("a", ())) && of((|| 1, Own(1))));

        assert!(!is_tuple::<[u8; 3]>());
        assert!(!is_tuple::<&[(u8, u8); 1]>());
        assert!(!is_tuple::<Box<[(u8, u8)]>>());
        assert!(!is_tuple::<[()]>());
        assert!(!is_tuple::<str>());
        assert!(!is_tuple::<Value>());
        assert!(!is_tuple::<Vec<(u8, u8)>>());
        assert!(!is_tuple::<Option<(u8, u8)>>());
        assert!(!is_tuple::<HashMap<(u8, u8), (u8, u8)>>());
        assert!(!is_tuple::<Own<(u8, u8)>>());
        assert!(!is_tuple::<&Own<()>>());
        assert!(!is_tuple::<dyn Trait + Send>());
        assert!(!is_tuple::<&(dyn Trait + Send + Sync)>());
        assert!(!is_tuple::<Box<dyn Fn(u8) -> (u8, u8) + Send>>());
        assert!(!is_tuple::<fn(&u8) -> (u8, u8)>());
        assert!(!of([1, 2]) && !of(&&[1, 2]) && !of(vec![()]) && !of(|| (1, 2)));
    }
}
