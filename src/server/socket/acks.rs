//! Events with an acknowledgement, and the table of the acknowledgements that a socket awaits.
//!
//! The table is bounded, and has one timer in the hub for all its deadlines.

use std::{collections::HashMap, panic::Location, sync::Arc, time::Duration};

use serde::Serialize;

use super::Socket;
use crate::server::{
    error::AckError,
    guard::{self, Callee},
    lead,
};
use crate::{
    proto::socket::{Encoded, OwnedArgs},
    sys::{
        channel::{RecvTimeoutError, Sender, bounded},
        time::Instant,
        wait::deadline_in,
    },
};

pub(super) type AckResult = Result<OwnedArgs, AckError>;

pub(super) type AckCallback = Box<dyn FnOnce(&Socket, AckResult) + Send>;

/// Who waits for an acknowledgement.
pub(super) enum Waiting {
    /// A thread, which watches the time itself.
    Thread(Sender<AckResult>),
    /// A callback, its deadline, and the place in the application that has passed it.
    Callback { callback: AckCallback, deadline: Instant, given_at: &'static Location<'static> },
}

/// The awaited acknowledgements of a socket, by the ack id of their event.
#[derive(Default)]
pub(super) struct Acks {
    waiting: HashMap<u64, Waiting>,
    /// The instant of the timer in the hub. `None`: there is no timer.
    alarm: Option<Instant>,
}

impl Acks {
    /// `Err`: `max` acknowledgements are awaited already; the new one is returned. `Some`: the hub must set a timer
    /// for this instant. A callback needs no timer if its deadline is not before that of the present timer, so the
    /// hub usually has one timer for each socket.
    pub(super) fn insert(
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

    pub(super) fn has(&self, id: u64) -> bool {
        self.waiting.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Waiting> {
        self.waiting.remove(&id)
    }

    /// The callbacks whose time has passed, and when to ask again.
    pub(super) fn overdue(&mut self, now: Instant) -> (Vec<Waiting>, Option<Instant>) {
        let is_overdue = |_: &u64, waiting: &mut Waiting| matches!(waiting, Waiting::Callback { deadline, .. } if *deadline <= now);
        let overdue = self.waiting.extract_if(is_overdue).map(|(_, waiting)| waiting).collect();
        let deadlines = self.waiting.values().filter_map(|waiting| match waiting {
            Waiting::Callback { deadline, .. } => Some(*deadline),
            Waiting::Thread(_) => None,
        });
        self.alarm = deadlines.min();
        (overdue, self.alarm)
    }

    /// Removes all entries, because no acknowledgement can come any more.
    pub(super) fn take_all(&mut self) -> Vec<Waiting> {
        self.waiting.drain().map(|(_, waiting)| waiting).collect()
    }
}

impl Socket {
    /// Official `socket.timeout(t).emitWithAck`: emits, and waits for the client's acknowledgement. `args` as in
    /// [`emit`](Self::emit).
    ///
    /// # Errors
    /// [`AckError`]. Inside a handler of the same client it is [`AckError::WouldDeadlock`] at once, because that
    /// handler runs on the thread that must read the answer.
    pub fn emit_with_ack(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
    ) -> Result<OwnedArgs, AckError> {
        if guard::is_in_handler_of(self) {
            return Err(AckError::WouldDeadlock);
        }
        let (answer, wait) = bounded(1);
        let id = self.0.namespace.next_ack_id();
        self.await_ack(id, Waiting::Thread(answer)).map_err(|_| AckError::TooMany)?;
        self.send_awaited(event, id, &args)?;
        self.0.namespace.0.hub.send_batch().map_err(AckError::Emit)?;
        lead::before_wait();
        match wait.recv_timeout(timeout) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                self.0.acks.lock().remove(id);
                // It may have come between the two.
                wait.try_recv().unwrap_or(Err(AckError::Timeout))
            }
            Err(RecvTimeoutError::Disconnected) => Err(AckError::Disconnected),
        }
    }

