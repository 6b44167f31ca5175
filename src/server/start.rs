//! Starting a server: everything that can fail without a thread first, then the threads.
//!
//! A start that fails stops what it has started: no thread stays behind, and the store is closed. It uses every part of
//! the server, and nothing but [`Builder`] uses it.

use std::{io, sync::Arc, time::Duration};

use crate::server::{
    builder::Builder,
    config::Config,
    connection::Service,
    connection::accept,
    connection::leader,
    descriptors,
    dispatch::core::{Core, Endpoint},
    error::StartError,
    guard::{self, Callee},
    hub::recovery::Journal,
    hub::recovery::Recovery,
    hub::{self, HubHandle},
    limits::admission::{Admission, Exempt},
    limits::budget::Budget,
    limits::refusals::Refusals,
    net::connections::Connections,
    net::listener::Listener,
    net::poller::Poller,
    recovery::store::{self, GuardedStore, Kept},
    recovery::store::{Durability, StoreStatus, StoreWatch},
    server::Server,
    session::drain::DrainHandle,
    session::workers::Workers,
    session::{Registry, Shared},
    shutdown::{self, Running, Threads},
    socket::namespace::Namespace,
    socket::retries::Retried,
};
use crate::{
    random,
    sys::{sync::atomic::AtomicBool, time::Instant},
};

/// What the threads get beside [`Core`].
struct Parts {
    listener: Listener,
    inbox: hub::Inbox,
    /// The names of the namespaces.
    names: Vec<Arc<str>>,
    store: Option<OpenStore>,
    /// What the store has kept.
    kept: Kept,
}

/// A store that was opened, or one that could not be opened and is not required.
struct OpenStore {
    store: GuardedStore,
    durability: Durability,
    /// The generation that this start has begun. `None`: the store could not be opened.
    life: Option<u32>,
}

impl Builder {
    pub(super) fn start(self, listener: Listener) -> Result<Server, StartError> {
        self.validate()?;
        let Self { mut config, namespaces, engines, routes, store, store_required } = self;
        if store.is_some() {
            config.connection_state_recovery.get_or_insert_default();
        }
        // Every session needs randomness. Without it the start fails, instead of every handshake with 500.
        random::id::<Arc<str>>()
            .map_err(|error| io::Error::other(format!("no randomness for session ids: {error}")))?;
        descriptors::fit(&mut config);
        let local_addr = match &listener {
            Listener::Tcp(listener) => Some(listener.local_addr()?),
            Listener::Unix { .. } => None,
        };
        let pollers: Vec<_> = (0..config.leaders).map(|_| Poller::new()).collect::<io::Result<_>>()?;
        let drain = DrainHandle::new()?;
        let store_watch = StoreWatch::new();
        let (store, mut kept) = match store {
            Some((store, durability)) => {
                let (store, kept) = open(store, durability, store_required, &store_watch)?;
                (Some(store), kept)
            }
            None => (None, Kept::default()),
        };
        let (hub, inbox) = HubHandle::new(&config);
        let names: Vec<Arc<str>> = namespaces.iter().map(|namespace| Arc::clone(&namespace.name)).collect();
        let mut endpoints = vec![(config.path.clone(), Endpoint::SocketIo)];
        endpoints.extend(engines.into_iter().map(|(path, handlers)| (path, Endpoint::Engine(handlers))));
        let retried = Retried::new(&config, &names, std::mem::take(&mut kept.answers));
        let namespaces = Namespace::all(namespaces, &hub, &Arc::new(retried));
        let workers = Arc::new(Workers::new(config.stack_size));
        let shared = Shared {
            sessions: Registry::new(config.max_connections),
            connections: Arc::new(Connections::new(config.tcp_connections())),
            records: workers.records(),
            workers,
            waiting: Arc::new(Budget::new(config.total_outbox_bytes())),
            receiving: Arc::new(Budget::new(config.total_receive_bytes())),
            admission: Arc::new(admission(&config)),
            refusals: Refusals::new(),
            store_watch,
            born: Instant::now(),
            ending: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            config,
            hub,
            drain,
        };
        let core = Core { shared: Arc::new(shared), endpoints, namespaces, routes };
        let service = Arc::new(Service::new(core, pollers));
        let mut threads = Threads::default();
        let parts = Parts { listener, inbox, names, store, kept };
        if let Err(error) = start_threads(&service, parts, &mut threads) {
            shutdown::stop(&service, threads, Instant::now(), Duration::ZERO);
            return Err(error.into());
        }
        Ok(Server::new(Running::new(service, local_addr, threads)))
    }
}

/// The exemption from the limit of an address is code of the application, so it is called through the guard.
fn admission(config: &Config) -> Admission {
    let exempt = config.exempt_from_ip_limit.clone().map(|exempt| -> Exempt {
        Arc::new(move |ip| {
            let what = format_args!("exempt_from_ip_limit");
            guard::call(Callee::EXEMPT, what, || exempt(ip)).unwrap_or(false)
        })
    });
    Admission::new(config.max_connections_per_ip, config.accept_rate, exempt)
}

/// Opens the store.
fn open(
    mut store: GuardedStore,
    durability: Durability,
    required: bool,
    watch: &StoreWatch,
) -> Result<(OpenStore, Kept), StartError> {
    match store.open() {
        Ok(kept) => {
            let life = Some(kept.life);
            Ok((OpenStore { store, durability, life }, kept))
        }
        Err(error) if required => Err(error.into()),
        Err(error) => {
            let error = store::text_of(error);
            guard::error!(
                "{error}; the server starts without it, and what it keeps for clients is in memory only"
            );
            store.abandon();
            watch.set(StoreStatus::Failed(error));
            Ok((OpenStore { store, durability, life: None }, Kept::default()))
        }
    }
}

/// Starts the threads. On an error, `threads` are those that run.
fn start_threads(service: &Arc<Service>, parts: Parts, threads: &mut Threads) -> io::Result<()> {
    let Parts { listener, inbox, names, store, kept } = parts;
    let shared = &service.shared;
    let leads = service.groups.iter().map(|group| Arc::clone(&group.lead)).collect();
    threads.watchdog = Some(service.watchdog.start(leads, &shared.records)?);
    leader::start(service)?;
    threads.drain = Some(shared.drain.start(&shared.records)?);
    let journal = match store {
        Some(OpenStore { store, durability, life }) => {
            let (watch, hub) = (shared.store_watch.clone(), shared.hub.signaller());
            let stack_size = shared.config.stack_size;
            Some(Journal::new(store, life, durability, watch, hub, stack_size, &shared.records)?)
        }
        None => None,
    };
    let store_over = journal.as_ref().map(Journal::over);
    let options = shared.config.connection_state_recovery.as_ref();
    let recovery = options.map(|options| Recovery::new(&shared.config, options, names, kept, journal));
    let namespaces = service.core.namespaces.len();
    let hub = hub::start(inbox, &shared.hub, &shared.config, namespaces, recovery, &shared.records);
    if let (Err(_), Some(over)) = (&hub, store_over) {
        // The hub was dropped with its journal. The file of the store may be opened again once the store is dropped.
        let _ = over.recv_timeout(shutdown::STORE_COMMIT_MIN);
    }
    threads.hub = Some(hub?);
    // Last: the first connection finds everything running.
    threads.accepting = Some(accept::start(service, listener)?);
    Ok(())
}
