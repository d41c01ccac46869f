//! Owns attacks that change addresses, routes or devices first. All but the last two need NET_ADMIN.

use crate::connection::{forged, hello};
use crate::follow::{by_device, from, ip_tool, mac_of, nft, plain, plain_to, run, tc};
use crate::packet::{ether_of, frame};
use crate::target::{Attempt, Family};
use crate::wire::PacketSocket;
use crate::{Attack, BOTH, Outcome, V4};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::spoiling("another address of the subnet, nobody's (ip address add)", BOTH, |attempt| {
        add_address(attempt, "free")?;
        from(attempt, attempt.at("free"))
    }),
    Attack::spoiling("a running peer's address (ip address add)", BOTH, |attempt| {
        add_address(attempt, "peer")?;
        from(attempt, attempt.at("peer"))
    }),
    Attack::spoiling("another Ethernet address (ip link set address)", BOTH, |attempt| {
        ip_tool("link set eth0 address 02:00:00:77:77:77")?;
        plain(attempt)
    }),
    Attack::spoiling("a route to another network by way of a peer", BOTH, |attempt| {
        let (to, via) = (attempt.at("other"), attempt.at("peer"));
        ip_tool(&format!("-{} route replace {to} via {via}", attempt.family.digit()))?;
        plain_to(attempt, to)
    }),
    Attack::spoiling("eth0 under another name, frames by way of that", BOTH, |attempt| {
        if ip_tool("link set eth0 name out0").is_err() {
            ip_tool("link set eth0 down")?;
            ip_tool("link set eth0 name out0")?;
            ip_tool("link set out0 up")?;
        }
        by_device(attempt, "out0")
    }),
    Attack::spoiling("a macvlan device on eth0", BOTH, |attempt| {
        ip_tool("link add sub0 link eth0 type macvlan mode bridge")?;
        ip_tool("link set sub0 up")?;
        by_device(attempt, "sub0")
    }),
    Attack::spoiling("eth0 in a bridge of its own, frames by way of that", BOTH, |attempt| {
        ip_tool("link add br7 type bridge")?;
        side()?;
        ip_tool("link set eth0 master br7")?;
        ip_tool("link set side1 master br7")?;
        ip_tool("link set br7 up")?;
        ip_tool("link set eth0 promisc on")?;
        by_device(attempt, "side0")
    }),
    Attack::spoiling("tc: frames diverted to eth0 from another device (mirred)", BOTH, |attempt| {
        side()?;
        tc("qdisc add dev side0 clsact")?;
        tc(
            "filter add dev side0 egress protocol all u32 match u32 0 0 action mirred egress redirect dev eth0",
        )?;
        by_device(attempt, "side0")
    }),
    Attack::spoiling(
        "nftables: frames diverted to eth0 on another device's ingress (fwd)",
        BOTH,
        |attempt| {
            side()?;
            nft("add table netdev mine; \
             add chain netdev mine in { type filter hook ingress device \"side1\" priority 0; }; \
             add rule netdev mine in fwd to \"eth0\"")?;
            by_device(attempt, "side0")
        },
    ),
    Attack::spoiling(
        "nftables: frames diverted to eth0 on another device's egress (fwd)",
        BOTH,
        |attempt| {
            side()?;
            nft("add table netdev mine; \
             add chain netdev mine out { type filter hook egress device \"side0\" priority 0; }; \
             add rule netdev mine out fwd to \"eth0\"")?;
            by_device(attempt, "side0")
        },
    ),
    Attack::spoiling(
        "an entry forged over a device of its own (veth), then replies",
        BOTH,
        |attempt| {
            side()?;
            let mac = mac_of("side1")?;
            forged(attempt, |attempt, from| {
                let kind = ether_of(from.ip());
                let frame = frame(mac, [2, 0, 0, 0, 0, 1], kind, &hello(attempt, from));
                Ok(PacketSocket::raw_on("side0")?.send(mac, kind, &frame)?)
            })
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
