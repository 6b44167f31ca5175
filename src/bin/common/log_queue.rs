//! The queue between logging threads and the thread that writes the log, so that a log that is not read delays
//! nothing.
//!
//! ```text
//!   log::info!(…) ─► push: copied, or counted if the queue is full ─► thread "log" ─► standard error
//! ```

use std::{
    io::{self, Write},
    mem,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};

/// Maximum bytes of waiting lines; as many again may be in writing.
pub(crate) const QUEUE_BYTES: usize = 256 << 10;

/// Formats the line with the number of missing lines.
type Report = dyn Fn(u64) -> Vec<u8> + Send + Sync;

/// Lines that wait for the writing thread.
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Signals new lines.
    filled: Condvar,
    /// Signals that everything has been written.
    written: Condvar,
    report: Box<Report>,
}

#[derive(Default)]
struct State {
    /// Whole lines.
    lines: Vec<u8>,
    /// Number of lines missing after these.
    dropped: u64,
    is_writing: bool,
}

impl Queue {
    /// `report` formats the line with the number of missing lines.
    pub(crate) fn new(report: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            report: Box::new(report),
        }
    }

    /// Adds a line. Never waits: a line that does not fit is counted, and so are the following ones until the
    /// writing thread has taken the queue, so the count is written where the lines are missing.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.lines.is_empty() {
            self.report_dropped(&mut state);
        }
        if state.dropped > 0 || state.lines.len() + line.len() > QUEUE_BYTES {
            state.dropped += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        drop(state);
        self.filled.notify_one();
    }

    /// Waits until everything is written, at most this long. `false`: it was not read in time.
    pub(crate) fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.state.lock();
        while state.is_writing || !state.lines.is_empty() {
            if self.written.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    /// Writes pushed lines, without end. Lines that cannot be written count as dropped.
    pub(crate) fn write_to(&self, mut out: impl Write) -> ! {
        let mut batch = Vec::new();
        loop {
            self.take(&mut batch);
            if let Err(missing) = write_lines(&mut out, &batch) {
                self.state.lock().dropped += missing;
            }
            batch.clear();
        }
    }

    /// Exchanges the queue for the empty `batch`.
    fn take(&self, batch: &mut Vec<u8>) {
        let mut state = self.state.lock();
        state.is_writing = false;
        while state.lines.is_empty() {
            self.written.notify_all();
            self.filled.wait(&mut state);
        }
        state.is_writing = true;
        self.report_dropped(&mut state);
        mem::swap(&mut state.lines, batch);
    }

    fn report_dropped(&self, state: &mut State) {
        if state.dropped > 0 {
            let report = (self.report)(mem::take(&mut state.dropped));
            state.lines.extend_from_slice(&report);
        }
    }
}

/// Writes all lines. `Err`: this number of lines was not written completely.
fn write_lines(out: &mut impl Write, lines: &[u8]) -> Result<(), u64> {
    let mut rest = lines;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(count) if count > 0 => rest = &rest[count.min(rest.len())..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(rest.iter().filter(|&&byte| byte == b'\n').count() as u64),
        }
    }
    Ok(())
}

/// Standard error without the lock of [`io::stderr`]: the writing thread would hold it while the log is not
/// read, and other output would wait for it.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        loop {
            match rustix::io::write(&stderr, bytes) {
                // The pipe may have been set to non-blocking mode.
                Err(rustix::io::Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
                }
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A reader that takes a batch only when the test lets it.
    struct Reader {
        allowed: Receiver<io::Result<()>>,
        read: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.allowed.recv().unwrap()?;
            self.read.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the test itself bounds what it sends")]
    fn queue() -> (Arc<Queue>, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let queue = Arc::new(Queue::new(|count| format!("{count} missing\n").into_bytes()));
        let (allow, allowed) = bounded(100);
        let (read, batches) = unbounded();
        let its = Arc::clone(&queue);
        thread::Builder::new().spawn(move || its.write_to(Reader { allowed, read })).unwrap();
        (queue, allow, batches)
    }

    /// Lets the reader read until this text has come, and gives everything.
    fn read_until(allow: &Sender<io::Result<()>>, batches: &Receiver<Vec<u8>>, end: &str) -> String {
        let mut all = String::new();
        while !all.contains(end) {
            allow.send(Ok(())).unwrap();
            all += std::str::from_utf8(&batches.recv_timeout(PATIENCE).unwrap()).unwrap();
        }
        all
    }

    #[test]
    fn a_log_that_nobody_reads_is_bounded_and_what_is_missing_is_counted() {
        let (queue, allow, batches) = queue();
        let line = format!("{}\n", "x".repeat(1_023));
        // Two queues of lines at most: one that waits, one that is being written.
        let pushed = 1_000;
        for _ in 0..pushed {
            queue.push(line.as_bytes());
        }
        assert!(!queue.flush(Duration::from_millis(1)));
        // The writing thread may have taken the first queue when it was full already, and then there are two reports.
        let (mut kept, mut missing) = (0, 0);
        while kept + missing < pushed {
            let read = read_until(&allow, &batches, "\n");
            kept += read.lines().filter(|line| line.starts_with('x')).count();
            let counts = read.lines().filter_map(|line| line.strip_suffix(" missing"));
            missing += counts.map(|count| count.parse::<usize>().unwrap()).sum::<usize>();
        }
        assert_eq!(kept + missing, pushed);
        assert!(kept >= QUEUE_BYTES / line.len() && kept <= 2 * QUEUE_BYTES / line.len(), "{kept}");
        queue.push(b"next\n");
        assert_eq!(read_until(&allow, &batches, "next\n"), "next\n");
        assert!(queue.flush(PATIENCE));
    }

    #[test]
    fn what_cannot_be_written_is_counted_too() {
        let (queue, allow, batches) = queue();
        allow.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        queue.push(b"lost\n");
        assert!(queue.flush(PATIENCE));
        queue.push(b"next\n");
        assert_eq!(read_until(&allow, &batches, "next\n"), "1 missing\nnext\n");
    }

    #[test]
    fn a_line_longer_than_the_queue_is_counted() {
        let (queue, allow, batches) = queue();
        queue.push(&vec![b'x'; QUEUE_BYTES + 1]);
        queue.push(b"next\n");
        assert_eq!(read_until(&allow, &batches, "next\n"), "1 missing\nnext\n");
    }
}
