//! Streams, listeners, eventfds and epolls, with the verbs of std and rustix.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    marker::PhantomData,
    net::{Shutdown, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use rustix::{
    event::{Timespec, epoll::EventFlags},
    io::Errno,
};
use shuttle::rand::{Rng, thread_rng};

use super::kernel::{self, Ticket, WaitSet};

/// Bytes that the kernel keeps for one direction of a stream: few, so that it is often full.
const KERNEL_BUFFER: usize = 4 << 10;

std::thread_local! {
    /// The listener that was bound last.
    static LISTENER: RefCell<Weak<File>> = const { RefCell::new(Weak::new()) };
}

/// What a descriptor stands for.
#[derive(Debug)]
pub(crate) enum File {
    Event(Mutex<u64>, WaitSet),
    Stream(End),
    Listener(Listening),
    Epoll(Mutex<Vec<Interest>>, WaitSet),
}

/// One side of a stream.
#[derive(Debug)]
pub(crate) struct End {
    inward: Arc<Pipe>,
    outward: Arc<Pipe>,
    read_timeout: Mutex<Option<Duration>>,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    state: Mutex<PipeState>,
    moved: WaitSet,
}

#[derive(Debug, Default)]
struct PipeState {
    bytes: VecDeque<u8>,
    /// The writer has said that nothing follows.
    finished: bool,
    /// The reader wants nothing more.
    deaf: bool,
    /// The reader is gone: who writes is told.
    broken: bool,
    /// The reader is told of an error.
    reset: bool,
}

#[derive(Debug)]
pub(crate) struct Listening {
    queue: Mutex<VecDeque<TcpStream>>,
    came: WaitSet,
}

#[derive(Debug)]
pub(crate) struct Interest {
    file: Weak<File>,
    data: u64,
    flags: EventFlags,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().expect("nobody panics here")
    }

    fn change(&self, change: impl FnOnce(&mut PipeState)) {
        change(&mut self.lock());
        self.moved.wake_all();
    }
}

impl End {
    fn reset(&self) {
        for pipe in [&self.inward, &self.outward] {
            pipe.change(|pipe| {
                pipe.bytes.clear();
                pipe.finished = true;
                pipe.broken = true;
                pipe.reset = true;
            });
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        kernel::point();
        if kernel::happens(|faults| faults.interrupted) {
            return Err(Errno::INTR);
        }
        if kernel::happens(|faults| faults.reset) {
            self.reset();
        }
        if kernel::happens(|faults| faults.no_buffers) {
            return Err(Errno::NOBUFS);
        }
        let mut pipe = self.outward.lock();
        if pipe.reset {
            return Err(Errno::CONNRESET);
        }
        if pipe.broken || pipe.finished {
            return Err(Errno::PIPE);
        }
        let room = KERNEL_BUFFER.saturating_sub(pipe.bytes.len()).min(bytes.len());
        drop(pipe);
        if !bytes.is_empty() && (room == 0 || kernel::happens(|faults| faults.again)) {
            return Err(Errno::AGAIN);
        }
        let taken = kernel::some_of(room);
        pipe = self.outward.lock();
        pipe.bytes.extend(&bytes[..taken]);
        drop(pipe);
        self.outward.moved.wake_all();
        Ok(taken)
    }

    fn recv(&self, max: usize, wait: bool) -> Result<Vec<u8>, Errno> {
        kernel::point();
        if kernel::happens(|faults| faults.interrupted) {
            return Err(Errno::INTR);
        }
        if kernel::happens(|faults| faults.reset) {
            self.reset();
        }
        let timeout = *self.read_timeout.lock().expect("nobody panics here");
        let deadline = timeout.map(|timeout| kernel::now() + timeout);
        let mut in_time = true;
        loop {
            {
                let mut pipe = self.inward.lock();
                if pipe.reset {
                    return Err(Errno::CONNRESET);
                }
                if !pipe.bytes.is_empty() {
                    let most = max.min(pipe.bytes.len());
                    let given = kernel::some_of(most);
                    let bytes = pipe.bytes.drain(..given).collect();
                    drop(pipe);
                    self.inward.moved.wake_all();
                    return Ok(bytes);
                }
                if pipe.finished || pipe.deaf {
                    return Ok(Vec::new());
                }
            }
            if !wait || !in_time {
                return Err(Errno::AGAIN);
            }
            in_time = self.inward.moved.wait(deadline);
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        kernel::point();
        if how != Shutdown::Read {
            self.outward.change(|pipe| pipe.finished = true);
        }
        if how != Shutdown::Write {
            self.inward.change(|pipe| pipe.deaf = true);
        }
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let unread = !self.inward.lock().bytes.is_empty();
        // Linux resets a stream that is closed with unread input.
        self.outward.change(|pipe| {
            pipe.finished = true;
            pipe.reset |= unread;
        });
        self.inward.change(|pipe| pipe.broken = true);
    }
}

impl File {
    fn ready(&self) -> EventFlags {
        let mut flags = EventFlags::empty();
        match self {
            Self::Event(count, _) => {
                flags.set(EventFlags::IN, *count.lock().expect("nobody panics here") > 0)
            }
            Self::Listener(listening) => {
                flags.set(EventFlags::IN, !listening.queue.lock().expect("nobody panics here").is_empty());
            }
            Self::Epoll(..) => {}
            Self::Stream(end) => {
                let (inward, outward) = (end.inward.lock(), end.outward.lock());
                let ended = inward.finished || inward.deaf;
                flags.set(EventFlags::IN, ended || !inward.bytes.is_empty());
                flags.set(EventFlags::RDHUP, ended);
                flags.set(EventFlags::HUP, ended && (outward.finished || outward.broken));
                flags.set(EventFlags::ERR, inward.reset);
                let open = outward.bytes.len() < KERNEL_BUFFER || outward.finished || outward.broken;
                flags.set(EventFlags::OUT, open);
            }
        }
        flags
    }

    fn watch(&self, ticket: &Arc<Ticket>) {
        match self {
            Self::Event(_, set) | Self::Epoll(_, set) => set.add(ticket),
            Self::Listener(listening) => listening.came.add(ticket),
            Self::Stream(end) => {
                end.inward.moved.add(ticket);
                end.outward.moved.add(ticket);
            }
        }
    }
}

fn deadline_of(timeout: Option<&Timespec>) -> Option<Duration> {
    timeout.map(|left| kernel::now() + Duration::new(left.tv_sec as u64, left.tv_nsec as u32))
}

/// Descriptors.
pub(crate) mod fd {
    use super::{Arc, File};

    #[derive(Debug)]
    pub(crate) struct OwnedFd(pub(super) Arc<File>);

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct BorrowedFd<'a>(pub(super) &'a Arc<File>);

    pub(crate) trait AsFd {
        fn as_fd(&self) -> BorrowedFd<'_>;
    }

    impl AsFd for OwnedFd {
        fn as_fd(&self) -> BorrowedFd<'_> {
            BorrowedFd(&self.0)
        }
    }

