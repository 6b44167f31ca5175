//! Exactly once: what the clients that send again what was not acknowledged were answered.
//!
//! A client of ours in `retries` mode says who it is in each CONNECT (`rid`), sends one event of its queue at a time,
//! and gives the next one a higher ack id. So it is enough to remember, for each client and namespace, the last id
//! and its answer:
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
    /// The tries that were answered while this thread gathers.
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
    /// This try: what becomes of it is told under its number, so that one that was given up cannot end the next.
    Handle(u64),
    /// It has been handled, and this is the answer.
    Answered(Encoded),
    /// It is being handled, or is older than the last one.
    Ignore,
}

/// The answers of all clients, bounded in count and bytes: those that were not asked for the longest time go first.
pub(crate) struct Retried {
    table: Mutex<Table>,
    max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Table {
    slots: HashMap<Key, Slot>,
    bytes: usize,
    /// Counts the touches.
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

/// It holds no socket, whose last handle would be dropped, with the application's data, while the table is locked.
enum State {
    /// Its handler runs, or somebody has taken its acknowledgement away. The answer is for this socket.
    Running {
        socket: Arc<Membership>,
        taken: bool,
    },
    /// It is answered, and the answer is not with the hub yet but with what its handler gathers; who asks meanwhile
    /// gets it then.
    Answering {
        answer: Encoded,
        late: Option<Arc<Membership>>,
    },
    Answered(Encoded),
    /// Nobody has acknowledged it, and nobody will.
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
            // So many handlers are being waited for; the client asks again.
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

    /// Somebody has taken the right to acknowledge away from the handler.
    pub(crate) fn taken(&self, socket: &Socket, attempt: u64) {
        let Some(key) = key(socket) else { return };
        if let Some(slot) = self.table.lock().slots.get_mut(&key)
            && let State::Running { taken, .. } = &mut slot.state
            && slot.attempt == attempt
        {
            *taken = true;
        }
    }

    /// The answer is here: it is remembered, in the same commit as what the handler has emitted before, and sent
    /// behind that to the connection that has asked last. An event that is not its client's last one any more needs
    /// none.
    pub(crate) fn answered(&self, socket: &Socket, attempt: u64, answer: &Encoded) -> Result<(), EmitError> {
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
            namespace: socket.namespace().name().into(),
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

    /// What this thread gathered is on its way to the hub, and with it the answers of these tries.
    pub(crate) fn end_gathered(&self) {
        for (socket, attempt) in GATHERED.with_borrow_mut(std::mem::take) {
            self.end(&socket, attempt, false);
        }
    }

    /// The handler has returned, and what it gathered is on its way; or whoever took the acknowledgement has thrown
    /// it away (`thrown`). When it will not be answered any more, the next try is handled.
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

    /// Forgets the oldest, some at a time, when there are too many; not those that are still to be answered. The hub
    /// hears of it under the lock, so that it hears of each client's answers in their order; it never asks for the
    /// lock itself.
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

/// `None`: a socket of a client that does not say who it is.
fn key(socket: &Socket) -> Option<Key> {
    Some((Arc::clone(socket.rid()?), socket.namespace_index()))
}
