//! Polling payloads: several packets in one HTTP body (EIO "HTTP long-polling").
//!
//! Packets are joined by the record separator `0x1e`; a binary message is `b` and standard base64 with padding.
//!
//! ```
//! use tinysio::proto::engine::{Data, Packet, payload};
//!
//! let packets: Result<Vec<_>, _> = payload::decode("4hello\u{1e}bAQID").collect();
//! let packets = packets.unwrap();
//! assert_eq!(packets[1], Packet::Message(Data::Binary(vec![1, 2, 3].into())));
//! ```

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Data, Packet};
use crate::proto::Error;

/// The separator of packets in a payload.
pub const SEPARATOR: char = '\u{1e}';

/// The packets of a payload in order. Their number is limited by the size of the payload: each costs at least
/// its separator.
///
/// # Errors
/// Each item has its own result; after an error do not use the rest of the payload.
pub fn decode(payload: &str) -> impl Iterator<Item = Result<Packet<'_>, Error>> {
    payload.split(SEPARATOR).map(|packet| match packet.strip_prefix('b') {
        Some(base64) => {
            let bytes = STANDARD.decode(base64).map_err(|_| Error::BadBase64)?;
            Ok(Packet::Message(Data::Binary(bytes.into())))
        }
        None => Packet::decode(packet),
    })
}

/// Bytes that a binary message of `len` bytes occupies in a payload.
pub(crate) fn binary_len(len: usize) -> usize {
    1 + len.div_ceil(3) * 4
}

/// Builds a payload, packet by packet.
#[derive(Debug, Default)]
pub struct Builder {
    body: String,
    packets: usize,
}

impl Builder {
    /// An empty payload.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a packet given as text, type digit included.
    pub fn push_text(&mut self, packet: &str) {
        self.separate();
        self.body.push_str(packet);
    }

    /// Appends a binary message.
    pub fn push_binary(&mut self, data: &[u8]) {
        self.separate();
        self.body.push('b');
        STANDARD.encode_string(data, &mut self.body);
    }

    /// How many packets the payload has.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether there is no packet yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// The body, ready to be sent.
    #[must_use]
    pub fn finish(self) -> String {
        self.body
    }

    fn separate(&mut self) {
        if self.packets > 0 {
            self.body.push(SEPARATOR);
        }
        self.packets += 1;
    }
}