    impl<T: AsFd + ?Sized> AsFd for &T {
        fn as_fd(&self) -> BorrowedFd<'_> {
            (**self).as_fd()
        }
    }

    impl AsFd for super::TcpStream {
        fn as_fd(&self) -> BorrowedFd<'_> {
            BorrowedFd(&self.0)
        }
    }

    impl AsFd for super::TcpListener {
        fn as_fd(&self) -> BorrowedFd<'_> {
            BorrowedFd(&self.0)
        }
    }
}

/// Streams and listeners; those of the Unix domain are the same.
pub(crate) mod net {
    pub(crate) use super::{TcpListener, TcpListener as UnixListener, TcpStream, TcpStream as UnixStream};

    /// There are no files here.
    pub(crate) fn listen_unix(
        path: &std::path::Path,
        _: impl FnOnce() -> std::io::Result<()>,
    ) -> std::io::Result<UnixListener> {
        TcpListener::bind(path)
    }

    pub(crate) fn is_abandoned(_: &std::path::Path) -> bool {
        false
    }
}

#[derive(Debug, Clone)]
pub(crate) struct TcpStream(Arc<File>);

impl TcpStream {
    /// Both ends of a new stream.
    pub(crate) fn pair() -> (Self, Self) {
        let (here, there) = (Arc::new(Pipe::default()), Arc::new(Pipe::default()));
        let end = |inward, outward| {
            Self(Arc::new(File::Stream(End { inward, outward, read_timeout: Mutex::new(None) })))
        };
        (end(Arc::clone(&here), Arc::clone(&there)), end(there, here))
    }

    /// To the listener that was bound last.
    pub(crate) fn connect<A>(_: A) -> io::Result<Self> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = LISTENER.with_borrow(Weak::upgrade).ok_or_else(refused)?;
        let (here, there) = Self::pair();
        let listening = TcpListener(listener);
        let listening = listening.listening();
        listening.queue.lock().expect("nobody panics here").push_back(there);
        listening.came.wake_all();
        Ok(here)
    }

    fn end(&self) -> &End {
        let File::Stream(end) = &*self.0 else { unreachable!("a stream") };
        end
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.end().send(bytes)?)
    }

    pub(crate) fn recv(&self, max: usize, wait: bool) -> io::Result<Vec<u8>> {
        Ok(self.end().recv(max, wait)?)
    }

    /// Waits until it takes something.
    pub(crate) fn wait_writable(&self) {
        while !self.0.ready().contains(EventFlags::OUT) {
            self.end().outward.moved.wait(None);
        }
    }

    /// As a peer that resets.
    pub(crate) fn reset(&self) {
        self.end().reset();
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        *self.end().read_timeout.lock().expect("nobody panics here") = timeout;
        Ok(())
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.end().shutdown(how)
    }
}

