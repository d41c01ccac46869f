//! Layers kernel and old, in both in the virtual machine: links that have no cable of their own, macvlan and ipvlan, which not every kernel has. The policy and the guard
//! hold there as on any other, and ordinary traffic passes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/attacks.rs"]
mod attacks;
#[path = "kernel/frames.rs"]
mod frames;
#[path = "kernel/guarded.rs"]
mod guarded;
#[path = "kernel/netns.rs"]
mod netns;

use std::net::IpAddr;

use attacks::attack;
use guarded::{Guarded, OTHER4, OTHER6};

/// Nothing of what raw sockets send gets out, and all a policy allows does. Returns what would have got out.
fn hold(kind: &[&str]) -> Vec<&'static str> {
    let mut world = Guarded::over(kind);
    let without = attack(&world);
    println!("{kind:?}: {} attacks get out without a policy", without.len());
    world.apply();
    assert_eq!(attack(&world), [""; 0], "with a policy and a guard nothing does");
    let before = world.denied();
    for other in [IpAddr::from(OTHER4), OTHER6.into()] {
        world.forget_neighbours();
        world.ping(other, 56);
        // In fragments.
        world.ping(other, 4_000);
        world.ping_back(other);
        assert_eq!(world.echo_udp(other, 1_000), 1_000);
        assert_eq!(world.echo_udp(other, 9_000), 9_000);
        world.bulk_tcp(other, 1 << 20);
        world.refused_udp(other);
    }
    assert_eq!(world.denied(), before, "ordinary traffic meets no guard");
    without
}

#[test]
fn what_leaves_by_a_macvlan_link_is_judged_and_guarded() {
    assert!(hold(&["macvlan", "mode", "bridge"]).len() > 15);
}

#[test]
fn what_leaves_by_an_ipvlan_link_is_judged_and_guarded() {
    assert!(hold(&["ipvlan", "mode", "l2"]).len() > 15);
}
