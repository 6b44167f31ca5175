//! The acknowledgements that a socket still owes: bounded, and with one alarm for all of them.

use std::{collections::HashMap, panic::Location};

use crate::server::socket::{AckCallback, AckResult};
use crate::sys::{channel::Sender, time::Instant};

/// Who waits for an acknowledgement.
pub(crate) enum Waiting {
    /// A thread, which watches the time itself.
    Thread(Sender<AckResult>),
    /// A callback, which is to be called when this instant has passed, and where the application gave it.
    Callback { callback: AckCallback, deadline: Instant, given_at: &'static Location<'static> },
}

/// Those who wait, by the id that the event carried.
#[derive(Default)]
pub(crate) struct Acks {
    waiting: HashMap<u64, Waiting>,
    /// When the hub will ask for those that are overdue.
    alarm: Option<Instant>,
}

impl Acks {
    /// `Err`: there are `max` already, and this one is given back. `Some`: the hub must be asked to ring then. An answered callback costs no alarm of its own, so however many are
    /// asked for and answered, the hub keeps one a socket.
    pub(crate) fn insert(
        &mut self,
        id: u64,
        waiting: Waiting,
        max: usize,
    ) -> Result<Option<Instant>, Waiting> {
        if self.waiting.len() >= max {
            return Err(waiting);
        }
        let deadline = match &waiting {
            Waiting::Thread(_) => None,
            Waiting::Callback { deadline, .. } => Some(*deadline),
        };
        self.waiting.insert(id, waiting);
        let sooner = deadline.filter(|deadline| self.alarm.is_none_or(|alarm| *deadline < alarm));
        if sooner.is_some() {
            self.alarm = sooner;
        }
        Ok(sooner)
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        self.waiting.contains_key(&id)
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Waiting> {
        self.waiting.remove(&id)
    }

    /// The callbacks whose time has passed, and when to ask again.
    pub(crate) fn overdue(&mut self, now: Instant) -> (Vec<Waiting>, Option<Instant>) {
        let is_overdue = |_: &u64, waiting: &mut Waiting| matches!(waiting, Waiting::Callback { deadline, .. } if *deadline <= now);
        let overdue = self.waiting.extract_if(is_overdue).map(|(_, waiting)| waiting).collect();
        let deadlines = self.waiting.values().filter_map(|waiting| match waiting {
            Waiting::Callback { deadline, .. } => Some(*deadline),
            Waiting::Thread(_) => None,
        });
        self.alarm = deadlines.min();
        (overdue, self.alarm)
    }

    /// Everybody: no answer can come any more.
    pub(crate) fn take_all(&mut self) -> Vec<Waiting> {
        self.waiting.drain().map(|(_, waiting)| waiting).collect()
    }
}
