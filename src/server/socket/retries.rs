//! Events of clients with `retries` are handled exactly once: this module keeps the answer (the encoded
//! acknowledgement) to the last event of each client, so that a retry of the event gets the same answer.
//!
//! A client of this crate with `retries` sends its own id (`rid`) in each CONNECT. It sends one event at a time, and
//! gives the next event a higher ack id. So one ack id and one answer are enough for each client and namespace:
//!
//! ```text
//!   higher id ─► Running ──── ack ─────────────► Answered      the same id again: the same answer
//!                 │  ▲ the same id again: its answer goes to the new connection
//!                 │ handler returned, and nobody can acknowledge any more
//!                 └─────────────────────────────► Failed        the same id again: handled again
//! ```

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use crate::server::{
    config::Config, error::EmitError, hub::HubHandle, hub::membership::Membership,
    recovery::store::KeptAnswer, socket::Socket,
};
use crate::{
    proto::socket::Encoded,
    sys::{sync::Mutex, thread_local},
};

thread_local! {
    /// The attempts whose answers are in the open batch of this thread.
    static GATHERED: RefCell<Vec<(Socket, u64)>> = const { RefCell::new(Vec::new()) };
}

/// What an answer takes beside its bytes.
const ANSWER_COST: usize = 512;

/// The longest `rid` of a client.
pub(crate) const RID_MAX: usize = 64;

/// A client's namespace.
type Key = (Arc<str>, usize);

/// What is to be done with an event of such a client.
pub(crate) enum Decision {
    /// The handler must run. The number identifies this attempt in later calls, so that an abandoned attempt cannot
    /// finish a later one.
    Handle(u64),
    /// It has been handled, and this is the answer.
    Answered(Encoded),
    /// It is being handled, or is older than the last one.
    Ignore,
}

/// The answers to all clients. Their number and their bytes are limited; the least recently used are removed first.
pub(crate) struct Retried {
    table: Mutex<Table>,
    max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Table {
    slots: HashMap<Key, Slot>,
    bytes: usize,
    /// The number of uses of the table. `Slot::touched` is this number at the last use of the slot.
    clock: u64,
}

struct Slot {
    id: u64,
    /// The try that is handled, or was.
    attempt: u64,
    state: State,
    touched: u64,
    /// The store has an answer of this client.
    kept: bool,
}

/// What has happened to an event. It holds memberships and no `Socket`: dropping the last `Socket` drops data of the
/// application, and that must not happen while the table is locked.
enum State {
    /// The handler is running, or it has taken the `Ack` out of the event (`taken`). The answer goes to this socket.
    Running {
        socket: Arc<Membership>,
        taken: bool,
    },
    /// The event is acknowledged, but the answer is still in the batch of its handler's thread. If the client sends
    /// the event again meanwhile, its new socket (`late`) gets the answer after the batch was sent.
    Answering {
        answer: Encoded,
        late: Option<Arc<Membership>>,
    },
    Answered(Encoded),
    /// The event was not acknowledged, and cannot be any more. A retry runs the handler again.
    Failed,
}

impl State {
    fn bytes(&self) -> usize {
        match self {
            Self::Running { .. } | Self::Failed => 0,
            Self::Answering { answer, .. } | Self::Answered(answer) => ANSWER_COST + answer.bytes().len(),
        }
    }
}

impl Retried {
    /// With what an earlier life has kept.
    pub(crate) fn new(config: &Config, names: &[Arc<str>], kept: Vec<KeptAnswer>) -> Self {
        let bytes_max = config.connection_state_recovery.as_ref().map_or(0, |options| options.max_bytes);
        let mut table = Table::default();
        for answer in kept {
            let Some(namespace) = names.iter().position(|name| *name == answer.namespace) else { continue };
            let state = State::Answered(Encoded::from_bytes(answer.frames));
            table.bytes += state.bytes();
            let slot = Slot { id: answer.id, attempt: 0, state, touched: 0, kept: true };
            table.slots.insert((answer.client, namespace), slot);
        }
        Self { table: Mutex::new(table), max: config.max_connections.saturating_mul(2), bytes_max }
    }

    /// An event has come.
    pub(crate) fn begin(&self, socket: &Socket, id: u64) -> Decision {
        let Some(key) = key(socket) else { return Decision::Handle(0) };
        let mut table = self.table.lock();
        table.clock += 1;
        let touched = table.clock;
        let running = State::Running { socket: socket.membership(), taken: false };
        let is_full = table.slots.len() > self.max.saturating_mul(2);
        let before = match table.slots.entry(key) {
            // Too many events are still being handled. The event is ignored; the client sends it again.
            Entry::Vacant(_) if is_full => return Decision::Ignore,
            Entry::Vacant(vacant) => {
                vacant.insert(Slot { id, attempt: touched, state: running, touched, kept: false });
                0
            }
            Entry::Occupied(mut occupied) => {
                let slot = occupied.get_mut();
                slot.touched = touched;
                if id < slot.id {
                    return Decision::Ignore;
                }
                if id == slot.id
                    && let Some(turn) = slot.asked_again(socket)
                {
                    return turn;
                }
                (slot.id, slot.attempt) = (id, touched);
                std::mem::replace(&mut slot.state, running).bytes()
            }
        };
        table.bytes -= before;
        self.evict(table, &socket.namespace().0.hub);
        Decision::Handle(touched)
    }

