//! Properties of raw JSON for the rules and the log, without parsing it.

use std::fmt;

use crate::proto::socket::{Arg, EncodeError, Outgoing};

/// Characters of a value: of a string, or else of its JSON text.
pub(super) fn characters(json: &str) -> usize {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inside) => characters_of_string(inside),
        None => json.chars().count(),
    }
}

/// Counts the characters of the content of a JSON string.
fn characters_of_string(inside: &str) -> usize {
    let mut count = 0;
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        count += rest[..at].chars().count() + 1;
        rest = &rest[at..];
        // A surrogate pair is one character; so is an unpaired half, as in Python.
        let is_pair = surrogate(rest, 0xd800) && rest.get(6..).is_some_and(|low| surrogate(low, 0xdc00));
        let length = if is_pair {
            12
        } else if rest.as_bytes().get(1) == Some(&b'u') {
            6
        } else {
            2
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    count + rest.chars().count()
}

/// Whether `text` begins with the escape of a surrogate of this half.
fn surrogate(text: &str, half: u16) -> bool {
    text.strip_prefix("\\u")
        .and_then(|hex| u16::from_str_radix(hex.get(..4)?, 16).ok())
        .is_some_and(|unit| unit & 0xfc00 == half)
}

/// Whether the value is false in Python: null, false, zero, empty.
pub(super) fn is_falsy(json: &str) -> bool {
    match json.as_bytes().first() {
        Some(b'[' | b'{') => json[1..json.len() - 1].trim_ascii().is_empty(),
        Some(b'-' | b'0'..=b'9') => json.parse::<f64>().is_ok_and(|number| number == 0.0),
        _ => matches!(json, "null" | "false" | "\"\""),
    }
}

/// Bytes of the binary values in it. `None`: there are none. Costs nothing for a packet without attachments.
///
/// # Errors
/// If the value cannot be forwarded either.
pub(super) fn binary_bytes(arg: Arg<'_>) -> Result<Option<usize>, EncodeError> {
    if !arg.has_binary() {
        return Ok(None);
    }
    let packet = Outgoing::event("/", "", None).encode(&arg)?;
    let mut attachments = packet.frames().skip(1).peekable();
    Ok(attachments.peek().is_some().then(|| packet.frames().skip(1).map(|frame| frame.data.len()).sum()))
}

/// The first characters of a text, and `...` if there are more.
#[derive(Debug, Clone, Copy)]
pub struct Excerpt<'a>(pub &'a str, pub usize);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = first_characters(self.0, self.1);
        f.write_str(first)?;
        if first.len() < self.0.len() { f.write_str("...") } else { Ok(()) }
    }
}

/// At most `count` characters from the beginning of a text.
pub(super) fn first_characters(text: &str, count: usize) -> &str {
    match text.char_indices().nth(count) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#""""#, 0)]
    #[case(r#""hello""#, 5)]
    #[case(r#""Grüße 😀""#, 7)]
    #[case(r#""\"\\\/\b\n""#, 5)]
    #[case(r#""\u00fcx""#, 2)]
    #[case(r#""\ud83d\ude00""#, 1)]
    #[case(r#""\ud83d\ud83d\ude00""#, 2)]
    #[case(r#""\ud83d""#, 1)]
    #[case(r#""\\ud83d\\ude00""#, 12)]
    #[case("[1, 2]", 6)]
    #[case(r#"["ü"]"#, 5)]
    #[case("true", 4)]
    fn counts_characters(#[case] json: &str, #[case] expected: usize) {
        assert_eq!(characters(json), expected, "{json}");
    }

    #[rstest]
    #[case("null")]
    #[case("false")]
    #[case("0")]
    #[case("-0.0e5")]
    #[case(r#""""#)]
    #[case("[ ]")]
    #[case("{}")]
    fn falsy(#[case] json: &str) {
        assert!(is_falsy(json), "{json}");
    }

    #[rstest]
    #[case("true")]
    #[case("1e-3")]
    #[case(r#"" ""#)]
    #[case("[0]")]
    #[case(r#"{"":0}"#)]
    fn truthy(#[case] json: &str) {
        assert!(!is_falsy(json), "{json}");
    }

    #[test]
    fn an_excerpt_says_that_there_is_more() {
        assert_eq!(Excerpt("äöü", 3).to_string(), "äöü");
        assert_eq!(Excerpt("äöü!", 3).to_string(), "äöü...");
    }
}
