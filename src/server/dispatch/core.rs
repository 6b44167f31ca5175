//! What a server serves: its endpoints, namespaces and routes, above what all its sessions share.
//!
//! The router, the dispatch and the start use it. It starts nothing and calls no user code.

use std::{collections::HashMap, fmt, sync::Arc};

use crate::server::{
    dispatch::Inbound,
    engine::EngineHandlers,
    guard::Callee,
    http::{Request, Response},
    session::{self, Content, Handshake, Refused, Session, Shared},
    socket::namespace::Namespace,
};

pub(crate) type RouteHandler = Box<dyn Fn(&Request<'_>) -> Response + Send + Sync>;

/// What a path is served by.
#[derive(Debug)]
pub(crate) enum Endpoint {
    SocketIo,
    Engine(EngineHandlers),
}

/// What a server serves.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoints: Vec<(String, Endpoint)>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) routes: HashMap<String, RouteHandler>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

impl Core {
    /// A new session at this endpoint. Nothing has been sent to it yet.
    pub(crate) fn open_session(
        self: &Arc<Self>,
        endpoint: usize,
        handshake: Handshake,
    ) -> Result<Arc<Session>, Refused> {
        let content = match self.endpoint(endpoint) {
            Endpoint::SocketIo => Content::SocketIo,
            Endpoint::Engine(handlers) if handlers.plain => Content::Plain,
            Endpoint::Engine(_) => Content::Messages,
        };
        session::open(&self.shared, endpoint, handshake, content, || Box::new(Inbound::new(self)))
    }

    pub(super) fn endpoint(&self, index: usize) -> &Endpoint {
        &self.endpoints[index].1
    }

    /// The endpoint that serves this path; a missing slash at its end is forgiven, as by the official server.
    pub(crate) fn endpoint_at(&self, path: &str) -> Option<usize> {
        self.endpoints.iter().position(|(at, _)| path == at || at.strip_suffix('/') == Some(path))
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.name() == name)
    }

    /// What user code that is, and of which namespace.
    pub(crate) fn describe(&self, callee: Callee) -> String {
        if let Some(name) = callee.name() {
            return name.to_owned();
        }
        let of = |namespace: &Namespace| {
            let handler = namespace.0.handlers.describe(callee)?;
            Some(format!("{handler} of namespace {:?}", namespace.name()))
        };
        self.namespaces.iter().find_map(of).unwrap_or_else(|| "a handler".to_owned())
    }

    pub(crate) fn route(&self, path: &str) -> Option<&RouteHandler> {
        self.routes.get(path)
    }
}
