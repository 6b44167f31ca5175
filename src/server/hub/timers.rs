//! Timers: values with a deadline, the earliest first.
//!
//! A plain type: it knows no clock, and not what its values mean.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use crate::sys::time::Instant;

/// With fewer timers it is not worth the time to look for dead ones.
const SWEEP_MIN: usize = 1_024;

/// A heap of timers.
pub(super) struct Timers<T> {
    heap: BinaryHeap<Reverse<Timer<T>>>,
    /// Counts the timers that were ever added.
    count: u64,
    /// With this many timers, the dead ones are removed.
    sweep_at: usize,
}

struct Timer<T> {
    at: Instant,
    /// Timers with the same deadline are due in the order in which they were added.
    number: u64,
    value: T,
}

impl<T> Timers<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), count: 0, sweep_at: SWEEP_MIN }
    }

    /// Adds a timer. `is_alive`: whether a value is still of use; from time to time the others are removed.
    pub(super) fn add(&mut self, at: Instant, value: T, is_alive: impl Fn(&T) -> bool) {
        if self.heap.len() >= self.sweep_at {
            self.heap.retain(|Reverse(timer)| is_alive(&timer.value));
            self.sweep_at = 2 * self.heap.len() + SWEEP_MIN;
        }
        self.count += 1;
        self.heap.push(Reverse(Timer { at, number: self.count, value }));
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(timer)| timer.at)
    }

    /// Takes out the earliest timer if it is due: its deadline and its value.
    pub(super) fn pop_if(&mut self, is_due: impl FnOnce(Instant, &T) -> bool) -> Option<(Instant, T)> {
        let Reverse(earliest) = self.heap.peek()?;
        if !is_due(earliest.at, &earliest.value) {
            return None;
        }
        self.heap.pop().map(|Reverse(Timer { at, value, .. })| (at, value))
    }
}

impl<T> PartialEq for Timer<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Timer<T> {}

impl<T> PartialOrd for Timer<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Timer<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn all_due(timers: &mut Timers<u32>, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| timers.pop_if(|at, _| at <= now)).map(|(_, value)| value).collect()
    }

    #[test]
    fn timers_are_due_in_the_order_of_their_deadlines() {
        let (mut timers, now) = (Timers::new(), Instant::now());
        for (seconds, value) in [(3, 30), (1, 10), (2, 20), (1, 11)] {
            timers.add(now + Duration::from_secs(seconds), value, |_| true);
        }
        assert_eq!(timers.next(), Some(now + Duration::from_secs(1)));
        assert!(all_due(&mut timers, now).is_empty());
        assert_eq!(all_due(&mut timers, now + Duration::from_secs(2)), [10, 11, 20]);
        assert_eq!(all_due(&mut timers, now + Duration::from_secs(9)), [30]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn dead_timers_do_not_accumulate() {
        let (mut timers, now) = (Timers::new(), Instant::now());
        for value in 0..20 * SWEEP_MIN as u32 {
            timers.add(now, value, |other| other % 100 == 0 || other + 10 > value);
        }
        assert!(timers.heap.len() < 3 * SWEEP_MIN, "{}", timers.heap.len());
        let alive = all_due(&mut timers, now).into_iter().filter(|value| value % 100 == 0).count();
        assert_eq!(alive, SWEEP_MIN / 5 + 1, "none that is alive was removed");
    }
}
