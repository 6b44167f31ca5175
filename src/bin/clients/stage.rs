//! Output and speed of a demonstration.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::{
    common::{
        colour::{Palette, When},
        exit::Failure,
    },
    line::{Line, Tone},
    session::Show,
    stop::Stop,
};

/// Standard output, the stop request, and the speed.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) palette: Palette,
    pub(crate) stop: Stop,
    /// Factor by which pauses are shortened.
    pub(crate) speed: f64,
    /// No text output: the output is for machines.
    pub(crate) quiet: bool,
}

impl Stage {
    /// With colours as `color` says. A signal requests the stop.
    pub(crate) fn new(color: When, speed: f64, quiet: bool) -> Result<Self, Failure> {
        Ok(Self { palette: Palette::of_stdout(color), stop: Stop::on_signals()?, speed, quiet })
    }

    pub(crate) fn say(&self, line: &Line) {
        self.write(&line.words(self.palette));
    }

    /// With the marks of the `client` program.
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

    /// Writes a line. Ends the program if the output is closed.
    pub(crate) fn write(&self, line: &str) {
        if !self.quiet && write_line(line).is_err() {
            self.stop.set();
        }
    }

    /// Waits, unless the program should stop. `false`: it should.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        self.stop.pause(self.scaled(time))
    }

    /// Prints all notices of a session.
    pub(crate) fn show(&self) -> Show {
        let stage = self.clone();
        Box::new(move |notice| notice.lines().iter().for_each(|line| stage.say(line)))
    }

    pub(crate) fn scaled(&self, time: Duration) -> Duration {
        time.div_f64(self.speed)
    }
}

/// Writes a line in one call.
pub(crate) fn write_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}
