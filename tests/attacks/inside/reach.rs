//! Owns attacks by ordinary means on places that no policy mentions: the host, other networks, resolvers, everybody at once.

use std::net::IpAddr;

use crate::packet::{SYN, TCP, ip, tcp};
use crate::target::{Attempt, Family};
use crate::wire::{all, send_ip, send_plain};
use crate::{Attack, BOTH, Outcome, V4};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::new("DNS to a resolver that is not configured (UDP and TCP)", BOTH, |attempt| {
        let resolver = attempt.at("outside");
        all([Ok(send_plain(attempt, resolver, 53)?), syn(attempt, &[resolver], &[53])])
    }),
    Attack::new("DNS to the gateway and to a peer", BOTH, |attempt| {
        let them = [attempt.at("gateway"), attempt.at("peer")];
        all([both(attempt, &them, &[53, 853, 5353])])
    }),
    Attack::new(
        "host services at the gateway's address (22, 2375, 2376, 2377, 7946, 4789, 9323, 10250)",
        BOTH,
        |attempt| {
            both(
                attempt,
                &[attempt.at("gateway")],
                &[22, 2375, 2376, 2377, 7946, 4789, 9323, 10_250],
            )
        },
    ),
    Attack::new("host services at its other addresses", BOTH, |attempt| {
        both(attempt, &[attempt.at("host"), attempt.at("other_gateway")], &[22, 2375, 8099])
    }),
    Attack::new("a peer's published port by way of the host (hairpin)", BOTH, |attempt| {
        let published = attempt.targets.text("published").parse()?;
        both(attempt, &[attempt.at("host"), attempt.at("gateway")], &[published])
    }),
    Attack::new("a container on another network", BOTH, |attempt| {
        both(attempt, &[attempt.at("other")], &[80, 9])
    }),
    Attack::new("the cloud's metadata service", BOTH, |attempt| {
        let address: IpAddr = match attempt.family {
            Family::V4 => "169.254.169.254".parse()?,
            Family::V6 => "fd00:ec2::254".parse()?,
        };
        both(attempt, &[address], &[80])
    }),
    Attack::new("NTP, syslog, SNMP, QUIC to the world", BOTH, |attempt| {
        both(attempt, &[attempt.at("outside")], &[123, 514, 161, 443])
    }),
    Attack::new("multicast: mDNS, SSDP, LLMNR, all nodes", BOTH, |attempt| {
        let groups: &[(&str, u16)] = match attempt.family {
            Family::V4 => &[
                ("224.0.0.251", 5353),
                ("239.255.255.250", 1900),
                ("224.0.0.252", 5355),
                ("224.0.0.1", 9),
            ],
            Family::V6 => {
                &[("ff02::fb", 5353), ("ff02::c", 1900), ("ff02::1:3", 5355), ("ff02::1", 9)]
            }
        };
        all(groups.iter().map(|(group, port)| Ok(send_plain(attempt, group.parse()?, *port)?)))
    }),
    Attack::new("broadcast: 255.255.255.255, the subnet's, DHCP", V4, |attempt| {
        let everybody = "255.255.255.255".parse()?;
        let subnet = attempt.at("broadcast");
        Ok(all([(everybody, 9), (subnet, 9), (everybody, 67)]
            .map(|(to, port)| send_plain(attempt, to, port)))?)
    }),
    Attack::new("an allowed peer's other ports", BOTH, |attempt| {
        both(attempt, &[attempt.at("friend")], &[22, 80, 5433])
    }),
    Attack::new("the configured resolver's other ports", V4, |attempt| {
        both(attempt, &[attempt.at("resolver")], &[80, 443, 853])
    }),
];

fn both(attempt: &Attempt<'_>, to: &[IpAddr], ports: &[u16]) -> Outcome {
    let plain = to.iter().flat_map(|to| ports.iter().map(move |port| (*to, *port)));
    let plain = all(plain.map(|(to, port)| send_plain(attempt, to, port)));
    all([plain.map_err(Into::into), syn(attempt, to, ports)])
}

/// Marked in the SYN, which says as much as a connection would.
fn syn(attempt: &Attempt<'_>, to: &[IpAddr], ports: &[u16]) -> Outcome {
    let own = attempt.own();
    let each = to.iter().flat_map(|to| ports.iter().map(move |port| (*to, *port)));
    Ok(all(each.map(|(to, port)| {
        let segment = tcp((own, to), (attempt.port(), port), SYN, &attempt.payload());
        send_ip(to, &ip(own, to, TCP, &segment))
    }))?)
}
