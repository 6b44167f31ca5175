//! The log: one line a record on standard error, as text for people or as JSON for machines.
//!
//! ```text
//!   2026-01-31T12:00:00.123Z INFO  chat::app [Zm9vYmFy…] connected from 127.0.0.1:40000
//!   {"timestamp":"2026-01-31T12:00:00.123Z","level":"INFO","module":"chat::app","client":"Zm9vYmFy…","message":"…"}
//! ```
//! Log lines contain text of clients. Characters that are not plainly visible are escaped, so a client cannot
//! forge a line or control the terminal.
//!
//! A separate thread writes them ([`Queue`]): a log that is not read must not block a server.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, Write},
    panic,
    process::{self, ExitCode},
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, SystemTime},
};

use clap::ValueEnum;
use env_logger::{Logger, Target};
use log::{Level, LevelFilter, Record, kv::Key};
use serde::Serialize;

use super::{
    colour::Palette,
    exit::{self, Failure},
    log_queue::{Queue, Stderr},
    visible::Visible,
};

/// How long the end of a program waits until its log is read.
const FLUSH_TIME: Duration = Duration::from_millis(500);

/// The log of this process after its start.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    queue: Arc<Queue>,
    format: Format,
}

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text, in colours on a terminal.
    Text,
    /// One JSON object for each line.
    Json,
}

/// From now on logs records of at least `level`, and panics.
///
/// # Errors
/// [`Failure`]: the writing thread could not be started.
pub(crate) fn start(level: LevelFilter, format: Format) -> Result<(), Failure> {
    let palette = Palette::of_stderr();
    let queue = Arc::new(Queue::new(move |dropped| {
        let text = format!("{dropped} lines of this log are missing: they were not read in time");
        Line::plain(Level::Warn, "log", &text).encode(format, palette)
    }));
    let writing = Arc::clone(&queue);
    thread::Builder::new()
        .name("log".into())
        .spawn(move || writing.write_to(Stderr))
        .map_err(|error| exit::no_thread("the log", &error))?;
    let logger: Logger = env_logger::Builder::new()
        .filter_level(level)
        .format(move |out, record| Line::new(record, SystemTime::now()).write(out, format, palette))
        .target(Target::Pipe(Box::new(Pushed(Arc::clone(&queue)))))
        .build();
    // Fails only if a logger is installed already; that one logs then.
    let _ = log::set_boxed_logger(Box::new(logger)).map(|()| log::set_max_level(level));
    // The standard hook would wait for standard error to be read.
    panic::set_hook(Box::new(log_panic));
    let _ = LOG.set(Log { queue, format });
    Ok(())
}

fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let why = panic.payload_as_str().unwrap_or("no text");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        log::error!("thread '{name}' panicked at {place}: {why}\n{backtrace}");
    } else {
        log::error!("thread '{name}' panicked at {place}: {why}");
    }
}

/// Output for the user beside the log, at any level: as text, or one record for each line.
pub(crate) fn told(level: Level, text: &str) -> Vec<u8> {
    match LOG.get().map_or(Format::Text, |log| log.format) {
        Format::Text => format!("{text}\n").into_bytes(),
        Format::Json => {
            let palette = Palette::of_stderr();
            let line = |line| Line::plain(level, "server", line).encode(Format::Json, palette);
            text.lines().flat_map(line).collect()
        }
    }
}

/// Ends the program with its result: prints the error, and waits briefly until the log is written.
pub(crate) fn end(result: Result<(), Failure>) -> ExitCode {
    let Some(log) = LOG.get() else { return result.map_or_else(Failure::report, |()| ExitCode::SUCCESS) };
    let code = result.map_or_else(
        |failure| {
            log.queue.push(&told(Level::Error, &failure.to_string()));
            failure.code()
        },
        |()| ExitCode::SUCCESS,
    );
    log.queue.flush(FLUSH_TIME);
    code
}

/// Ends the process from any thread, after the log is written if it is read soon.
pub(crate) fn exit(code: i32) -> ! {
    if let Some(log) = LOG.get() {
        log.queue.flush(FLUSH_TIME);
    }
    process::exit(code)
}

/// The target of [`env_logger`]: each line in one call.
struct Pushed(Arc<Queue>);

impl Write for Pushed {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A record for both formats.
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

    /// A line that is not a record of [`log`].
    fn plain(level: Level, module: &'a str, message: &str) -> Self {
        Self {
            timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            level: level.as_str(),
            module,
            client: None,
            message: message.to_owned(),
        }
    }

    fn encode(&self, format: Format, palette: Palette) -> Vec<u8> {
        let mut line = Vec::new();
        // Writing to memory cannot fail.
        let _ = self.write(&mut line, format, palette);
        line
    }

    fn write(&self, out: &mut impl Write, format: Format, palette: Palette) -> io::Result<()> {
        match format {
            Format::Text => self.write_text(out, palette),
            Format::Json => self.write_json(out),
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
