//! Exactly once: what the clients that send again what was not acknowledged were answered.
//!
//! A client of ours in `retries` mode says who it is in each CONNECT (`rid`), sends one event of its queue at a time, and
//! gives the next one a higher ack id. So it is enough to remember, for each client and namespace, the last id and its
//! answer:
//!
//! ```text
//!   higher id ─► Running ──── ack ─────────────► Answered      the same id again: the same answer
//!                 │  ▲ the same id again: its answer goes to the new connection
//!                 │ handler returned, and nobody can acknowledge any more
//!                 └─────────────────────────────► forgotten     the same id again: handled again
//! ```

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use super::{
    config::Config,
    hub::{Command, HubHandle},
    socket::Socket,
    store::KeptAnswer,
};
use crate::{proto::socket::Encoded, sys::sync::Mutex};

/// What an answer takes beside its bytes.
const ANSWER_COST: usize = 512;

/// The longest `rid` of a client.
pub(super) const RID_MAX: usize = 64;

/// A client's namespace.
type Key = (Arc<str>, usize);

/// What is to be done with an event of such a client.
pub(super) enum Turn {
    Handle,
    /// It has been handled, and this is the answer.
    Answered(Encoded),
    /// It is being handled, or is older than the last one.
    Ignore,
}

/// The answers of all clients, bounded in count and bytes: the one that was not asked for the longest time goes first.
pub(super) struct Retried {
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
    state: State,
    touched: u64,
}

enum State {
    /// Its handler runs, or somebody has taken its acknowledgement away. The answer is for this socket.
    Running {
        socket: Socket,
        taken: bool,
    },
    Answered(Encoded),
}

impl State {
    fn bytes(&self) -> usize {
        match self {
            Self::Running { .. } => 0,
            Self::Answered(answer) => ANSWER_COST + answer.bytes().len(),
        }
    }
}

impl Retried {
    /// With what an earlier life has kept.
    pub(super) fn new(config: &Config, names: &[Arc<str>], kept: Vec<KeptAnswer>) -> Self {
        let bytes_max = config.connection_state_recovery.as_ref().map_or(0, |options| options.max_bytes);
        let mut table = Table::default();
        for answer in kept {
            let Some(namespace) = names.iter().position(|name| *name == answer.namespace) else { continue };
            let state = State::Answered(Encoded::from_bytes(answer.frames));
            table.bytes += state.bytes();
            table.slots.insert((answer.client, namespace), Slot { id: answer.id, state, touched: 0 });
        }
        Self { table: Mutex::new(table), max: config.max_connections.saturating_mul(2), bytes_max }
    }

    /// An event has come.
    pub(super) fn begin(&self, socket: &Socket, id: u64) -> Turn {
        let Some(key) = key(socket) else { return Turn::Handle };
        let mut table = self.table.lock();
        table.clock += 1;
        let touched = table.clock;
        let running = State::Running { socket: socket.clone(), taken: false };
        let before = match table.slots.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot { id, state: running, touched });
                0
            }
            Entry::Occupied(mut occupied) => {
                let slot = occupied.get_mut();
                slot.touched = touched;
                if id < slot.id {
                    return Turn::Ignore;
                }
                if id == slot.id {
                    return match &mut slot.state {
                        State::Answered(answer) => Turn::Answered(answer.clone()),
                        State::Running { socket: asker, .. } => {
                            *asker = socket.clone();
                            Turn::Ignore
                        }
                    };
                }
                let before = slot.state.bytes();
                *slot = Slot { id, state: running, touched };
                before
            }
        };
        table.bytes -= before;
        self.evict(table, &socket.namespace().0.hub);
        Turn::Handle
    }

    /// Somebody has taken the right to acknowledge away from the handler.
    pub(super) fn taken(&self, socket: &Socket, id: u64) {
        let Some(key) = key(socket) else { return };
        if let Some(Slot { id: current, state: State::Running { taken, .. }, .. }) =
            self.table.lock().slots.get_mut(&key)
            && *current == id
        {
            *taken = true;
        }
    }

    /// The answer is here. Gives the socket that it is for now. `None`: the event is not the client's last one any more.
    pub(super) fn answered(&self, socket: &Socket, id: u64, answer: &Encoded) -> Option<Socket> {
        let key = key(socket)?;
        let mut table = self.table.lock();
        let slot = table.slots.get_mut(&key).filter(|slot| slot.id == id)?;
        let State::Running { socket: asker, .. } = &slot.state else { return None };
        let asker = asker.clone();
        slot.state = State::Answered(answer.clone());
        table.bytes += ANSWER_COST + answer.bytes().len();
        let hub = &socket.namespace().0.hub;
        // In the same commit as what the handler has emitted before, and in front of the answer itself.
        hub.remember(KeptAnswer {
            client: Arc::clone(&key.0),
            namespace: socket.namespace().name().into(),
            id,
            frames: answer.bytes().clone(),
        });
        self.evict(table, hub);
        Some(asker)
    }

    /// The handler has returned, or whoever took the acknowledgement has thrown it away (`thrown`): when it will not be
    /// answered any more, the next try is handled.
    pub(super) fn end(&self, socket: &Socket, id: u64, thrown: bool) {
        let Some(key) = key(socket) else { return };
        let mut table = self.table.lock();
        if let Entry::Occupied(occupied) = table.slots.entry(key)
            && let Slot { id: current, state: State::Running { taken, .. }, .. } = occupied.get()
            && *current == id
            && (thrown || !taken)
        {
            occupied.remove();
        }
    }

    fn evict(&self, mut table: impl std::ops::DerefMut<Target = Table>, hub: &HubHandle) {
        let mut gone = Vec::new();
        while table.slots.len() > self.max || table.bytes > self.bytes_max {
            let idle = table.slots.iter().filter(|(_, slot)| matches!(slot.state, State::Answered(_)));
            let Some(key) = idle.min_by_key(|(_, slot)| slot.touched).map(|(key, _)| key.clone()) else {
                break;
            };
            if let Some(slot) = table.slots.remove(&key) {
                table.bytes -= slot.state.bytes();
            }
            gone.push(key);
        }
        drop(table);
        for (client, namespace) in gone {
            hub.send(Command::ForgetAnswer(client, namespace));
        }
    }
}

/// `None`: a socket of a client that does not say who it is.
fn key(socket: &Socket) -> Option<Key> {
    Some((Arc::clone(socket.rid()?), socket.namespace_index()))
}
