//! The `backoff` thread: makes every connection, waits between the attempts, joins namespaces, probes upgrades.
//!
//! It has no queue. Its next task follows from the state ([`next_task`]), so no task is lost or out of date, and
//! every wait ends when the state changes. Uses `core` and `open`. It must not hold the lock during an attempt or
//! while the auth function runs.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use serde_json::value::RawValue;

use super::{
    Error, Step,
    cancel::CancelToken,
    connection::{Connection, Phase, Target},
    core::Core,
    event_queue::Item,
    guard::Guarded,
    inbound::Inbound,
    link::Job,
    membership::AuthFailure,
    namespace::Namespace,
    open,
    recovery::payload,
    session::Session,
    state::State,
};
use crate::sys::real::wait::deadline_in;
use crate::{
    outcome::catch,
    proto::socket::{Encoded, Outgoing},
};

/// How often a probe is repeated that fails after another one was cancelled.
const PROBE_RETRIES: u32 = 4;

/// The delay before it is repeated.
const PROBE_DELAY: Duration = Duration::from_millis(250);

/// What the thread does next.
enum Task {
    Attempt,
    Join(u64, Vec<Arc<Namespace>>),
    Probe(u64),
    Exit,
}

/// The thread. It owns the channel to `link`, which ends when this thread does.
pub(super) fn run(core: &Arc<Core>, jobs: &Sender<Job>) {
    loop {
        match next_task(core) {
            Task::Attempt => attempt(core, jobs),
            Task::Join(epoch, namespaces) => {
                for namespace in namespaces {
                    core.join(epoch, namespace.index, connect_packet(core, &namespace));
                }
            }
            Task::Probe(epoch) => probe(core, epoch),
            Task::Exit => return,
        }
    }
}

/// Waits for the next task.
fn next_task(core: &Core) -> Task {
    let mut state = core.lock();
    loop {
        if let Some(task) = task(core, &mut state) {
            return task;
        }
        let time = next_time(&state);
        state.wait(&core.changed, time);
    }
}

/// The task that the state has now.
fn task(core: &Core, state: &mut State) -> Option<Task> {
    let (connection, now) = (&mut state.connection, Instant::now());
    if connection.target() == Target::Gone {
        return Some(Task::Exit);
    }
    if let Some(reconnection) = connection.begin_attempt(now) {
        if let Some(attempt) = reconnection {
            core.events.push(Item::Attempt(attempt));
        }
        return Some(Task::Attempt);
    }
    let session = joinable(connection)?;
    let (epoch, wants_probe) = (session.epoch(), session.wants_probe(now));
    let joins = state.namespaces.begin_joins(now);
    if !joins.is_empty() {
        return Some(Task::Join(epoch, joins));
    }
    wants_probe.then_some(Task::Probe(epoch))
}

/// When there is a task although nothing changes.
fn next_time(state: &State) -> Option<Instant> {
    if let (Target::Up, Phase::Waiting(until)) = (state.connection.target(), state.connection.phase()) {
        return Some(until);
    }
    let session = joinable(&state.connection)?;
    [state.namespaces.next_join(), session.next_probe()].into_iter().flatten().min()
}

/// The session in which namespaces can be joined.
fn joinable(connection: &Connection) -> Option<&Session> {
    let session = connection.session().filter(|session| session.closing().is_none());
    session.filter(|_| connection.target() == Target::Up)
}

/// Tries once to get a session.
fn attempt(core: &Arc<Core>, jobs: &Sender<Job>) {
    let begun = Instant::now();
    let token = match CancelToken::new() {
        Ok(token) => Arc::new(token),
        Err(error) => {
            let transport = core.config.transports[0];
            return core
                .attempt_failed(&Error::unreachable(transport, Step::Connect, error.to_string()), None);
        }
    };
    let Some(transports) = core.begin_attempt(&token) else { return };
    let deadline = deadline_in(core.config.timeout);
    let opened = match open::session(&core.dialer, &core.config, &transports, &token, deadline) {
        Ok(opened) => opened,
        Err(error) => return core.attempt_failed(&error, Some(&token)),
    };
    let Some(epoch) = core.session_opened(&opened, &token, begun) else { return };
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
    // The channel has room, because `link` has no session. It ends after this thread.
    let _ = jobs.send(job);
}

/// The CONNECT of a namespace, with the keys for its recovery and the current auth payload.
fn connect_packet(core: &Core, namespace: &Namespace) -> Result<Encoded, AuthFailure> {
    let invalid = |error: &dyn Display| AuthFailure::Invalid(Error::Invalid(format!("auth: {error}")));
    let auth = match core.config.auth.as_ref().and_then(Guarded::get) {
        None => None,
        Some(auth) => {
            let json = catch(|| auth(&namespace.name)).map_err(|panic| {
                log::error!("{}: the auth function panicked: {panic}", core.place(Some(namespace)));
                AuthFailure::Panicked(Error::Invalid(format!("auth: it panicked: {panic}")))
            })?;
            let raw = RawValue::from_string(json.map_err(|error| invalid(&error))?)
                .map_err(|error| invalid(&error))?;
            if raw.get() != "null" && !raw.get().starts_with('{') {
                return Err(invalid(&"the payload is no JSON object"));
            }
            Some(raw)
        }
    };
    let mut own = core.lock().namespaces[namespace.index].recovery.remembered();
    own.extend(core.rid.clone().map(|rid| ("rid", rid)));
    let payload = payload(own, auth).map_err(|error| invalid(&error))?;
    Outgoing::connect(&namespace.name).encode(&payload).map_err(|error| AuthFailure::Invalid(error.into()))
}

/// Tries to move a polling session to WebSocket. When that fails, it stays on polling.
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
