//! Binary packets: a header, then the announced number of binary messages (SIO "Binary event").

use bytes::Bytes;

use super::{Packet, packet::Header};
use crate::proto::{Error, limits};

/// Assembles the binary packets of one session in one direction.
///
/// Limits: one packet at a time, at most `max_attachments`, and at most `max_bytes` of text and attachments.
/// The owner sets the deadline for missing attachments.
#[derive(Debug)]
pub struct Assembler {
    max_attachments: usize,
    max_bytes: usize,
    max_depth: usize,
    pending: Option<Pending>,
}

/// A binary packet with missing attachments.
#[derive(Debug)]
struct Pending {
    packet: Complete,
    /// Number of missing attachments; never zero.
    missing: usize,
    /// Bytes that they may have together.
    room: usize,
}

/// A binary packet with all attachments.
#[derive(Debug)]
pub struct Complete {
    text: String,
    attachments: Vec<Bytes>,
}

impl Complete {
    /// The packet, decoded.
    ///
    /// # Errors
    /// As [`Packet::decode`], except for the depth, which was checked before the attachments came.
    pub fn packet(&self) -> Result<Packet<'_>, Error> {
        Header::read(&self.text, usize::MAX)?.packet(&self.attachments)
    }
}

impl Assembler {
    /// `max_attachments` for each packet: the official default
    /// [`MAX_ATTACHMENTS`](crate::proto::limits::MAX_ATTACHMENTS) is also the maximum. `max_bytes` for each
    /// packet. The depth is at most [`MAX_JSON_DEPTH`](crate::proto::limits::MAX_JSON_DEPTH), see
    /// [`with_max_depth`](Self::with_max_depth).
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

    /// Takes the text of an Engine.IO message. `None`: it was the header of a binary packet, which waits for
    /// its attachments.
    ///
    /// # Errors
    /// The broken rule. The waiting packet is dropped, and the connection cannot be used any more.
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

    /// Whether attachments are missing.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }
}
