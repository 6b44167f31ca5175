//! What this process uses, and a wait that reports it.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use crate::Failure;

/// The threads and open files of this process.
pub(crate) struct Usage {
    pub(crate) threads: usize,
    pub(crate) files: usize,
}

impl Usage {
    pub(crate) fn now() -> io::Result<Self> {
        let count = |what| Ok::<_, io::Error>(fs::read_dir(what)?.count());
        Ok(Self { threads: count("/proc/self/task")?, files: count("/proc/self/fd")? })
    }
}

/// Waits until `check` holds, or says that it does not.
pub(crate) fn eventually(
    what: &str,
    within: Duration,
    mut check: impl FnMut() -> bool,
) -> Result<(), Failure> {
    let deadline = Instant::now() + within;
    while !check() {
        if Instant::now() > deadline {
            let now = Usage::now()?;
            return Err(
                format!("waited in vain until {what}: {} threads, {} files", now.threads, now.files).into()
            );
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
