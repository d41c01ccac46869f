//! Owns the rules: the static chains of `table inet seawall` around whatever sets there are.
//!
//! A packet's path: `ingress`, `egress` or `transit` (the hooks) → `fast` → `essentials_*` → one of four judging
//! chains by whose connection it is → `allow` or `deny_*`.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use super::expand::Role;
use super::helped;
use super::ruleset::{
    Base, Chain, Comment, CtDirection, CtState, Generation, Hook, KeyKind, LookupKey, LookupRest,
    Reject, Rule, Set, Side, Stmt, Verdict,
};
use super::sender;
use crate::policy::{Action, DenyVerdict, DenyVerdicts, Direction, Mode};

const TCP: u8 = 6;
/// The port of resolvers (RFC 1035, 4.2.1).
const DNS: u16 = 53;
const ICMP: u8 = 1;
pub(super) const ICMP6: u8 = 58;

/// The hop limit of multicast listener discovery.
const ONE_HOP: u8 = 1;
/// The longest neighbour discovery message the kernel sends: 24 bytes and one option of 8 (`ndisc_send_ns`).
/// As long is a listener report with the option before it.
const DISCOVERY_LENGTH: u16 = 32;
/// The same of a router solicitation, which has no target (`ndisc_send_rs`).
const SOLICITATION_LENGTH: u16 = 16;
const ROUTER_SOLICITATION: u8 = 133;
const LISTENER_REPORT_V2: u8 = 143;
/// Multicast that stays on the link (RFC 4291, 2.7).
pub(super) const LINK_MULTICAST: Stmt = Stmt::Ip6To(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 16);

/// Kinds of ICMPv6 message that are alike: their types, first and last, and the hop limit that proves that they come from
/// the link.
type LinkMessages = (u8, u8, u8, &'static str);

/// ICMPv6 neighbour discovery (RFC 4861) and multicast listener discovery (RFC 2710, RFC 3810) a container may receive. No
/// redirects.
const LINK_IN: [LinkMessages; 2] = [
    (134, 136, 255, "router advertisements, neighbour discovery"),
    (130, 130, ONE_HOP, "multicast listener query"),
];

/// The same for sending. No router advertisements: a container must not become its neighbours' router (security model 4).
const LINK_OUT: [LinkMessages; 4] = [
    (ROUTER_SOLICITATION, ROUTER_SOLICITATION, 255, "router solicitation"),
    (135, 136, 255, "neighbour discovery"),
    (131, 132, ONE_HOP, "multicast listener report, done"),
    (LISTENER_REPORT_V2, LISTENER_REPORT_V2, ONE_HOP, "multicast listener report v2"),
];

/// What of the rules depends on more than mode and sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// It forwards packets for others.
    pub routes: bool,
    /// Its queries go to resolvers outside, not to one on `lo` that asks for it.
    pub asks_directly: bool,
    /// Whom its packets are from is asked ([`sender`]).
    pub asks_sender: bool,
}

/// Every chain of the table.
pub fn chains(
    sets: &BTreeMap<String, Set>,
    mode: Mode,
    shape: Shape,
    deny: DenyVerdicts,
    generation: Generation,
) -> BTreeMap<String, Chain> {
    let enforce = mode == Mode::Enforce;
    let plain = |rules| Chain { base: None, rules: Arc::new(rules) };
    let base = |hook, rules| Chain {
        base: Some(Base { hook, device: None, priority: 0, drops: enforce }),
        rules: Arc::new(rules),
    };
    let judge = |from, peer, port| plain(judging(sets, from, peer, port));
    let mut ingress = hook_rules(Stmt::FromLoopback, Direction::Ingress, enforce);
    if shape.asks_directly {
        ingress.insert(0, answers());
    }
    let mut essentials_out = essentials(Direction::Egress, &LINK_OUT);
    let mut asking = Vec::new();
    if shape.asks_sender {
        // Before errors about connections, and behind what the guard asks of the link.
        let before = essentials_out.len() - 1;
        essentials_out.insert(before, rule(vec![jump(sender::SENDER)], "whom it is from"));
        asking.push((sender::SENDER, plain(sender::rules(enforce.then_some(DenyVerdict::Drop)))));
    }
    let chain_list = [
        ("ingress", base(Hook::Input, ingress)),
        ("egress", base(Hook::Output, hook_rules(Stmt::ToLoopback, Direction::Egress, enforce))),
        ("transit", base(Hook::Forward, transit_rules(shape.routes))),
        ("fast", plain(fast(generation, enforce))),
        ("loopback", plain(loopback())),
        ("errors", plain(errors())),
        ("essentials_in", plain(essentials(Direction::Ingress, &LINK_IN))),
        ("essentials_out", plain(essentials_out)),
        ("in_original", judge(Direction::Ingress, Side::Source, Side::Destination)),
        ("in_reply", judge(Direction::Egress, Side::Source, Side::Source)),
        ("out_original", judge(Direction::Egress, Side::Destination, Side::Destination)),
        ("out_reply", judge(Direction::Ingress, Side::Destination, Side::Source)),
        (
            "allow",
            plain(vec![
                rule(
                    vec![Stmt::SetGeneration(generation)],
                    "judged; lower bits are the container's own",
                ),
                rule(vec![Stmt::Verdict(Verdict::Accept)], ""),
            ]),
        ),
        ("deny_ingress", plain(denying_connection("in", enforce.then_some(deny.ingress)))),
        ("deny_egress", plain(denying_connection("out", enforce.then_some(deny.egress)))),
        (
            "deny_transit",
            plain(denying_connection("transit", enforce.then_some(DenyVerdict::Drop))),
        ),
    ];
    chain_list.into_iter().chain(asking).map(|(name, chain)| (name.to_owned(), chain)).collect()
}

