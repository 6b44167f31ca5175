//! The accept thread: it takes connections from the listener, and refuses those that are over a limit.
//!
//! It uses the limits, the worker threads and the state machine of [`super`]. It never waits for a peer, and it calls
//! no code of the application: where the application may exempt an address from its limit, a worker thread asks it.

use std::{fmt, io, net::Shutdown, sync::Arc, time::Duration};

use crate::server::{
    connection::Service,
    connection::Work,
    http::Connection,
    limits::log_throttle::LogThrottle,
    limits::refusals::RefusalReason,
    net::listener::{self, Listener},
    net::stream::{self, Stream, Waker},
    peer::Peer,
    session::Shared,
};
use crate::sys::{
    os::{PollFd, PollFlags},
    thread::{self, JoinHandle},
    time::Instant,
};

/// The pause before the next accept when the system has no descriptors or no memory for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Starts the thread that accepts from `listener` until the server stops.
pub(crate) fn start(
    service: &Arc<Service>,
    listener: Listener,
    waker: Arc<Waker>,
) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking()?;
    let service = Arc::clone(service);
    thread::Builder::new()
        .name("accept".into())
        .stack_size(128 << 10)
        .spawn(move || accept_loop(&service, &listener, &waker))
}

fn accept_loop(service: &Arc<Service>, listener: &Listener, waker: &Waker) {
    let mut log_throttle = LogThrottle::default();
    let mut spare = Waker::new().ok();
    let nodelay = listener.set_nodelay();
    // Connections that came before the option was set do not have it.
    let mut inherits = false;
    while !service.shared.is_closed() {
        match listener.accept(inherits) {
            Ok((stream, peer)) => {
                admit(service, stream, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                inherits = nodelay;
                let mut fds = [waker.poll_fd(), PollFd::new(listener, PollFlags::IN)];
                // After an error the loop accepts again, as after a wake.
                let _ = stream::wait(&mut fds, None);
            }
            Err(error) if listener::is_of_the_connection(&error) => {}
            Err(error) => {
                // Too many open files, or no memory. Accepting is tried again until it succeeds.
                if log_throttle.allows() {
                    log::error!("cannot accept connections for now: {error}");
                }
                if listener::is_out_of_descriptors(&error) && turn_away(&service.shared, listener, &mut spare)
                {
                    continue;
                }
                let mut fds = [waker.poll_fd()];
                let _ = stream::wait(&mut fds, Some(Instant::now() + EXHAUSTED_PAUSE));
            }
        }
    }
}

/// Answers the next connection in the queue with 503. It uses the descriptor that is kept for this case. `false`: no
/// descriptor is kept, or no connection waits.
fn turn_away(shared: &Shared, listener: &Listener, spare: &mut Option<Waker>) -> bool {
    let had_one = spare.is_some();
    // Closed first: the accept takes its descriptor.
    *spare = None;
    let accepted = if had_one { listener.accept(true).ok() } else { None };
    if let Some((stream, peer)) = &accepted {
        shared.refusals.add(RefusalReason::System, *peer, &"no descriptor for the connection");
        refuse(stream);
    }
    let refused = accepted.is_some();
    drop(accepted);
    *spare = Waker::new().ok();
    refused
}

/// Serves the connection on a worker thread, or answers it with 503.
fn admit(service: &Arc<Service>, stream: Stream, peer: Peer) {
    let stream = Arc::new(stream);
    let refuse = |reason, why: &dyn fmt::Display| {
        service.shared.refusals.add(reason, peer, why);
        refuse(&stream);
    };
    let share = service.shared.admission.stream(peer);
    let is_beyond_limit = share.is_err();
    if is_beyond_limit && !service.shared.admission.has_exemptions() {
        return refuse_for_address(&service.shared, &stream, peer);
    }
    let Some(permit) = service.shared.connections.permit(&stream, share.ok().flatten()) else {
        return refuse(RefusalReason::MaxTcpConnections, &"Too many connections");
    };
    let due = Instant::now() + service.shared.config.head_timeout;
    let work = Work::new(Connection::new(Arc::clone(&stream), peer, permit), due);
    if !is_beyond_limit {
        return take_in(service, work, peer, &stream);
    }
    let (service_of_thread, stream_of_thread) = (Arc::clone(service), Arc::clone(&stream));
    let ask = move || {
        let (service, stream) = (service_of_thread, stream_of_thread);
        if service.shared.admission.is_exempt(peer) {
            take_in(&service, work, peer, &stream);
        } else {
            refuse_for_address(&service.shared, &stream, peer);
        }
    };
    if let Err(error) = service.shared.workers.run(ask) {
        refuse(RefusalReason::System, &format_args!("no thread for the connection: {error}"));
    }
}

/// The connection waits for its first request.
fn take_in(service: &Service, work: Work, peer: Peer, stream: &Stream) {
    if service.poller.insert(work).is_some() {
        service.shared.refusals.add(RefusalReason::System, peer, &"no kernel memory for the connection");
        refuse(stream);
    }
}

fn refuse_for_address(shared: &Shared, stream: &Stream, peer: Peer) {
    shared.refusals.add(RefusalReason::MaxConnectionsPerIp, peer, &"Too many connections of this address");
    refuse(stream);
}

/// Answers 503 without waiting, and ends the connection.
fn refuse(stream: &Stream) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = stream.send_now(FULL);
    stream.shutdown(Shutdown::Write);
}
