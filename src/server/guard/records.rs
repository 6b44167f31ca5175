//! Log records. The logger is code of the application: it may block, panic, or call the server.
//!
//! ```text
//!   worker threads, threads of the application ──► the logger
//!   hub, drain, watchdog, store; leader at an accept ──► Records (at most 256) ──► a worker thread ──► the logger
//! ```
//! Those of the second line never call the logger: [`Records::thread`] starts such a thread, [`Records::hold`] makes
//! one for a while. One worker thread at a time delivers, so the logger gets the records in their order.
//!
//! The server logs with the macros of this module and with no others (`tests/tidy.rs`).

use std::{cell::RefCell, collections::VecDeque, fmt, io, mem::ManuallyDrop, sync::Arc};

use log::Level;

use super::{Callee, run};
use crate::server::lead;
use crate::sys::{
    sync::Mutex,
    thread::{self, JoinHandle},
    thread_local,
};

/// Records that wait for a worker thread. More are counted and dropped.
const RECORDS_MAX: usize = 256;

/// Logs as `log::log!` does. The arguments are those of `format!`, behind the level.
macro_rules! log {
    ($level:expr, $($text:tt)+) => {{
        let level: ::log::Level = $level;
        if level <= ::log::STATIC_MAX_LEVEL && level <= ::log::max_level() {
            let place = $crate::server::guard::Place { module: module_path!(), file: file!(), line: line!() };
            $crate::server::guard::log_at(level, place, format_args!($($text)+));
        }
    }};
}

macro_rules! error {
    ($($text:tt)+) => { $crate::server::guard::log!(::log::Level::Error, $($text)+) };
}

macro_rules! warning {
    ($($text:tt)+) => { $crate::server::guard::log!(::log::Level::Warn, $($text)+) };
}

macro_rules! info {
    ($($text:tt)+) => { $crate::server::guard::log!(::log::Level::Info, $($text)+) };
}

macro_rules! debug {
    ($($text:tt)+) => { $crate::server::guard::log!(::log::Level::Debug, $($text)+) };
}

macro_rules! trace {
    ($($text:tt)+) => { $crate::server::guard::log!(::log::Level::Trace, $($text)+) };
}

// `warn` alone would also be the name of an attribute.
pub(crate) use {debug, error, info, log, trace, warning as warn};

/// The line that logs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) module: &'static str,
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

/// A record that waits.
#[derive(Debug)]
struct Record {
    level: Level,
    place: Place,
    text: String,
}

/// What the macros call.
pub(crate) fn log_at(level: Level, place: Place, text: fmt::Arguments<'_>) {
    match RECORDS.with_borrow(|records| records.as_deref().cloned()) {
        Some(records) => records.push(Record { level, place, text: text.to_string() }),
        None => call_logger(level, place, text),
    }
}

/// Calls the logger. If it panics, the record is lost, and nothing else.
fn call_logger(level: Level, Place { module, file, line }: Place, text: fmt::Arguments<'_>) {
    let logger = || {
        let mut record = log::Record::builder();
        record.level(level).target(module).module_path_static(Some(module));
        log::logger().log(&record.file_static(Some(file)).line(Some(line)).args(text).build());
    };
    // It may block.
    lead::begin_work();
    // There is nobody to tell of a panic. The panic hook was called.
    let _ = run(Callee::LOGGER, logger);
}

thread_local! {
    /// Where the records of this thread wait. `None`: this thread may call the logger. The value has no destructor, so
    /// that it still exists while other values of the thread are dropped.
    static RECORDS: RefCell<Option<ManuallyDrop<Arc<Records>>>> = const { RefCell::new(None) };
}

/// Has a worker thread run a delivery.
type Schedule = Box<dyn Fn(Delivery) + Send + Sync>;

/// The records of threads that must not call the logger.
pub(crate) struct Records {
    state: Mutex<State>,
    schedule: Schedule,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Record>,
    /// Records that were dropped behind those that wait.
    lost: usize,
    /// There is a [`Delivery`].
    scheduled: bool,
}

impl State {
    /// A record that says how many were lost. `None`: none was.
    fn loss(&mut self) -> Option<Record> {
        let lost = std::mem::take(&mut self.lost);
        let place = Place { module: module_path!(), file: file!(), line: line!() };
        let text = format!("{lost} records of the server's threads are missing here: the logger is too slow");
        (lost > 0).then_some(Record { level: Level::Warn, place, text })
    }
}

