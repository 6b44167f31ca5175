//! How a program ends with an error: a sentence that says what to do, and an exit code.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

/// An error that ends a program.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Failure: exit code 1.
    Failed(String),
    /// Wrong usage: exit code 2, as for a bad flag.
    Usage(String),
}

impl Failure {
    /// Prints the error on standard error and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        // Output may be closed.
        let _ = writeln!(io::stderr(), "{self}");
        self.code()
    }

    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}

/// The error that no thread could be started for `what`.
pub(crate) fn no_thread(what: &str, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot start a thread for {what}: {}", Explained(error)))
}

/// A system error, with an explanation where its text misleads.
pub(crate) struct Explained<'a>(pub(crate) &'a io::Error);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        match self.0.kind() {
            // The C library falls back to clone only if clone3 returns ENOSYS.
            io::ErrorKind::PermissionDenied => f.write_str(
                "; a sandbox that answers the system call clone3 with EPERM instead of ENOSYS does this (Docker before \
                 20.10.10, old libseccomp)",
            ),
            io::ErrorKind::WouldBlock => {
                f.write_str("; the limit of threads may be reached (ulimit -u, pids.max of the control group)")
            }
            _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_refused_names_the_cause() {
        let failure = |kind| no_thread("the signals", &io::Error::from(kind)).to_string();
        let refused = failure(io::ErrorKind::PermissionDenied);
        assert!(refused.starts_with("cannot start a thread for the signals: "), "{refused}");
        assert!(refused.contains("clone3"), "{refused}");
        assert!(failure(io::ErrorKind::WouldBlock).contains("ulimit -u"));
        assert!(!failure(io::ErrorKind::OutOfMemory).contains("clone3"));
    }
}
