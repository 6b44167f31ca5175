//! The rules of the server: one function for each event, with the checks in the order of their texts.
//!
//! Values stay raw and are forwarded as received, so only room names are parsed.

use crate::proto::socket::Arg;

use super::{Limits, Refusal, text};

type Checked<T> = Result<T, Refusal>;

/// A message: any value but `null`, within the limit.
pub(super) fn message<'a>(data: Option<Arg<'a>>, limits: &Limits) -> Checked<Arg<'a>> {
    let message = present(data).ok_or(Refusal::InvalidMessage)?;
    check_length(message, limits, Refusal::MessageTooLong)?;
    Ok(message)
}

/// A custom event and its size: any JSON but `null`, within the limit.
pub(super) fn custom_event<'a>(data: Option<Arg<'a>>, limits: &Limits) -> Checked<(Arg<'a>, usize)> {
    let data = present(data).ok_or(Refusal::InvalidCustomEvent)?;
    let size = data.json().len();
    if size > limits.custom_event {
        return Err(Refusal::CustomEventTooLarge(size));
    }
    match text::binary_bytes(data) {
        Ok(None) => Ok((data, size)),
        Ok(Some(_)) | Err(_) => Err(Refusal::CustomEventNotSerializable),
    }
}

/// The room to join.
pub(super) fn join(data: Option<Arg<'_>>, limits: &Limits) -> Checked<String> {
    let room = member(data, "room").ok_or(Refusal::JoinWithoutRoom)?;
    let room = string(room).ok_or(Refusal::RoomNotString)?;
    named(&room?, limits)
}

/// The room to leave.
pub(super) fn leave(data: Option<Arg<'_>>, limits: &Limits) -> Checked<String> {
    let room = member(data, "room").ok_or(Refusal::LeaveWithoutRoom)?;
    existing(room, limits)
}

/// A room and a message for it. Membership is checked elsewhere.
pub(super) fn room_message<'a>(data: Option<Arg<'a>>, limits: &Limits) -> Checked<(String, Arg<'a>)> {
    let fields = member(data, "room").zip(member(data, "message"));
    let (room, message) = fields.ok_or(Refusal::RoomMessageIncomplete)?;
    let room = existing(room, limits)?;
    if !message.json().starts_with(['"', '{', '[']) || is_binary(message) {
        return Err(Refusal::InvalidMessage);
    }
    check_length(message, limits, Refusal::RoomMessageTooLong)?;
    Ok((room, message))
}

/// Why a text is not a room name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomNameError {
    /// Nothing is left after trimming.
    #[error("blank")]
    Empty,
    /// More characters than the limit, which is the value.
    #[error("longer than {0} characters")]
    TooLong(usize),
    /// It contains one of `< > " ' &` or a control character.
    #[error("contains a forbidden character")]
    Forbidden,
}

/// The name, trimmed.
///
/// # Errors
/// [`RoomNameError`].
pub fn room_name<'a>(name: &'a str, limits: &Limits) -> Result<&'a str, RoomNameError> {
    let name = name.trim();
    if name.is_empty() {
        return Err(RoomNameError::Empty);
    }
    if name.chars().count() > limits.room_name {
        return Err(RoomNameError::TooLong(limits.room_name));
    }
    let is_forbidden = |c: char| matches!(c, '<' | '>' | '"' | '\'' | '&') || c.is_control();
    if name.contains(is_forbidden) { Err(RoomNameError::Forbidden) } else { Ok(name) }
}

impl From<RoomNameError> for Refusal {
    fn from(error: RoomNameError) -> Self {
        match error {
            RoomNameError::Empty => Self::RoomNameEmpty,
            RoomNameError::TooLong(limit) => Self::RoomNameTooLong(limit),
            RoomNameError::Forbidden => Self::RoomNameForbidden,
        }
    }
}

fn named(name: &str, limits: &Limits) -> Checked<String> {
    Ok(room_name(name, limits)?.to_owned())
}

/// As [`named`], for a room that the client should be in: a blank name is an error like a missing one.
fn existing(room: Arg<'_>, limits: &Limits) -> Checked<String> {
    let room = string(room).ok_or(Refusal::InvalidRoom)??;
    named(&room, limits).map_err(|refusal| match refusal {
        Refusal::RoomNameEmpty => Refusal::InvalidRoom,
        other => other,
    })
}

/// A missing argument counts as `null`.
fn present(data: Option<Arg<'_>>) -> Option<Arg<'_>> {
    data.filter(|data| !data.is_null())
}

fn member<'a>(data: Option<Arg<'a>>, key: &str) -> Option<Arg<'a>> {
    data?.member(key)
}

/// The text of a JSON string; refused if it is not Unicode, like half of a surrogate pair. `None`: not a
/// string.
fn string(value: Arg<'_>) -> Option<Checked<String>> {
    value.json().starts_with('"').then(|| value.parse().map_err(|_| Refusal::RoomNameForbidden))
}

/// Whether the value itself is bytes, not an object that contains bytes.
fn is_binary(value: Arg<'_>) -> bool {
    value.has_binary() && value.json().starts_with('{') && value.parse::<bytes::Bytes>().is_ok()
}

fn check_length(value: Arg<'_>, limits: &Limits, too_long: fn(usize) -> Refusal) -> Checked<()> {
    // A value that cannot be encoded fails when it is forwarded.
    let binary = text::binary_bytes(value).ok().flatten().unwrap_or(0);
    if text::characters(value.json()) + binary > limits.message {
        return Err(too_long(limits.message));
    }
    Ok(())
}
