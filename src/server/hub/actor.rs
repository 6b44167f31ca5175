//! The hub's thread: takes commands in batches, and does what is due.

use std::{cmp::Reverse, collections::BinaryHeap, io, sync::Arc};

use crate::server::{
    config::Config,
    hub::backpressure::Inflight,
    hub::command::{Command, Packet, Signal, large},
    hub::handle::{HubHandle, Inbox, mark_hub_thread, next_own_command},
    hub::held::Held,
    hub::in_flight::InFlightGuard,
    hub::members::Space,
    hub::sessions::Seat,
    hub::timers::{Deadline, Due, SWEEP_MIN},
    recovery::Recovery,
    recovery::journal::{HandedOver, Report},
    recovery::store::Change,
};
use crate::{
    proto::CloseReason,
    sys::{
        channel::{Receiver, RecvTimeoutError, Sender},
        thread::{self, JoinHandle},
        time::Instant,
    },
};

/// Commands of one batch. A larger batch means fewer writes and a longer wait for the first packet in it.
pub(crate) const BATCH_MAX: usize = 256;

/// Starts the thread.
pub(crate) fn start(
    inbox: Inbox,
    handle: &HubHandle,
    config: &Config,
    namespaces: usize,
    recovery: Option<Recovery>,
) -> io::Result<JoinHandle<bool>> {
    let hub = Hub {
        queue: inbox.queue,
        signals: inbox.signals,
        held: Held::default(),
        told: Vec::new(),
        stopping: None,
        inflight: Arc::clone(&handle.inflight),
        config: config.clone(),
        seats: Vec::new(),
        spaces: (0..namespaces).map(|_| Space::default()).collect(),
        deadlines: BinaryHeap::new(),
        serial: 0,
        sweep_at: SWEEP_MIN,
        due: Vec::new(),
        dirty: Vec::new(),
        orders: Vec::new(),
        marks: Vec::new(),
        mark: 0,
        large: 0,
        replayed: 0,
        recovery,
        recovery_alarm: None,
    };
    thread::Builder::new().name("hub".into()).stack_size(256 << 10).spawn(|| hub.run())
}

/// Lets go of the threads that wait for the hub when it goes, even if it goes by a bug of ours.
struct Farewell(Arc<Inflight>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.stop();
        if thread::panicking() {
            log::error!("the hub has failed; the server delivers nothing more and must be restarted");
        }
    }
}

pub(super) struct Hub {
    pub(super) queue: Receiver<Command>,
    pub(super) signals: Receiver<Signal>,
    /// What waits for the store.
    pub(super) held: Held,
    /// Who is told that this batch is finished.
    pub(super) told: Vec<Sender<()>>,
    /// The server stops; the store has until then.
    pub(super) stopping: Option<Instant>,
    pub(super) inflight: Arc<Inflight>,
    pub(super) config: Config,
    pub(super) seats: Vec<Option<Seat>>,
    pub(super) spaces: Vec<Space>,
    pub(super) deadlines: BinaryHeap<Reverse<Due>>,
    pub(super) serial: u64,
    /// At so many deadlines, those of sessions that are gone are swept out.
    pub(super) sweep_at: usize,
    /// The packets of this batch, and whether each is volatile.
    pub(super) due: Vec<Packet>,
    /// The seats that get some of them.
    pub(super) dirty: Vec<u32>,
    /// What is finished with the next flush.
    pub(super) orders: Vec<InFlightGuard>,
    /// The last selection that visited a seat, so that nobody in two rooms gets a packet twice.
    pub(super) marks: Vec<u64>,
    pub(super) mark: u64,
    /// Bytes of large packets of this batch.
    pub(super) large: usize,
    /// Bytes that clients who have come back get in this batch.
    pub(super) replayed: usize,
    pub(super) recovery: Option<Recovery>,
    /// The next look at what recovery may forget, and its journal wants.
    pub(super) recovery_alarm: Option<Instant>,
}

impl Hub {
    /// `false`: the store was not finished in time.
    pub(super) fn run(mut self) -> bool {
        mark_hub_thread();
        let _farewell = Farewell(Arc::clone(&self.inflight));
        while let Some(first) = self.next() {
            let mut next = first;
            let mut left = BATCH_MAX;
            while let Some(command) = next {
                self.apply(command);
                left -= 1;
                next = if left == 0 || self.is_full() {
                    None
                } else {
                    next_own_command().or_else(|| self.queue.try_recv().ok())
                };
            }
            self.look_at_signals();
            self.flush();
            if let Some(deadline) = self.stopping {
                return self.stop(deadline);
            }
            self.ring(Instant::now());
        }
        true
    }

