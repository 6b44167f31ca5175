//! The `backoff` thread: makes every connection, waits between the attempts, joins namespaces, probes upgrades.
//!
//! It has no inbox: what it does next follows from the state ([`Core::errand`]), so a wish can be neither lost nor
//! queued, and every wait ends the moment that the state changes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use serde_json::value::RawValue;

use super::{
    Error, Step,
    core::{Core, Jobs, Membership, Phase, Space, SpaceState, State, Target, Upgrade},
    events::{Item, panicked},
    inbound::Inbound,
    link::Job,
    open,
    recovery::payload,
    wake::{Lifeline, from_now},
    websocket::WebSocket,
};
use crate::proto::{
    engine::TransportKind,
    socket::{Encoded, Outgoing},
};

/// What the thread does next.
enum Errand {
    Attempt,
    Join(u64, Vec<Arc<Space>>),
    Probe(u64),
    Exit,
}

/// The thread. It owns the way to `link`, which ends when this one does.
pub(super) fn run(core: &Arc<Core>, jobs: &Jobs) {
    loop {
        match core.errand() {
            Errand::Attempt => attempt(core, jobs),
            Errand::Join(epoch, spaces) => {
                for space in spaces {
                    core.join(epoch, space.index, connect_packet(core, &space));
                }
            }
            Errand::Probe(epoch) => probe(core, epoch),
            Errand::Exit => return,
        }
    }
}

impl Core {
    /// Waits until there is something to do.
    fn errand(&self) -> Errand {
        let mut state = self.state.lock();
        loop {
            if let Some(errand) = self.next_errand(&mut state) {
                return errand;
            }
            match (state.target, state.phase) {
                (Target::Up, Phase::Waiting(until)) => drop(self.changed.wait_until(&mut state, until)),
                _ => self.changed.wait(&mut state),
            }
        }
    }

    fn next_errand(&self, state: &mut State) -> Option<Errand> {
        match (state.target, state.phase) {
            (Target::Gone, _) => Some(Errand::Exit),
            (Target::Up, Phase::Idle) => {
                state.phase = Phase::Attempting(Instant::now());
                Some(Errand::Attempt)
            }
            (Target::Up, Phase::Waiting(until)) if until <= Instant::now() => {
                state.attempts = state.attempts.saturating_add(1);
                self.events.push(Item::Attempt(state.attempts));
                state.phase = Phase::Attempting(Instant::now());
                Some(Errand::Attempt)
            }
            (Target::Up, Phase::Open) => {
                let session = state.session.as_ref().filter(|session| session.closing.is_none())?;
                let (epoch, wanted) = (session.epoch, matches!(session.upgrade, Upgrade::Wanted));
                let joins = state.begin_joins();
                if !joins.is_empty() {
                    return Some(Errand::Join(epoch, joins));
                }
                wanted.then_some(Errand::Probe(epoch))
            }
            (Target::Down, _) | (_, Phase::Waiting(_) | Phase::Attempting(_)) => None,
        }
    }
}

impl State {
    /// The namespaces that are to be joined, and from here on are being joined.
    fn begin_joins(&mut self) -> Vec<Arc<Space>> {
        let wanted = |of: &&mut SpaceState| of.active && of.membership == Membership::Out;
        let begin = |of: &mut SpaceState| {
            of.membership = Membership::Joining;
            of.space.clone()
        };
        self.spaces.iter_mut().filter(wanted).map(begin).collect()
    }
}

/// Tries once to get a session.
fn attempt(core: &Arc<Core>, jobs: &Jobs) {
    let begun = Instant::now();
    let lifeline = match Lifeline::new() {
        Ok(lifeline) => Arc::new(lifeline),
        Err(error) => {
            let transport = core.config.transports[0];
            return core.failed(&Error::Unreachable {
                transport,
                step: Step::Connect,
                detail: error.to_string().into(),
            });
        }
    };
    let Some(transports) = core.begin(&lifeline) else { return };
    let deadline = from_now(core.config.timeout);
    let opened = match open::session(&core.dialer, &core.config, &transports, &lifeline, deadline) {
        Ok(opened) => opened,
        Err(error) => return core.failed(&error),
    };
    let Some(epoch) = core.opened(&opened, &lifeline, begun) else { return };
    let silence = opened.open.silence_allowed();
    let inbound = Inbound::new(core.clone(), epoch);
    let job = Job { epoch, sid: opened.open.sid, silence, lifeline, transport: opened.transport, inbound };
    // `link` is at rest between two sessions, so its inbox of one has room; it ends after this thread.
    let _ = jobs.send(job);
}

