//! Checks of a client before it sends, and their error texts.
//!
//! Stricter than the server in places, like the original client: empty messages are not sent, although the
//! server accepts them, and messages are measured in bytes.

use serde::Serialize;
use serde_json::Value;

use super::{Limits, RoomNameError, room_name};

/// Why the data was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unsendable {
    /// There is no connection; reported by the caller.
    #[error("Not connected to server")]
    NotConnected,
    /// A message that is blank, or false in Python.
    #[error("Cannot send empty message")]
    EmptyMessage,
    /// The same for a room.
    #[error("Cannot send empty message to room")]
    EmptyRoomMessage,
    /// A message with this number of bytes in UTF-8, at most `max`.
    #[error("Message too large: {size} characters (max: ~{}KB)", .max / 1_000)]
    MessageTooLarge {
        /// The measured size.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// A custom event of `null`.
    #[error("Cannot send None as custom event data")]
    NoCustomEvent,
    /// A custom event with more bytes of JSON than the limit, which is the value.
    #[error("Custom event data too large (max: {}KB)", .0 / 1_000)]
    CustomEventTooLarge(usize),
    /// A custom event that cannot be JSON.
    #[error("Custom event data is not JSON serializable: {0}")]
    CustomEventNotJson(#[from] serde_json::Error),
    /// A room name that is not a string.
    #[error("Room name must be a string")]
    RoomNotString,
    /// A blank name.
    #[error("Room name cannot be empty")]
    RoomNameEmpty,
    /// A name with more characters than the limit, which is the value.
    #[error("Room name too long (max: {0} characters)")]
    RoomNameTooLong(usize),
    /// A name with one of `< > " ' &` or a control character.
    #[error("Room name contains invalid characters")]
    RoomNameForbidden,
}

impl From<RoomNameError> for Unsendable {
    fn from(error: RoomNameError) -> Self {
        match error {
            RoomNameError::Empty => Self::RoomNameEmpty,
            RoomNameError::TooLong(limit) => Self::RoomNameTooLong(limit),
            RoomNameError::Forbidden => Self::RoomNameForbidden,
        }
    }
}

/// Checks a message.
///
/// # Errors
/// [`Unsendable`].
pub fn message(message: &Value, limits: &Limits) -> Result<(), Unsendable> {
    if is_empty(message) {
        return Err(Unsendable::EmptyMessage);
    }
    check_size(message, limits)
}

/// Checks the data of a custom event and returns its JSON.
///
/// # Errors
/// [`Unsendable`].
pub fn custom_event<T: Serialize + ?Sized>(data: &T, limits: &Limits) -> Result<String, Unsendable> {
    let json = serde_json::to_string(data)?;
    if json == "null" {
        return Err(Unsendable::NoCustomEvent);
    }
    if json.len() > limits.custom_event {
        return Err(Unsendable::CustomEventTooLarge(limits.custom_event));
    }
    Ok(json)
}

/// Checks a room name and returns it trimmed.
///
/// # Errors
/// [`Unsendable`].
pub fn room<'a>(name: &'a Value, limits: &Limits) -> Result<&'a str, Unsendable> {
    let name = name.as_str().ok_or(Unsendable::RoomNotString)?;
    Ok(room_name(name, limits)?)
}

/// Checks a room message and returns the trimmed room name.
///
/// # Errors
/// [`Unsendable`].
pub fn room_message<'a>(name: &'a Value, message: &Value, limits: &Limits) -> Result<&'a str, Unsendable> {
    let name = room(name, limits)?;
    if is_empty(message) {
        return Err(Unsendable::EmptyRoomMessage);
    }
    check_size(message, limits)?;
    Ok(name)
}

/// Blank, or false in Python.
fn is_empty(message: &Value) -> bool {
    match message {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn check_size(message: &Value, limits: &Limits) -> Result<(), Unsendable> {
    let size = message.as_str().map_or_else(|| message.to_string().len(), str::len);
    if size > limits.message {
        return Err(Unsendable::MessageTooLarge { size, max: limits.message });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const LIMITS: Limits = Limits::DEFAULT;

    #[track_caller]
    fn says<T: std::fmt::Debug>(result: Result<T, Unsendable>, text: &str) {
        assert_eq!(result.unwrap_err().to_string(), text);
    }

    #[rstest]
    #[case(json!(null))]
    #[case(json!(""))]
    #[case(json!(" \t\n"))]
    #[case(json!(0))]
    #[case(json!(0.0))]
    #[case(json!(false))]
    #[case(json!([]))]
    #[case(json!({}))]
    fn empty_messages_stay_here(#[case] value: Value) {
        says(message(&value, &LIMITS), "Cannot send empty message");
        says(room_message(&json!("r"), &value, &LIMITS), "Cannot send empty message to room");
    }

    #[rstest]
    #[case(json!("x".repeat(10_000)), true)]
    #[case(json!("x".repeat(10_001)), false)]
    #[case(json!("ü".repeat(5_000)), true)]
    #[case(json!("ü".repeat(5_001)), false)]
    #[case(json!(["x".repeat(9_996)]), true)]
    #[case(json!(["x".repeat(9_997)]), false)]
    fn messages_are_measured_in_bytes(#[case] value: Value, #[case] fits: bool) {
        assert_eq!(message(&value, &LIMITS).is_ok(), fits);
        assert_eq!(room_message(&json!("r"), &value, &LIMITS).is_ok(), fits);
    }

    #[test]
    fn the_text_names_the_size() {
        let value = json!("x".repeat(12_345));
        says(message(&value, &LIMITS), "Message too large: 12345 characters (max: ~10KB)");
    }

    #[rstest]
    #[case(json!(42), "Room name must be a string")]
    #[case(json!(null), "Room name must be a string")]
    #[case(json!(""), "Room name cannot be empty")]
    #[case(json!("  "), "Room name cannot be empty")]
    #[case(json!("r".repeat(101)), "Room name too long (max: 100 characters)")]
    #[case(json!("a<b"), "Room name contains invalid characters")]
    #[case(json!("a>b"), "Room name contains invalid characters")]
    #[case(json!("a\"b"), "Room name contains invalid characters")]
    #[case(json!("a'b"), "Room name contains invalid characters")]
    #[case(json!("a&b"), "Room name contains invalid characters")]
    fn room_names_that_stay_here(#[case] name: Value, #[case] text: &str) {
        says(room(&name, &LIMITS), text);
        says(room_message(&name, &json!("hi"), &LIMITS), text);
    }

    #[test]
    fn a_room_name_is_trimmed_before_it_is_measured() {
        let name = json!(format!("  {}  ", "r".repeat(100)));
        assert_eq!(room(&name, &LIMITS).unwrap(), "r".repeat(100));
    }

    #[test]
    fn custom_events() {
        assert_eq!(custom_event(&json!({"a": 1}), &LIMITS).unwrap(), r#"{"a":1}"#);
        assert!(custom_event(&"x".repeat(49_998), &LIMITS).is_ok());
        says(custom_event(&json!(null), &LIMITS), "Cannot send None as custom event data");
        says(custom_event(&"x".repeat(49_999), &LIMITS), "Custom event data too large (max: 50KB)");
        let no_json = HashMap::from([(vec![1], 2)]);
        says(
            custom_event(&no_json, &LIMITS),
            "Custom event data is not JSON serializable: key must be a string",
        );
    }
}