    /// `Some(None)`: no command, but a deadline or a signal. `None`: nobody is left to send any.
    #[allow(clippy::option_option, reason = "the three outcomes of waiting are just these")]
    pub(super) fn next(&mut self) -> Option<Option<Command>> {
        if let Some(own) = next_own_command() {
            return Some(Some(own));
        }
        let at = self.deadlines.peek().map(|Reverse(Due((at, ..)))| *at);
        if self.is_full() {
            // Nothing is taken out of the queue, and whoever sends waits, until the store has reported.
            if let Ok(signal) = recv_by(&self.signals, at) {
                self.look_at(signal);
            }
            return Some(None);
        }
        match recv_by(&self.queue, at) {
            Ok(command) => Some(Some(command)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Whether so much waits for the store that nothing more is taken.
    pub(super) fn is_full(&self) -> bool {
        self.held.is_full() || self.recovery.as_ref().is_some_and(Recovery::is_full)
    }

    pub(super) fn look_at_signals(&mut self) {
        while let Ok(signal) = self.signals.try_recv() {
            self.look_at(signal);
        }
    }

    pub(super) fn look_at(&mut self, signal: Signal) {
        match signal {
            Signal::Store(report) => {
                if let Some(recovery) = &mut self.recovery {
                    recovery.store_reported(&report);
                }
                if matches!(report, Report::Reopened(_)) {
                    return;
                }
                if let Some(portion) = self.held.committed() {
                    self.let_go(portion);
                }
                if matches!(report, Report::Failed) {
                    let rest = self.held.let_go();
                    self.let_go(rest);
                }
            }
            Signal::Stop(deadline) => self.stopping = Some(deadline),
        }
    }

    /// Gives the store what has changed, and writes what waits for nothing more. `all`: whatever its time.
    pub(super) fn hand_over(&mut self, all: bool) {
        let Some(recovery) = &mut self.recovery else { return };
        let handed_over = recovery.hand_over(Instant::now(), all);
        if self.held.is_idle() {
            return;
        }
        match handed_over {
            HandedOver::NotYet => {}
            HandedOver::All => self.held.hand_over(),
            HandedOver::Nothing => {
                let portion = self.held.let_go();
                self.let_go(portion);
            }
        }
    }

    pub(super) fn apply(&mut self, command: Command) {
        let before = self.held_back();
        match command {
            Command::Open(session, since) => self.open(session, since),
            Command::Ending(session, code, order) => self.ending(&session, code, order),
            Command::Gone(session) => self.gone(&session),
            Command::Enter { socket, consent, resume, order } => self.enter(socket, consent, resume, order),
            Command::Exit { socket, lost } => self.exit(&socket, lost),
            Command::Join(socket, names, order) => {
                self.join(&socket, &names);
                self.finish(order, before);
            }
            Command::Leave(socket, name, order) => {
                if self.spaces[socket.namespace_index()].leave(&socket, &name)
                    && let Some(recovery) = &mut self.recovery
                {
                    recovery.leave(&socket, &name);
                }
                self.finish(order, before);
            }
            Command::Emit { namespace, to, packet, volatile, order } => {
                self.emit(namespace, &to, packet, volatile, order);
            }
            Command::Direct { session, packet, volatile, order } => {
                let waits = order.is_behind();
                let large = large(&packet);
                let slot = self.sits(&session).then_some(session.slot());
                let waits = self.share((packet, volatile), slot.as_slice(), large, waits);
                self.sent(order, waits);
            }
            Command::Fence(order) => self.fence(order),
            Command::Finished(done, order) => self.finished(done, order),
            Command::Ring(done) => {
                self.ring(Instant::now());
                drop(done);
            }
            Command::Ask { namespace, question } => self.answer(namespace, question),
            Command::AckDeadline(socket, at) => self.alarm(at, Deadline::Ack(socket)),
            Command::Batch(commands) => commands.into_iter().for_each(|command| self.apply(command)),
            Command::Remember(answer, order) => {
                self.keep(|recovery| recovery.note(Change::Answer(*answer)));
                self.finish(Some(order), before);
            }
            Command::ForgetAnswer(client, namespace) => {
                self.keep(|recovery| recovery.forget_answer(client, namespace));
            }
            Command::Data(socket, data, order) => {
                self.keep(|recovery| recovery.keep_data(&socket, data));
                self.finish(order, before);
            }
            Command::Release(resume) => self.keep(|recovery| recovery.release(&resume)),
            Command::Left(socket) => self.keep(|recovery| recovery.left(&socket)),
            Command::Look => {}
        }
    }

    /// A number that changes with each change that must be durable before anybody hears of it.
    pub(super) fn held_back(&self) -> u64 {
        self.recovery.as_ref().map_or(0, Recovery::held_back)
    }

    pub(super) fn keep(&mut self, how: impl FnOnce(&mut Recovery)) {
        if let Some(recovery) = &mut self.recovery {
            how(recovery);
        }
    }

    /// Finishes what is in the queue, and waits for the store.
    pub(super) fn stop(&mut self, deadline: Instant) -> bool {
        for _ in 0..self.config.hub_commands() {
            let Ok(command) = self.queue.try_recv() else { break };
            self.apply(command);
        }
        self.flush();
        loop {
            self.hand_over(true);
            if self.held.is_idle() && self.recovery.as_ref().is_none_or(Recovery::is_done) {
                break;
            }
            let Ok(signal) = self.signals.recv_deadline(deadline) else { break };
            self.look_at(signal);
        }
        self.recovery.as_mut().is_none_or(|recovery| recovery.close(deadline))
    }

    /// Finishes the batch, and gives the store what it has changed.
    pub(super) fn flush(&mut self) {
        self.write_due();
        self.replayed = 0;
        self.hand_over(false);
        self.look_again();
    }

    /// Sets the alarm for what recovery has to do later.
    pub(super) fn look_again(&mut self) {
        let Some(recovery) = &self.recovery else { return };
        let wanted = recovery.deadline().into_iter().chain(recovery.journal_deadline()).min();
        if let Some(at) = wanted
            && self.recovery_alarm.is_none_or(|alarm| at < alarm)
        {
            self.recovery_alarm = Some(at);
            self.alarm(at, Deadline::Recovery);
        }
    }

    /// Does what is due by `now`.
    pub(super) fn ring(&mut self, now: Instant) {
        while self.deadlines.peek().is_some_and(|Reverse(Due((at, ..)))| *at <= now) {
            let Some(Reverse(Due((due, _, deadline)))) = self.deadlines.pop() else { return };
            match deadline {
                Deadline::Heartbeat(slot, session) => {
                    // As of the time that was due, so that a busy machine does not make every deadline later; but when that
                    // is long past, peers are left most of their time.
                    let late = now.checked_sub(self.config.ping_timeout / 4).unwrap_or(now);
                    self.beat(due.max(late), due < late, slot, &session);
                }
                Deadline::Connect(session) => {
                    if let Some(session) = session.upgrade()
                        && !session.is_settled()
                    {
                        session.end(CloseReason::ForcedClose);
                    }
                }
                Deadline::Cut(session) => {
                    if let Some(session) = session.upgrade() {
                        session.cut();
                    }
                }
                Deadline::Recovery => {
                    self.recovery_alarm = None;
                    self.keep(|recovery| recovery.expire(now));
                    self.hand_over(false);
                    self.look_again();
                }
                Deadline::Ack(socket) => {
                    // The end of a session answers what is still awaited in it.
                    if let Some(socket) = socket.upgrade()
                        && !socket.session().has_ended()
                    {
                        Arc::clone(socket.session()).ack_expired(socket);
                    }
                }
            }
        }
    }

    pub(super) fn alarm(&mut self, at: Instant, deadline: Deadline) {
        if self.deadlines.len() >= self.sweep_at {
            // A session that is gone leaves its alarms behind; they must not pile up.
            self.deadlines.retain(|Reverse(Due((.., deadline)))| deadline.is_alive());
            self.sweep_at = 2 * self.deadlines.len() + SWEEP_MIN;
        }
        self.serial += 1;
        self.deadlines.push(Reverse(Due((at, self.serial, deadline))));
    }
}

fn recv_by<T>(queue: &Receiver<T>, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
    match deadline {
        Some(at) => queue.recv_deadline(at),
        None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}
