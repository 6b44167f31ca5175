//! What the server accepts: one function an event, its checks in the order of their texts in the contract.
//!
//! Values stay raw. What passes is sent on as it came, so nothing here parses more than a room's name.

use crate::proto::socket::Arg;

use super::{Limits, Refusal, text};

type Checked<T> = Result<T, Refusal>;

/// A message: anything but `null`, within the limit.
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

/// A room and a message for it. Whether the sender is in the room is not known here.
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

/// Why a text is no room's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomNameError {
    /// Nothing is left after trimming.
    #[error("blank")]
    Empty,
    /// More characters than the limit, which is given.
    #[error("longer than {0} characters")]
    TooLong(usize),
    /// One of `< > " ' &` or a control character is in it.
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

/// As [`named`], for a room that one should be in already: there a blank name is as wrong as none.
fn existing(room: Arg<'_>, limits: &Limits) -> Checked<String> {
    let room = string(room).ok_or(Refusal::InvalidRoom)??;
    named(&room, limits).map_err(|refusal| match refusal {
        Refusal::RoomNameEmpty => Refusal::InvalidRoom,
        other => other,
    })
}

/// A missing argument is as good as `null`.
fn present(data: Option<Arg<'_>>) -> Option<Arg<'_>> {
    data.filter(|data| !data.is_null())
}

fn member<'a>(data: Option<Arg<'a>>, key: &str) -> Option<Arg<'a>> {
    data?.member(key)
}

/// The text of a JSON string; refused when it is no Unicode, like half a surrogate pair. `None`: no string.
fn string(value: Arg<'_>) -> Option<Checked<String>> {
    value.json().starts_with('"').then(|| value.parse().map_err(|_| Refusal::RoomNameForbidden))
}

/// Whether the value itself is bytes, not an object that has some inside.
fn is_binary(value: Arg<'_>) -> bool {
    value.has_binary() && value.json().starts_with('{') && value.parse::<bytes::Bytes>().is_ok()
}

fn check_length(value: Arg<'_>, limits: &Limits, too_long: fn(usize) -> Refusal) -> Checked<()> {
    // What cannot be encoded fails when it is sent on, and says so then.
    let binary = text::binary_bytes(value).ok().flatten().unwrap_or(0);
    if text::characters(value.json()) + binary > limits.message {
        return Err(too_long(limits.message));
    }
    Ok(())
}
