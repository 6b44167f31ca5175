//! The descriptors of the process. Every connection takes one. When none is left, a connection cannot even be refused.
//!
//! Called once, at the start of a server. It reads `RLIMIT_NOFILE` and the list of open descriptors.

use std::fs;

use crate::server::{config::Config, guard};
use crate::sys::os::descriptor_limit;

/// Descriptors that are kept for the threads of the server and for the application, beside this part of the limit.
const RESERVE: usize = 16;
const RESERVE_SHARE: usize = 32;

/// The number of open descriptors where the system does not tell it.
const OPEN_UNKNOWN: usize = 16;

/// Lowers the numbers of sessions and connections to those for which there are descriptors, and logs that.
pub(crate) fn fit(config: &mut Config) {
    let Some(limit) = descriptor_limit() else { return };
    let open = open_now();
    let room = room(limit, open);
    let (sessions, connections) = (config.max_connections, config.tcp_connections());
    if connections > room {
        config.max_connections = sessions.min(room);
        config.max_tcp_connections = Some(room);
        guard::warn!(
            "max_tcp_connections is {room} instead of {connections}, and max_connections {} instead of {sessions}: \
             this process may have {limit} open files and has {open}; raise its limit (ulimit -n, LimitNOFILE=)",
            config.max_connections
        );
    }
}

/// Connections for which there are descriptors.
fn room(limit: usize, open: usize) -> usize {
    limit.saturating_sub(open).saturating_sub(RESERVE + limit / RESERVE_SHARE).max(1)
}

fn open_now() -> usize {
    // The listing itself has one open.
    fs::read_dir("/proc/self/fd").map_or(OPEN_UNKNOWN, |listed| listed.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_tiny_limit(64, 8, 38)]
    #[case::the_usual_one(1_024, 24, 952)]
    #[case::a_large_one(1_048_576, 24, 1_015_768)]
    #[case::less_than_is_open(8, 24, 1)]
    #[case::none(usize::MAX, 24, usize::MAX - 40 - usize::MAX / 32)]
    fn connections_leave_room_for_the_rest(#[case] limit: usize, #[case] open: usize, #[case] left: usize) {
        assert_eq!(room(limit, open), left);
    }

    #[test]
    fn what_fits_is_left_alone() {
        let mut config = Config { max_connections: 2, ..Config::default() };
        fit(&mut config);
        assert_eq!((config.max_connections, config.max_tcp_connections), (2, None));
    }

    #[test]
    fn what_is_open_is_counted() {
        let before = open_now();
        let _more: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").expect("it is there")).collect();
        assert!(open_now() >= before.saturating_sub(20) + 30);
    }
}