/// Connections that were judged before.
fn fast(generation: Generation, enforce: bool) -> Vec<Rule> {
    // A connection that another one expects is born with that one's mark, and nobody judged it yet.
    let not_expected = Stmt::CtStateIsNot(CtState::Related);
    let accept = |judged| vec![not_expected.clone(), judged, Stmt::Verdict(Verdict::Accept)];
    let allowed = accept(Stmt::GenerationIs(generation));
    let mut rules = vec![rule(allowed, "connections this generation of the policy allowed")];
    if !enforce {
        rules.push(rule(accept(Stmt::IsObserved), "told and counted once, at its first packet"));
    }
    rules
}

pub(super) fn rule(statements: Vec<Stmt>, comment: &str) -> Rule {
    Rule { statements, comment: Comment::new(comment) }
}

pub(super) fn jump(chain: &str) -> Stmt {
    Stmt::Verdict(Verdict::Jump(chain.to_owned()))
}

pub(super) fn goto(chain: &str) -> Stmt {
    Stmt::Verdict(Verdict::Goto(chain.to_owned()))
}

fn hook_rules(loopback: Stmt, direction: Direction, enforce: bool) -> Vec<Rule> {
    let (essentials, original, reply, deny) = match direction {
        Direction::Ingress => ("essentials_in", "in_original", "in_reply", "deny_ingress"),
        Direction::Egress => ("essentials_out", "out_original", "out_reply", "deny_egress"),
    };
    let invalid = if enforce { Verdict::Drop } else { Verdict::Accept };
    vec![
        rule(vec![jump("fast")], ""),
        rule(vec![loopback, goto("loopback")], "the container with itself"),
        rule(vec![Stmt::IsLocal, goto(deny)], "began on lo, and now leaves it"),
        // Never rejected: a reset for a stray packet would end the container's own connection.
        rule(
            vec![Stmt::CtState(CtState::Invalid), Stmt::Counter, Stmt::Verdict(invalid)],
            "packets of no connection",
        ),
        rule(vec![jump(essentials)], ""),
        rule(vec![Stmt::CtDirection(CtDirection::Original), jump(original)], ""),
        rule(vec![Stmt::CtDirection(CtDirection::Reply), jump(reply)], ""),
        rule(vec![goto(deny)], ""),
    ]
}

/// Over lo a container can send itself a packet with anybody's source address, and so make an entry under which its own
/// packets to that address are replies (security model 4). Nothing else may use such an entry. On the way in too: what a
/// packet socket puts on lo never went out.
fn loopback() -> Vec<Rule> {
    let expected = vec![
        Stmt::CtState(CtState::Related),
        Stmt::L4ProtoIsNot(ICMP),
        Stmt::L4ProtoIsNot(ICMP6),
        Stmt::SetLocal,
    ];
    vec![
        rule(vec![Stmt::CtState(CtState::New), Stmt::SetLocal], "began on lo: no policy was asked"),
        // An error is told under the mark of the connection it is about; what is expected is born with its master's.
        rule(expected, "expected, and began on lo"),
        answers(),
        rule(vec![Stmt::Verdict(Verdict::Accept)], ""),
    ]
}

/// What resolvers answer tells people the names of addresses; no rule asks for them.
fn answers() -> Rule {
    rule(vec![Stmt::FromUdpPort(DNS), Stmt::LogAnswer], "names of addresses, for people")
}

fn transit_rules(routes: bool) -> Vec<Rule> {
    if routes {
        vec![rule(vec![Stmt::Verdict(Verdict::Accept)], "the model forwards packets for others")]
    } else {
        vec![rule(vec![goto("deny_transit")], "")]
    }
}

