//! Bounded queues with crossbeam's verbs and errors.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

pub(crate) use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::{RecvError, SendError, TryRecvError, TrySendError};

use super::{
    kernel::{self, WaitSet},
    time::Instant,
};

struct Shared<T> {
    state: Mutex<State<T>>,
    filled: WaitSet,
    emptied: WaitSet,
    max: usize,
}

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    receivers: usize,
    /// Receivers that wait at this moment: what a queue without room has room for.
    takers: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("nobody panics here")
    }

    fn is_full(&self) -> bool {
        let state = self.lock();
        state.queue.len() >= if self.max == 0 { state.takers } else { self.max }
    }

    /// `Err`: no room, or nobody there.
    fn put(&self, value: T) -> Result<(), TrySendError<T>> {
        {
            let mut state = self.lock();
            if state.receivers == 0 {
                return Err(TrySendError::Disconnected(value));
            }
            let room = if self.max == 0 { state.takers } else { self.max };
            if state.queue.len() >= room {
                return Err(TrySendError::Full(value));
            }
            state.queue.push_back(value);
        }
        self.filled.wake_one();
        Ok(())
    }

    fn take(&self) -> Result<T, TryRecvError> {
        let taken = {
            let mut state = self.lock();
            match state.queue.pop_front() {
                Some(value) => value,
                None if state.senders == 0 => return Err(TryRecvError::Disconnected),
                None => return Err(TryRecvError::Empty),
            }
        };
        self.emptied.wake_one();
        Ok(taken)
    }
}

pub(crate) fn bounded<T>(max: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { queue: VecDeque::new(), senders: 1, receivers: 1, takers: 0 };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        filled: WaitSet::default(),
        emptied: WaitSet::default(),
        max,
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
        kernel::point();
        let mut value = value;
        loop {
            value = match self.0.put(value) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(value)) => return Err(SendError(value)),
                Err(TrySendError::Full(value)) => value,
            };
            self.0.emptied.wait(None);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        kernel::point();
        self.0.is_full()
    }

    pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        kernel::point();
        self.0.put(value)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.0.lock();
            state.senders -= 1;
            state.senders == 0
        };
        if last {
            self.0.filled.wake_all();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

pub(crate) struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        kernel::point();
        self.0.take()
    }

    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        self.recv_by(None).map_err(|_| RecvError)
    }

    pub(crate) fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_by(Some(kernel::now() + timeout))
    }

    pub(crate) fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.recv_by(Some(deadline.since_boot()))
    }

    fn recv_by(&self, deadline: Option<Duration>) -> Result<T, RecvTimeoutError> {
        kernel::point();
        self.0.lock().takers += 1;
        if self.0.max == 0 {
            // A sender that waits for a taker.
            self.0.emptied.wake_one();
        }
        let mut in_time = true;
        let received = loop {
            match self.0.take() {
                Ok(value) => break Ok(value),
                Err(TryRecvError::Disconnected) => break Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if !in_time => break Err(RecvTimeoutError::Timeout),
                Err(TryRecvError::Empty) => in_time = self.0.filled.wait(deadline),
            }
        };
        self.0.lock().takers -= 1;
        received
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.lock().receivers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let queue = {
            let mut state = self.0.lock();
            state.receivers -= 1;
            if state.receivers > 0 { VecDeque::new() } else { std::mem::take(&mut state.queue) }
        };
        drop(queue);
        self.0.emptied.wake_all();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

impl<T> Iterator for &Receiver<T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        self.recv().ok()
    }
}
