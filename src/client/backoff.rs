//! The `backoff` thread: makes every connection, waits between the attempts, joins namespaces, probes upgrades.
//!
//! It has no inbox: what it does next follows from the state ([`Core::task`]), so a wish can be neither lost nor
//! queued, and every wait ends the moment that the state changes.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::value::RawValue;

use super::{
    Error, Step,
    cancel::CancelToken,
    core::{Core, Jobs, Membership, Phase, Space, SpaceState, State, Target, Upgrade},
    events::Item,
    guard::Guarded,
    inbound::Inbound,
    link::Job,
    open,
    recovery::payload,
    websocket::WebSocket,
};
use crate::sys::real::wait::deadline_in;
use crate::{
    outcome::catch,
    proto::{
        engine::TransportKind,
        socket::{Encoded, Outgoing},
    },
};

/// How often a probe is begun again that fails after one was cut.
const PROBE_RETRIES: u32 = 4;

/// How long it waits for that.
const PROBE_DELAY: Duration = Duration::from_millis(250);

/// What the thread does next.
enum Task {
    Attempt,
    Join(u64, Vec<Arc<Space>>),
    Probe(u64),
    Exit,
}

/// The thread. It owns the way to `link`, which ends when this one does.
pub(super) fn run(core: &Arc<Core>, jobs: &Jobs) {
    loop {
        match core.task() {
            Task::Attempt => attempt(core, jobs),
            Task::Join(epoch, spaces) => {
                for space in spaces {
                    core.join(epoch, space.index, connect_packet(core, &space));
                }
            }
            Task::Probe(epoch) => probe(core, epoch),
            Task::Exit => return,
        }
    }
}

impl Core {
    /// Waits until there is something to do.
    fn task(&self) -> Task {
        let mut state = self.lock();
        loop {
            if let Some(task) = self.next_task(&mut state) {
                return task;
            }
            let time = state.next_time();
            state.wait(&self.changed, time);
        }
    }

    fn next_task(&self, state: &mut State) -> Option<Task> {
        match (state.target, state.phase) {
            (Target::Gone, _) => Some(Task::Exit),
            (Target::Up, Phase::Idle) => {
                state.phase = Phase::Attempting(Instant::now());
                Some(Task::Attempt)
            }
            (Target::Up, Phase::Waiting(until)) if until <= Instant::now() => {
                state.attempts = state.attempts.saturating_add(1);
                self.events.push(Item::Attempt(state.attempts));
                state.phase = Phase::Attempting(Instant::now());
                Some(Task::Attempt)
            }
            (Target::Up, Phase::Open) => {
                let session = state.session.as_ref().filter(|session| session.closing.is_none())?;
                let wanted = matches!(session.upgrade,
                    Upgrade::Wanted { after, .. } if after.is_none_or(|at| at <= Instant::now()));
                let epoch = session.epoch;
                let joins = state.begin_joins(Instant::now());
                if !joins.is_empty() {
                    return Some(Task::Join(epoch, joins));
                }
                wanted.then_some(Task::Probe(epoch))
            }
            (Target::Down, _) | (_, Phase::Waiting(_) | Phase::Attempting(_)) => None,
        }
    }
}

impl State {
    /// The namespaces that are to be joined, and from here on are being joined.
    fn begin_joins(&mut self, now: Instant) -> Vec<Arc<Space>> {
        let wanted = |of: &&mut SpaceState| of.is_to_join() && of.join_after.is_none_or(|at| at <= now);
        let begin = |of: &mut SpaceState| {
            of.membership = Membership::Joining;
            of.space.clone()
        };
        self.spaces.iter_mut().filter(wanted).map(begin).collect()
    }

    /// When there is something to do although nothing changes.
    fn next_time(&self) -> Option<Instant> {
        match (self.target, self.phase, &self.session) {
            (Target::Up, Phase::Waiting(until), _) => Some(until),
            (Target::Up, Phase::Open, Some(session)) if session.closing.is_none() => {
                let joins = self.spaces.iter().filter(|of| of.is_to_join()).filter_map(|of| of.join_after);
                let probe = match session.upgrade {
                    Upgrade::Wanted { after, .. } => after,
                    _ => None,
                };
                joins.chain(probe).min()
            }
            _ => None,
        }
    }
}

impl SpaceState {
    fn is_to_join(&self) -> bool {
        self.active && self.membership == Membership::Out
    }
}

/// Tries once to get a session.
fn attempt(core: &Arc<Core>, jobs: &Jobs) {
    let begun = Instant::now();
    let token = match CancelToken::new() {
        Ok(token) => Arc::new(token),
        Err(error) => {
            let transport = core.config.transports[0];
            let detail = error.to_string().into();
            return core.failed(&Error::Unreachable { transport, step: Step::Connect, detail }, None);
        }
    };
    let Some(transports) = core.begin(&token) else { return };
    let deadline = deadline_in(core.config.timeout);
    let opened = match open::session(&core.dialer, &core.config, &transports, &token, deadline) {
        Ok(opened) => opened,
        Err(error) => return core.failed(&error, Some(&token)),
    };
    let Some(epoch) = core.opened(&opened, &token, begun) else { return };
    let (silence, ping_timeout) = (opened.open.silence_allowed(), opened.open.ping_timeout);
    let inbound = Inbound::new(core.clone(), epoch);
    let job = Job {
        epoch,
        sid: opened.open.sid,
        silence,
        ping_timeout: Duration::from_millis(ping_timeout),
        token,
        transport: opened.transport,
        inbound,
    };
    // `link` is at rest between two sessions, so its inbox of one has room; it ends after this thread.
    let _ = jobs.send(job);
}

