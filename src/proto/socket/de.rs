//! Reading typed values out of raw arguments: wherever the type asks for bytes, a placeholder gives its attachment.
//!
//! A thin layer over `serde_json`'s deserialiser that looks at objects where bytes are wanted. Formats that read
//! ahead without knowing the type (`#[serde(untagged)]`, `#[serde(flatten)]`, `serde_json::Value`) see the
//! placeholder as the object it is; [`Args::attachments`] has the bytes for them.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
        value::SeqDeserializer,
    },
};
use serde_json::{Error, value::RawValue};

use super::Args;

/// Reads one value.
pub(super) fn from_raw<'a, T: Deserialize<'a>>(
    json: &'a RawValue,
    attachments: &'a [Bytes],
) -> Result<T, Error> {
    if attachments.is_empty() {
        return serde_json::from_str(json.get());
    }
    let mut inner = serde_json::Deserializer::from_str(json.get());
    T::deserialize(Binary { inner: &mut inner, attachments })
}

/// A list of arguments as a tuple, or a sequence.
pub(super) struct ArgsDeserializer<'r, 'a> {
    pub(super) args: &'r Args<'a>,
}

impl<'de> Deserializer<'de> for ArgsDeserializer<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.args.visit(visitor, 0)
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.args.visit(visitor, len)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.args.visit(visitor, len)
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit_struct newtype_struct seq map struct enum identifier ignored_any
    }
}

pub(super) struct ArgsAccess<'r, 'a> {
    pub(super) args: &'r Args<'a>,
    pub(super) next: usize,
    pub(super) at_least: usize,
}

impl<'a> SeqAccess<'a> for ArgsAccess<'_, 'a> {
    type Error = Error;
    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let index = self.next;
        self.next += 1;
        let Some(arg) = self.args.raw(index) else {
            let missing = (index < self.at_least)
                .then(|| seed.deserialize(&mut serde_json::Deserializer::from_str("null")));
            return missing.transpose();
        };
        let mut inner = serde_json::Deserializer::from_str(arg.json());
        let attachments = self.args.attachments();
        if attachments.is_empty() {
            seed.deserialize(&mut inner).map(Some)
        } else {
            seed.deserialize(Binary { inner: &mut inner, attachments }).map(Some)
        }
    }
}

/// The layer: `D` is `serde_json`'s deserialiser, a visitor, a seed or an access, and everything nested in it is
/// wrapped the same way.
struct Binary<'a, D> {
    inner: D,
    attachments: &'a [Bytes],
}

impl<'a, D> Binary<'a, D> {
    fn wrap<T>(&self, inner: T) -> Binary<'a, T> {
        Binary { inner, attachments: self.attachments }
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

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Binary<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32()
        deserialize_i64() deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32()
        deserialize_u64() deserialize_u128() deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_str() deserialize_string() deserialize_option() deserialize_unit()
        deserialize_unit_struct(name: &'static str) deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize) deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_map() deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
        deserialize_identifier() deserialize_ignored_any()
    }

    // Bytes, and a sequence that may be one of bytes: an object here is a placeholder.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Bytewise { inner: self.wrap(visitor), as_seq: false };
        self.inner.deserialize_any(visitor)
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_bytes(visitor)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Bytewise { inner: self.wrap(visitor), as_seq: true };
        self.inner.deserialize_any(visitor)
    }
}

macro_rules! pass {
    ($($method:ident($kind:ty))*) => {$(
        fn $method<E: de::Error>(self, value: $kind) -> Result<Self::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Binary<'_, V> {
    type Value = V::Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }
    pass! {
        visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str)
        visit_borrowed_str(&'de str) visit_string(String)
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
        let map = self.wrap(map);
        self.inner.visit_map(map)
    }
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Self::Value, A::Error> {
        let data = self.wrap(data);
        self.inner.visit_enum(data)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Binary<'_, S> {
    type Value = S::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Binary<'_, A> {
    type Error = A::Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let seed = self.wrap(seed);
        self.inner.next_element_seed(seed)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Binary<'_, A> {
    type Error = A::Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.inner.next_key_seed(seed)
    }
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.wrap(seed);
        self.inner.next_value_seed(seed)
    }
}

impl<'a, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Binary<'a, A> {
    type Error = A::Error;
    type Variant = Binary<'a, A::Variant>;
    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        let attachments = self.attachments;
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Binary { inner: variant, attachments }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Binary<'_, A> {
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

/// A visitor where bytes, or a sequence, are wanted: an object must be a placeholder and becomes its attachment;
/// strings and arrays stay what they are.
struct Bytewise<'a, V> {
    inner: Binary<'a, V>,
    as_seq: bool,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bytewise<'_, V> {
    type Value = V::Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }
    pass! {
        visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str)
        visit_borrowed_str(&'de str) visit_string(String)
    }
    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        self.inner.visit_unit()
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        self.inner.visit_seq(seq)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut marked = false;
        let mut num = None;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                "_placeholder" => marked = map.next_value()?,
                "num" => num = Some(map.next_value::<usize>()?),
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        let attachment = num.filter(|_| marked).and_then(|num| self.inner.attachments.get(num));
        match attachment {
            None => Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
            Some(bytes) if self.as_seq => {
                self.inner.inner.visit_seq(SeqDeserializer::new(bytes.iter().copied()))
            }
            Some(bytes) => self.inner.inner.visit_byte_buf(bytes.to_vec()),
        }
    }
}