impl io::Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.end().recv(buffer.len(), true)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct TcpListener(Arc<File>);

impl TcpListener {
    pub(crate) fn bind<A>(_: A) -> io::Result<Self> {
        let listening = Listening { queue: Mutex::default(), came: WaitSet::default() };
        let listener = Self(Arc::new(File::Listener(listening)));
        LISTENER.set(Arc::downgrade(&listener.0));
        Ok(listener)
    }

    fn listening(&self) -> &Listening {
        let File::Listener(listening) = &*self.0 else { unreachable!("a listener") };
        listening
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 1).into())
    }

    pub(crate) fn set_nonblocking(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        static PORT: AtomicU64 = AtomicU64::new(0);
        kernel::point();
        if kernel::happens(|faults| faults.accept) {
            const ERRORS: [Errno; 6] =
                [Errno::MFILE, Errno::NFILE, Errno::CONNABORTED, Errno::NOBUFS, Errno::NOMEM, Errno::INTR];
            return Err(ERRORS[thread_rng().gen_range(0..ERRORS.len())].into());
        }
        let stream = self.listening().queue.lock().expect("nobody panics here").pop_front();
        let stream = stream.ok_or(io::ErrorKind::WouldBlock)?;
        let port = 1024 + PORT.fetch_add(1, SeqCst) % 60_000;
        Ok((stream, ([127, 0, 0, 1], port as u16).into()))
    }
}

/// System calls.
pub(crate) mod os {
    pub(crate) use rustix::{
        event::{EventfdFlags, PollFlags, Timespec},
        io::Errno,
        net::{RecvFlags, SendFlags},
    };

    use super::{
        Arc, Duration, File, Mutex, PhantomData, Ticket, WaitSet, deadline_of,
        fd::{AsFd, OwnedFd},
        kernel,
    };

    /// As many as anybody wants.
    pub(crate) fn descriptor_limit() -> Option<usize> {
        None
    }

    pub(crate) fn eventfd(_: u32, _: EventfdFlags) -> Result<OwnedFd, Errno> {
        Ok(OwnedFd(Arc::new(File::Event(Mutex::new(0), WaitSet::default()))))
    }

    pub(crate) fn write(fd: &OwnedFd, _: &[u8; 8]) -> Result<usize, Errno> {
        kernel::point();
        let File::Event(count, set) = &*fd.0 else { return Err(Errno::BADF) };
        *count.lock().expect("nobody panics here") += 1;
        set.wake_all();
        Ok(8)
    }

    pub(crate) fn read(fd: &OwnedFd, _: &mut [u8; 8]) -> Result<usize, Errno> {
        kernel::point();
        let File::Event(count, _) = &*fd.0 else { return Err(Errno::BADF) };
        match std::mem::take(&mut *count.lock().expect("nobody panics here")) {
            0 => Err(Errno::AGAIN),
            _ => Ok(8),
        }
    }

    pub(crate) fn send(fd: impl AsFd, bytes: &[u8], _: SendFlags) -> Result<usize, Errno> {
        let File::Stream(end) = &**fd.as_fd().0 else { return Err(Errno::NOTSOCK) };
        end.send(bytes)
    }

    /// The room of a vector that nothing is in.
    pub(crate) fn spare_capacity<T>(vector: &mut Vec<T>) -> &mut Vec<T> {
        vector
    }

    pub(crate) fn recv(fd: impl AsFd, buffer: &mut Vec<u8>, flags: RecvFlags) -> Result<usize, Errno> {
        let File::Stream(end) = &**fd.as_fd().0 else { return Err(Errno::NOTSOCK) };
        let room = buffer.capacity() - buffer.len();
        assert!(room > 0, "a read into no room looks like the peer's end");
        let bytes = end.recv(room, !flags.contains(RecvFlags::DONTWAIT))?;
        buffer.extend_from_slice(&bytes);
        Ok(bytes.len())
    }

    pub(crate) fn set_tcp_nodelay(_: impl AsFd, _: bool) -> Result<(), Errno> {
        Ok(())
    }

