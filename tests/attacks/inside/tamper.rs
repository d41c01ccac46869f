//! Owns attacks that change rules or connection entries first. They need NET_ADMIN.

use crate::follow::{beside, nft, plain, run, tc, to_friend};
use crate::target::{Attempt, Family};
use crate::wire::{all, send_plain};
use crate::{Attack, BOTH, Outcome, V4};

/// So many revisions of a policy are tried as marks.
const GENERATIONS: u32 = 8;

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::spoiling("nftables: flush ruleset", BOTH, |attempt| tampered(attempt, "flush ruleset")),
    Attack::spoiling("nftables: delete the table", BOTH, |attempt| {
        tampered(attempt, "delete table inet seawall")
    }),
    Attack::spoiling("nftables: flush a chain of the table", BOTH, |attempt| {
        tampered(attempt, "flush chain inet seawall egress; add rule inet seawall egress accept")
    }),
    Attack::spoiling("nftables: a rule that accepts, first in the table", BOTH, |attempt| {
        tampered(attempt, "insert rule inet seawall egress accept")
    }),
    Attack::spoiling("nftables: an element in a set of the table", BOTH, |attempt| {
        let to = attempt.at("outside");
        let set = if to.is_ipv4() { "out4" } else { "out6" };
        tampered(attempt, &format!("add element inet seawall {set} {{ {to} . udp . 9 }}"))
    }),
    Attack::spoiling("nftables: the table dormant", BOTH, |attempt| {
        tampered(attempt, "add table inet seawall { flags dormant; }")
    }),
    Attack::spoiling("nftables: every table of every family deleted", BOTH, |attempt| {
        let families = ["inet", "netdev", "ip", "ip6", "arp", "bridge"];
        let delete = |family| nft(&format!("delete table {family} seawall"));
        beside(|| all(families.map(delete)), || plain(attempt))
    }),
    Attack::spoiling("nftables: a chain of its own that accepts earlier", BOTH, |attempt| {
        beside(|| own_chain("output priority -300", "accept"), || plain(attempt))
    }),
    Attack::spoiling(
        "nftables: a chain of its own that marks connections as allowed",
        BOTH,
        |attempt| {
            // Whatever the generation is, one packet of so many has it.
            let marks: Vec<String> = (0..GENERATIONS)
                .map(|number| format!("{number} : {:#x}", (number + 1) << 16))
                .collect();
            let marks = marks.join(", ");
            let rule = format!("ct mark set numgen inc mod {GENERATIONS} map {{ {marks} }}");
            beside(|| own_chain("output priority -150", &rule), || plain(attempt))
        },
    ),
    Attack::spoiling("nftables: connections not tracked (notrack)", BOTH, |attempt| {
        beside(|| own_chain("output priority -300", "notrack"), || plain(attempt))
    }),
    Attack::spoiling("nftables: an allowed destination translated (DNAT)", BOTH, |attempt| {
        let (word, friend, outside) = rewriting(attempt);
        let change = format!(
            "add table inet mine; add chain inet mine out {{ type nat hook output priority 10; }}; \
             add rule inet mine out {word} daddr {friend} tcp dport 5432 dnat {word} to {outside}"
        );
        beside(|| nft(&change), || to_friend(attempt))
    }),
    Attack::spoiling(
        "nftables: an allowed destination rewritten after the filter (postrouting)",
        BOTH,
        |attempt| {
            let (word, friend, outside) = rewriting(attempt);
            let rule = format!("{word} daddr {friend} tcp dport 5432 {word} daddr set {outside}");
            beside(|| own_chain("postrouting priority 200", &rule), || to_friend(attempt))
        },
    ),
    Attack::spoiling(
        "nftables: an allowed destination rewritten at the device (netdev egress)",
        BOTH,
        |attempt| {
            let (word, friend, outside) = rewriting(attempt);
            let change = format!(
                "add table netdev mine; \
             add chain netdev mine out {{ type filter hook egress device \"eth0\" priority 500; }}; \
             add rule netdev mine out {word} daddr {friend} tcp dport 5432 {word} daddr set {outside}"
            );
            beside(|| nft(&change), || to_friend(attempt))
        },
    ),
    Attack::spoiling("tc: an allowed destination rewritten at the device (pedit)", V4, |attempt| {
        let (_, friend, outside) = rewriting(attempt);
        tc("qdisc add dev eth0 clsact")?;
        let change = format!(
            "filter add dev eth0 egress protocol ip u32 match ip dst {friend} \
             action pedit munge ip dst set {outside}"
        );
        beside(|| tc(&change), || to_friend(attempt))
    }),
    Attack::spoiling(
        "ctnetlink: a connection entry injected, marked as allowed",
        BOTH,
        |attempt| {
            let (own, to) = (attempt.own().to_string(), attempt.at("outside").to_string());
            let port = attempt.port().to_string();
            let tuple = ["-s", &own, "-d", &to, "-p", "udp", "--sport", &port, "--dport", "9"];
            // Whatever the generation is, one of these is it.
            all((1..=GENERATIONS).map(|generation| {
                let mark = format!("{:#x}", generation << 16);
                let more = ["-u", "SEEN_REPLY,ASSURED", "-t", "60", "-m", &mark];
                run("/usr/sbin/conntrack", &[&["-I"], &tuple[..], &more].concat())?;
                let sent = send_plain(attempt, attempt.at("outside"), 9);
                run("/usr/sbin/conntrack", &[&["-D"], &tuple[..]].concat())?;
                Ok(sent?)
            }))
        },
    ),
];

/// Changes seawall's own table, if there is one, beside ordinary packets: where there is none, they show that they arrive.
fn tampered(attempt: &Attempt<'_>, commands: &str) -> Outcome {
    beside(|| nft(commands), || plain(attempt))
}

/// A table of the attacker's own with one chain and one rule.
fn own_chain(hook: &str, rule: &str) -> Outcome {
    nft(&format!(
        "add table inet mine; add chain inet mine out {{ type filter hook {hook}; }}; \
         add rule inet mine out {rule}"
    ))
}

/// The family's word, who is allowed, and where it shall go instead.
fn rewriting(attempt: &Attempt<'_>) -> (&'static str, String, String) {
    let word = if attempt.family == Family::V4 { "ip" } else { "ip6" };
    (word, attempt.at("friend").to_string(), attempt.at("outside").to_string())
}
