//! How a program ends when it cannot do its work: a sentence that says what to do, and an exit code.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

/// The end of a program.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was called rightly and failed: exit code 1.
    Failed(String),
    /// It was called wrongly: exit code 2, as for a bad flag.
    Usage(String),
}

impl Failure {
    /// Says why on standard error, and gives the code to end with.
    pub(crate) fn report(self) -> ExitCode {
        // Nobody may be reading.
        let _ = writeln!(io::stderr(), "{self}");
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) | Self::Usage(why) => f.write_str(why),
        }
    }
}
