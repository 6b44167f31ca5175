//! Where a demonstration plays: what it says, and how fast it goes.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::{
    common::colour::Palette,
    line::{Line, Tone},
    session::Show,
    stop::Stop,
};

/// Standard output, the wish to stop, and the pace.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) palette: Palette,
    pub(crate) stop: Stop,
    /// By how much all pauses are shortened.
    pub(crate) speed: f64,
    /// Nothing is said: the output is for machines.
    pub(crate) quiet: bool,
}

impl Stage {
    pub(crate) fn say(&self, line: &Line) {
        self.write(&line.words(self.palette));
    }

    /// With the sign that the `client` program puts before its lines.
    pub(crate) fn say_signed(&self, line: &Line) {
        self.write(&line.signed(self.palette));
    }

    pub(crate) fn heading(&self, text: &str) {
        self.write(&format!(
            "\n{}",
            Line { tone: Tone::Info, ..Line::plain(format!("=== {text} ===")) }.words(self.palette)
        ));
    }

    pub(crate) fn good(&self, text: impl Into<String>) {
        self.say(&Line::good(text));
    }

    pub(crate) fn bad(&self, text: impl Into<String>) {
        self.say(&Line::bad(text));
    }

    pub(crate) fn warning(&self, text: impl Into<String>) {
        self.say(&Line::warning(text));
    }

    pub(crate) fn info(&self, text: impl Into<String>) {
        self.say(&Line::info(text));
    }

    pub(crate) fn plain(&self, text: impl Into<String>) {
        self.write(&text.into());
    }

    /// Writes a line. When nobody reads any more, there is no use in going on.
    pub(crate) fn write(&self, line: &str) {
        if !self.quiet && write_line(line).is_err() {
            self.stop.set();
        }
    }

    /// Waits, unless somebody wants to stop. `false`: somebody does.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        self.stop.pause(self.scaled(time))
    }

    /// What shows all that happens to a session.
    pub(crate) fn show(&self) -> Show {
        let stage = self.clone();
        Box::new(move |notice| notice.lines().iter().for_each(|line| stage.say(line)))
    }

    pub(crate) fn scaled(&self, time: Duration) -> Duration {
        time.div_f64(self.speed)
    }
}

/// Writes a line at once, in one piece.
pub(crate) fn write_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}
