//! Tests of who may reach whom: relations, models, wiring, published ports, the host, DNS, operators and replicas.

use super::fixture::{Make, compose, enforce, make, shop, without_members, world, world_with};
use super::statement::{Action, Direction, Peer, Provenance, Statement};
use super::{Mode, Settings};
use crate::metadata::{NetworkMode, Project, ProjectKind};
use Direction::{Egress, Ingress};

fn traffic(statement: &Statement) -> String {
    statement.traffic.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn external(project: &str, service: &str, model: &'static str, last: u8) -> Make {
    compose(&format!("{project}/{service}"), model, last).on("shared", last)
}

#[test]
fn what_models_and_wires_need_is_allowed_and_nothing_else() {
    let world = world(&shop("shop"));
    let ids = ["shop-web-1", "shop-api-1", "shop-db-1", "shop-cache-1"];
    let mut allowed = Vec::new();
    for from in ids {
        for to in ids {
            for packet in
                ["80/tcp", "443/tcp", "3000/tcp", "5432/tcp", "6379/tcp", "22/tcp", "3000/udp"]
            {
                if from != to && world.allows(from, to, packet) {
                    allowed.push(format!("{from} {to} {packet}"));
                }
            }
        }
    }
    let wanted = [
        "shop-web-1 shop-api-1 3000/tcp",
        "shop-api-1 shop-db-1 5432/tcp",
        "shop-api-1 shop-cache-1 6379/tcp",
    ];
    assert_eq!(allowed, wanted);
    assert!(world.policies.problems.is_empty());
}

#[test]
fn both_ends_state_the_same_with_the_servers_model_as_provenance() {
    let world = world(&shop("shop"));
    let out = world.about("shop-api-1", Egress, "shop/db (postgres)");
    let into = world.about("shop-db-1", Ingress, "shop/api (node)");
    let service = |statements: &[&Statement]| {
        statements.iter().find(|s| traffic(s) == "5432/tcp").map(|s| s.provenance.clone())
    };
    assert_eq!(service(&out), service(&into));
    let Some(Provenance::Model { model, service: Some(name), place }) = service(&out) else {
        panic!("{out:?}")
    };
    assert_eq!((model.as_str(), name.as_str(), place.line), ("postgres", "postgresql", 31));
}

#[test]
fn a_service_is_not_for_whom_its_audience_does_not_name() {
    let makes = [
        compose("shop/db", "postgres", 2),
        compose("shop/admin", "pgadmin", 3),
        compose("shop/web", "nginx", 4).wire("db"),
        compose("shop/api", "node", 5),
        compose("shop/job", "", 6).wire("db"),
    ];
    let world = world(&makes);
    let reaches = |from: &str| world.allows(from, "shop-db-1", "5432/tcp");
    assert!(reaches("shop-admin-1"), "named by its model, and uses it");
    assert!(!reaches("shop-web-1"), "wired, but a proxy is not admitted");
    assert!(!reaches("shop-api-1"), "admitted, but neither wired nor a user");
    assert!(!reaches("shop-job-1"), "nobody knows that an unknown image is an application");
}

#[test]
fn two_instances_of_one_compose_file_never_reach_each_other() {
    let world = world(&[shop("a"), shop("b")].concat());
    for id in ["a-web-1", "a-api-1", "a-db-1", "a-cache-1"] {
        assert!(world.peers(id).iter().all(|peer| peer.starts_with("a-")), "{id}");
    }
    assert!(world.allows("a-api-1", "a-db-1", "5432/tcp"));
}

#[test]
fn two_projects_on_one_external_network_are_not_related() {
    let makes = [
        external("shop", "api", "node", 2).wire("db").wire("other-db-1"),
        external("other", "db", "postgres", 3).alias("shared", "db"),
        external("other", "web", "nginx", 4),
    ];
    let world = world(&makes);
    assert!(!world.allows("shop-api-1", "other-db-1", "5432/tcp"));
    assert!(!world.allows("shop-api-1", "other-db-1", "ping"));
    assert!(world.peers("shop-api-1").is_empty());
}

#[test]
fn projects_of_another_kind_and_the_same_name_are_not_related() {
    let mut swarm = compose("shop/db", "postgres", 3).id("swarm-db");
    swarm.workload.project = Some(Project { kind: ProjectKind::Swarm, name: "shop".into() });
    let world = world(&[compose("shop/api", "node", 2).wire("db"), swarm]);
    assert!(world.peers("shop-api-1").is_empty());
}

#[test]
fn without_a_project_a_network_of_ones_own_relates_and_the_default_bridge_does_not() {
    let pair = |network: &str| {
        world(&[
            make("api", "node").on(network, 2).wire("db"),
            make("db", "postgres").on(network, 3),
        ])
    };
    assert!(pair("backend").allows("api", "db", "5432/tcp"));
    assert!(pair("backend").allows("db", "api", "ping"));
    let bridge = pair("bridge");
    assert!(!bridge.allows("api", "db", "5432/tcp"));
    assert!(!bridge.allows("api", "db", "ping"));
}

#[test]
fn swarms_routing_mesh_relates_nobody() {
    let on_mesh = |made: Make| {
        let mut made = made;
        for network in made.workload.networks.values_mut() {
            network.driver = Some("overlay".into());
        }
        made
    };
    let makes = [
        on_mesh(make("api", "node").on("ingress", 2).wire("db")),
        on_mesh(make("db", "postgres").on("ingress", 3)),
    ];
    assert!(world(&makes).peers("api").is_empty());
}

#[test]
fn a_stranger_on_a_projects_network_is_not_related_to_it() {
    let stranger = make("evil", "node").on("shop_default", 66).wire("db").wire("shop-db-1");
    let world = world(&[shop("shop"), vec![stranger]].concat());
    assert!(world.peers("evil").is_empty());
    assert!(!world.allows("evil", "shop-db-1", "5432/tcp"));
    assert!(!world.peers("shop-db-1").contains("evil"));
}

#[test]
fn taking_anothers_name_or_alias_takes_none_of_its_connections() {
    // Of the same project, so related; each pretends to be `db`.
    let named = compose("shop/rogue", "postgres", 6).id("named").name("db");
    let aliased = compose("shop/rogue2", "postgres", 7).id("aliased").alias("shop_default", "db");
    let foreign =
        external("evil", "db", "postgres", 8).on("shop_default", 8).alias("shop_default", "db");
    let world = world(&[shop("shop"), vec![named, aliased, foreign]].concat());
    assert!(world.allows("shop-api-1", "shop-db-1", "5432/tcp"));
    for rogue in ["named", "aliased", "evil-db-1"] {
        assert!(!world.allows("shop-api-1", rogue, "5432/tcp"), "{rogue}");
    }
}

#[test]
fn without_a_service_of_that_name_container_names_and_aliases_are_meant() {
    let makes = [
        compose("shop/api", "node", 2).wire("MAIN-DB").wire("replica"),
        compose("shop/db", "postgres", 3).id("one").name("main-db"),
        compose("shop/db2", "postgres", 4).id("two").alias("shop_default", "Replica"),
        compose("shop/db3", "postgres", 5)
            .id("three")
            .on("elsewhere", 5)
            .alias("elsewhere", "replica"),
    ];
    let world = world(&makes);
    assert!(world.allows("shop-api-1", "one", "5432/tcp"));
    assert!(world.allows("shop-api-1", "two", "5432/tcp"));
    assert!(
        !world.allows("shop-api-1", "three", "5432/tcp"),
        "an alias on a network they do not share"
    );
}

#[test]
fn a_written_port_is_believed_of_applications_only() {
    let makes = [
        compose("shop/web", "nginx", 2).wire("api:8088").wire("db:9999").wire("edge:7777"),
        compose("shop/api", "node", 3).wire("db:9999"),
        compose("shop/db", "postgres", 4).expose("9999/tcp"),
        compose("shop/edge", "envoy", 5).expose("10000/tcp"),
    ];
    let world = world(&makes);
    assert!(world.allows("shop-web-1", "shop-api-1", "8088/tcp"), "its image declares none");
    assert!(world.allows("shop-api-1", "shop-db-1", "5432/tcp"));
    assert!(!world.allows("shop-api-1", "shop-db-1", "9999/tcp"), "PostgreSQL's ports are known");
    assert!(world.allows("shop-web-1", "shop-edge-1", "10000/tcp"));
    assert!(!world.allows("shop-web-1", "shop-edge-1", "7777/tcp"), "a proxy is no application");
}

#[test]
fn published_ports_are_open_to_whom_they_are_published() {
    let makes = [
        compose("a/web", "nginx", 2).publish("80/tcp", None),
        compose("a/v6", "nginx", 3).publish("80/tcp", Some("2001:db8::1")),
        compose("a/db", "postgres", 4).publish("5432/tcp", Some("127.0.0.1")),
        compose("a/db6", "postgres", 5).publish("5432/tcp", Some("::1")),
        compose("a/odd", "postgres", 6).publish("5432/tcp", Some("::ffff:127.0.0.1")),
        compose("a/any", "nginx", 7).publish("443/udp", Some("0.0.0.0")),
    ];
    let world = world_with(&makes, Settings { host: false, ..enforce() }, "");
    for (id, packet, from_world, from_host) in [
        ("a-web-1", "80/tcp", true, true),
        ("a-v6-1", "80/tcp", true, true),
        ("a-db-1", "5432/tcp", false, true),
        ("a-db6-1", "5432/tcp", false, true),
        ("a-odd-1", "5432/tcp", false, true),
        ("a-any-1", "443/udp", true, true),
        ("a-any-1", "443/tcp", false, false),
    ] {
        assert_eq!(world.allows("203.0.113.9", id, packet), from_world, "{id}");
        assert_eq!(world.allows("2001:db8:9::9", id, packet), from_world, "{id}");
        assert_eq!(world.allows("host", id, packet), from_host, "{id}");
    }
}

#[test]
fn the_host_reaches_provided_ports_unless_it_is_told_not_to() {
    let makes =
        [compose("a/db", "postgres", 2).expose("22/tcp"), make("x", "").on("n", 3).expose("9/udp")];
    let open = world(&makes);
    assert!(open.allows("host", "a-db-1", "5432/tcp"));
    assert!(open.allows("host", "a-db-1", "ping"));
    assert!(
        !open.allows("host", "a-db-1", "22/tcp"),
        "declared, but PostgreSQL provides no such thing"
    );
    assert!(open.allows("host", "x", "9/udp"), "of an unknown image the declared ports");
    let closed = world_with(&makes, Settings { host: false, ..enforce() }, "");
    assert!(!closed.allows("host", "a-db-1", "5432/tcp"));
    assert!(!closed.allows("host", "x", "ping"));
}

#[test]
fn dns_goes_to_the_resolvers_and_nowhere_else() {
    let makes = [make("a", "node").on("n", 2).resolver("192.0.2.53"), make("b", "node").on("n", 3)];
    let own = world(&makes);
    for packet in ["53/udp", "53/tcp"] {
        assert!(own.allows("a", "192.0.2.53", packet));
        assert!(!own.allows("a", "9.9.9.9", packet));
        assert!(!own.allows("b", "192.0.2.53", packet), "it has no resolver");
    }
    let resolvers = Some(["2001:db8::53".parse().unwrap()].into());
    let set = world_with(&makes, Settings { resolvers, ..enforce() }, "");
    assert!(set.allows("b", "2001:db8::53", "53/udp"));
    assert!(!set.allows("a", "192.0.2.53", "53/udp"));
}

#[test]
fn models_egress_goes_where_the_model_says() {
    let world = world(&[make("mail", "postfix").on("n", 2), make("cert", "certbot").on("n", 3)]);
    assert!(world.allows("mail", "10.1.2.3", "25/tcp"), "the world is any address");
    assert!(world.allows("cert", "1.1.1.1", "443/tcp"));
    assert!(world.allows("cert", "2606:4700::1", "443/tcp"));
    assert!(!world.allows("cert", "10.1.2.3", "443/tcp"), "the internet is not the inside");
    assert!(!world.allows("cert", "169.254.169.254", "80/tcp"));
    assert!(!world.allows("cert", "1.1.1.1", "25/tcp"));
}

#[test]
fn related_workloads_may_ping_where_they_share_a_network() {
    let makes = [
        compose("a/x", "redis", 2),
        compose("a/y", "redis", 3),
        compose("a/z", "redis", 4).on("back", 4),
    ];
    let mut apart = makes.to_vec();
    apart[1].workload.networks.clear();
    assert!(world(&makes).allows("a-x-1", "a-y-1", "ping"));
    assert!(world(&apart).about("a-x-1", Egress, "a/y (redis)").is_empty());
}

#[test]
fn replicas_change_members_and_no_statement() {
    let scaled = |count: u8| {
        let mut makes = shop("shop");
        for index in 2..=count {
            let mut replica = compose("shop/api", "node", 100 + index).expose("3000/tcp");
            replica = replica.wire("db").wire("cache:6379");
            makes.push(replica.id(&format!("api-{index}")).name(&format!("shop-api-{index}")));
        }
        world(&makes)
    };
    let (one, five) = (scaled(1), scaled(5));
    for id in ["shop-web-1", "shop-api-1", "shop-db-1", "shop-cache-1"] {
        assert_eq!(without_members(one.policy(id)), without_members(five.policy(id)), "{id}");
        assert_eq!(one.policy(id).statements.len(), five.policy(id).statements.len(), "{id}");
    }
    assert_eq!(five.peers("shop-web-1").iter().filter(|id| id.contains("api")).count(), 5);
    assert!(five.allows("api-3", "shop-db-1", "5432/tcp"));
    assert!(!five.peers("api-3").contains("api-3"), "nobody is its own peer");
    assert_eq!(
        super::text::render(one.policies.policies.values()),
        super::text::render(five.policies.policies.values())
    );
}

#[test]
fn replicas_of_a_database_replicate_and_replicas_of_an_application_do_not_talk() {
    let makes = [
        compose("a/db", "postgres", 2),
        compose("a/db", "postgres", 3).id("db-2"),
        compose("a/api", "node", 4).expose("3000/tcp"),
        compose("a/api", "node", 5).id("api-2").expose("3000/tcp"),
    ];
    let world = world_with(
        &makes,
        enforce(),
        "[[allow]]\nfrom = \"model:postgres\"\nto = \"self\"\nports = \"22\"",
    );
    assert!(
        !world.allows("a-db-1", "db-2", "5432/tcp"),
        "a database does not admit databases unless its model says so"
    );
    assert!(world.allows("a-db-1", "db-2", "22/tcp"));
    assert!(!world.allows("a-api-1", "api-2", "3000/tcp"));
    assert!(world.allows("a-api-1", "api-2", "ping"));
}

#[test]
fn the_hosts_netns_is_off_and_nobodys_peer() {
    let makes = [
        compose("a/host", "node", 0).mode(NetworkMode::Host).wire("db").publish("80/tcp", None),
        compose("a/db", "postgres", 2).wire("host"),
        compose("a/mate", "node", 0)
            .mode(NetworkMode::Container(crate::metadata::WorkloadId::new("a-host-1"))),
    ];
    let world = world_with(
        &makes,
        enforce(),
        "[[mode]]\nselect = \"any\"\nmode = \"enforce\"\n[[deny]]\nfrom = \"any\"\nto = \"world\"",
    );
    for id in ["a-host-1", "a-mate-1"] {
        let policy = world.policy(id);
        assert_eq!(policy.mode, Mode::Off);
        assert_eq!(policy.mode_from, Provenance::Builtin { rule: "host-network" });
        assert!(policy.statements.is_empty(), "{policy:?}");
    }
    assert!(world.peers("a-db-1").is_empty());
}

#[test]
fn a_workload_without_network_has_no_statements_of_ours() {
    let none = compose("a/x", "nginx", 0).mode(NetworkMode::None).resolver("192.0.2.53");
    let world = world(&[none, compose("a/y", "nginx", 2)]);
    assert!(world.policy("a-x-1").statements.is_empty());
    assert!(world.peers("a-y-1").is_empty());
}

#[test]
fn who_lives_in_anothers_netns_is_reached_by_that_ones_name_and_addresses() {
    let inside = |id: &str| NetworkMode::Container(crate::metadata::WorkloadId::new(id));
    let mut app = compose("a/app", "node", 0).expose("8080/tcp").wire("db").mode(inside("a-vpn-1"));
    app.workload.networks.clear();
    let makes = [
        compose("a/vpn", "certbot", 2),
        app,
        compose("a/db", "postgres", 3),
        compose("a/web", "node", 4).wire("vpn:8080"),
    ];
    let world = world(&makes);
    assert!(world.allows("a-app-1", "a-db-1", "5432/tcp"));
    assert!(world.allows("a-web-1", "a-app-1", "8080/tcp"));
    assert!(world.allows("a-web-1", "a-vpn-1", "8080/tcp"), "it is the same netns");
    assert!(
        world.allows("a-app-1", "1.1.1.1", "443/tcp"),
        "one netns has the union of the policies"
    );
    assert!(!world.peers("a-app-1").contains("a-vpn-1"), "they talk over lo");
    assert!(!world.peers("a-vpn-1").contains("a-app-1"));
    let members: Vec<_> = world.about("a-db-1", Ingress, "a/app (node)");
    let Peer::Workloads { members, .. } = &members[0].peer else { panic!() };
    assert!(
        members.iter().all(|id| id.as_str() == "a-app-1"),
        "members are the workloads themselves"
    );
}

#[test]
fn an_operators_allow_joins_the_unrelated_at_both_ends() {
    let makes = [
        external("a", "api", "node", 2),
        external("b", "db", "postgres", 3),
        make("x", "").on("shared", 4),
    ];
    let allow = "[[allow]]\nfrom = [\"project:a service:api\", \"host\", \"cidr:192.0.2.0/24\"]\nto = \"model:postgres\"\nports = [\"postgresql\", \"ping\"]";
    let world = world_with(&makes, Settings { host: false, ..enforce() }, allow);
    assert!(world.allows("a-api-1", "b-db-1", "5432/tcp"));
    assert!(world.allows("a-api-1", "b-db-1", "ping"));
    assert!(!world.allows("b-db-1", "a-api-1", "ping"));
    assert!(world.allows("host", "b-db-1", "5432/tcp"));
    assert!(world.allows("192.0.2.7", "b-db-1", "5432/tcp"));
    assert!(!world.allows("x", "b-db-1", "5432/tcp"));
    let place = world.about("b-db-1", Ingress, "a/api (node)")[0].provenance.to_string();
    assert_eq!(place, "operator, policy.d/test.toml:1:1");
}

#[test]
fn deny_beats_allow_at_both_ends() {
    let deny = "[[deny]]\nfrom = \"service:api\"\nto = \"service:db\"\n[[allow]]\nfrom = \"any\"\nto = \"any\"\n[[deny]]\nfrom = \"world\"\nto = \"service:web\"\nports = \"80\"";
    let world = world_with(&shop("shop"), enforce(), deny);
    assert!(!world.allows("shop-api-1", "shop-db-1", "5432/tcp"));
    assert!(world.allows("shop-web-1", "shop-db-1", "5432/tcp"));
    assert!(!world.allows("203.0.113.9", "shop-web-1", "80/tcp"), "published, and denied");
    for (id, direction, peer) in
        [("shop-api-1", Egress, "shop/db (postgres)"), ("shop-db-1", Ingress, "shop/api (node)")]
    {
        assert!(world.about(id, direction, peer).iter().any(|s| s.action == Action::Deny), "{id}");
    }
}

#[test]
fn a_router_says_so() {
    let world = world(&[make("vpn", "wireguard").on("n", 2), make("x", "redis").on("n", 3)]);
    assert!(world.policy("vpn").routes);
    assert!(!world.policy("x").routes);
}