impl Core {
    /// Hangs the attempt on `token` and says which transports to try. `None`: nobody wants it any more.
    fn begin(&self, token: &Arc<CancelToken>) -> Option<Vec<TransportKind>> {
        let mut state = self.lock();
        if state.target != Target::Up {
            state.phase = Phase::Idle;
            return None;
        }
        state.token = Some(token.clone());
        state.stats.attempts += 1;
        let mut transports = self.config.transports.clone();
        if self.config.remember_upgrade && state.upgraded {
            transports.sort_by_key(|kind| *kind != TransportKind::Websocket);
        }
        Some(transports)
    }
}

/// Why there is no payload for a CONNECT.
pub(super) enum AuthFailure {
    /// The auth function has panicked; it may do better the next time.
    Panicked(Error),
    /// What it gave cannot be a payload.
    Useless(Error),
}

/// The CONNECT of a namespace, with what is remembered of its last session and the auth payload of this moment.
fn connect_packet(core: &Core, space: &Space) -> Result<Encoded, AuthFailure> {
    let useless = |error: &dyn Display| AuthFailure::Useless(Error::Invalid(format!("auth: {error}")));
    let auth = match core.config.auth.as_ref().and_then(Guarded::get) {
        None => None,
        Some(auth) => {
            let json = catch(|| auth(&space.name)).map_err(|panic| {
                log::error!("{}: the auth function panicked: {panic}", core.place(Some(space)));
                AuthFailure::Panicked(Error::Invalid(format!("auth: it panicked: {panic}")))
            })?;
            let raw = RawValue::from_string(json.map_err(|error| useless(&error))?)
                .map_err(|error| useless(&error))?;
            if raw.get() != "null" && !raw.get().starts_with('{') {
                return Err(useless(&"the payload is no JSON object"));
            }
            Some(raw)
        }
    };
    let mut own = core.lock().spaces[space.index].recovery.remembered();
    own.extend(core.rid.clone().map(|rid| ("rid", rid)));
    let payload = payload(own, auth).map_err(|error| useless(&error))?;
    Outgoing::connect(&space.name).encode(&payload).map_err(|error| AuthFailure::Useless(error.into()))
}

/// Tries to move a polling session to WebSocket; when that fails, it stays where it is.
fn probe(core: &Arc<Core>, epoch: u64) {
    let Ok(token) = CancelToken::new().map(Arc::new) else { return core.probed(epoch, None) };
    let Some((sid, retries)) = core.begin_probe(epoch, &token) else { return };
    let deadline = deadline_in(core.config.timeout);
    let websocket = open::probe(&core.dialer, &core.config, &sid, &token, deadline);
    if let Err(error) = &websocket {
        log::info!("no upgrade: {error}");
    }
    match (token.is_cancelled(), retries, websocket) {
        (true, ..) => core.probe_again(epoch, None, PROBE_RETRIES),
        (false, 1.., Err(_)) => core.probe_again(epoch, Some(PROBE_DELAY), retries - 1),
        (false, _, websocket) => core.probed(epoch, websocket.ok()),
    }
}

impl Core {
    fn begin_probe(&self, epoch: u64, token: &Arc<CancelToken>) -> Option<(String, u32)> {
        let mut state = self.lock();
        let session = state.session(epoch).filter(|session| session.closing.is_none())?;
        let before = std::mem::replace(&mut session.upgrade, Upgrade::Probing(token.clone()));
        let retries = if let Upgrade::Wanted { retries, .. } = before { retries } else { 0 };
        Some((session.sid.clone(), retries))
    }

    /// The probe was cut for the sake of something else, or it failed after that: it is begun again. A server may
    /// refuse a second WebSocket until it has noticed the end of the first one.
    fn probe_again(&self, epoch: u64, delay: Option<Duration>, retries: u32) {
        if let Some(session) = self.lock().session(epoch) {
            session.upgrade = Upgrade::Wanted { after: delay.map(deadline_in), retries };
        }
    }

    /// The probe has its outcome: `link` moves over, or stays.
    fn probed(&self, epoch: u64, websocket: Option<WebSocket>) {
        let mut state = self.lock();
        let Some(token) = state.token.clone() else { return };
        let Some(session) = state.session(epoch) else { return };
        session.upgrade = match websocket {
            None => Upgrade::Settled,
            Some(mut websocket) => {
                websocket.go_nonblocking(&token);
                token.upgrade();
                // The `poll` thread may wait for room in the queue of the handlers.
                self.events.wake_reader();
                Upgrade::Ready(Box::new(websocket))
            }
        };
        self.link_waker.wake();
    }
}
