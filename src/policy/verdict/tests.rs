//! Tests of `seawall test`'s answer: both ends, their modes, and the statement that is missing.

use super::*;
use crate::metadata::WorkloadId;
use crate::policy::fixture::{compose, enforce, make, operator, shop, world, world_with};
use crate::policy::{Provenance, UnknownTreatment};

#[test]
fn an_allowed_connection_names_the_deciding_statement_of_each_end() {
    let verdict = world(&shop("shop")).test("shop-api-1", "shop-db-1", "5432/tcp");
    assert!(verdict.allowed && verdict.note.is_none() && verdict.addresses.is_some());
    for end in [verdict.egress.unwrap(), verdict.ingress.unwrap()] {
        assert!(!end.would_deny && !end.blocks && end.missing.is_none());
        assert!(matches!(end.statement.unwrap().provenance, Provenance::Model { .. }));
    }
}

#[test]
fn a_denied_connection_names_the_statement_to_add_and_adding_it_helps() {
    let before = world(&shop("shop"));
    let verdict = before.test("shop-web-1", "shop-db-1", "5432/tcp");
    assert!(!verdict.allowed);
    let missing = verdict.egress.as_ref().and_then(|end| end.missing.clone()).unwrap();
    insta::assert_snapshot!(missing, @r#"
        [[allow]]
        from = "project:shop service:web"
        to = "project:shop service:db"
        ports = "5432/tcp"
        "#);
    assert_eq!(verdict.ingress.unwrap().missing.as_ref(), Some(&missing));
    let after = world_with(&shop("shop"), enforce(), &missing);
    assert!(after.test("shop-web-1", "shop-db-1", "5432/tcp").allowed);
    assert!(!after.test("shop-web-1", "shop-db-1", "5433/tcp").allowed);
}

#[test]
fn the_missing_statement_is_valid_whatever_the_ends_are_called() {
    let makes =
        [make("a", "node").name("q\"uo\\te d").on("n", 2), make("b", "redis").name("*").on("n", 3)];
    let world = world(&makes);
    for (from, to) in
        [("a", "b"), ("host", "b"), ("a", "host"), ("2001:db8::1", "b"), ("a", "192.0.2.1")]
    {
        let verdict = world.test(from, to, "22/tcp");
        let end = verdict.egress.or(verdict.ingress).unwrap();
        assert_eq!(operator(&end.missing.unwrap()).statements.len(), 1, "{from} {to}");
    }
}

#[test]
fn where_an_operator_denies_nothing_is_missing() {
    let deny = "[[deny]]\nfrom = \"service:api\"\nto = \"service:db\"";
    let verdict =
        world_with(&shop("shop"), enforce(), deny).test("shop-api-1", "shop-db-1", "5432/tcp");
    assert!(!verdict.allowed);
    let end = verdict.egress.unwrap();
    assert_eq!(end.statement.unwrap().action, Action::Deny);
    assert!(end.missing.is_none());
}

#[test]
fn only_enforce_blocks() {
    let modes = |web: &str, db: &str| {
        let text = format!(
            "[[mode]]\nselect = \"service:web\"\nmode = \"{web}\"\n[[mode]]\nselect = \"service:db\"\nmode = \"{db}\""
        );
        world_with(&shop("shop"), enforce(), &text).test("shop-web-1", "shop-db-1", "22/tcp")
    };
    for (web, db, allowed) in [
        ("enforce", "enforce", false),
        ("observe", "enforce", false),
        ("enforce", "off", false),
        ("observe", "observe", true),
        ("off", "off", true),
    ] {
        let verdict = modes(web, db);
        assert_eq!(verdict.allowed, allowed, "{web} {db}");
        let (egress, ingress) = (verdict.egress.unwrap(), verdict.ingress.unwrap());
        assert!(egress.would_deny && ingress.would_deny);
        assert_eq!((egress.blocks, ingress.blocks), (web == "enforce", db == "enforce"));
    }
}

#[test]
fn a_netns_is_as_strict_as_its_strictest_workload() {
    let mut mate = make("mate", "").mode(NetworkMode::Container(WorkloadId::new("app")));
    mate.workload.networks.clear();
    let makes = [make("app", "redis").on("n", 2), mate, make("other", "redis").on("n", 3)];
    let settings = Settings { unknown: UnknownTreatment::Observe, ..enforce() };
    let world = world_with(&makes, settings, "");
    assert_eq!(world.policy("mate").mode, Mode::Observe);
    let verdict = world.test("other", "mate", "22/tcp");
    assert_eq!(verdict.ingress.unwrap().mode, Mode::Enforce);
    let verdict = world.test("app", "mate", "22/tcp");
    assert_eq!((verdict.allowed, verdict.note), (true, Some(Note::Loopback)));
}

#[test]
fn without_addresses_workloads_are_judged_by_who_they_are() {
    let makes = [
        compose("shop/api", "node", 0).wire("db"),
        compose("shop/db", "postgres", 0),
        compose("shop/web", "nginx", 4),
    ];
    let world = world(&makes);
    let verdict = world.test("shop-api-1", "shop-db-1", "5432/tcp");
    assert!(verdict.allowed && verdict.addresses.is_none());
    assert!(!world.test("shop-web-1", "shop-db-1", "5432/tcp").allowed);
    assert!(!world.test("shop-db-1", "shop-api-1", "5432/tcp").allowed);
}

#[test]
fn ends_that_share_no_network_do_not_reach_each_other() {
    let world = world(&[
        make("a", "redis").on("x", 2),
        make("b", "redis").on("y", 2),
        make("none", "redis").mode(NetworkMode::None),
    ]);
    for (from, to) in
        [("a", "b"), ("a", "none"), ("host", "none"), ("none", "1.1.1.1"), ("1.1.1.1", "none")]
    {
        let verdict = world.test(from, to, "6379/tcp");
        assert_eq!(
            (verdict.allowed, verdict.note),
            (false, Some(Note::NoSharedNetwork)),
            "{from} {to}"
        );
    }
    let verdict = world.test("a", "nobody", "6379/tcp");
    assert_eq!(verdict.note, Some(Note::UnknownWorkload(WorkloadId::new("nobody"))));
    assert!(!verdict.allowed);
    let verdict = world.test("host", "1.1.1.1", "443/tcp");
    assert_eq!((verdict.allowed, verdict.note), (true, Some(Note::NotFiltered)));
}

#[test]
fn an_address_of_a_workload_or_of_the_host_means_that_one() {
    let world = world(&shop("shop"));
    let of = |id: &str| world.inventory.get(&WorkloadId::new(id)).unwrap();
    for address in of("shop-db-1").addresses() {
        let verdict = world.test("shop-api-1", &address.to_string(), "5432/tcp");
        assert!(verdict.allowed);
        assert_eq!(verdict.ingress.unwrap().workload, WorkloadId::new("shop-db-1"));
        assert_eq!(verdict.addresses.unwrap().1, address);
        assert!(!world.test("shop-web-1", &address.to_string(), "5432/tcp").allowed);
    }
    let gateways: Vec<_> =
        of("shop-db-1").networks.values().flat_map(|network| network.gateways.clone()).collect();
    for gateway in gateways {
        assert!(
            world.test(&gateway.to_string(), "shop-db-1", "5432/tcp").allowed,
            "the host's own"
        );
    }
}

#[test]
fn an_allow_of_one_family_is_found() {
    let makes = [make("a", "redis").on("x", 2), make("b", "redis").on("x", 3)];
    let v6 = "[[allow]]\nfrom = \"name:a\"\nto = \"cidr:fd00::/8\"\nports = \"22\"\n[[allow]]\nfrom = \"cidr:fd00::/8\"\nto = \"name:b\"\nports = \"22\"";
    let world = world_with(&makes, enforce(), v6);
    let verdict = world.test("a", "b", "22/tcp");
    assert!(verdict.allowed && verdict.addresses.unwrap().0.is_ipv6());
    assert!(!world.test("b", "a", "22/tcp").allowed);
}
