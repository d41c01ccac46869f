//! Owns the text form: a ruleset as `nft -f` reads it, and as people read it.
//!
//! Pure. Loaded into an empty netns, the text gives the very ruleset that was rendered.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::expr::ARP_HEAD;
use crate::compile::helped::CtHelper;
use crate::compile::ruleset::{
    ANSWER_GROUP, Chain, Comment, CtDirection, CtState, Element, Family, Generation, Hook, KeyKind,
    LOG_GROUP, LookupKey, LookupRest, Reject, Rule, Ruleset, Set, Side, Stmt, TABLE, Verdict,
};

/// A whole ruleset. Helpers and sets first, then chains in the order a packet meets them.
pub fn render(ruleset: &Ruleset) -> String {
    let mut text = format!("table {} {TABLE} {{\n", ruleset.family);
    let helpers = ruleset.helpers.iter().map(|(name, helper)| helper_block(name, helper));
    let sets = ruleset.sets.iter().map(|(name, set)| set_block(name, set));
    let mut names: Vec<&String> = ruleset.chains.keys().collect();
    names.sort_by_key(|name| (position(name), name.as_str()));
    let chains = names.into_iter().map(|name| chain_block(name, &ruleset.chains[name]));
    text.push_str(&helpers.chain(sets).chain(chains).collect::<Vec<_>>().join("\n"));
    text.push_str("}\n");
    text
}

/// Chains that others lead to come first, so that `nft -f` of any version knows them; hooks come last.
fn position(name: &str) -> usize {
    const ORDER: [&str; 21] = [
        "deny_raw",
        "target",
        "discovery",
        "routed",
        "fast",
        "loopback",
        "errors",
        "sender",
        "essentials_in",
        "essentials_out",
        "allow",
        "deny_ingress",
        "deny_egress",
        "deny_transit",
        "in_original",
        "in_reply",
        "out_original",
        "out_reply",
        "ingress",
        "egress",
        "transit",
    ];
    ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len())
}

/// A name as it may be shown. Whoever may change a table may give what is in it any name the kernel takes.
pub(super) fn name(raw: &str) -> Comment {
    Comment::new(raw)
}

fn helper_block(raw: &str, helper: &CtHelper) -> String {
    let (name, kind) = (name(raw), name(&helper.kind));
    let protocol = protocol_text(helper.protocol);
    format!(
        "\tct helper {name} {{\n\t\ttype \"{kind}\" protocol {protocol}\n\t\tl3proto inet\n\t}}\n"
    )
}

fn set_block(raw: &str, set: &Set) -> String {
    let mut text = format!("\tset {} {{\n\t\ttype {}\n", name(raw), set_type(set));
    if set.interval {
        text.push_str("\t\tflags interval\n");
    }
    if set.kind != KeyKind::Address {
        text.push_str("\t\tcounter\n");
    }
    if !set.comment.as_str().is_empty() {
        let _ = writeln!(text, "\t\tcomment \"{}\"", set.comment.as_str());
    }
    if !set.elements.is_empty() {
        let elements: Vec<String> = set
            .elements
            .iter()
            .map(|(element, comment)| element_text(set, element, comment))
            .collect();
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(",\n\t\t\t     "));
    }
    text.push_str("\t}\n");
    text
}

fn set_type(set: &Set) -> &'static str {
    match (set.kind, set.family) {
        (KeyKind::Tuple, Family::V4) => "ipv4_addr . inet_proto . inet_service",
        (KeyKind::Tuple, Family::V6) => "ipv6_addr . inet_proto . inet_service",
        (KeyKind::Ping, Family::V4) => "ipv4_addr . icmp_type",
        (KeyKind::Ping, Family::V6) => "ipv6_addr . icmpv6_type",
        (KeyKind::Address, Family::V4) => "ipv4_addr",
        (KeyKind::Address, Family::V6) => "ipv6_addr",
    }
}

/// One element as it stands in a set, with its comment.
pub fn element_text(set: &Set, element: &Element, comment: &Comment) -> String {
    let address = range_text(element.first.address, element.last.address);
    let selector = match set.kind {
        KeyKind::Tuple => {
            let port = if element.first.port == element.last.port {
                element.first.port.to_string()
            } else {
                format!("{}-{}", element.first.port, element.last.port)
            };
            format!(" . {} . {port}", protocol_text(element.first.selector))
        }
        KeyKind::Ping => match element.first.selector {
            8 | 128 => " . echo-request".to_owned(),
            0 | 129 => " . echo-reply".to_owned(),
            other => format!(" . {other}"),
        },
        KeyKind::Address => String::new(),
    };
    match comment.as_str() {
        "" => format!("{address}{selector}"),
        comment => format!("{address}{selector} comment \"{comment}\""),
    }
}

