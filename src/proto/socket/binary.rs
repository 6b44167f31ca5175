//! Binary packets: a header, then as many binary messages as it announces (SIO "Binary event").

use bytes::Bytes;

use super::{Packet, packet::Header};
use crate::proto::{Error, limits};

/// Puts binary packets together, one session's, one direction's.
///
/// Bounded: one packet at a time, at most `max_attachments` of them, and at most `max_bytes` for text and
/// attachments together. What is still due after a while is the owner's deadline to set.
#[derive(Debug)]
pub struct Assembler {
    max_attachments: usize,
    max_bytes: usize,
    max_depth: usize,
    pending: Option<Pending>,
}

/// A binary packet whose attachments are due.
#[derive(Debug)]
struct Pending {
    packet: Complete,
    /// Attachments to come; never zero.
    missing: usize,
    /// Bytes that they may have.
    room: usize,
}

/// A binary packet whose attachments are all here.
#[derive(Debug)]
pub struct Complete {
    text: String,
    attachments: Vec<Bytes>,
}

impl Complete {
    /// The packet, decoded.
    ///
    /// # Errors
    /// As [`Packet::decode`], but for the depth, which was checked before the attachments came.
    pub fn packet(&self) -> Result<Packet<'_>, Error> {
        Header::read(&self.text, usize::MAX)?.packet(&self.attachments)
    }
}

impl Assembler {
    /// `max_attachments` a packet (the official default is [`MAX_ATTACHMENTS`](crate::proto::limits::MAX_ATTACHMENTS),
    /// which is also the most that is taken), `max_bytes` a packet. The depth is at most
    /// [`MAX_JSON_DEPTH`](crate::proto::limits::MAX_JSON_DEPTH), see [`with_max_depth`](Self::with_max_depth).
    #[must_use]
    pub fn new(max_attachments: usize, max_bytes: usize) -> Self {
        Self { max_attachments, max_bytes, max_depth: limits::MAX_JSON_DEPTH, pending: None }
    }

    /// With another limit for the levels of arrays and objects in one argument, or in the payload of a CONNECT.
    /// `usize::MAX` is no limit.
    #[must_use]
    pub const fn with_max_depth(mut self, levels: usize) -> Self {
        self.max_depth = levels;
        self
    }

    /// Takes the text of an Engine.IO message. `None`: it was the header of a binary packet, which is kept.
    ///
    /// # Errors
    /// The rule that was broken; what was kept is dropped, and the connection is of no use afterwards.
    pub fn text<'a>(&mut self, text: &'a str) -> Result<Option<Packet<'a>>, Error> {
        if self.pending.take().is_some() {
            return Err(Error::TextWhileReconstructing);
        }
        let header = Header::read(text, self.max_depth)?;
        if header.attachments == 0 {
            return header.packet(&[]).map(Some);
        }
        if header.attachments > self.max_attachments {
            return Err(Error::TooManyAttachments);
        }
        let room = self.max_bytes.checked_sub(text.len()).ok_or(Error::PacketTooLarge)?;
        let attachments = Vec::with_capacity(header.attachments);
        let packet = Complete { text: text.to_owned(), attachments };
        self.pending = Some(Pending { packet, missing: header.attachments, room });
        Ok(None)
    }

    /// Takes a binary message. `Some`: it was the last attachment of its packet.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn binary(&mut self, data: Bytes) -> Result<Option<Complete>, Error> {
        let mut pending = self.pending.take().ok_or(Error::UnexpectedBinary)?;
        pending.room = pending.room.checked_sub(data.len()).ok_or(Error::PacketTooLarge)?;
        pending.missing -= 1;
        pending.packet.attachments.push(data);
        if pending.missing == 0 {
            return Ok(Some(pending.packet));
        }
        self.pending = Some(pending);
        Ok(None)
    }

    /// Whether attachments are due.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }
}
