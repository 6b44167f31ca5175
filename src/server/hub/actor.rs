//! The hub's thread: it takes commands in batches, applies them, and flushes.
//!
//! It waits for commands, signals and deadlines only: for no socket, no lock that is held while code of the
//! application runs, and for the store only when that is far behind or when the server stops.

use std::{io, sync::Arc};

use crate::server::{
    config::Config,
    guard::{self, Records},
    hub::backpressure::InFlightBytes,
    hub::command::{Command, Signal, large},
    hub::delivery::Delivery,
    hub::handle::{HubHandle, Inbox},
    hub::in_flight::InFlightGuard,
    hub::members::{Marks, NamespaceMembers},
    hub::recovery::Recovery,
    hub::recovery::journal::Report,
    hub::sessions::Deadline,
    hub::threads::{self, Role},
    hub::timers::Timers,
    recovery::store::Change,
};
use crate::sys::{
    channel::{Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Instant,
};

/// Commands of one batch. A larger batch means fewer writes, and a longer wait for the first packet in it.
pub(crate) const BATCH_MAX: usize = 256;

/// Starts the thread.
pub(crate) fn start(
    inbox: Inbox,
    handle: &HubHandle,
    config: &Config,
    namespaces: usize,
    recovery: Option<Recovery>,
    records: &Arc<Records>,
) -> io::Result<JoinHandle<bool>> {
    let hub = Hub {
        inbox,
        inflight: Arc::clone(&handle.inflight),
        config: config.clone(),
        stopping: None,
        namespaces: (0..namespaces).map(|_| NamespaceMembers::default()).collect(),
        marks: Marks::default(),
        delivery: Delivery::new(&handle.inflight),
        timers: Timers::new(),
        replayed: 0,
        recovery,
        recovery_timer: None,
    };
    records.thread("hub", 256 << 10, || hub.run())
}

/// Releases the threads that wait for the hub when its thread ends, also by a panic.
struct ReleaseOnDrop(Arc<InFlightBytes>);

impl Drop for ReleaseOnDrop {
    fn drop(&mut self) {
        self.0.stop();
        if thread::panicking() {
            guard::error!("the hub has failed; the server delivers nothing more and must be restarted");
        }
    }
}

pub(super) struct Hub {
    inbox: Inbox,
    inflight: Arc<InFlightBytes>,
    pub(super) config: Config,
    /// The server stops. The store has until then.
    stopping: Option<Instant>,
    /// The sockets of each namespace.
    pub(super) namespaces: Vec<NamespaceMembers>,
    pub(super) marks: Marks,
    pub(super) delivery: Delivery,
    pub(super) timers: Timers<Deadline>,
    /// The bytes of missed packets that recovered clients get in this batch.
    pub(super) replayed: usize,
    pub(super) recovery: Option<Recovery>,
    /// The next timer of recovery.
    recovery_timer: Option<Instant>,
}

impl Hub {
    /// `false`: the store was not finished in time.
    fn run(mut self) -> bool {
        threads::set_role(Role::Hub);
        let _release = ReleaseOnDrop(Arc::clone(&self.inflight));
        while let Some(first) = self.next() {
            let mut next = first;
            let mut left = BATCH_MAX;
            while let Some(command) = next {
                self.apply(command);
                left -= 1;
                next = if left == 0 || self.is_full() {
                    None
                } else {
                    threads::next_own().or_else(|| self.inbox.queue.try_recv().ok())
                };
            }
            while let Ok(signal) = self.inbox.signals.try_recv() {
                self.handle_signal(signal);
            }
            self.flush();
            if let Some(deadline) = self.stopping {
                return self.stop(deadline);
            }
            self.run_timers(Instant::now());
        }
        true
    }

    /// `Some(None)`: no command, but a deadline or a signal. `None`: all handles are gone.
    #[allow(clippy::option_option, reason = "the three outcomes of waiting are just these")]
    fn next(&mut self) -> Option<Option<Command>> {
        if let Some(own) = threads::next_own() {
            return Some(Some(own));
        }
        let deadline = self.timers.next();
        if self.is_full() {
            // No command is taken until the store has reported, so the sending threads wait.
            if let Ok(signal) = recv_by(&self.inbox.signals, deadline) {
                self.handle_signal(signal);
            }
            return Some(None);
        }
        match recv_by(&self.inbox.queue, deadline) {
            Ok(command) => Some(Some(command)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Whether so much waits for the store that no more commands are taken.
    fn is_full(&self) -> bool {
        self.delivery.is_full() || self.recovery.as_ref().is_some_and(Recovery::is_full)
    }

    fn handle_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Store(report) => {
                self.with_recovery(|recovery| recovery.store_reported(&report));
                match report {
                    Report::Reopened(_) => {}
                    Report::Committed => self.delivery.committed(),
                    Report::Failed => {
                        self.delivery.committed();
                        self.delivery.release_rest();
                    }
                }
            }
            Signal::Stop(deadline) => self.stopping = Some(deadline),
        }
    }

    fn apply(&mut self, command: Command) {
        let before = self.durable_changes();
        match command {
            Command::OpenSession(session, since) => self.open_session(session, since),
            Command::CloseSession(session, code, guard) => self.close_session(&session, code, guard),
            Command::ForgetSession(session) => self.delivery.forget(&session),
            Command::ConnectSocket { socket, connect_ack, resume, guard } => {
                self.connect_socket(socket, connect_ack, resume, guard);
            }
            Command::DisconnectSocket { socket, lost } => self.disconnect_socket(&socket, lost),
            Command::HandlersDone(socket) => self.with_recovery(|recovery| recovery.handlers_done(&socket)),
            Command::Join(socket, rooms, guard) => {
                self.join(&socket, &rooms);
                self.finish(guard, before);
            }
            Command::Leave(socket, room, guard) => {
                self.leave(&socket, &room);
                self.finish(guard, before);
            }
            Command::Emit { namespace, to, packet, volatile, guard } => {
                self.emit(namespace, &to, packet, volatile, guard);
            }
            Command::Direct { session, packet, volatile, guard } => {
                let large = large(&packet);
                self.delivery.send_to(&session, (packet, volatile), large, guard, false);
            }
            Command::Fence(guard) => self.delivery.fence(guard),
            Command::ReportFinished(done, guard) => self.delivery.report_finished(done, guard),
            Command::RunTimers(done) => {
                self.run_timers(Instant::now());
                drop(done);
            }
            Command::Query { namespace, query } => self.answer(namespace, query),
            Command::AckDeadline(socket, at) => self.add_timer(at, Deadline::Ack(socket)),
            Command::Batch(commands) => commands.into_iter().for_each(|command| self.apply(command)),
            Command::StoreAnswer(answer, guard) => {
                self.with_recovery(|recovery| recovery.note(Change::Answer(*answer)));
                self.finish(Some(guard), before);
            }
            Command::ForgetAnswer(client, namespace) => {
                self.with_recovery(|recovery| recovery.forget_answer(client, namespace));
            }
            Command::StoreData(socket, data, guard) => {
                self.with_recovery(|recovery| recovery.keep_data(&socket, data));
                self.finish(guard, before);
            }
            Command::ReleaseClaim(resume) => self.with_recovery(|recovery| recovery.release(&resume)),
            Command::CheckSignals => {}
        }
    }

    /// A number that changes with each change that must be durable before its effects are sent.
    pub(super) fn durable_changes(&self) -> u64 {
        self.recovery.as_ref().map_or(0, Recovery::durable_changes)
    }

    /// A command without a packet is finished when what it has changed since `before` is durable.
    fn finish(&mut self, guard: Option<InFlightGuard>, before: u64) {
        let Some(guard) = guard else { return };
        let waits = self.durable_changes() != before || guard.is_behind();
        self.delivery.finish(guard, waits);
    }

    pub(super) fn with_recovery(&mut self, call: impl FnOnce(&mut Recovery)) {
        if let Some(recovery) = &mut self.recovery {
            call(recovery);
        }
    }

    /// Ends the batch: writes its packets, and gives the store what it has changed.
    pub(super) fn flush(&mut self) {
        self.delivery.flush();
        self.replayed = 0;
        self.hand_over(false);
        self.set_recovery_timer();
    }

    /// Gives the store what has changed, and writes the packets that need not wait any more. `all`: at any time.
    fn hand_over(&mut self, all: bool) {
        if let Some(recovery) = &mut self.recovery {
            let handed_over = recovery.hand_over(Instant::now(), all);
            self.delivery.handed_over(&handed_over);
        }
    }

    fn set_recovery_timer(&mut self) {
        let Some(recovery) = &self.recovery else { return };
        let wanted = recovery.deadline().into_iter().chain(recovery.journal_deadline()).min();
        if let Some(at) = wanted
            && self.recovery_timer.is_none_or(|timer| at < timer)
        {
            self.recovery_timer = Some(at);
            self.add_timer(at, Deadline::Recovery);
        }
    }

    /// The timer of recovery is due.
    pub(super) fn expire_recovery(&mut self, now: Instant) {
        self.recovery_timer = None;
        self.with_recovery(|recovery| recovery.expire(now));
        self.hand_over(false);
        self.set_recovery_timer();
    }

    /// Finishes the commands that are in the queue, and waits for the store.
    fn stop(&mut self, deadline: Instant) -> bool {
        for _ in 0..self.config.hub_commands() {
            let Ok(command) = self.inbox.queue.try_recv() else { break };
            self.apply(command);
        }
        self.flush();
        loop {
            self.hand_over(true);
            if self.delivery.is_nothing_held() && self.recovery.as_ref().is_none_or(Recovery::is_done) {
                break;
            }
            let Ok(signal) = self.inbox.signals.recv_deadline(deadline) else { break };
            self.handle_signal(signal);
        }
        self.recovery.as_mut().is_none_or(|recovery| recovery.close(deadline))
    }
}

fn recv_by<T>(queue: &Receiver<T>, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
    match deadline {
        Some(at) => queue.recv_deadline(at),
        None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}