    /// The handler has taken the `Ack` out of the event, so the answer may come after the handler has returned.
    pub(super) fn taken(&self, socket: &Socket, attempt: u64) {
        let Some(key) = key(socket) else { return };
        if let Some(slot) = self.table.lock().slots.get_mut(&key)
            && let State::Running { taken, .. } = &mut slot.state
            && slot.attempt == attempt
        {
            *taken = true;
        }
    }

    /// Stores the answer, in the same commit as the packets that the handler has emitted before, and sends it after
    /// them to the socket that sent the event last. Does nothing if the client has sent a newer event since.
    pub(super) fn answered(&self, socket: &Socket, attempt: u64, answer: &Encoded) -> Result<(), EmitError> {
        let Some(key) = key(socket) else { return Ok(()) };
        let hub = &socket.namespace().0.hub;
        let mut table = self.table.lock();
        table.clock += 1;
        let touched = table.clock;
        let of_attempt = |slot: &&mut Slot| slot.attempt == attempt;
        let Some(slot) = table.slots.get_mut(&key).filter(of_attempt) else { return Ok(()) };
        let State::Running { socket: asker, .. } = &slot.state else { return Ok(()) };
        slot.touched = touched;
        let (id, asker) = (slot.id, Arc::clone(asker.session()));
        slot.state = State::Answering { answer: answer.clone(), late: None };
        slot.kept = true;
        table.bytes += ANSWER_COST + answer.bytes().len();
        self.evict(table, hub);
        hub.store_answer(KeptAnswer {
            client: key.0,
            namespace: Arc::clone(&socket.namespace().0.handlers.name),
            id,
            frames: answer.bytes().clone(),
        });
        let sent = hub.direct(asker, answer.clone(), false);
        if hub.is_batching() {
            GATHERED.with_borrow_mut(|answered| answered.push((socket.clone(), attempt)));
        } else {
            self.end(socket, attempt, false);
        }
        sent
    }

    /// The batch of this thread was sent to the hub. Finishes the attempts whose answers were in the batch.
    pub(crate) fn end_gathered(&self) {
        for (socket, attempt) in GATHERED.with_borrow_mut(std::mem::take) {
            self.end(&socket, attempt, false);
        }
    }

    /// The handler has returned and its batch was sent, or an `Ack` that was taken out of the event was dropped
    /// unused (`thrown`). An answer in the batch becomes final. If there is no answer and none can come, the next
    /// retry runs the handler again.
    pub(crate) fn end(&self, socket: &Socket, attempt: u64, thrown: bool) {
        let Some(key) = key(socket) else { return };
        let hub = &socket.namespace().0.hub;
        let mut table = self.table.lock();
        let of_attempt = |slot: &&mut Slot| slot.attempt == attempt;
        let Some(slot) = table.slots.get_mut(&key).filter(of_attempt) else { return };
        match &mut slot.state {
            State::Running { taken, .. } if thrown || !*taken => {
                slot.state = State::Failed;
                if std::mem::take(&mut slot.kept) {
                    hub.forget_answer(key.0, key.1);
                }
            }
            State::Answering { answer, late } if !thrown => {
                let (answer, late) = (answer.clone(), late.take());
                slot.state = State::Answered(answer.clone());
                drop(table);
                if let Some(late) = late {
                    // After the stop nobody asks.
                    let _ = hub.direct(Arc::clone(late.session()), answer, false);
                }
            }
            _ => {}
        }
    }

    /// Removes the least recently used answers when there are too many, several at a time. Events that are not
    /// finished stay. The removals are sent to the hub under the lock, so that the hub gets the changes of each
    /// client in order. The hub never takes this lock.
    fn evict(&self, mut table: impl std::ops::DerefMut<Target = Table>, hub: &HubHandle) {
        let is_full = |table: &Table| table.slots.len() > self.max || table.bytes > self.bytes_max;
        if !is_full(&table) {
            return;
        }
        let over =
            table.slots.iter().filter(|(_, slot)| matches!(slot.state, State::Answered(_) | State::Failed));
        let mut by_age: Vec<(u64, Key)> = over.map(|(key, slot)| (slot.touched, key.clone())).collect();
        by_age.sort_unstable_by_key(|(touched, _)| *touched);
        let some = 1 + by_age.len() / 16;
        for (number, (_, key)) in by_age.into_iter().enumerate() {
            if number >= some && !is_full(&table) {
                break;
            }
            if let Some(slot) = table.slots.remove(&key) {
                table.bytes -= slot.state.bytes();
                if slot.kept {
                    hub.forget_answer(key.0, key.1);
                }
            }
        }
    }
}

impl Slot {
    /// The same event again. `None`: it is to be handled again.
    fn asked_again(&mut self, socket: &Socket) -> Option<Decision> {
        match &mut self.state {
            State::Answered(answer) => Some(Decision::Answered(answer.clone())),
            State::Answering { late, .. } => {
                *late = Some(socket.membership());
                Some(Decision::Ignore)
            }
            State::Running { socket: asker, .. } => {
                *asker = socket.membership();
                Some(Decision::Ignore)
            }
            State::Failed => None,
        }
    }
}

/// `None`: the client has sent no `rid`.
fn key(socket: &Socket) -> Option<Key> {
    Some((Arc::clone(socket.rid()?), socket.namespace_index()))
}
