//! Reads typed values from raw arguments: where the type asks for bytes, a placeholder is replaced by its
//! attachment.
//!
//! A thin layer over `serde_json`'s deserialiser that checks objects where bytes are wanted. Types that read
//! without a target type (`serde_json::Value`, and types that serde buffers: `untagged`, internally tagged,
//! `flatten`) get the placeholder as an object; [`Args::attachments`] has the bytes.

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
        value::{MapAccessDeserializer, SeqDeserializer},
    },
};
use serde_json::{Error, value::RawValue};

use super::{Args, placeholder};
use crate::proto::limits;

/// Reads one value.
pub(super) fn from_raw<'a, T: DeserializeSeed<'a>>(
    seed: T,
    json: &'a RawValue,
    attachments: &'a [Bytes],
) -> Result<T::Value, Error> {
    let mut inner = serde_json::Deserializer::from_str(json.get());
    if attachments.is_empty() {
        return seed.deserialize(&mut inner);
    }
    if placeholder::is_deeper(json.get(), limits::MAX_READ_DEPTH) {
        return Err(de::Error::custom(placeholder::TOO_DEEP));
    }
    seed.deserialize(Binary { inner: &mut inner, attachments, want: Want::Value })
}

/// A list of arguments as a tuple, or a sequence.
pub(super) struct ArgsDeserializer<'r, 'a> {
    pub(super) args: &'r Args<'a>,
}

impl<'de> Deserializer<'de> for ArgsDeserializer<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_tuple(0, visitor)
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(ArgsAccess { args: self.args, next: 0, at_least: len })
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit_struct newtype_struct seq map struct enum identifier ignored_any
    }
}

/// The arguments in order, then `null` up to the wanted length.
struct ArgsAccess<'r, 'a> {
    args: &'r Args<'a>,
    next: usize,
    at_least: usize,
}

impl<'a> SeqAccess<'a> for ArgsAccess<'_, 'a> {
    type Error = Error;
    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let index = self.next;
        self.next += 1;
        match self.args.raw(index) {
            Some(arg) => arg.parse_seed(seed).map(Some),
            None if index < self.at_least => from_raw(seed, RawValue::NULL, &[]).map(Some),
            None => Ok(None),
        }
    }
}

/// The layer: `D` is `serde_json`'s deserialiser, a visitor, a seed or an access; all nested ones are wrapped
/// too.
struct Binary<'a, D> {
    inner: D,
    attachments: &'a [Bytes],
    want: Want,
}

/// How a visitor treats an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Nothing special.
    Value,
    /// Must be a placeholder; becomes bytes.
    Bytes,
    /// Must be a placeholder; becomes a sequence of bytes, which is what `Vec<u8>` asks for.
    Seq,
}

/// An object that stands for an attachment.
#[derive(Deserialize)]
struct Placeholder {
    #[serde(rename = "_placeholder")]
    marked: bool,
    num: usize,
}

impl<'a, D> Binary<'a, D> {
    fn wrap<T>(&self, inner: T) -> Binary<'a, T> {
        self.wanting(Want::Value, inner)
    }

    fn wanting<T>(&self, want: Want, inner: T) -> Binary<'a, T> {
        Binary { inner, attachments: self.attachments, want }
    }
}

macro_rules! forward {
    ($($method:ident($($arg:ident: $kind:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.wrap(visitor);
            self.inner.$method($($arg,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Binary<'de, D> {
    type Error = D::Error;

    forward! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32()
        deserialize_i64() deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32()
        deserialize_u64() deserialize_u128() deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_str() deserialize_string() deserialize_option() deserialize_unit()
        deserialize_unit_struct(name: &'static str) deserialize_newtype_struct(name: &'static str)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_map() deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
        deserialize_identifier() deserialize_ignored_any()
    }

    // Strings and arrays are not changed; only objects are checked.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.wanting(Want::Bytes, visitor);
        self.inner.deserialize_any(visitor)
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_bytes(visitor)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.wanting(Want::Seq, visitor);
        self.inner.deserialize_any(visitor)
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_seq(visitor)
    }
}

macro_rules! pass {
    ($($method:ident($kind:ty))*) => {$(
        fn $method<E: de::Error>(self, value: $kind) -> Result<Self::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Binary<'de, V> {
    type Value = V::Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }
    pass! {
        visit_bool(bool) visit_i64(i64) visit_i128(i128) visit_u64(u64) visit_u128(u128) visit_f64(f64)
        visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
    }
    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        self.inner.visit_unit()
    }
    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        self.inner.visit_none()
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.visit_some(deserializer)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        let seq = self.wrap(seq);
        self.inner.visit_seq(seq)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        if self.want == Want::Value {
            let map = self.wrap(map);
            return self.inner.visit_map(map);
        }
        let placeholder = Placeholder::deserialize(MapAccessDeserializer::new(map)).ok();
        let num = placeholder.filter(|it| it.marked).map(|it| it.num);
        match num.and_then(|num| self.attachments.get(num)) {
            None => Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
            Some(bytes) if self.want == Want::Bytes => self.inner.visit_borrowed_bytes(bytes),
            Some(bytes) => self.inner.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
        }
    }
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Self::Value, A::Error> {
        let data = self.wrap(data);
        self.inner.visit_enum(data)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Binary<'de, S> {
    type Value = S::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Binary<'de, A> {
    type Error = A::Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let seed = self.wrap(seed);
        self.inner.next_element_seed(seed)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Binary<'de, A> {
    type Error = A::Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.inner.next_key_seed(seed)
    }
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.wrap(seed);
        self.inner.next_value_seed(seed)
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Binary<'de, A> {
    type Error = A::Error;
    type Variant = Binary<'de, A::Variant>;
    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        let Self { inner, attachments, want } = self;
        let (value, variant) = inner.variant_seed(seed)?;
        Ok((value, Binary { inner: variant, attachments, want }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Binary<'de, A> {
    type Error = A::Error;
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.wrap(seed);
        self.inner.newtype_variant_seed(seed)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.wrap(visitor);
        self.inner.tuple_variant(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.wrap(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
