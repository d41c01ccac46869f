//! What a raw socket could send past the IP stack's hooks, and which of it gets out.
#![allow(dead_code, reason = "not every test uses everything")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::frames::{self, ARP, Capture, IP, IP6, LOCAL, Mac, Mark, VLAN};
use crate::guarded::{Guarded, OTHER4, OTHER6, OWN4, OWN6, PORT};
use crate::netns::inside_of;

/// What stands where.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) own: Mac,
    pub(crate) other: Mac,
}

pub(crate) type Attack = fn(Ends, Mark) -> io::Result<usize>;

pub(crate) const STRANGER4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 77);
pub(crate) const STRANGER6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x77);
/// A port no policy speaks of.
pub(crate) const ELSEWHERE: u16 = 2222;
pub(crate) const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

fn packet4(mark: Mark) -> Vec<u8> {
    frames::ipv4(OWN4, OTHER4, 17, 0, &frames::udp(9, PORT, &mark))
}

pub(crate) fn frame4(ends: Ends, mark: Mark) -> Vec<u8> {
    frames::ethernet(ends.other, ends.own, IP, &packet4(mark))
}

fn packet6(mark: Mark) -> Vec<u8> {
    frames::ipv6(OWN6, OTHER6, 17, 64, &frames::udp(9, PORT, &mark))
}

fn arp(ends: Ends, sender: Mac, ip: Ipv4Addr, mark: Mark, padding: usize) -> io::Result<usize> {
    let arp = frames::arp(sender, ip, mark, OTHER4, padding);
    frames::by_packet("eth0", ARP, &frames::ethernet([0xff; 6], ends.own, ARP, &arp), false)
}

/// Each of them gets out where there is no guard, though the policy allows at most one address, protocol and port.
pub(crate) const ATTACKS: [(&str, Attack); 23] = [
    ("packet socket, IPv4", |e, m| frames::by_packet("eth0", IP, &frame4(e, m), false)),
    ("packet socket past the queue", |e, m| frames::by_packet("eth0", IP, &frame4(e, m), true)),
    ("packet socket that says ARP", |e, m| frames::by_packet("eth0", ARP, &frame4(e, m), false)),
    ("packet socket that says ARP, past the queue", |e, m| {
        frames::by_packet("eth0", ARP, &frame4(e, m), true)
    }),
    ("packet socket that says nothing", |e, m| frames::by_packet("eth0", 0, &frame4(e, m), false)),
    ("packet socket that says VLAN", |e, m| frames::by_packet("eth0", VLAN, &frame4(e, m), false)),
    ("cooked packet socket", |e, m| frames::by_cooked("eth0", e.other, IP, &packet4(m))),
    ("packet ring", |e, m| frames::by_ring("eth0", IP, &frame4(e, m))),
    ("packet socket, IPv6", |e, m| {
        frames::by_packet("eth0", IP6, &frames::ethernet(e.other, e.own, IP6, &packet6(m)), false)
    }),
    ("VLAN", |e, m| {
        let inner = [&[0, 1][..], &IP.to_be_bytes(), &packet4(m)].concat();
        frames::by_packet("eth0", VLAN, &frames::ethernet(e.other, e.own, VLAN, &inner), false)
    }),
    ("ARP within a VLAN", |e, m| {
        let arp = frames::arp(e.own, OWN4, m, OTHER4, 0);
        let inner = [&[0, 1][..], &ARP.to_be_bytes(), &arp].concat();
        frames::by_packet("eth0", ARP, &frames::ethernet(e.other, e.own, VLAN, &inner), false)
    }),
    ("protocol nobody knows", |e, m| {
        frames::by_packet("eth0", LOCAL, &frames::ethernet(e.other, e.own, LOCAL, &m), false)
    }),
    ("later fragment", |e, m| {
        let fragment = frames::ipv4(OWN4, OTHER4, 17, 100, &m);
        frames::by_packet("eth0", IP, &frames::ethernet(e.other, e.own, IP, &fragment), false)
    }),
    ("ARP for another's address", |e, m| arp(e, e.own, STRANGER4, m, 0)),
    ("ARP with another's link address", |e, m| arp(e, e.other, OWN4, m, 0)),
    ("ARP from another's link address", |e, m| {
        let arp = frames::arp(e.other, OWN4, m, OTHER4, 0);
        frames::by_packet("eth0", ARP, &frames::ethernet([0xff; 6], e.other, ARP, &arp), false)
    }),
    ("ARP with something behind it", |e, m| arp(e, e.own, OWN4, m, 18)),
    ("ARP that says VLAN", |e, m| {
        let arp = frames::arp(e.own, STRANGER4, m, OTHER4, 0);
        frames::by_packet("eth0", VLAN, &frames::ethernet([0xff; 6], e.own, ARP, &arp), false)
    }),
    ("raw socket with another's address, IPv4", |_, m| {
        frames::by_raw4(&frames::ipv4(STRANGER4, OTHER4, 17, 0, &frames::udp(9, PORT, &m)))
    }),
    ("raw socket with another's address, IPv6", |_, m| {
        frames::by_raw6("eth0", &frames::ipv6(STRANGER6, OTHER6, 17, 64, &frames::udp(9, PORT, &m)))
    }),
    ("neighbour discovery off the link", |_, m| {
        frames::by_raw6("eth0", &frames::discovery(OWN6, FAR6, 135, FAR6, m, 0))
    }),
    ("neighbour advertisement of another's address", |_, m| {
        frames::by_raw6("eth0", &frames::discovery(OWN6, OTHER6, 136, STRANGER6, m, 0))
    }),
    ("neighbour advertisement of another's address behind an extension header", |_, m| {
        frames::by_raw6("eth0", &frames::hidden_advertisement(OWN6, OTHER6, m))
    }),
];

/// Sends every attack, and says which got out.
pub(crate) fn attack(guarded: &Guarded) -> Vec<&'static str> {
    let capture = inside_of(&guarded.outside, || Capture::at("eth0"));
    let ends = Ends { own: guarded.mac(&guarded.inside), other: guarded.mac(&guarded.outside) };
    // Some of it poisons the other end's. And what waits for a neighbour's address would arrive later.
    guarded.forget_neighbours();
    guarded.ping(OTHER4.into(), 8);
    guarded.ping(OTHER6.into(), 8);
    inside_of(&guarded.inside, move || {
        for (number, (_, send)) in ATTACKS.iter().enumerate() {
            // Whether the sender is told matters to nobody.
            let _ = send(ends, mark(number));
        }
    });
    guarded.say(OTHER4.into(), b"the last one");
    let frames = capture.until(b"the last one");
    let got_out = |number: usize| frames.iter().any(|frame| frames::holds(frame, &mark(number)));
    ATTACKS
        .iter()
        .enumerate()
        .filter(|(number, _)| got_out(*number))
        .map(|(_, (name, _))| *name)
        .collect()
}

fn mark(number: usize) -> Mark {
    format!("ATK-{number:02}").as_bytes().try_into().unwrap()
}
