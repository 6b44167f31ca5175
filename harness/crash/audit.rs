//! What was said and what was heard, and whether the one follows from the other.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use parking_lot::Mutex;

use crate::Failure;

pub(crate) const ROOMS: usize = 4;

/// So many violations are told in full.
const TOLD: usize = 8;

/// Where a message belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Room(usize),
    /// Back to its publisher.
    Own,
}

impl Place {
    /// Everybody can tell, from who says it and its number.
    pub(crate) fn of(publisher: usize, number: u64) -> Self {
        match (publisher + 3 * number as usize) % (ROOMS + 1) {
            ROOMS => Self::Own,
            room => Self::Room(room),
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Room(room) => room_name(room),
            Self::Own => "own".to_owned(),
        }
    }
}

pub(crate) fn room_name(room: usize) -> String {
    format!("room {room}")
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sender {
    Publisher(usize),
    /// The ticker of this life of the server.
    Ticker(u32),
}

/// One publisher; its numbers begin with 1 and are acknowledged in order.
#[derive(Default)]
struct Publisher {
    /// The official client: what it sends may arrive more than once.
    official: bool,
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

/// A time in a room. By publisher: the first number that was begun after the join was acknowledged, and the last one
/// that was acknowledged before the leave was begun.
struct Stay {
    room: usize,
    from: Vec<u64>,
    to: Option<Vec<u64>>,
}

/// Something that was heard, and after how many deaths of the server.
struct Heard {
    sender: Sender,
    number: u64,
    deaths: u32,
}

/// One client as a listener.
pub(crate) struct Listener {
    /// For people.
    name: String,
    /// The publisher that it is, if it is one.
    own: Option<usize>,
    ticks: bool,
    stays: Vec<Stay>,
    heard: Vec<Heard>,
}

impl Listener {
    pub(crate) fn publisher(name: String, publisher: usize) -> Self {
        Self { name, own: Some(publisher), ticks: false, stays: Vec::new(), heard: Vec::new() }
    }

    /// Of rooms that it joins and leaves.
    pub(crate) fn wanderer(name: String) -> Self {
        Self { name, own: None, ticks: false, stays: Vec::new(), heard: Vec::new() }
    }

    /// Of these rooms, from before the first message to the end, and of the ticker.
    pub(crate) fn subscriber(name: String, rooms: &[usize]) -> Self {
        let stays = rooms.iter().map(|&room| Stay { room, from: Vec::new(), to: None }).collect();
        Self { name, own: None, ticks: true, stays, heard: Vec::new() }
    }
}

/// Everything that is known about a run.
pub(crate) struct Ledger {
    publishers: Vec<Publisher>,
    listeners: Vec<Mutex<Listener>>,
    deaths: AtomicU32,
    deliveries: AtomicUsize,
    recoveries: AtomicUsize,
    /// What is noticed on the way.
    noticed: Mutex<Vec<Violation>>,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Lost,
    Duplicated,
    OutOfOrder,
    NotRecovered,
    /// Anything else: a message of another room, a wrong body, a number that nobody has sent.
    Strange,
}

#[derive(Clone)]
struct Violation(Kind, String);

impl Ledger {
    /// First ours, then the official ones.
    pub(crate) fn new(ours: usize, official: usize, listeners: Vec<Listener>) -> Self {
        let publisher = |number| Publisher { official: number >= ours, ..Publisher::default() };
        Self {
            publishers: (0..ours + official).map(publisher).collect(),
            listeners: listeners.into_iter().map(Mutex::new).collect(),
            deaths: AtomicU32::new(0),
            deliveries: AtomicUsize::new(0),
            recoveries: AtomicUsize::new(0),
            noticed: Mutex::default(),
        }
    }

    /// The server dies now.
    pub(crate) fn death(&self) {
        self.deaths.fetch_add(1, SeqCst);
    }

    /// The next number of a publisher.
    pub(crate) fn begins(&self, publisher: usize) -> u64 {
        self.publishers[publisher].begun.fetch_add(1, SeqCst) + 1
    }

    pub(crate) fn acknowledged(&self, publisher: usize, number: u64) {
        let before = self.publishers[publisher].acknowledged.swap(number, SeqCst);
        if number != before + 1 {
            let text = format!("publisher {publisher}: {number} is acknowledged after {before}");
            self.notice(Kind::Strange, text);
        }
    }

    /// How many of all are not acknowledged yet.
    pub(crate) fn unsure(&self) -> u64 {
        (0..self.publishers.len()).map(|publisher| self.unsure_of(publisher)).sum()
    }

    /// How many of a publisher's are not acknowledged yet.
    pub(crate) fn unsure_of(&self, publisher: usize) -> u64 {
        let publisher = &self.publishers[publisher];
        publisher.begun.load(SeqCst).saturating_sub(publisher.acknowledged.load(SeqCst))
    }

    pub(crate) fn hears(&self, listener: usize, sender: Sender, number: u64) {
        if matches!(sender, Sender::Publisher(_)) {
            self.deliveries.fetch_add(1, SeqCst);
        }
        let heard = Heard { sender, number, deaths: self.deaths.load(SeqCst) };
        self.listeners[listener].lock().heard.push(heard);
    }

    /// A client is connected again, after so long.
    pub(crate) fn comes_back(&self, listener: usize, recovered: bool, away: Duration) {
        if recovered {
            self.recoveries.fetch_add(1, SeqCst);
            return;
        }
        let name = self.listeners[listener].lock().name.clone();
        let deaths = self.deaths.load(SeqCst);
        self.notice(
            Kind::NotRecovered,
            format!("{name} is not recovered after {away:.1?}, death {deaths} of the server"),
        );
    }

    /// The join of a room has been acknowledged. Official publishers, of whose beginnings we hear late, count only
    /// for who is there from the first message on.
    pub(crate) fn has_joined(&self, listener: usize, room: usize) {
        let from = self.publishers.iter().map(|publisher| match publisher.official {
            true => u64::MAX,
            false => publisher.begun.load(SeqCst) + 1,
        });
        self.listeners[listener].lock().stays.push(Stay { room, from: from.collect(), to: None });
    }

    /// A room is about to be left.
    pub(crate) fn leaves(&self, listener: usize, room: usize) {
        let to = self.publishers.iter().map(|publisher| publisher.acknowledged.load(SeqCst)).collect();
        let mut listener = self.listeners[listener].lock();
        let stay = listener.stays.iter_mut().rfind(|stay| stay.room == room && stay.to.is_none());
        if let Some(stay) = stay {
            stay.to = Some(to);
        }
    }

    pub(crate) fn notice(&self, kind: Kind, text: String) {
        self.noticed.lock().push(Violation(kind, text));
    }

    /// The last number of the last ticker that a listener has received. Every listener that stays long enough receives it.
    pub(crate) fn last_tick(&self) -> (u32, u64) {
        self.highest_ticks().pop_last().unwrap_or_default()
    }

    fn highest_ticks(&self) -> BTreeMap<u32, u64> {
        let mut highest = BTreeMap::new();
        for listener in &self.listeners {
            for heard in &listener.lock().heard {
                if let Sender::Ticker(life) = heard.sender {
                    let last = highest.entry(life).or_default();
                    *last = heard.number.max(*last);
                }
            }
        }
        highest
    }

    /// Checks all logs. Of the last ticker, what comes after `last_tick` is not asked for.
    pub(crate) fn check(&self, last_tick: (u32, u64)) -> Verdict {
        let load = |count: &AtomicU64| count.load(SeqCst);
        let mut verdict = Verdict {
            published: self.publishers.iter().map(|publisher| load(&publisher.begun)).sum(),
            acknowledged: self.publishers.iter().map(|publisher| load(&publisher.acknowledged)).sum(),
            deliveries: self.deliveries.load(SeqCst),
            recoveries: self.recoveries.load(SeqCst),
            repeated: 0,
            violations: self.noticed.lock().clone(),
        };
        if verdict.acknowledged == 0 || last_tick.1 == 0 {
            verdict.add(Kind::Strange, "nothing was said at all".into());
        }
        if verdict.acknowledged < verdict.published {
            let text = format!("{} are not acknowledged", verdict.published - verdict.acknowledged);
            verdict.add(Kind::Strange, text);
        }
        let mut ticks = self.highest_ticks();
        ticks.insert(last_tick.0, last_tick.1);
        for listener in &self.listeners {
            let listener = listener.lock();
            self.check_what_came(&listener, &mut verdict);
            self.check_what_did_not(&listener, &mut verdict);
            if listener.ticks {
                check_ticks(&listener, &ticks, &mut verdict);
            }
        }
        verdict
    }

    /// Nothing twice, nothing out of order, nothing of somebody else's.
    fn check_what_came(&self, listener: &Listener, verdict: &mut Verdict) {
        let mut seen = HashSet::new();
        let mut last = BTreeMap::new();
        for heard in &listener.heard {
            let Sender::Publisher(number) = heard.sender else { continue };
            let Some(publisher) = self.publishers.get(number).filter(|publisher| {
                listener.may_hear(number, heard.number) && heard.number <= publisher.begun.load(SeqCst)
            }) else {
                verdict.add(Kind::Strange, listener.tells(heard, "that is not for it"));
                continue;
            };
            if !seen.insert((number, heard.number)) {
                match publisher.official {
                    true => verdict.repeated += 1,
                    false => verdict.add(Kind::Duplicated, listener.tells(heard, "once more")),
                }
                continue;
            }
            let last = last.entry(number).or_insert((0, 0));
            if heard.number < last.0 {
                let (before, deaths) = *last;
                let text = format!("behind {before}, which came after death {deaths}");
                verdict.add(Kind::OutOfOrder, listener.tells(heard, &text));
            }
            *last = (*last).max((heard.number, heard.deaths));
        }
    }

    /// Everything that was acknowledged and due.
    fn check_what_did_not(&self, listener: &Listener, verdict: &mut Verdict) {
        for (number, publisher) in self.publishers.iter().enumerate() {
            let of_it = listener.heard.iter().filter(|heard| heard.sender == Sender::Publisher(number));
            let heard: BTreeMap<u64, u32> = of_it.map(|heard| (heard.number, heard.deaths)).collect();
            for due in 1..=publisher.acknowledged.load(SeqCst) {
                if listener.must_hear(number, due) && !heard.contains_key(&due) {
                    let before = heard.range(..due).next_back();
                    let after = heard.range(due..).next();
                    verdict.add(
                        Kind::Lost,
                        format!(
                            "{} has not heard {due} of publisher {number} ({}); its neighbours (number, deaths \
                             before it came): {before:?}, {after:?}",
                            listener.name,
                            Place::of(number, due).name()
                        ),
                    );
                }
            }
        }
    }
}

impl Listener {
    fn may_hear(&self, publisher: usize, number: u64) -> bool {
        match Place::of(publisher, number) {
            Place::Own => self.own == Some(publisher),
            Place::Room(room) => self.stays.iter().any(|stay| stay.room == room),
        }
    }

    fn must_hear(&self, publisher: usize, number: u64) -> bool {
        let room = match Place::of(publisher, number) {
            Place::Own => return self.own == Some(publisher),
            Place::Room(room) => room,
        };
        self.stays.iter().any(|stay| {
            let from = stay.from.get(publisher).copied().unwrap_or(1);
            let to = stay.to.as_ref().and_then(|to| to.get(publisher)).copied().unwrap_or(u64::MAX);
            stay.room == room && (from..=to).contains(&number)
        })
    }

    fn tells(&self, heard: &Heard, what: &str) -> String {
        let Heard { sender, number, deaths } = heard;
        format!("{} hears {number} of {sender:?} {what}, after death {deaths} of the server", self.name)
    }
}

/// What one has heard of a ticker, all hear who were there, without a gap.
fn check_ticks(listener: &Listener, highest: &BTreeMap<u32, u64>, verdict: &mut Verdict) {
    let mut heard = BTreeMap::<u32, Vec<&Heard>>::new();
    let mut last = None;
    for tick in &listener.heard {
        let Sender::Ticker(life) = tick.sender else { continue };
        let this = Some((life, tick.number));
        if this == last {
            verdict.add(Kind::Duplicated, listener.tells(tick, "once more"));
        } else if this < last {
            verdict.add(Kind::OutOfOrder, listener.tells(tick, &format!("behind {last:?}")));
        }
        last = this.max(last);
        heard.entry(life).or_default().push(tick);
    }
    let began = heard.first_key_value().map(|(&life, ticks)| (life, ticks[0].number));
    for (&life, &until) in highest {
        let first = match began {
            Some((first, number)) if life == first => number,
            Some((first, _)) if life < first => continue,
            _ => 1,
        };
        let numbers = heard.get(&life).map(|ticks| ticks.iter().map(|tick| tick.number).collect());
        let numbers: HashSet<u64> = numbers.unwrap_or_default();
        for number in (first..=until).filter(|number| !numbers.contains(number)) {
            let text =
                format!("{} has not heard {number} of {until} of the ticker of life {life}", listener.name);
            verdict.add(Kind::Lost, text);
        }
    }
}

/// What the audit has found.
pub(crate) struct Verdict {
    published: u64,
    acknowledged: u64,
    deliveries: usize,
    recoveries: usize,
    /// What official publishers have sent again, which they may.
    repeated: usize,
    violations: Vec<Violation>,
}

impl Verdict {
    fn add(&mut self, kind: Kind, text: String) {
        self.violations.push(Violation(kind, text));
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.violations.iter().filter(|violation| violation.0 == kind).count()
    }

    /// # Errors
    /// The first things that were wrong.
    pub(crate) fn result(&self) -> Result<(), Failure> {
        if self.violations.is_empty() {
            return Ok(());
        }
        let first = |kind| self.violations.iter().filter(move |violation| violation.0 == kind).take(TOLD);
        let kinds = [Kind::Strange, Kind::NotRecovered, Kind::Duplicated, Kind::OutOfOrder, Kind::Lost];
        let told: Vec<&str> = kinds.into_iter().flat_map(first).map(|Violation(_, text)| &**text).collect();
        Err(format!("{} violations, among them:\n{}", self.violations.len(), told.join("\n")).into())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} recoveries, {} published, {} acknowledged, {} deliveries (official publishers repeated {}), {} lost, {} \
             duplicated, {} out of order, {} not recovered",
            self.recoveries,
            self.published,
            self.acknowledged,
            self.deliveries,
            self.repeated,
            self.count(Kind::Lost),
            self.count(Kind::Duplicated),
            self.count(Kind::OutOfOrder),
            self.count(Kind::NotRecovered),
        )?;
        match self.count(Kind::Strange) {
            0 => Ok(()),
            strange => write!(f, ", {strange} strange"),
        }
    }
}
