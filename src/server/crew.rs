//! The threads that serve connections: one for each that talks, and a few at rest for the next ones.
//!
//! ```text
//!   run(task) ─► a thread at rest takes it, or a new one begins ─► task ─► at rest for a while ─► ends
//! ```
//! There are as many threads as tasks and [`RESTING_MAX`] more at most; the permits bound the tasks. No queue: a task never
//! waits for another one, because any of them may block.

use std::{io, sync::Arc, time::Duration};

use crate::sys::{
    channel::{Receiver, Sender, bounded},
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

/// Threads at rest: enough for a burst of short connections, and some hundred kilobytes of stacks.
const RESTING_MAX: usize = 16;

/// How long a thread rests before it ends.
const REST: Duration = Duration::from_secs(5);

/// Something to be done on a thread of its own.
type Task = Box<dyn FnOnce() + Send>;

/// More threads than this are a crowd: some megabytes.
const CROWD: usize = 128;

#[derive(Debug)]
pub(super) struct Crew {
    state: Mutex<State>,
    /// The threads there are, for who asks often.
    threads: AtomicUsize,
    fewer: Condvar,
    tasks: Receiver<Task>,
    stack_size: usize,
}

#[derive(Debug)]
struct State {
    /// Hands a task to a thread that waits for one at this moment. `None`: closed.
    hand_over: Option<Sender<Task>>,
    resting: usize,
    /// Counts the threads that ever were, for their names.
    begun: u64,
}

impl Crew {
    pub(super) fn new(stack_size: usize) -> Self {
        let (hand_over, tasks) = bounded(0);
        let state = State { hand_over: Some(hand_over), resting: 0, begun: 0 };
        Self {
            state: Mutex::new(state),
            threads: AtomicUsize::new(0),
            fewer: Condvar::new(),
            tasks,
            stack_size,
        }
    }

    /// Has a thread do it, at once.
    ///
    /// # Errors
    /// No thread could be had; the task is dropped, and what it owned with it.
    pub(super) fn run(self: &Arc<Self>, task: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut task: Task = Box::new(task);
        let number = {
            let mut state = self.state.lock();
            let Some(hand_over) = &state.hand_over else { return Err(io::ErrorKind::BrokenPipe.into()) };
            task = match hand_over.try_send(task) {
                Ok(()) => return Ok(()),
                Err(refused) => refused.into_inner(),
            };
            self.threads.fetch_add(1, Relaxed);
            state.begun += 1;
            state.begun
        };
        let member = Member(Arc::clone(self));
        thread::Builder::new()
            .name(format!("conn-{number}"))
            .stack_size(self.stack_size)
            .spawn(move || member.work(task))
            .map(drop)
    }

    /// Whether there are so many threads that their memory counts.
    pub(super) fn is_crowded(&self) -> bool {
        self.threads.load(Relaxed) > CROWD
    }

    /// Threads at rest end, the others after their task; no new task is taken.
    pub(super) fn close(&self) {
        self.state.lock().hand_over = None;
    }

    /// `false`: some are still there at the deadline.
    pub(super) fn wait_until_none(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while self.threads.load(Relaxed) > 0 {
            if self.fewer.wait_until(&mut state, deadline).timed_out() {
                return self.threads.load(Relaxed) == 0;
            }
        }
        true
    }
}

/// One thread's membership, given up however the thread ends.
struct Member(Arc<Crew>);

impl Member {
    fn work(self, first: Task) {
        let mut next = Some(first);
        while let Some(task) = next {
            task();
            next = self.rest();
        }
    }

    /// Waits for a task. `None`: this thread is not needed any more.
    fn rest(&self) -> Option<Task> {
        {
            let mut state = self.0.state.lock();
            if state.resting >= RESTING_MAX || state.hand_over.is_none() {
                return None;
            }
            state.resting += 1;
        }
        let task = self.0.tasks.recv_timeout(REST).ok();
        self.0.state.lock().resting -= 1;
        task
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Under the lock, so that who waits for the last one does not miss it.
        let _state = self.0.state.lock();
        self.0.threads.fetch_sub(1, Relaxed);
        self.0.fewer.notify_all();
    }
}
