//! The signals that ask a program to end: SIGINT, SIGTERM and SIGHUP.

use std::{
    fs,
    io::{self, PipeReader, Read},
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    low_level::pipe,
};

use super::exit::{Failure, no_thread};

/// Has `handler` called, on a thread of its own, for each SIGINT and SIGTERM, and for each SIGHUP unless the program was started
/// with SIGHUP ignored: `nohup` does that for a program that is to outlive its terminal.
pub(crate) fn handle(mut handler: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    let mut wanted = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = register(&wanted)
        .map_err(|error| Failure::Failed(format!("cannot install the handlers of signals: {error}")))?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while signals.read_exact(&mut [0]).is_ok() {
                handler();
            }
        })
        .map(drop)
        .map_err(|error| no_thread("signals", &error))
}

/// A pipe with a byte for each signal.
fn register(wanted: &[i32]) -> io::Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    for &signal in wanted {
        pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// Whether this process was started with the signal ignored. Without `/proc` nobody can tell, and it counts as not ignored.
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
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals() {
        let status = "Name:\tserver\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\n";
        assert!(is_in_mask(status, SIGHUP));
        assert!(!is_in_mask(status, SIGINT));
        assert!(!is_in_mask("", SIGHUP));
    }
}
