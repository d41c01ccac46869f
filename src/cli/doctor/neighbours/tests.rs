//! Tests of judging others who filter on the host.

use super::super::check::Outcome;
use super::*;

fn facts() -> Facts {
    Facts { chains: Some(Default::default()), legacy: Some(BTreeSet::new()), ..Facts::default() }
}

fn results(facts: &Facts) -> Vec<(&'static str, Outcome)> {
    let checks = judge(facts);
    let bad = checks.iter().filter(|check| check.result != Outcome::Ok);
    bad.map(|check| (check.id, check.result)).collect()
}

fn chain(table: &str, name: &str) -> NamedChain {
    NamedChain { family: 2, table: Text::new(table), name: Text::new(name) }
}

#[test]
fn a_host_with_nobody_else_has_nothing_to_be_told_of() {
    assert_eq!(results(&facts()), []);
}

#[test]
fn a_flush_is_told_only_where_somebody_runs_it() {
    let file = |text: &str| vec![("/etc/nftables.conf".to_owned(), text.to_owned())];
    let told = [("neighbours.nftables", Outcome::Warning)];
    for (text, is_enabled, expected) in [
        ("#!/usr/sbin/nft -f\n\nflush ruleset\n", true, &told[..]),
        ("\tflush   ruleset;  # all of it\n", true, &told[..]),
        ("flush ruleset", false, &[]),
        ("# flush ruleset\ndestroy table inet filter\n", true, &[]),
        ("flush ruleset inet\n", true, &[]),
        ("", true, &[]),
    ] {
        let nftables = file(text);
        let facts = Facts { nftables, is_nftables_enabled: is_enabled, ..facts() };
        assert_eq!(results(&facts), expected, "{text:?} {is_enabled}");
    }
}

#[test]
fn firewalld_and_ufw_are_told_of_where_they_empty_what_is_dockers() {
    let firewalld =
        |text: &str| Facts { has_firewalld: true, firewalld: text.to_owned(), ..facts() };
    assert_eq!(results(&firewalld("FirewallBackend=nftables\n")), []);
    let told = [("neighbours.firewalld", Outcome::Warning)];
    assert_eq!(results(&firewalld("# x\nFirewallBackend=iptables\n")), told);
    let ufw = |text: &str| Facts { ufw: text.to_owned(), ..facts() };
    assert_eq!(results(&ufw("ENABLED=no\nMANAGE_BUILTINS=yes\n")), []);
    assert_eq!(results(&ufw("ENABLED=yes\nMANAGE_BUILTINS=no\n")), []);
    let told = [("neighbours.ufw", Outcome::Warning)];
    assert_eq!(results(&ufw("ENABLED=yes\nMANAGE_BUILTINS=\"yes\"\n")), told);
}

#[test]
fn two_kinds_of_iptables_side_by_side_are_told() {
    let docker = BTreeSet::from([chain("filter", "DOCKER-USER"), chain("filter", "DOCKER")]);
    let nft = Facts { chains: Some((docker, 3)), ..facts() };
    assert_eq!(results(&nft), []);
    assert!(judge(&nft)[3].found.starts_with("DOCKER-USER has 3 rules; "));
    let legacy = Some(BTreeSet::from(["filter".to_owned()]));
    let both = Facts { legacy: legacy.clone(), ..nft };
    assert_eq!(results(&both), [("neighbours.iptables", Outcome::Warning)]);
    assert_eq!(results(&Facts { legacy, ..facts() }), []);
    let forbidden = Facts { chains: None, ..facts() };
    assert_eq!(results(&forbidden), [("neighbours.iptables", Outcome::Unknown)]);
}

#[test]
fn another_network_is_known_by_its_links() {
    let text = "Inter-|   Receive\n face |bytes\n    lo: 0 0\ncilium_host: 0 0\ncali123: 0\n";
    assert_eq!(links(text), ["lo", "cilium_host", "cali123"]);
    let facts = Facts { links: links(text), ..facts() };
    assert_eq!(results(&facts), [("neighbours.networks", Outcome::Warning)]);
    assert!(judge(&facts)[4].found.starts_with("Calico, Cilium"));
}
