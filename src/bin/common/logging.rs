//! The log: one line a record on standard error, as text for people or as JSON for machines.
//!
//! ```text
//!   2026-01-31T12:00:00.123Z INFO  chat::app [Zm9vYmFy…] connected from 127.0.0.1:40000
//!   {"timestamp":"2026-01-31T12:00:00.123Z","level":"INFO","module":"chat::app","client":"Zm9vYmFy…","message":"…"}
//! ```
//! Much of what is logged comes from clients. So that none of them can forge a line or play with the terminal, every
//! character that is not plainly visible is written as an escape.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use clap::ValueEnum;
use env_logger::Logger;
use log::{Level, LevelFilter, Record, kv::Key};
use serde::Serialize;

use super::{colour::Palette, visible::Visible};

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people, in colours on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs from here on what is at least as important as `level`.
pub(crate) fn start(level: LevelFilter, format: Format) {
    let palette = Palette::of_stderr();
    let logger: Logger = env_logger::Builder::new()
        .filter_level(level)
        .format(move |out, record| {
            let line = Line::new(record, SystemTime::now());
            match format {
                Format::Text => line.write_text(out, palette),
                Format::Json => line.write_json(out),
            }
        })
        .build();
    // Fails only when there is a logger already, and then that one logs.
    let _ = log::set_boxed_logger(Box::new(logger)).map(|()| log::set_max_level(level));
}

/// A record, as both formats want it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    module: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    message: String,
}

impl<'a> Line<'a> {
    fn new(record: &Record<'a>, now: SystemTime) -> Self {
        let target = record.target();
        let client = record.key_values().get(Key::from("client"));
        Self {
            timestamp: humantime::format_rfc3339_millis(now).to_string(),
            level: record.level().as_str(),
            module: target.strip_prefix("tinysio::").unwrap_or(target),
            client: client.map(|client| client.to_string()),
            message: record.args().to_string(),
        }
    }

    fn write_text(&self, out: &mut impl Write, palette: Palette) -> io::Result<()> {
        write!(out, "{} ", palette.grey(&self.timestamp))?;
        let level = format!("{:5}", self.level);
        match self.level.parse() {
            Ok(Level::Error) => write!(out, "{}", palette.red(level))?,
            Ok(Level::Warn) => write!(out, "{}", palette.yellow(level))?,
            Ok(Level::Info) => write!(out, "{}", palette.green(level))?,
            _ => write!(out, "{level}")?,
        }
        write!(out, " {}", palette.grey(Visible(self.module)))?;
        if let Some(client) = &self.client {
            write!(out, " [{}]", palette.cyan(Visible(client)))?;
        }
        writeln!(out, " {}", Visible(&self.message))
    }

    fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn line(client: Option<&str>, message: &str, write: impl Fn(&Line<'_>, &mut Vec<u8>)) -> String {
        let pairs: Vec<(&str, &str)> = client.map(|client| ("client", client)).into_iter().collect();
        let pairs = pairs.as_slice();
        let args = format_args!("{message}");
        let mut record = Record::builder();
        record.level(Level::Info).target("tinysio::chat::app").key_values(&pairs);
        let mut out = Vec::new();
        write(&Line::new(&record.args(args).build(), UNIX_EPOCH), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn text(client: Option<&str>, message: &str, colours: bool) -> String {
        line(client, message, |line, out| line.write_text(out, Palette::new(colours)).unwrap())
    }

    #[test]
    fn a_line_of_text() {
        assert_eq!(
            text(Some("abc"), "hello", false),
            "1970-01-01T00:00:00.000Z INFO  chat::app [abc] hello\n"
        );
        assert_eq!(text(None, "hello", false), "1970-01-01T00:00:00.000Z INFO  chat::app hello\n");
    }

    #[test]
    fn colours_surround_the_words() {
        let line = text(Some("abc"), "hello", true);
        assert!(line.contains("\u{1b}[32mINFO \u{1b}[0m"), "{line:?}");
        assert!(line.ends_with(" hello\n"), "{line:?}");
    }

    #[test]
    fn nothing_invisible_gets_through() {
        let forged = "x\n1970 ERROR \u{1b}[31m\r\u{202e}\u{85}\u{0}";
        assert_eq!(
            text(None, forged, false),
            "1970-01-01T00:00:00.000Z INFO  chat::app x\\n1970 ERROR \\u{1b}[31m\\r\\u{202e}\\u{85}\\u{0}\n"
        );
    }

    #[test]
    fn a_line_of_json() {
        let json = line(Some("abc"), "a\n\"b\"", |line, out| line.write_json(out).unwrap());
        assert_eq!(
            json,
            "{\"timestamp\":\"1970-01-01T00:00:00.000Z\",\"level\":\"INFO\",\"module\":\"chat::app\",\
             \"client\":\"abc\",\"message\":\"a\\n\\\"b\\\"\"}\n"
        );
    }
}
