//! Bodies of unknown length: the chunked coding (RFC 9112 7.1), read strictly.
//!
//! ```text
//!   Size ─► Extension ─► SizeEnd ─┬─► Data ─► DataEnd ─► DataEnd2 ─► Size
//!                                 └─ size 0 ─► Last ─► Last2 ─► Done
//! ```
//! A proxy in front reads the same bytes. If it understands a size differently than we do (`+4`, `0x4`, a line feed
//! alone), a request can be smuggled past it. So every deviation is an error. Trailers are refused too, because the
//! server does not use them.
//!
//! A state machine over bytes. It does no I/O.

/// Digits of a size, with leading zeros.
const DIGITS_MAX: usize = 16;

/// Bytes of one extension. Clients send none.
const EXTENSION_MAX: usize = 1 << 10;

/// Bytes of sizes, extensions and line ends in a whole body, beyond one for each byte of the body. Clients send far
/// fewer.
const FRAMING_SLACK: usize = 4 << 10;

/// Why a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkError {
    /// It breaks a rule of the coding.
    Malformed,
    /// Its data are more than the limit.
    TooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { digits: usize },
    Extension { length: usize },
    SizeEnd,
    Data,
    DataEnd,
    DataEnd2,
    Last,
    Last2,
    Done,
}

/// A body that is being read, piece by piece.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of the chunk that are still to come. As wide as [`DIGITS_MAX`] digits on every machine.
    chunk: u64,
    body: Vec<u8>,
    max: usize,
    framing_left: usize,
}

impl Decoder {
    /// A body of at most `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        let framing_left = max.saturating_add(FRAMING_SLACK);
        Self { state: State::Size { digits: 0 }, chunk: 0, body: Vec::new(), max, framing_left }
    }

    /// Reads the bytes that have come. Returns how many of them belong to the body and its framing.
    ///
    /// # Errors
    /// [`ChunkError`]. The decoder must not be used after it.
    pub(super) fn decode(&mut self, input: &[u8]) -> Result<usize, ChunkError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let left = input.len() - at;
                let count = usize::try_from(self.chunk).map_or(left, |chunk| chunk.min(left));
                self.body.extend_from_slice(&input[at..at + count]);
                self.chunk -= count as u64;
                at += count;
                if self.chunk == 0 {
                    self.state = State::DataEnd;
                }
                continue;
            }
            self.framing_left = self.framing_left.checked_sub(1).ok_or(ChunkError::Malformed)?;
            self.state = self.step(input[at])?;
            at += 1;
        }
        Ok(at)
    }

    /// One byte that is not of the data.
    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() && digits < DIGITS_MAX => {
                // At most 16 digits: nothing is lost at the left.
                self.chunk = self.chunk << 4 | u64::from((byte as char).to_digit(16).unwrap_or_default());
                Ok(State::Size { digits: digits + 1 })
            }
            (State::Size { digits: 1.. } | State::Extension { .. }, b'\r') => Ok(State::SizeEnd),
            (State::Size { digits: 1.. }, b';') => Ok(State::Extension { length: 0 }),
            (State::Extension { length }, b'\t' | b' '..=b'~' | 0x80..) if length < EXTENSION_MAX => {
                Ok(State::Extension { length: length + 1 })
            }
            (State::SizeEnd, b'\n') if self.chunk > (self.max - self.body.len()) as u64 => {
                Err(ChunkError::TooLarge)
            }
            (State::SizeEnd, b'\n') => Ok(if self.chunk == 0 { State::Last } else { State::Data }),
            (State::DataEnd, b'\r') => Ok(State::DataEnd2),
            (State::DataEnd2, b'\n') => Ok(State::Size { digits: 0 }),
            (State::Last, b'\r') => Ok(State::Last2),
            (State::Last2, b'\n') => Ok(State::Done),
            _ => Err(ChunkError::Malformed),
        }
    }

    /// Whether the body is complete.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the body so far.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    pub(super) fn into_body(self) -> Vec<u8> {
        self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes in pieces of this size; the body, and what was left over.
    fn decode(input: &[u8], max: usize, piece: usize) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
        let mut decoder = Decoder::new(max);
        let mut taken = 0;
        for piece in input.chunks(piece) {
            taken += decoder.decode(piece)?;
        }
        let done = decoder.is_done();
        Ok(done.then(|| (decoder.into_body(), input.len() - taken)))
    }

    #[rstest::rstest]
    #[case("0\r\n\r\n", "", 0)]
    #[case("000\r\n\r\nrest", "", 4)]
    #[case("4\r\nabcd\r\n0\r\n\r\n", "abcd", 0)]
    #[case("A;x=\"y\"\r\n0123456789\r\na\r\n9876543210\r\n0\r\n\r\nGET", "01234567899876543210", 3)]
    #[case("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", 0)]
    fn good(
        #[case] input: &str,
        #[case] body: &str,
        #[case] rest: usize,
        #[values(1, 2, 3, 1_000)] piece: usize,
    ) {
        assert_eq!(decode(input.as_bytes(), 20, piece), Ok(Some((body.into(), rest))));
    }

    #[rstest::rstest]
    #[case("15\r\n", ChunkError::TooLarge)]
    #[case("a\r\n0123456789\r\nb\r\n", ChunkError::TooLarge)]
    #[case("ffffffffffffffff\r\n", ChunkError::TooLarge)]
    #[case::seventeen_digits("0ffffffffffffffff\r\n", ChunkError::Malformed)]
    #[case::seventeen_digits_that_are_too_much("11111111111111111\r\n", ChunkError::Malformed)]
    #[case::more_than_32_bits("100000001\r\n", ChunkError::TooLarge)]
    #[case("\r\n", ChunkError::Malformed)]
    #[case(";a\r\n", ChunkError::Malformed)]
    #[case("4;a\0\r\n", ChunkError::Malformed)]
    #[case("0\r\nTrailer: x\r\n\r\n", ChunkError::Malformed)]
    #[case("1\r\nab", ChunkError::Malformed)]
    fn bad(#[case] input: &str, #[case] error: ChunkError, #[values(1, 3, 1_000)] piece: usize) {
        assert_eq!(decode(input.as_bytes(), 20, piece), Err(error));
    }

    #[test]
    fn every_beginning_of_a_good_body_is_not_done() {
        let whole = b"4;x\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n";
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length], 20, 5), Ok(None), "{length}");
        }
    }

    #[test]
    fn framing_has_a_bound() {
        let chunks = b"1\r\nx\r\n".repeat(10_000);
        assert_eq!(decode(&chunks, 10_000, 4096), Err(ChunkError::Malformed));
    }
}
