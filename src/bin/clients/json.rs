//! JSON exactly as typed or received.

use std::str::FromStr;

use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::Value;
use tinysio::{RawValue, proto::socket::Arg};

use super::line::text;

/// A JSON value kept as text, so digits, keys and unpaired surrogates are not lost.
#[derive(Debug, Clone)]
pub(crate) struct Json(String);

impl Json {
    /// An argument as received. Binary values stay placeholders.
    pub(crate) fn of(arg: Arg<'_>) -> Self {
        Self(arg.json().to_owned())
    }

    /// The JSON.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0 == "null"
    }

    /// A member of the object; `null` if missing.
    pub(crate) fn member(&self, name: &str) -> Self {
        let object = serde_json::from_str::<&RawValue>(&self.0).ok();
        object.and_then(|object| Arg::of(object).member(name)).map_or_else(|| Value::Null.into(), Self::of)
    }

    /// The elements of a list.
    pub(crate) fn elements(&self) -> Vec<Self> {
        let list: Vec<&RawValue> = serde_json::from_str(&self.0).unwrap_or_default();
        list.into_iter().map(|element| Self::of(Arg::of(element))).collect()
    }

    /// The value as a `T`; `None` if it is not a `T`.
    pub(crate) fn get<'a, T: serde::Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_str(&self.0).ok()
    }

    /// The readable form.
    pub(crate) fn words(&self) -> String {
        text(&self.0)
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(value.to_string())
    }
}

impl FromStr for Json {
    type Err = serde_json::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::of(Arg::of(serde_json::from_str(text)?)))
    }
}

/// Equal texts or equal values: a server may write a value differently.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        let value = |json: &Self| json.get::<Value>();
        self.0 == other.0 || value(self).is_some_and(|ours| value(other) == Some(ours))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}