/// Errors about connections. Only where the connection was once allowed: the error by which a packet is rejected quotes the
/// packet, and goes to whatever source address the container had written into it (security model 4).
fn errors() -> Vec<Rule> {
    let accept = |protocol| {
        rule(vec![Stmt::L4Proto(protocol), Stmt::Verdict(Verdict::Accept)], "path MTU, unreachable")
    };
    vec![
        rule(vec![Stmt::IsUnjudged, Stmt::Verdict(Verdict::Return)], "nothing allowed it"),
        rule(
            vec![Stmt::IsObserved, Stmt::Verdict(Verdict::Return)],
            "what passed in observe was not allowed",
        ),
        accept(ICMP),
        accept(ICMP6),
    ]
}

fn essentials(direction: Direction, link: &[LinkMessages]) -> Vec<Rule> {
    let related = vec![Stmt::CtState(CtState::Related), jump("errors")];
    let neighbour = |(first, last, hop_limit, what): &LinkMessages| {
        let mut statements = vec![Stmt::HopLimit(*hop_limit), icmp6_types(*first, *last)];
        if direction == Direction::Egress {
            // No room for anything else where a raw socket could write it (security model 4).
            // A report of the second version is as long as there are groups.
            statements.extend((*hop_limit == ONE_HOP).then_some(LINK_MULTICAST));
            statements.extend(match *first {
                LISTENER_REPORT_V2 => None,
                ROUTER_SOLICITATION => Some(Stmt::Ip6LengthAtMost(SOLICITATION_LENGTH)),
                _ => Some(Stmt::Ip6LengthAtMost(DISCOVERY_LENGTH)),
            });
        }
        statements.push(Stmt::Verdict(Verdict::Accept));
        rule(statements, what)
    };
    let related = rule(related, "errors about a connection");
    link.iter().map(neighbour).chain([related]).collect()
}

fn icmp6_types(first: u8, last: u8) -> Stmt {
    if first == last { Stmt::Icmp6Type(first) } else { Stmt::Icmp6Types(first, last) }
}

/// Asks the sets of one direction: deny sets first, then helpers, then allow sets.
fn judging(sets: &BTreeMap<String, Set>, from: Direction, peer: Side, port: Side) -> Vec<Rule> {
    // By the hook the packet is met in, not by whose connection it is.
    let deny = if peer == Side::Source { "deny_ingress" } else { "deny_egress" };
    let asked = |action| {
        let roles = Role::all().filter(move |role| (role.direction, role.action) == (from, action));
        roles.flat_map(move |role| {
            let own = sets.keys().filter(move |name| Role::of(name) == Some(role));
            own.map(move |name| {
                let rest = match role.kind {
                    KeyKind::Tuple => LookupRest::Port(port),
                    KeyKind::Ping => LookupRest::IcmpType,
                    KeyKind::Address => LookupRest::Nothing,
                };
                let key = LookupKey { family: role.family, address: peer, rest };
                let verdict = match role.action {
                    Action::Allow => goto("allow"),
                    Action::Deny => goto(deny),
                };
                rule(vec![Stmt::Lookup { key, set: name.clone() }, verdict], "")
            })
        })
    };
    let mut rules: Vec<Rule> = asked(Action::Deny).collect();
    rules.extend(helped::rules(sets, from, peer, port));
    rules.extend(asked(Action::Allow));
    rules
}

/// The same for a chain of `inet seawall`. A connection that is only observed is told and counted once: its later packets
/// and its answers are no denials of their own, for in enforce there were none.
pub(super) fn denying_connection(direction: &str, verdict: Option<DenyVerdict>) -> Vec<Rule> {
    let mut rules = denying(direction, verdict);
    if verdict.is_none() {
        let accept = rules.pop();
        rules.push(rule(vec![Stmt::IsLocal, Stmt::Verdict(Verdict::Accept)], "keeps its mark"));
        rules.push(rule(vec![Stmt::SetObserved], "no policy allows it; judged in enforce"));
        rules.extend(accept);
    }
    rules
}

/// Logs within limits, counts exactly, and then does what is set; `None` observes.
pub(super) fn denying(direction: &str, verdict: Option<DenyVerdict>) -> Vec<Rule> {
    let word = if verdict.is_some() { "deny" } else { "observe" };
    let mut rules = vec![
        rule(vec![Stmt::Log(format!("seawall {word} {direction} "))], ""),
        rule(vec![Stmt::Counter], "all of them, logged or not"),
    ];
    match verdict {
        None => rules.push(rule(vec![Stmt::Verdict(Verdict::Accept)], "observed only")),
        Some(DenyVerdict::Drop) => rules.push(rule(vec![Stmt::Verdict(Verdict::Drop)], "")),
        Some(DenyVerdict::Reject) => {
            let reset = vec![Stmt::L4Proto(TCP), Stmt::Reject(Reject::TcpReset)];
            rules.push(rule(reset, ""));
            rules.push(rule(vec![Stmt::Reject(Reject::AdminProhibited)], ""));
        }
    }
    rules
}
