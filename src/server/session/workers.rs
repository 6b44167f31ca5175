//! The worker threads: the leader, one for each connection whose handler takes long or waits, and a few at rest for
//! the next ones. They also perform **queued** work: handlers that no packet of a client causes, `Drop` of the
//! application's data, and log records of threads that must not call the logger.
//!
//! ```text
//!   run(job) ──► a thread at rest takes it, or a new one begins ──► job ──► queue ──► at rest for a while ──► ends
//!   queue(work) ► one thread works the queue off
//!                 └─ it makes no progress for STALL: as many again, until there is one for each piece of work
//! ```
//! There are at most as many threads as jobs, pieces of work and [`RESTING_MAX`] together. The permits bound the
//! jobs, and each session is in the queue at most once. A job never waits for another one, because any of them may
//! block. Queued work waits no longer than a few times [`STALL`] for work that blocks.

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    fmt, io,
    sync::Arc,
    time::Duration,
};

use crate::server::{
    guard::{self, Activity, Callee, Delivery, Records},
    limits::log_throttle::LogThrottle,
    session::Session,
};
use crate::sys::{
    channel::{Receiver, Sender, bounded},
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

/// Threads at rest: enough for a burst of short connections, and some hundred kilobytes of stacks.
const RESTING_MAX: usize = 16;

/// How long a thread rests before it ends.
const REST: Duration = Duration::from_secs(5);

/// If nothing leaves the queue for so long, the threads that serve it are blocked, and more threads are added.
const STALL: Duration = Duration::from_millis(5);

/// Something to be done on a thread of its own.
type Job = Box<dyn FnOnce() + Send>;

/// A value of the application, whose `Drop` is user code.
type Value = Arc<dyn Any + Send + Sync>;

enum Queued {
    /// A session has handlers to run.
    Session(Arc<Session>),
    Drop(Value),
    /// Log records of threads that do not call the logger.
    Log(Delivery),
}

pub(crate) struct Workers {
    state: Mutex<State>,
    /// The number of threads. It is read often, so without the lock.
    threads: AtomicUsize,
    /// A thread has ended, or the queue has become empty.
    fewer: Condvar,
    jobs: Receiver<Job>,
    stack_size: usize,
}

struct State {
    /// Hands a job to a thread that waits for one at this moment. `None`: closed.
    hand_over: Option<Sender<Job>>,
    resting: usize,
    /// Counts the threads that ever were, for their names.
    begun: u64,
    /// What each thread runs, by its number.
    activities: HashMap<u64, Arc<Activity>>,
    queue: VecDeque<Queued>,
    /// Values in the queue.
    values: usize,
    /// Pieces of work that were taken out of the queue.
    taken: u64,
    /// Threads that work the queue off.
    serving: usize,
    /// A thread watches the queue.
    watched: bool,
    log_throttle: LogThrottle,
}

impl Workers {
    pub(crate) fn new(stack_size: usize) -> Self {
        let (hand_over, jobs) = bounded(0);
        let state = State {
            hand_over: Some(hand_over),
            resting: 0,
            begun: 0,
            activities: HashMap::new(),
            queue: VecDeque::new(),
            values: 0,
            taken: 0,
            serving: 0,
            watched: false,
            log_throttle: LogThrottle::default(),
        };
        Self {
            state: Mutex::new(state),
            threads: AtomicUsize::new(0),
            fewer: Condvar::new(),
            jobs,
            stack_size,
        }
    }

    /// Runs the job on a worker thread at once.
    ///
    /// # Errors
    /// No thread could be started, or the workers are closed. The job is dropped, with everything that it owns.
    pub(crate) fn run(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut job: Job = Box::new(job);
        let activity = Arc::new(Activity::default());
        let number = {
            let mut state = self.state.lock();
            let Some(hand_over) = &state.hand_over else { return Err(io::ErrorKind::BrokenPipe.into()) };
            job = match hand_over.try_send(job) {
                Ok(()) => return Ok(()),
                Err(refused) => refused.into_inner(),
            };
            self.threads.fetch_add(1, Relaxed);
            state.begun += 1;
            let number = state.begun;
            state.activities.insert(number, Arc::clone(&activity));
            number
        };
        let worker = Worker { workers: Arc::clone(self), number };
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .stack_size(self.stack_size)
            .spawn(move || worker.work(activity, job))
            .map(drop)
    }

    /// Has a thread run the handlers of a session. After [`close`](Self::close) no handler runs any more.
    pub(super) fn queue(self: &Arc<Self>, session: Arc<Session>) {
        self.push(Queued::Session(session));
    }

    /// Drops a value of the application on a thread that may run its `Drop`.
    pub(super) fn queue_drop(self: &Arc<Self>, value: Value) {
        self.push(Queued::Drop(value));
    }

    /// The log records of threads that must not call the logger. Worker threads deliver them.
    pub(crate) fn records(self: &Arc<Self>) -> Arc<Records> {
        let workers = Arc::clone(self);
        Records::new(move |delivery| workers.push(Queued::Log(delivery)))
    }

    /// Whether so many values wait for their `Drop`, or are in it.
    fn drops_at_least(&self, max: usize) -> bool {
        self.state.lock().values >= max
    }

    fn push(self: &Arc<Self>, work: Queued) {
        let mut state = self.state.lock();
        if state.hand_over.is_none() {
            drop(state);
            return abandon([work].into());
        }
        state.values += usize::from(matches!(work, Queued::Drop(_)));
        state.queue.push_back(work);
        self.ensure_served(state);
    }

    /// Makes sure that a thread serves the queue, and that another one watches whether it gets shorter.
    fn ensure_served(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.serving == 0 {
            state.serving = 1;
            drop(state);
            self.serve_on_another();
        } else if !state.watched {
            state.watched = true;
            drop(state);
            let workers = Arc::clone(self);
            if let Err(error) = self.run(move || workers.watch()) {
                self.state.lock().watched = false;
                self.complain(&error);
            }
        }
    }

    /// Starts a thread that performs the queued work. The caller has added it to `serving` already.
    fn serve_on_another(self: &Arc<Self>) {
        let workers = Arc::clone(self);
        if let Err(error) = self.run(move || workers.serve()) {
            self.state.lock().serving -= 1;
            self.fewer.notify_all();
            self.complain(&error);
        }
    }

    /// The next thread that has nothing to do will work the queue off.
    fn complain(&self, error: &io::Error) {
        if self.state.lock().log_throttle.allows() {
            guard::error!("no thread for queued handlers for now: {error}");
        }
    }

    /// Works the queue off.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            let Some(work) = state.queue.pop_front() else {
                state.serving -= 1;
                self.fewer.notify_all();
                return;
            };
            state.taken += 1;
            if state.queue.is_empty() {
                drop(state);
            } else {
                // The rest of the queue must not wait for this work, because it may block.
                self.ensure_served(state);
            }
            self.perform(work);
        }
    }

    fn perform(&self, work: Queued) {
        match work {
            Queued::Session(session) => session.serve_queued(),
            Queued::Drop(value) => {
                guard::drop_value(value);
                self.state.lock().values -= 1;
            }
            Queued::Log(delivery) => delivery.run(),
        }
    }

    /// Checks whether work leaves the queue, until the queue is empty. If nothing has left it for [`STALL`], the
    /// number of threads that perform the work is doubled.
    fn watch(self: &Arc<Self>) {
        let mut state = self.state.lock();
        while !state.queue.is_empty() {
            let seen = state.taken;
            drop(state);
            thread::sleep(STALL);
            state = self.state.lock();
            if state.taken != seen || state.queue.is_empty() {
                continue;
            }
            let more = state.serving.clamp(1, state.queue.len());
            state.serving += more;
            drop(state);
            for _ in 0..more {
                self.serve_on_another();
            }
            state = self.state.lock();
        }
        state.watched = false;
    }

    /// The user code that runs at the moment, and for which session.
    pub(crate) fn activities(&self) -> Vec<(Callee, Option<String>)> {
        self.state.lock().activities.values().filter_map(|activity| activity.now()).collect()
    }

    /// Waits until nothing is queued and nothing queued is being done. `false`: something still is at the deadline.
    pub(crate) fn wait_until_idle(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        // If no thread could be started, `serving` is 0 although the queue is not empty.
        while state.serving > 0 || !state.queue.is_empty() {
            if self.fewer.wait_until(&mut state, deadline).timed_out() {
                return state.serving == 0 && state.queue.is_empty();
            }
        }
        true
    }

    /// Threads at rest end, the others after their job. No new job is taken, and nothing that is still queued is
    /// done.
    pub(crate) fn close(&self) {
        let rest = {
            let mut state = self.state.lock();
            state.hand_over = None;
            std::mem::take(&mut state.queue)
        };
        abandon(rest);
    }

    /// `false`: some are still there at the deadline.
    pub(crate) fn wait_until_none(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while self.threads.load(Relaxed) > 0 {
            if self.fewer.wait_until(&mut state, deadline).timed_out() {
                return self.threads.load(Relaxed) == 0;
            }
        }
        true
    }
}

