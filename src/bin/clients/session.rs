//! A connection to the chat, and the state that the programs keep for it.
//!
//! ```text
//!   send ──► request.ready ──► emit ──► show(Said)          the program's thread
//!   events thread: arrival ──► log, rooms, tally ──► show   the library's thread
//!                  ack     ──► one outstanding less
//! ```
//! Rooms survive a connection loss: their joins are emitted again at that moment, so they are first in the
//! library's offline buffer.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use serde_json::json;
use tinysio::{
    chat::events,
    client::{Builder, Client, CloseReason, ConnectionState, Delivery, Error, OwnedArgs, Socket},
};

use super::{
    arrival::Arrival,
    common::exit::Failure,
    line::Line,
    notice::Notice,
    request::{Ready, Request},
    stop::Stop,
    tally::Tally,
};

/// Number of kept arrivals; older ones are dropped.
const MAX_LOG: usize = 1_000;

/// How long an answer is awaited: longer than any program runs, because events sent offline may wait for hours.
const ACK_TIME: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How often a wait checks the library's state, because not all changes are reported.
const LOOK: Duration = Duration::from_millis(100);

/// Attempts of the first connection before hints are printed.
const FIRST_ATTEMPTS: u32 = 3;

/// Receives notices. Called on the library's thread and on the program's.
pub(crate) type Show = Box<dyn Fn(&Notice<'_>) + Send + Sync>;

/// A connection to the chat. Dropping it disconnects.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    socket: Socket,
    shared: Arc<Shared>,
    stop: Stop,
}

struct Shared {
    url: String,
    /// Reconnections before it gives up; `None`: no limit.
    max_attempts: Option<u32>,
    show: Show,
    state: Mutex<State>,
    changed: Condvar,
    /// Held from an emit until its output, so that the answer is not printed before it.
    order: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Arrivals, numbered from 0.
    log: VecDeque<Arrival>,
    arrived: u64,
    rooms: BTreeSet<String>,
    current_room: Option<String>,
    /// Number of sent and unacknowledged events.
    outstanding: usize,
    /// Failed attempts since [`Session::first_connect`] began.
    failures: u32,
    /// Not connected yet: the first attempts are counted separately.
    first: bool,
    /// Connected, and reported as such.
    up: bool,
    /// The next loss must queue the rooms' joins before other events.
    rejoins: bool,
    connected_before: bool,
    /// A final disconnect has begun: no room is joined again.
    leaving: bool,
    tally: Tally,
}

