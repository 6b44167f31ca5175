//! Makes text from others safe for a terminal.

use std::fmt;

/// A text with escapes for all characters that are not plainly visible.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visible<'a>(pub(crate) &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(is_invisible) {
            f.write_str(&rest[..at])?;
            rest = &rest[at..];
            for c in rest.chars().take(1) {
                write!(f, "{}", c.escape_default())?;
                rest = &rest[c.len_utf8()..];
            }
        }
        f.write_str(rest)
    }
}

/// Control characters, and Unicode characters that break lines or change the direction of writing.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