/// Drops work that was not done before the stop. A separate thread, which nothing waits for, drops the values of the
/// application and delivers the log records.
fn abandon(mut work: VecDeque<Queued>) {
    work.retain(|work| !matches!(work, Queued::Session(_)));
    if work.is_empty() {
        return;
    }
    let has_values = work.iter().any(|work| matches!(work, Queued::Drop(_)));
    let finish = move || {
        for work in work {
            match work {
                Queued::Session(_) => {}
                Queued::Drop(value) => guard::drop_value(value),
                Queued::Log(delivery) => delivery.run(),
            }
        }
    };
    let started = thread::Builder::new().name("drop".into()).spawn(finish);
    // If there was no thread for log records, there is none for this one either.
    if let Err(error) = started
        && has_values
    {
        guard::error!("no thread to drop the data of sockets: {error}");
    }
}

/// The entry of a worker thread. It is removed when the thread ends, also by a panic.
struct Worker {
    workers: Arc<Workers>,
    number: u64,
}

impl Worker {
    fn work(self, activity: Arc<Activity>, first: Job) {
        guard::set_activity(Some(activity));
        let mut next = Some(first);
        while let Some(job) = next {
            job();
            self.ensure_served();
            next = self.rest();
        }
        guard::set_activity(None);
    }

