//! The threads that serve connections: one for each that talks, and a few at rest for the next ones.
//!
//! ```text
//!   run(task) ─► a thread at rest takes it, or a new one begins ─► task ─► at rest for a while ─► ends
//! ```
//! There are as many threads as tasks and [`RESTING_MAX`] more at most; the permits bound the tasks. No queue: a task never
//! waits for another one, because any of them may block.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

/// Threads at rest: enough for a burst of short connections, and some hundred kilobytes of stacks.
const RESTING_MAX: usize = 16;

/// How long a thread rests before it ends.
const REST: Duration = Duration::from_secs(5);

/// Something to be done on a thread of its own.
type Task = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub(super) struct Crew {
    state: Mutex<State>,
    fewer: Condvar,
    tasks: Receiver<Task>,
    stack_size: usize,
}

#[derive(Debug)]
struct State {
    /// Hands a task to a thread that waits for one at this moment. `None`: closed.
    hand_over: Option<Sender<Task>>,
    threads: usize,
    resting: usize,
    /// Counts the threads that ever were, for their names.
    begun: u64,
}

impl Crew {
    pub(super) fn new(stack_size: usize) -> Self {
        let (hand_over, tasks) = bounded(0);
        let state = State { hand_over: Some(hand_over), threads: 0, resting: 0, begun: 0 };
        Self { state: Mutex::new(state), fewer: Condvar::new(), tasks, stack_size }
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
            state.threads += 1;
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

    /// Threads at rest end, the others after their task; no new task is taken.
    pub(super) fn close(&self) {
        self.state.lock().hand_over = None;
    }

    /// `false`: some are still there at the deadline.
    pub(super) fn wait_until_none(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while state.threads > 0 {
            if self.fewer.wait_until(&mut state, deadline).timed_out() {
                return state.threads == 0;
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
        self.0.state.lock().threads -= 1;
        self.0.fewer.notify_all();
    }
}