    /// Official `socket.timeout(t).emit(…, callback)`: emits, and calls `callback` once, with the acknowledgement or
    /// with an error. The callback runs like a handler of this client: in order with its other handlers, and without
    /// delaying other clients. `args` as in [`emit`](Self::emit).
    ///
    /// # Errors
    /// [`AckError::TooMany`] or [`AckError::Emit`]; `callback` is not called then.
    #[track_caller]
    pub fn emit_with_callback(
        &self,
        event: &str,
        args: impl Serialize,
        timeout: Duration,
        callback: impl FnOnce(&Self, Result<OwnedArgs, AckError>) + Send + 'static,
    ) -> Result<(), AckError> {
        let id = self.0.namespace.next_ack_id();
        let waiting = Waiting::Callback {
            callback: Box::new(callback),
            deadline: deadline_in(timeout),
            given_at: Location::caller(),
        };
        self.await_ack(id, waiting).map_err(|_| AckError::TooMany)?;
        self.send_awaited(event, id, &args)
    }

    /// One recipient's part of a broadcast that wants acknowledgements: `packet` carries `id`, and `callback` is
    /// called as in [`emit_with_callback`](Self::emit_with_callback), also when nothing could be sent.
    pub(super) fn send_asking(
        &self,
        packet: &Encoded,
        id: u64,
        deadline: Instant,
        callback: impl FnOnce(&Self, Result<OwnedArgs, AckError>) + Send + 'static,
    ) {
        let waiting =
            Waiting::Callback { callback: Box::new(callback), deadline, given_at: Location::caller() };
        let asked = self.await_ack(id, waiting);
        if let Err(waiting) = asked {
            return self.answer(waiting, Err(AckError::TooMany));
        }
        if let Err(error) = self.send_encoded(packet.clone()) {
            self.complete_ack(id, || Err(error.into()));
        }
    }

    fn await_ack(&self, id: u64, waiting: Waiting) -> Result<(), Waiting> {
        let max = self.session().shared.config.max_pending_acks;
        let alarm = self.0.acks.lock().insert(id, waiting, max)?;
        self.set_ack_alarm(alarm);
        Ok(())
    }

    fn set_ack_alarm(&self, alarm: Option<Instant>) {
        if let Some(at) = alarm {
            self.0.namespace.0.hub.ack_deadline(Arc::downgrade(&self.0.membership), at);
        }
    }

    /// The timer in the hub has fired: calls the callbacks whose deadline has passed, with [`AckError::Timeout`].
    pub(crate) fn fail_overdue_acks(&self) {
        let (overdue, alarm) = self.0.acks.lock().overdue(Instant::now());
        self.set_ack_alarm(alarm);
        for waiting in overdue {
            self.answer(waiting, Err(AckError::Timeout));
        }
    }

    fn send_awaited<T: Serialize + ?Sized>(&self, event: &str, id: u64, args: &T) -> Result<(), AckError> {
        match self.send_event(event, Some(id), args, false) {
            Err(error) if self.0.acks.lock().remove(id).is_some() => Err(error.into()),
            // If the socket has ended, `fail_acks` has removed the entry and reported the failure already.
            _ => Ok(()),
        }
    }

    /// Whether somebody waits for the answer with this id.
    pub(crate) fn awaits(&self, id: u64) -> bool {
        self.0.acks.lock().has(id)
    }

    /// The answer to an emit has come, or has failed to. An id that nobody waits for is ignored, as on the official
    /// server.
    pub(crate) fn complete_ack(&self, id: u64, result: impl FnOnce() -> AckResult) {
        let waiting = self.0.acks.lock().remove(id);
        if let Some(waiting) = waiting {
            self.answer(waiting, result());
        }
    }

    /// No answer can come any more.
    pub(crate) fn fail_acks(&self) {
        let waiting = self.0.acks.lock().take_all();
        for waiting in waiting {
            self.answer(waiting, Err(AckError::Disconnected));
        }
    }

    fn answer(&self, waiting: Waiting, result: AckResult) {
        match waiting {
            // The waiting thread may have given up.
            Waiting::Thread(answer) => drop(answer.send(result)),
            Waiting::Callback { callback, given_at, .. } => {
                let what = format_args!("the acknowledgement callback given at {given_at}");
                guard::call_for(self, Callee::ACKNOWLEDGEMENT, what, || callback(self, result));
            }
        }
    }
}