impl Records {
    /// `schedule` has a worker thread run the delivery, now or later. It may log.
    pub(crate) fn new(schedule: impl Fn(Delivery) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), schedule: Box::new(schedule) })
    }

    /// Starts a thread that does not call the logger. Its records wait here.
    pub(crate) fn thread<T: Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        stack_size: usize,
        code: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let records = Arc::clone(self);
        thread::Builder::new().name(name.into()).stack_size(stack_size).spawn(move || {
            let _held = records.hold();
            code()
        })
    }

    /// Until what it returns is dropped, this thread does not call the logger, and its records wait here.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held { outer: RECORDS.replace(Some(ManuallyDrop::new(Arc::clone(self)))) }
    }

    fn push(self: &Arc<Self>, record: Record) {
        {
            let mut state = self.state.lock();
            if state.waiting.len() >= RECORDS_MAX {
                state.lost += 1;
                return;
            }
            let loss = state.loss();
            state.waiting.extend(loss);
            state.waiting.push_back(record);
            if std::mem::replace(&mut state.scheduled, true) {
                return;
            }
        }
        (self.schedule)(Delivery(Some(Arc::clone(self))));
    }

    /// The next record. `None`: the delivery ends, and the next record begins another one.
    fn next(&self) -> Option<Record> {
        let mut state = self.state.lock();
        let next = state.waiting.pop_front().or_else(|| state.loss());
        state.scheduled = next.is_some();
        next
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("waiting", &self.state.lock().waiting.len()).finish_non_exhaustive()
    }
}

/// The delivery of the records that wait. There is one at a time. If it is dropped before it has run, the next record
/// begins another one.
#[derive(Debug)]
pub(crate) struct Delivery(Option<Arc<Records>>);

impl Delivery {
    /// Gives the records to the logger. To be called on a thread that may run user code.
    pub(crate) fn run(mut self) {
        let Some(records) = self.0.take() else { return };
        while let Some(Record { level, place, text }) = records.next() {
            call_logger(level, place, format_args!("{text}"));
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(records) = &self.0 {
            records.state.lock().scheduled = false;
        }
    }
}

/// The records of this thread wait.
#[must_use]
pub(crate) struct Held {
    /// What was held before.
    outer: Option<ManuallyDrop<Arc<Records>>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        RECORDS.replace(self.outer.take()).map(ManuallyDrop::into_inner);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::sys::channel::{Receiver, bounded};

    fn records() -> (Arc<Records>, Receiver<Delivery>) {
        let (schedule, deliveries) = bounded(1);
        (Records::new(move |delivery| schedule.try_send(delivery).expect("one at a time")), deliveries)
    }

    fn push(records: &Arc<Records>, number: usize) {
        let place = Place { module: module_path!(), file: file!(), line: line!() };
        records.push(Record { level: Level::Info, place, text: number.to_string() });
    }

    fn texts(records: &Records) -> Vec<String> {
        std::iter::from_fn(|| records.next()).map(|record| record.text).collect()
    }

    #[test]
    fn records_come_in_their_order_and_those_that_are_lost_are_counted_in_their_place() {
        let (records, _deliveries) = records();
        (0..RECORDS_MAX + 3).for_each(|number| push(&records, number));
        let first = records.next().expect("a record").text;
        (1000..1003).for_each(|number| push(&records, number));
        let texts = texts(&records);
        assert_eq!(first, "0");
        assert_eq!(texts.len(), RECORDS_MAX - 1 + 3);
        assert_eq!(texts[RECORDS_MAX - 2], (RECORDS_MAX - 1).to_string());
        assert!(texts[RECORDS_MAX - 1].starts_with("3 records"), "{}", texts[RECORDS_MAX - 1]);
        assert_eq!(texts[RECORDS_MAX], "1000");
        assert!(texts[RECORDS_MAX + 1].starts_with("2 records"), "{}", texts[RECORDS_MAX + 1]);
    }

    #[test]
    fn one_delivery_at_a_time_and_a_new_one_after_it_has_run_or_was_dropped() {
        let (records, deliveries) = records();
        push(&records, 0);
        push(&records, 1);
        let delivery = deliveries.try_recv().expect("one");
        assert!(deliveries.try_recv().is_err());
        drop(delivery);
        assert!(deliveries.try_recv().is_err(), "no thread: it waits for the next record");
        push(&records, 2);
        deliveries.try_recv().expect("another").run();
        assert!(texts(&records).is_empty());
        push(&records, 3);
        assert_eq!(texts(&records), ["3"]);
    }

    #[test]
    fn threads_of_the_server_do_not_call_the_logger() {
        let (records, _deliveries) = records();
        let logs = || log_at(Level::Info, Place { module: "", file: "", line: 0 }, format_args!("told"));
        logs();
        assert!(texts(&records).is_empty(), "this is another thread");
        records.thread("test", 128 << 10, logs).expect("a thread").join().expect("no panic");
        assert_eq!(texts(&records), ["told"]);
    }
}