    /// Works the queue off, if no other thread does.
    fn ensure_served(&self) {
        {
            let mut state = self.workers.state.lock();
            if state.serving > 0 || state.queue.is_empty() {
                return;
            }
            state.serving = 1;
        }
        self.workers.serve();
    }

    /// Waits for a job. `None`: this thread is not needed any more.
    fn rest(&self) -> Option<Job> {
        {
            let mut state = self.workers.state.lock();
            if state.resting >= RESTING_MAX || state.hand_over.is_none() {
                return None;
            }
            state.resting += 1;
        }
        let job = self.workers.jobs.recv_timeout(REST).ok();
        self.workers.state.lock().resting -= 1;
        job
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Under the lock, so that `wait_until_none` does not miss the end of the last thread.
        let mut state = self.workers.state.lock();
        state.activities.remove(&self.number);
        self.workers.threads.fetch_sub(1, Relaxed);
        self.workers.fewer.notify_all();
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Data of the application that the hub keeps for a client that may come back. A worker thread drops it.
pub(crate) struct HubData {
    value: Option<Value>,
    workers: Arc<Workers>,
}

impl HubData {
    /// `None`: `max` values that the hub had kept are not dropped yet, and it is given no more of them.
    pub(crate) fn new(value: Option<Value>, workers: &Arc<Workers>, max: usize) -> Option<Self> {
        if value.is_some() && workers.drops_at_least(max) {
            return None;
        }
        Some(Self { value, workers: Arc::clone(workers) })
    }

    /// The data. The caller is a thread that runs handlers.
    pub(crate) fn get(&self) -> Option<Value> {
        self.value.clone()
    }
}

impl Drop for HubData {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.workers.queue_drop(value);
        }
    }
}

impl fmt::Debug for HubData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubData").field("is_some", &self.value.is_some()).finish_non_exhaustive()
    }
}
