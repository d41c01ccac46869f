//! Kernel layer: a netns speaks for itself only. Whoever writes another's address into its packets is stopped, with and
//! without a guard at the links, at each packet, and as soon as an address is no longer its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/attacks.rs"]
mod attacks;
#[path = "kernel/frames.rs"]
mod frames;
#[path = "kernel/guarded.rs"]
mod guarded;
#[path = "kernel/netns.rs"]
mod netns;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use attacks::{STRANGER4, STRANGER6};
use frames::Capture;
use guarded::{Guarded, OTHER4, OTHER6, PORT};
use netns::inside_of;

const FROM: u16 = 9009;
const TIMES: usize = 3;

/// Sends from another's addresses, always as parts of the same connections, and returns how many arrived of each:
/// by a raw socket over IPv4 and IPv6, and by a process without any capability.
fn arrive(world: &Guarded, from4: Ipv4Addr, from6: Ipv6Addr) -> [usize; 3] {
    let capture = inside_of(&world.outside, || Capture::at("eth0"));
    world.ping(OTHER4.into(), 8);
    world.ping(OTHER6.into(), 8);
    inside_of(&world.inside, move || {
        let of4 = |data| frames::ipv4(from4, OTHER4, 17, 0, &frames::udp(FROM, PORT, data));
        let of6 = |data| frames::ipv6(from6, OTHER6, 17, 64, &frames::udp(FROM, PORT, data));
        for _ in 0..TIMES {
            // Whether the sender is told matters to nobody.
            let _ = frames::by_raw4(&of4(b"RAW4"));
            let _ = frames::by_raw6("eth0", &of6(b"RAW6"));
        }
    });
    for _ in 0..TIMES {
        inside_of(&world.inside, move || {
            let _ = frames::by_anybody6((from6, FROM + 1), (OTHER6, PORT), b"ANYBODY");
        });
    }
    world.say(OTHER4.into(), b"the last one");
    let mut frames = capture.until(b"the last one");
    // Not the errors that are sent back.
    let other = world.mac(&world.outside);
    frames.retain(|frame| frame.starts_with(&other));
    [b"RAW4".as_slice(), b"RAW6", b"ANYBODY"]
        .map(|mark| frames.iter().filter(|frame| frames::holds(frame, mark)).count())
}

/// The destination is one that may be reached: only the sender is wrong. A packet that is stopped leaves an entry of its
/// connection behind when it is stopped late; the next ones must not pass by that.
#[test]
fn who_writes_anothers_address_is_stopped_each_time() {
    let mut world = Guarded::new();
    let sent = [TIMES; 3];
    assert_eq!(arrive(&world, STRANGER4, STRANGER6), sent, "without a policy all arrive");
    world.apply_unguarded();
    assert_eq!(arrive(&world, STRANGER4, STRANGER6), [0; 3], "the policy stops them");
    let stopped = world.denied();
    assert!(stopped >= 3 * TIMES as u64, "and counts them: {stopped}");
    world.apply();
    assert_eq!(arrive(&world, STRANGER4, STRANGER6), [0; 3], "and with a guard");
    assert!(world.denied() >= stopped + 3 * TIMES as u64);
}

/// Where nothing is denied it is told and counted, once for each connection.
#[test]
fn in_observe_it_is_counted_once() {
    let mut world = Guarded::new();
    world.mode = seawall::policy::Mode::Observe;
    world.terms.denies = false;
    world.apply();
    assert_eq!(arrive(&world, STRANGER4, STRANGER6), [TIMES; 3]);
    assert_eq!(world.denied(), 3);
}

/// Its own connections live by their entries in the kernel: these must not outlive the address.
#[test]
fn an_address_that_is_given_up_speaks_for_nobody_any_more() {
    let mut world = Guarded::new();
    let (four, six) = (format!("{STRANGER4}/24"), format!("{STRANGER6}/64"));
    world.inside.ip(&["addr", "add", &four, "dev", "eth0"]);
    world.inside.ip(&["addr", "add", &six, "dev", "eth0", "nodad"]);
    world.apply();
    assert_eq!(arrive(&world, STRANGER4, STRANGER6), [TIMES; 3], "now they are its own");
    world.inside.ip(&["addr", "del", &four, "dev", "eth0"]);
    world.inside.ip(&["addr", "del", &six, "dev", "eth0"]);
    world.apply();
    assert_eq!(arrive(&world, STRANGER4, STRANGER6), [0; 3]);
    // What it says for itself goes on.
    assert_eq!(world.echo_udp(OTHER4.into(), 8), 8);
    assert_eq!(world.echo_udp(OTHER6.into(), 8), 8);
}

/// Who holds `NET_ADMIN` can make connections known to the kernel that nobody asked about, so the guard asks each packet. When the last
/// who does has left, what such entries let through must not be trusted.
#[test]
fn when_nobody_may_configure_the_netns_any_more_everything_is_judged_again() {
    let mut world = Guarded::new();
    world.terms.is_admin = true;
    world.apply();
    assert_eq!(arrive(&world, STRANGER4, STRANGER6), [0; 3], "the guard stops them");
    world.terms.is_admin = false;
    assert!(world.apply().transaction.revokes);
    assert_eq!(arrive(&world, STRANGER4, STRANGER6), [0; 3], "the policy does");
    world.terms.is_admin = true;
    assert!(world.apply().transaction.revokes);
}

/// Connections outlive the table they were judged by.
#[test]
fn a_table_that_is_made_again_knows_nobody_by_the_former_ones_mark() {
    let mut world = Guarded::new();
    world.share();
    let begun = (0..3).map(|_| {
        world.clear();
        world.doubt();
        world.apply().known.ruleset.unwrap().generation().unwrap()
    });
    let begun: BTreeSet<_> = begun.collect();
    assert!(begun.len() > 1, "{begun:?}");
}
