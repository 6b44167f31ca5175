//! Who said what, what became of it, and whether that was right.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;

use crate::Failure;

/// The whole truth; it outlives the servers.
pub(crate) struct Ledger {
    senders: Vec<Mutex<Sender>>,
    rooms: usize,
    heard: AtomicUsize,
    wrongs: Mutex<Vec<String>>,
}

/// One client as a sender.
#[derive(Default)]
struct Sender {
    /// Numbers in the order in which servers heard them.
    heard: Vec<u64>,
    acknowledged: Vec<u64>,
    /// What was said and not acknowledged in time.
    unsure: usize,
}

/// One client as a listener: for each sender, the last place in its sender's order.
#[derive(Default)]
pub(crate) struct Listener {
    last: HashMap<usize, usize>,
}

impl Ledger {
    pub(crate) fn new(senders: usize, rooms: usize) -> Self {
        let senders = (0..senders).map(|_| Mutex::default()).collect();
        Self { senders, rooms, heard: AtomicUsize::new(0), wrongs: Mutex::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.senders.len()
    }

    pub(crate) fn room_of(&self, client: usize) -> String {
        format!("room {}", client % self.rooms)
    }

    pub(crate) fn members(&self, client: usize) -> impl Iterator<Item = usize> {
        (client % self.rooms..self.senders.len()).step_by(self.rooms)
    }

    /// A server hears a message and passes it on, as one step: a sender's earlier connection may still be talking.
    pub(crate) fn hears(&self, sender: usize, number: u64, pass_on: impl FnOnce(usize)) {
        let Some(sender) = self.senders.get(sender) else {
            return self.wrong("a sender that is none".into());
        };
        let mut sender = sender.lock();
        sender.heard.push(number);
        pass_on(sender.heard.len());
    }

    pub(crate) fn acknowledged(&self, sender: usize, number: u64, answer: Option<u64>) {
        if answer != Some(number) {
            self.wrong(format!("client {sender} got {answer:?} as the answer to {number}"));
        }
        self.senders[sender].lock().acknowledged.push(number);
    }

    pub(crate) fn unsure(&self, sender: usize) {
        self.senders[sender].lock().unsure += 1;
    }

    /// A client has heard a sender.
    pub(crate) fn listens(
        &self,
        client: usize,
        listener: &mut Listener,
        room: &str,
        sender: usize,
        place: usize,
    ) {
        self.heard.fetch_add(1, Relaxed);
        if room != self.room_of(client) {
            self.wrong(format!("client {client} heard {room:?}"));
        }
        let last = listener.last.insert(sender, place).unwrap_or(0);
        if place <= last {
            self.wrong(format!("client {client} heard {place} of client {sender} after {last}"));
        }
    }

    pub(crate) fn wrong(&self, what: String) {
        self.wrongs.lock().push(what);
    }

    /// # Errors
    /// The first things that were wrong.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let (mut acknowledged, mut unsure, mut extra) = (0, 0, 0);
        for (name, sender) in self.senders.iter().enumerate() {
            let sender = sender.lock();
            acknowledged += sender.acknowledged.len();
            unsure += sender.unsure;
            extra += sender.heard.len().saturating_sub(sender.acknowledged.len());
            self.check(name, &sender);
        }
        let heard = self.heard.load(Relaxed);
        println!("{acknowledged} messages acknowledged, {heard} times heard by others");
        println!("{unsure} not acknowledged, of which {extra} had arrived all the same");
        let wrongs = self.wrongs.lock();
        if acknowledged == 0 {
            return Err("nothing was acknowledged at all".into());
        }
        if wrongs.is_empty() {
            return Ok(());
        }
        let first: Vec<&str> = wrongs.iter().take(10).map(String::as_str).collect();
        Err(format!("{} things were wrong, among them:\n{}", wrongs.len(), first.join("\n")).into())
    }

    fn check(&self, name: usize, sender: &Sender) {
        let mut place = HashMap::new();
        for (at, number) in sender.heard.iter().enumerate() {
            if place.insert(number, at).is_some() {
                self.wrong(format!("{number} of client {name} arrived twice"));
            }
        }
        let mut numbers = sender.acknowledged.clone();
        numbers.sort_unstable();
        let places: Vec<Option<&usize>> = numbers.iter().map(|number| place.get(number)).collect();
        for (number, found) in numbers.iter().zip(&places) {
            if found.is_none() {
                self.wrong(format!("{number} of client {name} was acknowledged and never arrived"));
            }
        }
        if !places.is_sorted() {
            self.wrong(format!("acknowledged messages of client {name} arrived in another order"));
        }
    }
}
