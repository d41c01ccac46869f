//! Owns attacks that change addresses, routes or devices first. All but the last two need NET_ADMIN.

use crate::connection::{PUBLISHED, hello};
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};

use crate::follow::{beside, by_device, from, ip_tool, mac_of, nft, plain, run, tc};
use crate::packet::{ether_of, frame};
use crate::target::{Attempt, Family};
use crate::wire::{PacketSocket, all, send_plain};
use crate::{Attack, BOTH, Outcome, V4};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::spoiling("another address of the subnet, nobody's (ip address add)", BOTH, |attempt| {
        beside(|| add_address(attempt, "free"), || from(attempt, attempt.at("free")))
    }),
    Attack::spoiling("a running peer's address (ip address add)", BOTH, |attempt| {
        beside(|| add_address(attempt, "peer"), || from(attempt, attempt.at("peer")))
    }),
    Attack::spoiling("another Ethernet address (ip link set address)", BOTH, |attempt| {
        beside(|| ip_tool("link set eth0 address 02:00:00:77:77:77"), || plain(attempt))
    }),
    Attack::spoiling("a route to another network by way of a peer", BOTH, |attempt| {
        let (to, via) = (attempt.at("other"), attempt.at("peer"));
        let route = format!("-{} route replace {to} via {via}", attempt.family.digit());
        beside(|| ip_tool(&route), || Ok(send_plain(attempt, to, 9)?))
    }),
    Attack::spoiling("eth0 under another name, frames by way of that", BOTH, |attempt| {
        // A socket stays with its device, whatever that is called.
        let (socket, mac) = (PacketSocket::raw()?, mac_of("eth0")?);
        let rename = || {
            ip_tool("link set eth0 name out0").or_else(|_| {
                ip_tool("link set eth0 down")?;
                ip_tool("link set eth0 name out0")?;
                ip_tool("link set out0 up")
            })
        };
        beside(rename, || by_device(attempt, &socket, mac))
    }),
    Attack::spoiling("a macvlan device on eth0", BOTH, |attempt| {
        ip_tool("link add sub0 link eth0 type macvlan mode bridge")?;
        let (socket, mac) = (PacketSocket::raw_on("sub0")?, mac_of("sub0")?);
        beside(|| ip_tool("link set sub0 up"), || by_device(attempt, &socket, mac))
    }),
    Attack::spoiling("eth0 in a bridge of its own, frames by way of that", BOTH, |attempt| {
        ip_tool("link add br7 type bridge")?;
        side()?;
        ip_tool("link set eth0 master br7")?;
        ip_tool("link set side1 master br7")?;
        ip_tool("link set br7 up")?;
        beside(|| ip_tool("link set eth0 promisc on"), sending(attempt)?)
    }),
    Attack::spoiling("tc: frames diverted to eth0 from another device (mirred)", BOTH, |attempt| {
        side()?;
        tc("qdisc add dev side0 clsact")?;
        let change = "filter add dev side0 egress protocol all u32 match u32 0 0 action mirred egress redirect dev eth0";
        beside(|| tc(change), sending(attempt)?)
    }),
    Attack::spoiling(
        "nftables: frames diverted to eth0 on another device's ingress (fwd)",
        BOTH,
        |attempt| {
            side()?;
            let change = "add table netdev mine; \
             add chain netdev mine in { type filter hook ingress device \"side1\" priority 0; }; \
             add rule netdev mine in fwd to \"eth0\"";
            beside(|| nft(change), sending(attempt)?)
        },
    ),
    Attack::spoiling(
        "nftables: frames diverted to eth0 on another device's egress (fwd)",
        BOTH,
        |attempt| {
            side()?;
            let change = "add table netdev mine; \
             add chain netdev mine out { type filter hook egress device \"side0\" priority 0; }; \
             add rule netdev mine out fwd to \"eth0\"";
            beside(|| nft(change), sending(attempt)?)
        },
    ),
    Attack::spoiling(
        "an entry forged over a device of its own (veth), then replies",
        BOTH,
        |attempt| {
            side()?;
            let (mac, cable) = (mac_of("side1")?, PacketSocket::raw_on("side0")?);
            let theirs = attempt.away().map(|(to, _)| SocketAddr::new(to, attempt.port()));
            let socket = UdpSocket::bind((attempt.own(), PUBLISHED))?;
            let begin = |from: SocketAddr| {
                let kind = ether_of(from.ip());
                cable.send(mac, kind, &frame(mac, [2, 0, 0, 0, 0, 1], kind, &hello(attempt, from)))
            };
            let reply = |to: SocketAddr| socket.send_to(&attempt.payload(), to).map(drop);
            beside(|| Ok(all(theirs.map(begin))?), || Ok(all(theirs.map(reply))?))
        },
    ),
    Attack::new("a user and network namespace of its own (unshare)", V4, |attempt| {
        run("/usr/bin/unshare", &["-Urn", "/usr/bin/true"])?;
        plain(attempt)
    }),
    Attack::new("kernel settings (sysctl)", V4, |attempt| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        plain(attempt)
    }),
];

/// Sends frames into the attacker's own cable.
fn sending<'a>(
    attempt: &'a Attempt<'_>,
) -> Result<impl Fn() -> Outcome + Sync + 'a, Box<dyn Error>> {
    let (socket, mac) = (PacketSocket::raw_on("side0")?, mac_of("side0")?);
    Ok(move || by_device(attempt, &socket, mac))
}

/// A cable with both ends in the container.
fn side() -> Outcome {
    ip_tool("link add side0 type veth peer name side1")?;
    ip_tool("link set side0 up")?;
    ip_tool("link set side1 up")
}

fn add_address(attempt: &Attempt<'_>, who: &str) -> Outcome {
    let address = attempt.at(who);
    match attempt.family {
        Family::V4 => ip_tool(&format!("address add {address}/24 dev eth0")),
        Family::V6 => ip_tool(&format!("address add {address}/80 dev eth0 nodad")),
    }
}
