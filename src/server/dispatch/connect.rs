//! A CONNECT: the new socket, or the one that the client had before its connection was lost.
//!
//! It asks the hub whether a lost client can be recovered, and makes the socket and the answer. It calls no handlers.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::server::{
    guard::{self, Callee},
    hub::membership::Identity,
    hub::recovery::{Claim, Resume},
    lead,
    session::Session,
    session::workers::HubData,
    socket::Socket,
    socket::namespace::Namespace,
    socket::retries::RID_MAX,
};
use crate::{
    proto::{
        CloseReason,
        socket::{Arg, Offset},
    },
    random,
    sys::{time::Instant, wait::deadline_in},
};

/// The answer to a CONNECT. `pid` is official, with connection state recovery. `offset` is ours: it tells a client
/// which packet was the last one before its first event, and that every event without an id ends with an offset.
#[derive(Debug, Serialize)]
pub(super) struct ConnectAnswer<'a> {
    sid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<&'a str>,
    /// Written by the hub, which therefore must find it at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<String>,
}

impl<'a> ConnectAnswer<'a> {
    pub(super) fn of(socket: &'a Socket) -> Self {
        let pid = socket.pid().map(|pid| &**pid);
        Self { sid: socket.id(), pid, offset: pid.map(|_| Offset::ZERO.to_string()) }
    }
}

/// The members of an auth payload that the server reads. A `pid` or `rid` that is not a string is ignored. With such
/// an `offset` the client is not recovered.
#[derive(Default)]
struct Claims<'a> {
    pid: Option<&'a RawValue>,
    offset: Option<&'a RawValue>,
    rid: Option<&'a RawValue>,
    /// `false`: it wants no offsets, and is not to be recovered.
    recovery: Option<&'a RawValue>,
}

impl<'a> Claims<'a> {
    /// Reads each member separately. All other members of the payload belong to the application.
    fn of(auth: &'a RawValue) -> Self {
        let claim = |name| Arg::of(auth).member(name).map(|claim| claim.raw());
        Self { pid: claim("pid"), offset: claim("offset"), rid: claim("rid"), recovery: claim("recovery") }
    }
}

fn text(value: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(value?.get()).ok()
}

/// Creates the socket of a CONNECT: a new one, or one that replaces the socket that the client has lost.
pub(super) fn begin(
    session: &Arc<Session>,
    namespace: &Namespace,
    auth: Option<&RawValue>,
) -> Result<(Socket, Option<Box<Resume>>), getrandom::Error> {
    let recovers = namespace.0.hub.recovers();
    let claims = auth.filter(|_| recovers).map(Claims::of).unwrap_or_default();
    let rid = text(claims.rid).filter(|rid| (1..=RID_MAX).contains(&rid.len())).map(Arc::from);
    let recovers = recovers && claims.recovery.map(RawValue::get) != Some("false");
    let resume = text(claims.pid)
        .filter(|_| recovers)
        .and_then(|pid| claim(session, namespace, pid.into(), claims.offset));
    let Some(resume) = resume else {
        let pid = if recovers { Some(random::id()?) } else { None };
        let identity = Identity { pid, recovered: false, rid };
        return Ok((Socket::new(random::id()?, namespace.clone(), session, auth, identity), None));
    };
    let identity = Identity { pid: Some(Arc::clone(&resume.pid)), recovered: true, rid };
    let socket = Socket::new(Arc::clone(&resume.sid), namespace.clone(), session, auth, identity);
    let data = resume.data.as_ref().and_then(|data| data.downcast_ref::<HubData>()?.get());
    let kept = || {
        let (codec, kept) = (namespace.0.handlers.data.as_ref()?, resume.kept.as_deref()?);
        guard::call_for(&socket, Callee::KEEP_DATA, format_args!("the Deserialize of its data"), || {
            (codec.decode)(kept)
        })?
    };
    socket.set_any_data(data.or_else(kept));
    Ok((socket, Some(resume)))
}

/// The middlewares have refused the socket. Gives up its claim, so that a later connection can be recovered.
pub(super) fn release(socket: &Socket, resume: Option<Box<Resume>>) {
    if let Some(resume) = resume {
        socket.namespace().0.hub.release_claim(resume);
    }
}

/// Whether the middlewares are skipped for this socket.
pub(super) fn skips_middlewares(socket: &Socket) -> bool {
    let options = &socket.session().shared.config.connection_state_recovery;
    socket.recovered() && options.as_ref().is_some_and(|options| options.skip_middlewares)
}

/// Claims the record of a lost client in the hub. If its old socket still exists, this ends the old session and
/// waits for the disconnect handlers, at most `close_timeout`, because no two sockets may have the same id.
fn claim(
    session: &Arc<Session>,
    namespace: &Namespace,
    pid: Arc<str>,
    offset: Option<&RawValue>,
) -> Option<Box<Resume>> {
    let offset: Option<Arc<str>> = match offset.map(RawValue::get) {
        // As the official client, which leaves out what is undefined.
        None | Some("null") => None,
        Some(json) => Some(serde_json::from_str::<String>(json).ok()?.into()),
    };
    let until = deadline_in(session.shared.config.close_timeout);
    loop {
        match namespace.0.hub.claim(namespace.0.index, pid.clone(), offset.clone())? {
            Claim::Unknown => return None,
            Claim::Ready(resume) => return Some(resume),
            Claim::Busy(socket, gone) => {
                if let Some(socket) = socket {
                    guard::debug!(
                        "session {}: its client has come back on {}",
                        socket.session().name(),
                        session.name()
                    );
                    Arc::clone(socket.session()).end(CloseReason::TransportClose);
                }
                lead::before_wait();
                // Nothing is ever sent.
                let _ = gone.recv_deadline(until);
                if Instant::now() >= until {
                    return None;
                }
            }
        }
    }
}
