//! Colours on terminals. The only file that uses `ansi_term`.

use std::{
    fmt,
    io::{self, IsTerminal},
};

use ansi_term::Colour;
use clap::ValueEnum;

/// When output is coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, and unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always, also in files and pipes.
    Always,
    /// Never.
    Never,
}

/// Whether one of the standard streams is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Palette {
    on: bool,
}

impl Palette {
    /// For standard error: on a terminal, unless `NO_COLOR` is set to any value (<https://no-color.org>).
    pub(crate) fn of_stderr() -> Self {
        Self { on: io::stderr().is_terminal() && !is_unwanted() }
    }

    /// For standard output.
    pub(crate) fn of_stdout(when: When) -> Self {
        let on = match when {
            When::Auto => io::stdout().is_terminal() && !is_unwanted(),
            When::Always => true,
            When::Never => false,
        };
        Self { on }
    }

    #[cfg(test)]
    pub(crate) fn new(on: bool) -> Self {
        Self { on }
    }

    pub(crate) fn red<T: fmt::Display>(self, text: T) -> impl fmt::Display {
        self.paint(Colour::Red, text)
    }

    pub(crate) fn green<T: fmt::Display>(self, text: T) -> impl fmt::Display {
        self.paint(Colour::Green, text)
    }

    pub(crate) fn yellow<T: fmt::Display>(self, text: T) -> impl fmt::Display {
        self.paint(Colour::Yellow, text)
    }

    pub(crate) fn cyan<T: fmt::Display>(self, text: T) -> impl fmt::Display {
        self.paint(Colour::Cyan, text)
    }

    pub(crate) fn blue<T: fmt::Display>(self, text: T) -> impl fmt::Display {
        self.paint(Colour::Blue, text)
    }

    pub(crate) fn magenta<T: fmt::Display>(self, text: T) -> impl fmt::Display {
        self.paint(Colour::Purple, text)
    }

    pub(crate) fn grey<T: fmt::Display>(self, text: T) -> impl fmt::Display {
        // Bright black: ansi_term has no name for it.
        self.paint(Colour::Fixed(8), text)
    }

    fn paint<T: fmt::Display>(self, colour: Colour, text: T) -> impl fmt::Display {
        Painted { colour: self.on.then_some(colour), text }
    }
}

fn is_unwanted() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

struct Painted<T> {
    colour: Option<Colour>,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.colour {
            Some(colour) => write!(f, "{}{}{}", colour.prefix(), self.text, colour.suffix()),
            None => self.text.fmt(f),
        }
    }
}
