//! Offsets: the last event that a client has received (the official connection state recovery).

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// A place in the order of all events of a server; a later event has a larger offset. On the wire it is the
/// last argument of each event without an acknowledgement: 11 characters without meaning for a client.
///
/// A server with a store begins a new *generation* at each start, so no offset is used twice, even if a crash
/// lost the last ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(u64);

/// Bits of an offset that count within a generation: enough for 10,000 events a second over fifty years. The
/// other bits count a million generations.
const COUNTER_BITS: u32 = 44;

impl Offset {
    /// Characters on the wire.
    pub const LEN: usize = 11;

    /// Before all events.
    pub const ZERO: Self = Self(0);

    /// What [`Outgoing::with_offset`](super::Outgoing::with_offset) writes until the offset is known.
    pub(super) const PLACEHOLDER: &str = "AAAAAAAAAAA";

    /// Before the first event of a generation. After 1,048,575 generations the number starts again at 0.
    #[must_use]
    pub const fn of_life(life: u32) -> Self {
        Self((life as u64) << COUNTER_BITS)
    }

    /// The offset with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number, which the store keeps.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The next offset.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Whether both belong to one generation.
    #[must_use]
    pub const fn is_of_life_of(self, other: Self) -> bool {
        self.0 >> COUNTER_BITS == other.0 >> COUNTER_BITS
    }

    /// Whether it is before the first event of its generation: its owner has received nothing of that
    /// generation.
    #[must_use]
    pub const fn begins_a_life(self) -> bool {
        self.0 & ((1 << COUNTER_BITS) - 1) == 0
    }

    /// Parses the text that a client sent back. `None`: not an offset.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 8];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (read == bytes.len()).then_some(Self(u64::from_be_bytes(bytes)))
    }

    /// The characters.
    #[must_use]
    pub fn text(self) -> [u8; Self::LEN] {
        let mut text = [b'A'; Self::LEN];
        // Eight bytes are always eleven characters.
        let _ = URL_SAFE_NO_PAD.encode_slice(self.0.to_be_bytes(), &mut text);
        text
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::first(Offset::ZERO, "AAAAAAAAAAA")]
    #[case::one(Offset::ZERO.next(), "AAAAAAAAAAE")]
    #[case::second_life(Offset::of_life(1).next(), "AAAQAAAAAAE")]
    #[case::last(Offset::new(u64::MAX), "__________8")]
    fn there_and_back(#[case] offset: Offset, #[case] text: &str) {
        assert_eq!(offset.to_string(), text);
        assert_eq!(Offset::parse(text), Some(offset));
    }

    #[rstest]
    #[case::nothing("")]
    #[case::short("AAAAAAAAAA")]
    #[case::long("AAAAAAAAAAAA")]
    #[case::longer(&"A".repeat(10_000))]
    #[case::bits_that_belong_to_nothing("AAAAAAAAAAB")]
    #[case::of_the_official_server("PsXGH7i.0")]
    #[case::no_base64("AAAAAAAAAA ")]
    fn not_ours(#[case] text: &str) {
        assert_eq!(Offset::parse(text), None);
    }

    #[test]
    fn a_life_begins_behind_the_one_before() {
        let last = Offset::new(Offset::of_life(2).number() - 1);
        assert!(last < Offset::of_life(2));
        assert!(last.is_of_life_of(Offset::of_life(1)));
        assert!(!last.is_of_life_of(Offset::of_life(2)));
    }
}
