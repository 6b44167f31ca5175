//! One Engine.IO packet and its text form.

use std::borrow::Cow;

use bytes::Bytes;

use crate::proto::Error;

/// An Engine.IO packet (EIO "Packet types"), borrowed from the text it was decoded from.
///
/// ```
/// use tinysio::proto::engine::{Data, Packet};
///
/// assert_eq!(Packet::decode("4hello"), Ok(Packet::Message(Data::Text("hello".into()))));
/// assert_eq!(Packet::decode("2probe"), Ok(Packet::Ping("probe")));
/// assert_eq!(Packet::Pong("probe").text().as_deref(), Some("3probe"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0`: the session begins; the JSON of [`Open`](super::Open).
    Open(&'a str),
    /// `1`: the session ends.
    Close,
    /// `2`: ping of the server; `2probe` begins an upgrade.
    Ping(&'a str),
    /// `3`: the answer to a ping, with the ping's data.
    Pong(&'a str),
    /// `4`, or a binary message: data for the layer above.
    Message(Data<'a>),
    /// `5`: the client moves to this transport.
    Upgrade,
    /// `6`: no content; answers an open GET.
    Noop,
}

/// The data of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data<'a> {
    /// Text, UTF-8.
    Text(Cow<'a, str>),
    /// Bytes, as they are on WebSocket and as base64 on polling.
    Binary(Bytes),
}

impl<'a> Packet<'a> {
    /// Decodes the text form: a type digit, then data.
    ///
    /// # Errors
    /// [`Error::EmptyPacket`], [`Error::UnknownEngineType`], or [`Error::UnexpectedData`] if data follows a
    /// type that has none.
    pub fn decode(text: &'a str) -> Result<Self, Error> {
        let kind = *text.as_bytes().first().ok_or(Error::EmptyPacket)?;
        // The first byte is ASCII in every branch that uses `data`, so the slice cannot split a character.
        let data = || &text[1..];
        match kind {
            b'0' => Ok(Self::Open(data())),
            b'1' => bare(data(), Self::Close),
            b'2' => Ok(Self::Ping(data())),
            b'3' => Ok(Self::Pong(data())),
            b'4' => Ok(Self::Message(Data::Text(data().into()))),
            b'5' => bare(data(), Self::Upgrade),
            b'6' => bare(data(), Self::Noop),
            _ => Err(Error::UnknownEngineType),
        }
    }

    /// The text form, or `None` for a binary message: WebSocket carries its bytes, polling base64
    /// ([`payload`](super::payload)).
    #[must_use]
    pub fn text(&self) -> Option<String> {
        Some(match self {
            Self::Open(json) => format!("0{json}"),
            Self::Close => "1".into(),
            Self::Ping(data) => format!("2{data}"),
            Self::Pong(data) => format!("3{data}"),
            Self::Message(Data::Text(text)) => format!("4{text}"),
            Self::Message(Data::Binary(_)) => return None,
            Self::Upgrade => "5".into(),
            Self::Noop => "6".into(),
        })
    }
}

/// The packet, if nothing follows its type.
fn bare<'a>(data: &str, packet: Packet<'a>) -> Result<Packet<'a>, Error> {
    if data.is_empty() { Ok(packet) } else { Err(Error::UnexpectedData) }
}