fn protocol_text(number: u8) -> String {
    match number {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// A protocol as nft names it outside of sets.
fn l4proto_text(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        other => protocol_text(other),
    }
}

/// A range as one address, a prefix where it is one, or both its ends.
fn range_text(first: IpAddr, last: IpAddr) -> String {
    let (a, b, bits) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b)), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return format!("{first}-{last}"),
    };
    let differing = a ^ b;
    let host_bits = 128 - differing.leading_zeros();
    let is_prefix =
        differing.checked_add(1).is_none_or(u128::is_power_of_two) && a & differing == 0;
    match (a == b, is_prefix) {
        (true, _) => first.to_string(),
        (_, true) => format!("{first}/{}", bits - host_bits),
        _ => format!("{first}-{last}"),
    }
}

fn chain_block(raw: &str, chain: &Chain) -> String {
    let mut text = format!("\tchain {} {{\n", name(raw));
    if let Some(base) = &chain.base {
        let hook = match base.hook {
            Hook::Input => "input".to_owned(),
            Hook::Forward => "forward".to_owned(),
            Hook::Output => "output".to_owned(),
            Hook::Egress => "egress".to_owned(),
            Hook::Other(number) => format!("(hook {number})"),
        };
        let device = base.device.as_deref().map(|raw| format!(" device \"{}\"", name(raw)));
        let device = device.unwrap_or_default();
        let policy = if base.drops { "drop" } else { "accept" };
        let priority = match base.priority {
            0 => "filter".to_owned(),
            other => other.to_string(),
        };
        let _ = writeln!(
            text,
            "\t\ttype filter hook {hook}{device} priority {priority}; policy {policy};"
        );
    }
    for rule in chain.rules.iter() {
        let _ = writeln!(text, "\t\t{}", rule_text(rule));
    }
    text.push_str("\t}\n");
    text
}

/// One rule on one line.
pub fn rule_text(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.statements.iter().map(statement).collect();
    if !rule.comment.as_str().is_empty() {
        words.push(format!("comment \"{}\"", rule.comment.as_str()));
    }
    words.join(" ")
}

