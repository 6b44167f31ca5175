//! A line of output: text, meaning, and the colour for the meaning.

use super::common::{colour::Palette, visible::Visible};

/// The meaning of a line; it determines the colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Success: green.
    Good,
    /// Failure: red.
    Bad,
    /// Warning: yellow.
    Warning,
    /// Information: cyan.
    Info,
    /// From the server: blue.
    Server,
    /// From other clients: magenta.
    People,
    /// None: no colour.
    Plain,
}

/// The mark before a line of the `client` program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Sent or done by us.
    Out,
    /// Received.
    In,
    /// Confirmed.
    Done,
    /// Failed.
    Failed,
    /// State.
    Note,
    /// A continuation or a heading.
    None,
}

/// A line of output without colours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) mark: Mark,
    pub(crate) tone: Tone,
    pub(crate) text: String,
}

impl Line {
    pub(crate) fn new(mark: Mark, tone: Tone, text: impl Into<String>) -> Self {
        Self { mark, tone, text: text.into() }
    }

    pub(crate) fn good(text: impl Into<String>) -> Self {
        Self::new(Mark::Done, Tone::Good, text)
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(Mark::Failed, Tone::Bad, text)
    }

    pub(crate) fn warning(text: impl Into<String>) -> Self {
        Self::new(Mark::Note, Tone::Warning, text)
    }

    pub(crate) fn info(text: impl Into<String>) -> Self {
        Self::new(Mark::Note, Tone::Info, text)
    }

    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::new(Mark::None, Tone::Plain, text)
    }

    /// The same line with another mark.
    pub(crate) fn marked(self, mark: Mark) -> Self {
        Self { mark, ..self }
    }

    /// The text in colour, without the mark.
    pub(crate) fn words(&self, palette: Palette) -> String {
        let text = &self.text;
        match self.tone {
            Tone::Good => palette.green(text).to_string(),
            Tone::Bad => palette.red(text).to_string(),
            Tone::Warning => palette.yellow(text).to_string(),
            Tone::Info => palette.cyan(text).to_string(),
            Tone::Server => palette.blue(text).to_string(),
            Tone::People => palette.magenta(text).to_string(),
            Tone::Plain => text.clone(),
        }
    }

    /// The mark and the text.
    pub(crate) fn signed(&self, palette: Palette) -> String {
        let sign = match self.mark {
            Mark::Out => "→ ",
            Mark::In => "← ",
            Mark::Done => "✓ ",
            Mark::Failed => "✗ ",
            Mark::Note => "• ",
            Mark::None => "",
        };
        Self { text: format!("{sign}{}", self.text), ..self.clone() }.words(palette)
    }
}

/// A readable JSON value: a text without its quotes; other values, and texts with unpaired surrogates, as the
/// received JSON. Characters that affect the terminal are escaped.
pub(crate) fn text(json: &str) -> String {
    let decoded = if json.starts_with('"') { serde_json::from_str::<String>(json).ok() } else { None };
    Visible(decoded.as_deref().unwrap_or(json)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_colours() {
        let line = Line::good("fine");
        assert_eq!(line.signed(Palette::new(false)), "✓ fine");
        assert_eq!(line.signed(Palette::new(true)), "\u{1b}[32m✓ fine\u{1b}[0m");
        assert_eq!(Line::plain("just so").signed(Palette::new(true)), "just so");
    }

    #[test]
    fn texts_of_others_stay_on_their_line() {
        assert_eq!(text(r#""a\nb\u001b[31mred""#), "a\\nb\\u{1b}[31mred");
        assert_eq!(text(r#"{"a":"ü"}"#), r#"{"a":"ü"}"#);
    }

    #[test]
    fn texts_that_are_none_are_shown_as_they_came() {
        for json in
            [r#""half \ud83d""#, r#"["\ud83d"]"#, "12345678901234567890123", "1e999", r#"{"a":1,"a":2}"#]
        {
            assert_eq!(text(json), json);
        }
    }
}
