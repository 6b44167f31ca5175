//! The signals that end a program: SIGINT, SIGTERM and SIGHUP.

use std::{
    fs,
    io::{self, PipeReader, Read},
    sync::Arc,
    thread,
};

use parking_lot::Mutex;
use signal_hook::{
    consts::{SIGHUP, SIGTERM},
    low_level::pipe,
};

use super::exit::{Failure, no_thread};

/// Calls `handler` on a thread, one call at a time, for each SIGINT and SIGTERM, and for each SIGHUP unless the
/// program was started with SIGHUP ignored, as by `nohup`.
///
/// `ctrlc` handles SIGINT. Its feature `termination` would handle an ignored SIGHUP too, so `signal-hook`
/// handles SIGTERM and SIGHUP.
pub(crate) fn handle(handler: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    let handler = Arc::new(Mutex::new(handler));
    let interrupted = Arc::clone(&handler);
    ctrlc::set_handler(move || (interrupted.lock())()).map_err(not_installed)?;
    let mut wanted = vec![SIGTERM];
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = register(&wanted).map_err(|error| no_handlers(&error))?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while signals.read_exact(&mut [0]).is_ok() {
                (handler.lock())();
            }
        })
        .map(drop)
        .map_err(|error| no_thread("signals", &error))
}

/// The reason why `ctrlc` failed, which its own text does not contain.
fn not_installed(error: ctrlc::Error) -> Failure {
    match error {
        // Starting a thread fails with a system error; other failures are wrapped.
        ctrlc::Error::System(error) if error.raw_os_error().is_some() => no_thread("signals", &error),
        ctrlc::Error::System(error) => no_handlers(&error),
        error => no_handlers(&io::Error::other(error)),
    }
}

fn no_handlers(error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot install the handlers of signals: {error}"))
}

/// A pipe that gets a byte for each signal.
fn register(wanted: &[i32]) -> io::Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    for &signal in wanted {
        pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// Whether this process was started with the signal ignored. Without `/proc` it counts as not ignored.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_in_mask(&status, signal)
}

/// `SigIgn:` of `/proc/PID/status` is a mask in hexadecimal; its lowest bit is signal 1.
fn is_in_mask(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use signal_hook::consts::SIGINT;

    use super::*;

    #[rstest]
    #[case::no_thread(
        ctrlc::Error::System(io::Error::from_raw_os_error(11)),
        "cannot start a thread for signals: "
    )]
    #[case::no_handler(
        ctrlc::Error::System(io::Error::other("EINVAL")),
        "cannot install the handlers of signals: EINVAL"
    )]
    #[case::twice(ctrlc::Error::MultipleHandlers, "cannot install the handlers of signals: ")]
    fn what_ctrlc_failed_at_is_said(#[case] error: ctrlc::Error, #[case] said: &str) {
        let failure = not_installed(error).to_string();
        assert!(failure.starts_with(said), "{failure}");
    }

    #[test]
    fn the_mask_of_ignored_signals() {
        let status = "Name:\tserver\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\n";
        assert!(is_in_mask(status, SIGHUP));
        assert!(!is_in_mask(status, SIGINT));
        assert!(!is_in_mask("", SIGHUP));
    }
}
