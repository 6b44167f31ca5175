//! The outbox alone: data comes out once, whole and in order, then the close; an abort wins. There are few steps a
//! schedule, so the most schedules of all.

use std::{
    collections::VecDeque,
    net::Shutdown,
    sync::{Arc, Mutex as StdMutex},
};

use super::{check, go};
use crate::{
    proto::socket::Encoded,
    server::{
        limits::budget::Budget,
        net::stream::{self, Stream},
        transport::outbox::{CLOSE_FRAME, Drained, Outbox, Packets, Pushed},
    },
    sys::{
        net::TcpStream,
        os::{PollFd, PollFlags},
        sync::{Condvar, Mutex},
    },
};

/// Packets of each pusher.
const EACH: usize = 6;

/// What the drain thread is told.
#[derive(Default)]
struct Inbox {
    told: Mutex<VecDeque<Pushed>>,
    more: Condvar,
}

impl Inbox {
    /// As `Session::complete_push`. `false`: the push came to nothing.
    fn settle(&self, pushed: Pushed) -> bool {
        if matches!(pushed, Pushed::Drain | Pushed::Watch) {
            self.told.lock().push_back(pushed);
            self.more.notify_one();
        }
        matches!(pushed, Pushed::Done | Pushed::Drain | Pushed::Watch)
    }
}

/// How a scene ends.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Finish,
    Abort,
    Reset,
}

fn name(pusher: u8, number: usize, large: bool) -> Encoded {
    Encoded::text(&format!(
        "{}{number}{}",
        pusher as char,
        if large { ".".repeat(1500) } else { String::new() }
    ))
}

/// The texts of whole frames.
fn texts(bytes: &[u8]) -> Vec<String> {
    let texts = crate::proto::socket::Frames::new(bytes).filter_map(|frame| frame.text().map(str::to_owned));
    texts.map(|text| text.trim_end_matches('.').to_owned()).collect()
}

/// Two pushers, one that corks as a reader with more input does, a drain thread, and an end.
fn scene(ending: Ending, large: bool) {
    let budget = Arc::new(Budget::new(1 << 20));
    let outbox = Arc::new(Outbox::new(1 << 20, Arc::clone(&budget)));
    let inbox = Arc::new(Inbox::default());
    let (ours, theirs) = TcpStream::pair();
    let theirs = Arc::new(theirs);
    let reader = {
        let theirs = Arc::clone(&theirs);
        go(move || {
            let mut all = Vec::new();
            loop {
                match theirs.recv(2000, true) {
                    Ok(bytes) if bytes.is_empty() => break all,
                    Ok(bytes) => all.extend(bytes),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break all,
                }
            }
        })
    };
    let drain = {
        let (outbox, inbox) = (Arc::clone(&outbox), Arc::clone(&inbox));
        go(move || {
            loop {
                let told = {
                    let mut told = inbox.told.lock();
                    loop {
                        if let Some(told) = told.pop_front() {
                            break told;
                        }
                        inbox.more.wait(&mut told);
                    }
                };
                match told {
                    Pushed::Drain => {
                        let Some(stream) = outbox.stream() else { continue };
                        let mut fds = [PollFd::new(&*stream, PollFlags::OUT)];
                        while !stream::wait(&mut fds, None).expect("poll")
                            || outbox.drain() == Drained::Blocked
                        {}
                    }
                    Pushed::Watch => loop {
                        let (pushed, more) = outbox.watch();
                        inbox.settle(pushed);
                        crate::sys::thread::sleep(std::time::Duration::from_millis(2));
                        if !more {
                            break;
                        }
                    },
                    _ => return,
                }
            }
        })
    };
    let accepted = Arc::new(StdMutex::new(Vec::new()));
    let pushers: Vec<_> = [b'a', b'b']
        .into_iter()
        .map(|pusher| {
            let (outbox, inbox, accepted) = (Arc::clone(&outbox), Arc::clone(&inbox), Arc::clone(&accepted));
            go(move || {
                for number in 0..EACH {
                    if pusher == b'b' && number % 3 == 0 {
                        outbox.cork();
                    }
                    let packet = name(pusher, number, large);
                    let pushed = inbox.settle(outbox.push(Packets::Shared(&packet), false));
                    if pusher == b'b' && number % 3 == 2 {
                        inbox.settle(outbox.uncork());
                    }
                    if !pushed {
                        return;
                    }
                    accepted.lock().unwrap().push(format!("{}{number}", pusher as char));
                }
            })
        })
        .collect();
    // The first packets wait for this, as those of a polling session wait for its upgrade.
    if let Some(pushed) = outbox.attach(&Arc::new(Stream::tcp(ours))) {
        inbox.settle(pushed);
    }
    match ending {
        Ending::Finish => pushers.into_iter().for_each(|pusher| pusher.join().unwrap()),
        Ending::Abort => outbox.abort(),
        Ending::Reset => theirs.reset(),
    }
    inbox.settle(outbox.close(CLOSE_FRAME));
    let bytes = reader.join().unwrap();
    if ending == Ending::Finish {
        assert!(bytes.ends_with(CLOSE_FRAME), "the close is last");
        assert!(outbox.push(Packets::Borrowed(b"x"), false) == Pushed::Closed);
    }
    let _ = theirs.shutdown(Shutdown::Both);
    outbox.abort();
    assert!(outbox.is_closed());
    assert_eq!(budget.used(), 0, "the account");
    let heard = texts(&bytes);
    for letter in ['a', 'b'] {
        let numbers = super::numbers_of(letter, &heard);
        assert!(numbers.iter().copied().eq(0..numbers.len()), "in order, once: {heard:?}");
        if ending == Ending::Finish {
            assert_eq!(numbers.len(), EACH, "all of it: {heard:?}");
        }
    }
    inbox.told.lock().push_back(Pushed::Closed);
    inbox.more.notify_one();
    drain.join().unwrap();
}

#[test]
fn what_is_pushed_before_a_finish_arrives_once_and_in_order() {
    check("outbox, finish", || scene(Ending::Finish, false));
}

#[test]
fn what_the_kernel_does_not_take_arrives_once_and_in_order() {
    check("outbox, finish, large", || scene(Ending::Finish, true));
}

#[test]
fn an_abort_wins() {
    check("outbox, abort", || scene(Ending::Abort, true));
}

#[test]
fn a_reset_leaves_no_account() {
    check("outbox, reset", || scene(Ending::Reset, true));
}