    #[derive(Debug)]
    pub(crate) struct PollFd<'fd> {
        file: Arc<File>,
        events: PollFlags,
        revents: PollFlags,
        of: PhantomData<&'fd File>,
    }

    impl<'fd> PollFd<'fd> {
        pub(crate) fn new<F: AsFd>(fd: &'fd F, events: PollFlags) -> Self {
            Self { file: Arc::clone(fd.as_fd().0), events, revents: PollFlags::empty(), of: PhantomData }
        }

        pub(crate) fn revents(&self) -> PollFlags {
            self.revents
        }

        fn look(&mut self) -> bool {
            let ready = PollFlags::from_bits_truncate(self.file.ready().bits() as u16);
            self.revents = ready & (self.events | PollFlags::HUP | PollFlags::ERR);
            !self.revents.is_empty()
        }
    }

    pub(crate) fn poll(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, Errno> {
        kernel::point();
        if kernel::happens(|faults| faults.interrupted) {
            return Err(Errno::INTR);
        }
        let deadline = deadline_of(timeout);
        let mut in_time = true;
        loop {
            let ready = fds.iter_mut().map(PollFd::look).filter(|ready| *ready).count();
            if ready > 0 || !in_time || timeout.is_some_and(is_zero) {
                return Ok(ready);
            }
            let ticket = Ticket::new();
            fds.iter().for_each(|fd| fd.file.watch(&ticket));
            in_time = ticket.wait(deadline);
        }
    }

    fn is_zero(timeout: &Timespec) -> bool {
        Duration::new(timeout.tv_sec as u64, timeout.tv_nsec as u32).is_zero()
    }

    /// Many descriptors at once.
    pub(crate) mod epoll {
        pub(crate) use rustix::event::epoll::{CreateFlags, EventData, EventFlags};

        use super::super::{
            Arc, Errno, File, Interest, Mutex, Ticket, Timespec, WaitSet, deadline_of,
            fd::{AsFd, OwnedFd},
            kernel,
        };

        pub(crate) struct Event {
            pub(crate) flags: EventFlags,
            pub(crate) data: EventData,
        }

        pub(crate) fn create(_: CreateFlags) -> Result<OwnedFd, Errno> {
            Ok(OwnedFd(Arc::new(File::Epoll(Mutex::default(), WaitSet::default()))))
        }

        fn interests(epoll: &OwnedFd) -> (&Mutex<Vec<Interest>>, &WaitSet) {
            let File::Epoll(interests, changed) = &*epoll.0 else { unreachable!("an epoll") };
            (interests, changed)
        }

        pub(crate) fn add(
            epoll: &OwnedFd,
            fd: impl AsFd,
            data: EventData,
            flags: EventFlags,
        ) -> Result<(), Errno> {
            kernel::point();
            let (interests, changed) = interests(epoll);
            let file = Arc::downgrade(fd.as_fd().0);
            {
                let mut interests = interests.lock().expect("nobody panics here");
                interests.retain(|interest| interest.file.strong_count() > 0);
                if interests.iter().any(|interest| interest.file.ptr_eq(&file)) {
                    return Err(Errno::EXIST);
                }
                interests.push(Interest { file, data: data.u64(), flags });
            }
            changed.wake_all();
            Ok(())
        }

        pub(crate) fn modify(
            epoll: &OwnedFd,
            fd: impl AsFd,
            data: EventData,
            flags: EventFlags,
        ) -> Result<(), Errno> {
            delete(epoll, &fd)?;
            add(epoll, fd, data, flags)
        }

        pub(crate) fn delete(epoll: &OwnedFd, fd: impl AsFd) -> Result<(), Errno> {
            kernel::point();
            let file = Arc::downgrade(fd.as_fd().0);
            let mut interests = interests(epoll).0.lock().expect("nobody panics here");
            let at = interests.iter().position(|interest| interest.file.ptr_eq(&file)).ok_or(Errno::NOENT)?;
            interests.swap_remove(at);
            Ok(())
        }

        pub(crate) fn wait(
            epoll: &OwnedFd,
            events: &mut Vec<Event>,
            timeout: Option<&Timespec>,
        ) -> Result<usize, Errno> {
            kernel::point();
            if kernel::happens(|faults| faults.interrupted) {
                return Err(Errno::INTR);
            }
            let deadline = deadline_of(timeout);
            let (interests, changed) = interests(epoll);
            let mut in_time = true;
            loop {
                let ticket = Ticket::new();
                changed.add(&ticket);
                for interest in &*interests.lock().expect("nobody panics here") {
                    let Some(file) = interest.file.upgrade() else { continue };
                    file.watch(&ticket);
                    let flags = file.ready() & (interest.flags | EventFlags::HUP | EventFlags::ERR);
                    if !flags.is_empty() && events.len() < events.capacity() {
                        events.push(Event { flags, data: EventData::new_u64(interest.data) });
                    }
                }
                if !events.is_empty() || !in_time {
                    // Not waited for.
                    ticket.wake();
                    return Ok(events.len());
                }
                in_time = ticket.wait(deadline);
            }
        }
    }
}
