//! The settings of the WebSocket codec, tungstenite, and the buffer between the socket and it.
//!
//! Plain types and values: nothing here does I/O.

use tungstenite::protocol::WebSocketConfig;

/// The codec's own buffer, which it fills from [`Input`]. It clears this many bytes before each read, and keeps them
/// for each connection. The default of tungstenite is 128 KiB.
const CODEC_BUFFER: usize = 512;

/// The size of the buffer: small at first, and larger for a client that fills it.
const READ_MIN: usize = 1 << 10;
pub(crate) const READ_MAX: usize = 64 << 10;

/// Bytes that were read from the socket, and how many of them the codec has taken.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    taken: usize,
}

impl Input {
    pub(crate) const EMPTY: Self = Self { bytes: Vec::new(), taken: 0 };

    /// Makes the buffer as large as it can be, for a thread that serves many clients. Its content is spent.
    pub(crate) fn reserve(&mut self) {
        if self.bytes.capacity() < READ_MAX {
            *self = Self { bytes: Vec::with_capacity(READ_MAX), taken: 0 };
        }
    }

    /// Bytes that came with the request, behind its head.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, taken: 0 }
    }

    /// Whether the codec has taken all bytes.
    pub(crate) fn is_spent(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// The buffer for the next read. Its content is spent.
    pub(crate) fn room(&mut self) -> &mut Vec<u8> {
        self.taken = 0;
        let (filled, capacity) = (self.bytes.len(), self.bytes.capacity());
        if filled == capacity && capacity < READ_MAX {
            self.bytes = Vec::with_capacity((4 * capacity).clamp(READ_MIN, READ_MAX));
        }
        &mut self.bytes
    }

    /// Moves bytes into `buffer`, as many as fit.
    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.bytes[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        count
    }
}

/// The settings of the codec for messages of at most `max_message` bytes.
pub(crate) fn config(max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(CODEC_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(64 << 10)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codec_takes_the_bytes_in_order() {
        let mut input = Input::new(b"abcde".to_vec());
        let mut buffer = [0; 3];
        assert_eq!((input.take(&mut buffer), &buffer), (3, b"abc"));
        assert_eq!((input.take(&mut buffer), &buffer[..2]), (2, &b"de"[..]));
        assert!(input.is_spent());
        assert_eq!(input.take(&mut buffer), 0);
    }

    #[test]
    fn the_buffer_grows_for_a_client_that_fills_it() {
        let mut input = Input::default();
        let mut sizes = Vec::new();
        for _ in 0..5 {
            let room = input.room();
            room.resize(room.capacity(), 0);
            sizes.push(room.len());
        }
        assert_eq!(sizes, [READ_MIN, 4 << 10, 16 << 10, READ_MAX, READ_MAX]);
    }

    #[test]
    fn the_buffer_stays_for_a_client_that_does_not_fill_it() {
        let mut input = Input::default();
        for _ in 0..5 {
            let room = input.room();
            assert_eq!(room.capacity(), READ_MIN);
            room.resize(READ_MIN / 2, 0);
        }
    }
}