impl Core {
    /// Hangs the attempt on `lifeline` and says which transports to try. `None`: nobody wants it any more.
    fn begin(&self, lifeline: &Arc<Lifeline>) -> Option<Vec<TransportKind>> {
        let mut state = self.state.lock();
        if state.target != Target::Up {
            state.phase = Phase::Idle;
            return None;
        }
        state.lifeline = Some(lifeline.clone());
        state.stats.attempts += 1;
        let mut transports = self.config.transports.clone();
        if self.config.remember_upgrade && state.upgraded {
            transports.sort_by_key(|kind| *kind != TransportKind::Websocket);
        }
        Some(transports)
    }
}

/// The CONNECT of a namespace, with what is remembered of its last session and the auth payload of this moment.
fn connect_packet(core: &Core, space: &Space) -> Result<Encoded, Error> {
    let auth = match &core.config.auth {
        None => None,
        Some(auth) => {
            let json = catch_unwind(AssertUnwindSafe(|| auth(&space.name)))
                .map_err(|panic| Error::Invalid(format!("auth: {}", panicked(&*panic))))?
                .map_err(|error| Error::Invalid(format!("auth: {error}")))?;
            let raw =
                RawValue::from_string(json).map_err(|error| Error::Invalid(format!("auth: {error}")))?;
            if raw.get() != "null" && !raw.get().starts_with('{') {
                return Err(Error::Invalid("auth: the payload is no JSON object".into()));
            }
            Some(raw)
        }
    };
    let mut own = core.state.lock().spaces[space.index].recovery.remembered();
    own.extend(core.rid.clone().map(|rid| ("rid", rid)));
    let payload = payload(own, auth).map_err(|error| Error::Invalid(format!("auth: {error}")))?;
    Ok(Outgoing::connect(&space.name).encode(&payload)?)
}

/// Tries to move a polling session to WebSocket; when that fails, it stays where it is.
fn probe(core: &Arc<Core>, epoch: u64) {
    let Ok(lifeline) = Lifeline::new().map(Arc::new) else { return core.probed(epoch, None) };
    let Some(sid) = core.begin_probe(epoch, &lifeline) else { return };
    let deadline = from_now(core.config.timeout);
    let websocket = open::probe(&core.dialer, &core.config, &sid, &lifeline, deadline);
    if let Err(error) = &websocket {
        log::info!("no upgrade: {error}");
    }
    if lifeline.is_cut() {
        core.probe_interrupted(epoch);
    } else {
        core.probed(epoch, websocket.ok());
    }
}

impl Core {
    fn begin_probe(&self, epoch: u64, lifeline: &Arc<Lifeline>) -> Option<String> {
        let mut state = self.state.lock();
        let session = state.session(epoch).filter(|session| session.closing.is_none())?;
        session.upgrade = Upgrade::Probing(lifeline.clone());
        Some(session.sid.clone())
    }

    /// The probe was cut for the sake of something else; it is begun again after that.
    fn probe_interrupted(&self, epoch: u64) {
        if let Some(session) = self.state.lock().session(epoch) {
            session.upgrade = Upgrade::Wanted;
        }
    }

    /// The probe has its outcome: `link` moves over, or stays.
    fn probed(&self, epoch: u64, websocket: Option<WebSocket>) {
        let mut state = self.state.lock();
        let Some(lifeline) = state.lifeline.clone() else { return };
        let Some(session) = state.session(epoch) else { return };
        session.upgrade = match websocket {
            None => Upgrade::Settled,
            Some(mut websocket) => {
                websocket.go_nonblocking(&lifeline);
                Upgrade::Ready(Box::new(websocket))
            }
        };
        self.link_bell.ring();
    }
}
