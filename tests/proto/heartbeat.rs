//! The server's heartbeat as tables of time, what was heard, and what is to be done.

use std::time::{Duration, Instant};

use rstest::rstest;
use tinysio::proto::engine::{Beat, Heard, Heartbeat};

const NOTHING: Heard = Heard { pong: false, packet: false, busy: false };
const PONG: Heard = Heard { pong: true, packet: true, busy: false };
const PACKET: Heard = Heard { pong: false, packet: true, busy: false };
const BUSY: Heard = Heard { pong: false, packet: false, busy: true };

/// A [`Beat`] with seconds since the start.
#[derive(Debug, PartialEq)]
enum Do {
    Wait(u64),
    Ping(u64),
    Expire,
}
use Do::{Expire, Ping, Wait};

type Table<'a> = &'a [(u64, Heard, Do)];

#[rstest]
#[case::a_healthy_peer((25, 20), &[
    (0, NOTHING, Wait(25)), (25, NOTHING, Ping(45)), (45, PONG, Wait(50)), (50, NOTHING, Ping(70)),
])]
#[case::a_dead_peer((25, 20), &[(25, NOTHING, Ping(45)), (45, NOTHING, Expire)])]
#[case::called_too_early((25, 20), &[
    (10, PACKET, Wait(25)), (24, BUSY, Wait(25)), (25, NOTHING, Ping(45)), (30, NOTHING, Wait(45)), (44, BUSY, Wait(45)),
    (45, NOTHING, Expire),
])]
#[case::called_too_late((25, 20), &[(100, NOTHING, Ping(120)), (300, PONG, Ping(320)), (400, NOTHING, Expire)])]
#[case::a_pong_reported_at_once((25, 20), &[(25, NOTHING, Ping(45)), (26, PONG, Wait(50)), (50, NOTHING, Ping(70))])]
#[case::an_unsolicited_pong_is_no_credit((25, 20), &[
    (10, PONG, Wait(25)), (25, PONG, Ping(45)), (45, NOTHING, Expire),
])]
#[case::a_pong_after_the_deadline_but_before_the_look((25, 20), &[(25, NOTHING, Ping(45)), (60, PONG, Ping(80))])]
#[case::a_large_upload((25, 20), &[
    (25, NOTHING, Ping(45)), (45, PACKET, Wait(50)), (50, PACKET, Wait(65)), (65, PONG, Ping(85)),
])]
#[case::puts_the_deadline_off_once((25, 20), &[
    (25, NOTHING, Ping(45)), (45, PACKET, Wait(50)), (50, PACKET, Wait(65)), (65, PACKET, Expire),
])]
#[case::once_a_ping((25, 20), &[
    (25, NOTHING, Ping(45)), (45, PACKET, Wait(50)), (50, PONG, Ping(70)), (70, PACKET, Wait(75)), (75, NOTHING, Wait(90)),
    (90, NOTHING, Expire),
])]
#[case::a_packet_before_the_ping_counts_for_nothing((25, 20), &[(25, PACKET, Ping(45)), (45, NOTHING, Expire)])]
#[case::a_packet_heard_at_an_early_look_counts((25, 20), &[
    (25, NOTHING, Ping(45)), (30, PACKET, Wait(45)), (45, NOTHING, Wait(50)), (50, NOTHING, Wait(65)), (65, NOTHING, Expire),
])]
#[case::a_busy_handler_gets_pings_and_time((25, 20), &[
    (25, NOTHING, Ping(45)), (45, BUSY, Wait(50)), (50, BUSY, Ping(70)), (70, BUSY, Wait(75)), (75, NOTHING, Wait(90)),
    (90, NOTHING, Expire),
])]
#[case::busy_then_answered((25, 20), &[(25, NOTHING, Ping(45)), (45, BUSY, Wait(50)), (50, PONG, Ping(70))])]
#[case::busy_does_not_spend_the_grace((25, 20), &[
    (25, NOTHING, Ping(45)), (45, BUSY, Wait(50)), (65, PACKET, Wait(85)), (85, PACKET, Expire),
])]
#[case::longer_timeout_and_a_busy_handler((5, 20), &[
    (5, NOTHING, Ping(10)), (10, BUSY, Ping(15)), (15, BUSY, Ping(20)), (20, PONG, Ping(25)), (25, NOTHING, Wait(30)),
])]
#[case::longer_timeout_than_interval((5, 20), &[
    (5, NOTHING, Ping(10)), (10, NOTHING, Wait(15)), (15, NOTHING, Wait(20)), (20, NOTHING, Wait(25)), (25, NOTHING, Expire),
])]
#[case::longer_timeout_and_a_pong_in_time((5, 20), &[
    (5, NOTHING, Ping(10)), (10, PONG, Ping(15)), (15, PONG, Ping(20)),
])]
#[case::longer_timeout_and_a_late_pong((5, 20), &[
    (5, NOTHING, Ping(10)), (10, NOTHING, Wait(15)), (15, PONG, Ping(20)), (20, NOTHING, Wait(25)),
])]
#[case::longer_timeout_and_an_upload((5, 20), &[
    (5, NOTHING, Ping(10)), (10, PACKET, Wait(15)), (15, NOTHING, Wait(20)), (20, NOTHING, Wait(25)),
    (25, NOTHING, Wait(30)), (30, PONG, Ping(35)),
])]
#[case::equal((10, 10), &[(10, NOTHING, Ping(20)), (20, PONG, Ping(30)), (30, NOTHING, Expire)])]
fn tables(#[case] (interval, timeout): (u64, u64), #[case] table: Table<'_>) {
    let start = Instant::now();
    let seconds = |instant: Instant| instant.duration_since(start).as_secs();
    let mut heartbeat = Heartbeat::new(start, Duration::from_secs(interval), Duration::from_secs(timeout));
    for (row, (at, heard, expected)) in table.iter().enumerate() {
        let beat = match heartbeat.check(start + Duration::from_secs(*at), *heard) {
            Beat::Wait(until) => Wait(seconds(until)),
            Beat::Ping(until) => Ping(seconds(until)),
            Beat::Expired => Expire,
        };
        assert_eq!(&beat, expected, "row {row}, at {at}");
    }
}

/// A call at the instant that was named returns a later instant, or the end. So no caller loops at one instant.
#[rstest]
fn time_goes_on(
    #[values((25, 20), (5, 20), (10, 10), (1, 1))] (interval, timeout): (u64, u64),
    #[values(&[PONG][..], &[PACKET], &[BUSY], &[PACKET, PONG], &[NOTHING, PONG], &[BUSY, PACKET, NOTHING])]
    pattern: &[Heard],
) {
    let mut now = Instant::now();
    let mut heartbeat = Heartbeat::new(now, Duration::from_secs(interval), Duration::from_secs(timeout));
    for heard in pattern.iter().cycle().take(200) {
        let (Beat::Wait(next) | Beat::Ping(next)) = heartbeat.check(now, *heard) else { return };
        assert!(next > now);
        now = next;
    }
}