impl Session {
    /// A new session, not connected. Fails when the URL or a flag is of no use.
    pub(crate) fn new(
        builder: Builder,
        url: &str,
        max_attempts: Option<u32>,
        stop: &Stop,
        show: Show,
    ) -> Result<Self, Failure> {
        let client = builder.reconnection_attempts(max_attempts).build();
        let client = client.map_err(|error| Failure::Usage(error.to_string()))?;
        let socket = client.socket(client.namespace());
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            max_attempts,
            show,
            state: Mutex::default(),
            changed: Condvar::new(),
            order: Mutex::new(()),
        });
        let waiting = Arc::downgrade(&shared);
        stop.on_set(move || {
            if let Some(shared) = waiting.upgrade() {
                shared.change(|_| ());
            }
        });
        let session = Self { client, socket, shared, stop: stop.clone() };
        session.watch_events();
        session.watch_attempts();
        Ok(session)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.socket.is_connected()
    }

    /// Whether it is disconnected and makes no attempts any more.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.client.status().state == ConnectionState::Disconnected
    }

    pub(crate) fn rooms(&self) -> Vec<String> {
        self.shared.state.lock().rooms.iter().cloned().collect()
    }

    pub(crate) fn current_room(&self) -> Option<String> {
        self.shared.state.lock().current_room.clone()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.shared.state.lock().tally.clone()
    }

    pub(crate) fn was_ever_connected(&self) -> bool {
        self.shared.state.lock().connected_before
    }

    pub(crate) fn max_attempts(&self) -> Option<u32> {
        self.shared.max_attempts
    }

    /// Prints a line in order with the other output.
    pub(crate) fn say(&self, line: &Line) {
        let _order = self.shared.order.lock();
        (self.shared.show)(&Notice::Said(line));
    }

    fn watch_events(&self) {
        let shared = self.shared.clone();
        self.socket.on_any(move |_, event| shared.arrived(Arrival::new(event)));
        let shared = self.shared.clone();
        self.socket.on_connect(move |_| shared.connected());
        let shared = self.shared.clone();
        self.socket.on_disconnect(move |socket, reason| shared.disconnected(socket, reason));
        let shared = self.shared.clone();
        self.socket.on_connect_error(move |_, error| shared.connect_error(error));
    }

    fn watch_attempts(&self) {
        let shared = self.shared.clone();
        self.client.on_reconnect_scheduled(move |_, attempt, delay| shared.scheduled(attempt, delay));
        let shared = self.shared.clone();
        self.client.on_reconnect_attempt(move |_, attempt| shared.attempt(attempt));
        let shared = self.shared.clone();
        self.client.on_reconnect_failed(move |_| {
            shared.show(&Notice::GaveUp { attempts: shared.max_attempts });
            shared.change(|_| ());
        });
    }

    /// Connects. Returns `false` after three failed attempts; the remaining attempts of the backoff continue in
    /// the background.
    pub(crate) fn first_connect(&self) -> bool {
        self.shared.change(|state| (state.first, state.failures) = (true, 0));
        self.shared.show(&Notice::Connecting { attempt: 1, of: FIRST_ATTEMPTS });
        if let Err(error) = self.client.start() {
            self.shared.connect_error(&error);
            return false;
        }
        let mut over = |state: &State| {
            let failed = state.failures > 0 && self.is_at_rest();
            (state.up || failed || state.failures >= FIRST_ATTEMPTS).then_some(())
        };
        self.wait(Duration::MAX, true, &mut over);
        self.is_connected()
    }

    /// Sends and prints it, or prints why not.
    pub(crate) fn send(&self, request: &Request) -> bool {
        let ready = match request.ready() {
            Ok(ready) => ready,
            Err(refusal) => {
                self.say(&Line::bad(refusal.to_string()));
                return false;
            }
        };
        let _order = self.shared.order.lock();
        if !self.is_connected() {
            self.shared.rejoin(&self.socket);
        }
        let line = match self.emit(&ready) {
            Ok(Delivery::Buffered) => Line::warning(format!(
                "Not connected to server: queued, to be sent when the connection is back ({} waiting)",
                self.outstanding()
            )),
            Ok(_) => ready.sent,
            Err(Error::NotConnected) => Line::bad("Not connected to server"),
            Err(error) => Line::bad(format!("{}: {error}", request.failure())),
        };
        (self.shared.show)(&Notice::Said(&line));
        line.tone != super::line::Tone::Bad
    }

    fn emit(&self, ready: &Ready) -> Result<Delivery, Error> {
        let shared = self.shared.clone();
        let what = ready.sent.text.clone();
        let sent = Instant::now();
        let done =
            move |_: &Socket, result: Result<OwnedArgs, Error>| shared.acknowledged(sent, &what, result);
        self.shared.change(|state| state.outstanding += 1);
        let delivery = match &ready.payload {
            Some(payload) => self.socket.emit_with_callback(ready.event, payload, ACK_TIME, done),
            None => self.socket.emit_with_callback(ready.event, (), ACK_TIME, done),
        };
        self.shared.change(|state| match &delivery {
            Ok(_) => state.tally.sent += 1,
            Err(_) => state.outstanding -= 1,
        });
        delivery
    }

    /// Sends and waits for the server's answer or refusal.
    pub(crate) fn confirm(&self, request: &Request, timeout: Duration) -> Result<Arrival, String> {
        let from = self.mark();
        if !self.send(request) {
            return Err("it was not sent".to_owned());
        }
        self.answer(request, from, timeout)
    }

    /// Sends messages 1 to `count`, and waits until each is confirmed.
    pub(crate) fn confirm_messages(&self, text: &str, count: u32, timeout: Duration) -> Result<(), String> {
        for number in 1..=count {
            self.confirm(&Request::message(&format!("{text} {number}")), timeout)?;
        }
        Ok(())
    }

    /// Waits for the answer to a request sent after `from`.
    pub(crate) fn answer(&self, request: &Request, from: u64, timeout: Duration) -> Result<Arrival, String> {
        let found = self.expect(from, timeout, |arrival| {
            let me = self.socket.id().unwrap_or_default();
            arrival.event == events::ERROR || request.is_answered_by(arrival, &me)
        });
        match found {
            Some(arrival) if arrival.event == events::ERROR => Err(arrival.text("message")),
            Some(arrival) => Ok(arrival),
            None if self.stop.is_set() => Err("interrupted".to_owned()),
            None => Err(format!("no answer within {timeout:?}")),
        }
    }

    /// Later arrivals have at least this number.
    pub(crate) fn mark(&self) -> u64 {
        self.shared.state.lock().arrived
    }

    /// Waits for an arrival with at least this number.
    pub(crate) fn expect(
        &self,
        from: u64,
        timeout: Duration,
        mut wanted: impl FnMut(&Arrival) -> bool,
    ) -> Option<Arrival> {
        let mut next = from;
        self.wait(timeout, true, &mut |state| {
            let oldest = state.arrived - state.log.len() as u64;
            let skipped = usize::try_from(next.saturating_sub(oldest)).unwrap_or(usize::MAX);
            next = state.arrived;
            state.log.iter().skip(skipped).find(|arrival| wanted(arrival)).cloned()
        })
    }

    /// Waits until connected. `false`: not within this time, or no more attempts.
    pub(crate) fn wait_connected(&self, timeout: Duration) -> bool {
        self.wait(timeout, true, &mut |state| (state.up || self.is_at_rest()).then_some(()));
        self.is_connected()
    }

    /// Waits until disconnected.
    pub(crate) fn wait_disconnected(&self, timeout: Duration) -> bool {
        self.wait(timeout, true, &mut |state| (!state.up).then_some(())).is_some()
    }

    /// Waits until no attempts are made any more.
    pub(crate) fn wait_at_rest(&self, timeout: Duration) -> bool {
        self.wait(timeout, true, &mut |_| self.is_at_rest().then_some(())).is_some()
    }

    /// Waits until each sent event is acknowledged or cannot be any more, or the program should stop. Returns
    /// the number of unacknowledged events.
    pub(crate) fn settle(&self, timeout: Duration) -> usize {
        let over = |state: &State| (state.outstanding == 0 || self.is_at_rest()).then_some(());
        self.wait(timeout, false, &mut { over });
        self.outstanding()
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.shared.state.lock().outstanding
    }

    /// Waits until at most this number is unacknowledged.
    pub(crate) fn wait_outstanding(&self, at_most: usize, timeout: Duration) {
        self.wait(timeout, true, &mut |state| (state.outstanding <= at_most).then_some(()));
    }

    /// Disconnects finally, after all sent events are delivered.
    pub(crate) fn leave(&self) {
        self.shared.change(|state| state.leaving = true);
        let was_connected = self.is_connected();
        self.client.disconnect();
        if was_connected {
            // Only to print it; the events thread may be behind.
            let _ = self.client.wait_timeout(Duration::from_millis(500));
            self.wait(Duration::from_millis(500), false, &mut |state| (!state.leaving).then_some(()));
        }
    }

    /// Checks the state at each change, and periodically for changes of the library.
    fn wait<T>(
        &self,
        timeout: Duration,
        stoppable: bool,
        look: &mut dyn FnMut(&State) -> Option<T>,
    ) -> Option<T> {
        let begun = Instant::now();
        let mut state = self.shared.state.lock();
        loop {
            if let Some(found) = look(&state) {
                return Some(found);
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() || (stoppable && self.stop.is_set()) {
                return None;
            }
            self.shared.changed.wait_for(&mut state, left.min(LOOK));
        }
    }
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.changed.notify_all();
        result
    }

    fn show(&self, notice: &Notice<'_>) {
        let _order = self.order.lock();
        (self.show)(notice);
    }

    fn connected(&self) {
        let again = self.change(|state| std::mem::replace(&mut state.connected_before, true));
        self.show(&Notice::Connected { url: &self.url, again });
        self.change(|state| (state.up, state.rejoins, state.first) = (true, true, false));
    }

    fn disconnected(&self, socket: &Socket, reason: CloseReason) {
        let _order = self.order.lock();
        (self.show)(&Notice::Disconnected(reason));
        self.rejoin(socket);
        self.change(|state| (state.up, state.leaving) = (false, false));
    }

    /// Once for each loss: queues the joins of all rooms before later events. `order` is held.
    fn rejoin(&self, socket: &Socket) {
        let rooms = self.change(|state| match std::mem::take(&mut state.rejoins) && !state.leaving {
            true => state.rooms.clone(),
            false => BTreeSet::new(),
        });
        for room in rooms {
            if let Err(error) = socket.emit(events::JOIN_ROOM, json!({ "room": room })) {
                (self.show)(&Notice::Said(&Line::bad(format!("Failed to join room: {error}"))));
            }
        }
    }

    fn connect_error(&self, error: &Error) {
        self.show(&Notice::ConnectError(error));
        self.change(|state| {
            state.failures += 1;
            state.tally.note(error.to_string());
        });
    }

    fn scheduled(&self, attempt: u32, delay: Duration) {
        let first_failures = self.change(|state| state.first.then_some(state.failures));
        match first_failures {
            Some(failures) if failures < FIRST_ATTEMPTS => self.show(&Notice::ConnectingIn(delay)),
            // Now the program may print.
            Some(FIRST_ATTEMPTS) => {}
            _ => self.show(&Notice::Scheduled { attempt, of: self.max_attempts, delay }),
        }
    }

    fn attempt(&self, attempt: u32) {
        let is_first = self.change(|state| state.first && state.failures < FIRST_ATTEMPTS);
        self.show(&match is_first {
            true => Notice::Connecting { attempt: attempt + 1, of: FIRST_ATTEMPTS },
            false => Notice::Attempt { attempt, of: self.max_attempts },
        });
    }

    fn arrived(&self, arrival: Arrival) {
        self.show(&Notice::Arrived(&arrival));
        self.change(|state| {
            state.note_room(&arrival);
            state.tally.received += 1;
            match arrival.event.as_str() {
                events::MESSAGE_RECEIVED => state.tally.confirmed += 1,
                events::ERROR => {
                    state.tally.refused += 1;
                    state.tally.note(arrival.text("message"));
                }
                _ => {}
            }
            if state.log.len() == MAX_LOG {
                state.log.pop_front();
            }
            state.log.push_back(arrival);
            state.arrived += 1;
        });
    }

    fn acknowledged(&self, sent: Instant, what: &str, result: Result<OwnedArgs, Error>) {
        if let Err(error) = &result
            && !matches!(error, Error::Closed)
        {
            self.show(&Notice::Said(&Line::warning(format!("Not confirmed ({error}): {what}"))));
        }
        self.change(|state| {
            state.outstanding -= 1;
            match result {
                Ok(_) => {
                    state.tally.acknowledged += 1;
                    state.tally.round_trips.push(sent.elapsed());
                }
                Err(error) => {
                    state.tally.unconfirmed += 1;
                    state.tally.note(error.to_string());
                }
            }
        });
    }
}

impl State {
    fn note_room(&mut self, arrival: &Arrival) {
        let Some(room) = arrival.field("room").get::<String>() else { return };
        match arrival.event.as_str() {
            events::ROOM_JOINED => {
                self.rooms.insert(room.clone());
                self.current_room = Some(room);
            }
            events::ROOM_LEFT => {
                self.rooms.remove(&room);
                self.current_room.take_if(|current| *current == room);
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("url", &self.url).field("state", &self.state).finish_non_exhaustive()
    }
}