fn statement(statement: &Stmt) -> String {
    match statement {
        Stmt::FromLoopback => "iif \"lo\"".to_owned(),
        Stmt::ToLoopback => "oif \"lo\"".to_owned(),
        Stmt::GenerationIs(generation) => mark_is(*generation),
        Stmt::SetGeneration(generation) => set_mark(*generation),
        Stmt::IsUnjudged => format!("ct mark and {:#010x} == 0x00000000", Generation::MASK),
        Stmt::IsLocal => mark_is(Generation::LOCAL),
        Stmt::SetLocal => set_mark(Generation::LOCAL),
        Stmt::IsObserved => mark_is(Generation::OBSERVED),
        Stmt::SetObserved => set_mark(Generation::OBSERVED),
        Stmt::FromUdpPort(port) => format!("udp sport {port}"),
        Stmt::CtState(state) => format!("ct state {}", state_text(*state)),
        Stmt::CtStateIsNot(state) => format!("ct state != {}", state_text(*state)),
        Stmt::CtDirection(CtDirection::Original) => "ct direction original".to_owned(),
        Stmt::CtDirection(CtDirection::Reply) => "ct direction reply".to_owned(),
        Stmt::HelperIs(helper) => format!("ct helper \"{}\"", name(helper)),
        Stmt::SetHelper(helper) => format!("ct helper set \"{}\"", name(helper)),
        Stmt::L4Proto(protocol) => format!("meta l4proto {}", l4proto_text(*protocol)),
        Stmt::L4ProtoIsNot(protocol) => format!("meta l4proto != {}", l4proto_text(*protocol)),
        Stmt::HopLimit(limit) => format!("ip6 hoplimit {limit}"),
        Stmt::Icmp6Type(icmp_type) => format!("icmpv6 type {icmp_type}"),
        Stmt::Icmp6Types(first, last) => format!("icmpv6 type {first}-{last}"),
        Stmt::Ip6LengthAtMost(length) => format!("ip6 length <= {length}"),
        Stmt::Ip6To(network, 128) => format!("ip6 daddr {network}"),
        Stmt::Ip6To(network, bits) => format!("ip6 daddr {network}/{bits}"),
        Stmt::Protocol(Family::V4) => "meta protocol ip".to_owned(),
        Stmt::Protocol(Family::V6) => "meta protocol ip6".to_owned(),
        Stmt::SenderIs(IpAddr::V4(address)) => format!("ip saddr {address}"),
        Stmt::SenderIs(IpAddr::V6(address)) => format!("ip6 saddr {address}"),
        Stmt::HasRoute => format!("meta rtclassid != {}", u32::MAX),
        Stmt::ArpFrom(mac) => format!(
            "meta length 42 @ll,48,112 {} @ll,176,48 {}",
            hex(&[mac.as_slice(), &ARP_HEAD].concat()),
            hex(mac)
        ),
        Stmt::ArpSenderIn(set) => format!("arp saddr ip @{}", name(set)),
        Stmt::NeighbourTarget(address) => format!("@th,64,128 {}", hex(&address.octets())),
        Stmt::Lookup { key, set } => format!("{} @{}", lookup_text(key), name(set)),
        Stmt::Counter => "counter".to_owned(),
        Stmt::Log(prefix) => format!(
            "limit rate 10/second burst 20 packets log prefix \"{}\" group {LOG_GROUP}",
            name(prefix)
        ),
        Stmt::LogAnswer => format!(
            "limit rate 50/second burst 100 packets log prefix \"seawall dns\" group {ANSWER_GROUP}"
        ),
        Stmt::Reject(Reject::TcpReset) => "reject with tcp reset".to_owned(),
        Stmt::Reject(Reject::AdminProhibited) => "reject with icmpx admin-prohibited".to_owned(),
        Stmt::Verdict(own) => verdict(own),
        Stmt::Foreign(words) => format!("(not seawall's: {})", name(words)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn state_text(state: CtState) -> &'static str {
    match state {
        CtState::New => "new",
        CtState::Invalid => "invalid",
        CtState::Related => "related",
    }
}

fn mark_is(generation: Generation) -> String {
    format!("ct mark and {:#010x} == {:#010x}", Generation::MASK, generation.mark())
}

fn set_mark(generation: Generation) -> String {
    format!("ct mark set ct mark and {:#010x} or {:#010x}", !Generation::MASK, generation.mark())
}

fn lookup_text(key: &LookupKey) -> String {
    let ip = match key.family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let address = match key.address {
        Side::Source => "saddr",
        Side::Destination => "daddr",
    };
    match (key.rest, key.family) {
        (LookupRest::Nothing | LookupRest::Alone, _) => format!("{ip} {address}"),
        (LookupRest::Port(Side::Source), _) => format!("{ip} {address} . meta l4proto . th sport"),
        (LookupRest::Port(Side::Destination), _) => {
            format!("{ip} {address} . meta l4proto . th dport")
        }
        (LookupRest::IcmpType, Family::V4) => format!("{ip} {address} . icmp type"),
        (LookupRest::IcmpType, Family::V6) => format!("{ip} {address} . icmpv6 type"),
    }
}

/// A verdict in nft's words.
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {}", name(chain)),
        Verdict::Goto(chain) => format!("goto {}", name(chain)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_gave_are_shown_harmlessly() {
        let evil = "a {\n}\n\u{1b}[2J\"";
        let mut table = Ruleset::empty(crate::compile::TableFamily::Inet);
        let to = Stmt::Verdict(Verdict::Jump(evil.to_owned()));
        let rule = Rule { statements: vec![to], comment: Comment::default() };
        table.chains.insert(evil.to_owned(), Chain { base: None, rules: vec![rule].into() });
        let text = render(&table);
        assert_eq!(
            text,
            "table inet seawall {\n\tchain a {?}??[2J? {\n\t\tjump a {?}??[2J?\n\t}\n}\n"
        );
        let plan = crate::nft::plan(Some(&table), None).with(crate::nft::plan(None, Some(&table)));
        assert!(!plan.described().any(|line| line.contains(char::is_control)));
    }

    #[test]
    fn ranges_read_as_people_write_them() {
        let text = |a: &str, b: &str| range_text(a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(text("10.0.0.1", "10.0.0.1"), "10.0.0.1");
        assert_eq!(text("10.0.0.0", "10.0.0.255"), "10.0.0.0/24");
        assert_eq!(text("0.0.0.0", "255.255.255.255"), "0.0.0.0/0");
        assert_eq!(text("1.0.0.0", "9.255.255.255"), "1.0.0.0-9.255.255.255");
        assert_eq!(text("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "::/0");
        assert_eq!(text("2000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "2000::/3");
    }
}
