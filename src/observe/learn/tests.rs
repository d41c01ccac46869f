//! Tests of whole proposals: what is proposed, what is kept back and why, and that it does what it says.

use super::fixture::{MIDNIGHT, Scene, allows, carried, scene, tcp};
use super::*;
use crate::observe::Said;
use crate::policy::fixture::{Make, compose, make, shop};

/// What a person reads of a proposal, without the lines of the built-in catalogue.
fn shown(proposal: &Proposal) -> String {
    let text = format!(
        "==== models.toml\n{}==== policy.toml\n{}==== before\n{}==== after\n{}",
        proposal.models_toml, proposal.policy_toml, proposal.before, proposal.after
    );
    let line = |line: &str| match line.split_once(", models.toml:") {
        Some((start, _)) => format!("{start}, models.toml\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn unknown(path: &str, image: &str, last: u8) -> Make {
    compose(path, "", last).image(image)
}

/// web (nginx) → app (nobody knows it) → db (postgres), and a scanner beside them.
fn billing() -> Scene {
    let mut scene = scene(&[
        compose("shop/web", "nginx", 2),
        unknown("shop/app", "registry.example/acme/billing:3", 3).expose("7070/tcp"),
        compose("shop/db", "postgres", 4),
        unknown("shop/scan", "acme/scan", 5),
    ]);
    scene.saw("shop-web-1", "shop-app-1", "7070/tcp", 40);
    scene.saw("shop-app-1", "shop-db-1", "5432/tcp", 12);
    scene.saw("shop-app-1", "api.example=198.51.100.7", "443/tcp", 9);
    scene.saw("shop-app-1", "9.9.9.9", "4433/tcp", 1);
    scene.add("shop-app-1", "10.9.0.4", "514/udp", None, 700, 700, 0);
    scene.denied("shop-app-1", "10.9.0.5", "25/tcp", 6);
    for port in tcp(5425, 12) {
        let unanswered = u64::from(port != "5432/tcp");
        scene.add("shop-scan-1", "shop-db-1", &port, None, 1, unanswered, 30);
    }
    scene
}

#[test]
fn an_unknown_application_gets_a_model_and_a_scanner_beside_it_nothing() {
    let scene = billing();
    let proposal = scene.learn(&["shop-app-1"]);
    insta::assert_snapshot!("unknown_application", shown(&proposal));
    let after = scene.applied(&proposal);
    assert!(allows(&scene, &after, "shop-app-1", "shop-db-1", "5432/tcp"));
    assert!(allows(&scene, &after, "shop-web-1", "shop-app-1", "7070/tcp"));
    assert!(allows(&scene, &after, "shop-app-1", "198.51.100.7", "443/tcp"));
    for (client, server, port) in [
        ("shop-scan-1", "shop-db-1", "5432/tcp"),
        ("shop-scan-1", "shop-app-1", "7070/tcp"),
        ("shop-app-1", "9.9.9.9", "4433/tcp"),
        ("shop-app-1", "10.9.0.4", "514/udp"),
        ("shop-app-1", "10.9.0.5", "25/tcp"),
        ("shop-app-1", "10.9.0.5", "443/tcp"),
        ("shop-web-1", "shop-db-1", "5432/tcp"),
    ] {
        assert!(!allows(&scene, &after, client, server, port), "{client} {server} {port}");
    }
    assert_eq!(proposal.unmet, Vec::<Text>::new());
    assert_eq!(proposal.models[0].name, "billing");
}

#[test]
fn options_decide_what_is_believed() {
    let scene = billing();
    let options = Options { min_connections: 1, include_denied: true };
    let proposal = scene.learn_with(&["shop-app-1"], &options);
    let after = scene.applied(&proposal);
    assert!(allows(&scene, &after, "shop-app-1", "9.9.9.9", "4433/tcp"));
    assert!(allows(&scene, &after, "shop-app-1", "10.9.0.5", "25/tcp"));
    assert!(!allows(&scene, &after, "shop-scan-1", "shop-db-1", "5432/tcp"), "a scan is a scan");
    let many = scene.learn_with(&["shop-app-1"], &Options { min_connections: 100, ..options });
    assert!(many.allow.is_empty(), "{:?}", many.allow);
}

#[test]
fn what_the_policy_allows_already_is_not_proposed_again() {
    let mut scene = scene(&shop("shop"));
    scene.saw("shop-api-1", "shop-db-1", "5432/tcp", 50);
    scene.saw("203.0.113.9", "shop-web-1", "80/tcp", 50);
    let proposal = scene.learn(&["shop-api-1"]);
    assert!(proposal.is_empty() && proposal.held.is_empty(), "{proposal:?}");
    assert_eq!((proposal.policy_toml.as_str(), proposal.before.as_str()), ("", ""));

    scene.saw("shop-db-1", "shop-cache-1", "6379/tcp", 5);
    scene.policy("[[allow]]\nfrom = \"service:db\"\nto = \"service:cache\"\nports = \"redis\"\n");
    assert!(scene.learn(&["shop-api-1"]).is_empty());
    scene.files.policies.clear();
    scene.policy("[[deny]]\nfrom = \"service:db\"\nto = \"any\"\n");
    let denied = scene.learn(&["shop-api-1"]);
    assert!(denied.is_empty());
    assert!(denied.policy_toml.contains("a deny decides"), "{}", denied.policy_toml);
    assert!(denied.policy_toml.contains("policy.d/site.toml:1:1"), "{}", denied.policy_toml);
}

#[test]
fn a_connection_seen_at_both_ends_counts_once() {
    let mut scene = scene(&shop("shop"));
    scene.saw("shop-db-1", "shop-cache-1", "6379/tcp", 7);
    assert_eq!(scene.flows.len(), 2);
    // And once more at the client's end, by another word of the policy.
    let mut more = scene.flows[0].clone();
    more.key.said = Said::Allowed;
    more.connections = 3;
    scene.flows.push(more);
    let proposal = scene.learn(&["shop-db-1"]);
    let evidence: Vec<u64> =
        proposal.allow[0].evidence.values().map(|seen| seen.connections).collect();
    assert_eq!(evidence, [10]);
    assert_eq!(proposal.allow[0].from, ["project:shop service:db"]);
}

#[test]
fn data_channels_become_their_control_port_with_a_helper() {
    let mut scene = scene(&[
        unknown("files/client", "acme/client", 2),
        unknown("files/passive", "acme/ftpd", 3),
        unknown("files/active", "acme/ftpd", 4),
        unknown("files/boot", "acme/tftpd", 5),
        unknown("files/phone", "acme/sip", 6),
    ]);
    // What a helper recognised.
    scene.add("files-client-1", "files-passive-1", "21/tcp", None, 5, 0, 0);
    for port in tcp(40_000, 5) {
        scene.add("files-client-1", "files-passive-1", &port, Some("21/tcp"), 1, 0, 2);
    }
    // Without a helper: the server comes back to ports of the client's.
    scene.add("files-client-1", "files-active-1", "21/tcp", None, 4, 0, 100);
    for port in tcp(51_000, 4) {
        scene.add("files-active-1", "files-client-1", &port, None, 1, 0, 101);
    }
    scene.add("files-client-1", "files-boot-1", "69/udp", None, 3, 0, 200);
    scene.add("files-boot-1", "files-client-1", "33001/udp", None, 3, 0, 201);
    // The control connection is older than the records.
    for port in tcp(20_000, 3) {
        scene.add("files-client-1", "files-phone-1", &port, Some("5060/udp"), 1, 0, 300);
    }
    // High ports long after are nobody's channel.
    scene.add("files-active-1", "files-client-1", "52000/tcp", None, 5, 0, 9000);
    let proposal = scene.learn(&["files-client-1"]);
    insta::assert_snapshot!("data_channels", &proposal.policy_toml);
    let helpers: Vec<_> = proposal.allow.iter().map(|allow| (allow.helper, &allow.ports)).collect();
    for (helper, ports) in &helpers {
        let is_high = ports.iter().any(|port| port.to_string() == "52000/tcp");
        assert_eq!(helper.is_none(), is_high, "{helpers:?}");
    }
    let all: Vec<_> = proposal.allow.iter().filter_map(|allow| allow.helper).collect();
    assert_eq!(all.len(), 4);
    for helper in ["ftp", "tftp", "sip"] {
        assert!(all.contains(&helper), "{helper}");
    }
    let control = &proposal.allow.iter().find(|allow| allow.helper == Some("ftp")).unwrap();
    assert!(control.evidence.values().all(|seen| seen.channels > 0), "{control:?}");
}

#[test]
fn a_channel_whose_helper_is_in_force_needs_nothing() {
    let mut scene = scene(&[unknown("f/c", "acme/c", 2), unknown("f/s", "acme/s", 3)]);
    scene.policy("[[allow]]\nfrom = \"service:c\"\nto = \"service:s\"\nports = \"21/tcp\"\n");
    scene.add("f-c-1", "f-s-1", "21/tcp", None, 5, 0, 0);
    scene.add("f-c-1", "f-s-1", "40000/tcp", Some("21/tcp"), 5, 0, 0);
    for flow in &mut scene.flows {
        flow.key.said = Said::Allowed;
    }
    assert!(scene.learn(&["f-c-1"]).is_empty());
}

#[test]
fn many_ports_between_the_same_two_become_one_range() {
    let mut scene = scene(&[
        unknown("mesh/a", "acme/a", 2),
        unknown("mesh/b", "acme/b", 3),
        unknown("mesh/c", "acme/c", 4),
    ]);
    for port in ["33000/tcp", "41234/tcp", "50001/tcp", "60999/tcp", "35000/tcp"] {
        scene.add("mesh-a-1", "mesh-b-1", port, None, 1, 0, 0);
    }
    for port in tcp(8000, 6).chain(tcp(9100, 2)) {
        scene.add("mesh-a-1", "mesh-c-1", &port, None, 4, 0, 0);
    }
    let proposal = scene.learn(&["mesh-a-1"]);
    insta::assert_snapshot!("port_ranges", shown(&proposal));
    let ports = |server: &str| -> Vec<String> {
        let to = format!("project:mesh service:{server}");
        let allow = proposal.allow.iter().find(|allow| allow.to == [to.as_str()]);
        allow.map(|allow| allow.ports.iter().map(ToString::to_string).collect()).unwrap_or_default()
    };
    assert_eq!(ports("b"), ["33000-60999/tcp"]);
    assert_eq!(ports("c"), ["8000-8005/tcp"]);
    let after = scene.applied(&proposal);
    assert!(allows(&scene, &after, "mesh-a-1", "mesh-c-1", "9101/tcp"), "by its model");
    assert!(!allows(&scene, &after, "mesh-a-1", "mesh-c-1", "8006/tcp"));
}

#[test]
fn a_client_of_one_learned_port_gets_no_other() {
    let mut scene = scene(&[
        unknown("mesh/a", "acme/a", 2),
        unknown("mesh/b", "acme/b", 3),
        unknown("mesh/c", "acme/c", 4),
    ]);
    scene.saw("mesh-a-1", "mesh-c-1", "7000/tcp", 5).saw("mesh-b-1", "mesh-c-1", "7100/tcp", 5);
    let after = scene.learn(&["mesh-c-1"]);
    assert!(after.allow.is_empty(), "models say it all: {:?}", after.allow);
    let after = scene.applied(&after);
    for (client, port, wanted) in [
        ("mesh-a-1", "7000/tcp", true),
        ("mesh-a-1", "7100/tcp", false),
        ("mesh-b-1", "7000/tcp", false),
        ("mesh-b-1", "7100/tcp", true),
    ] {
        assert_eq!(allows(&scene, &after, client, "mesh-c-1", port), wanted, "{client} {port}");
    }
}

#[test]
fn two_projects_with_the_same_service_names_stay_apart() {
    let mut makes = shop("blue");
    makes.extend(shop("green"));
    let mut scene = scene(&makes);
    scene.saw("blue-db-1", "blue-cache-1", "6379/tcp", 8);
    scene.saw("green-web-1", "green-db-1", "5432/tcp", 8);
    let proposal = scene.learn(&["blue-db-1"]);
    insta::assert_snapshot!("two_projects", &proposal.policy_toml);
    let after = scene.applied(&proposal);
    assert!(allows(&scene, &after, "blue-db-1", "blue-cache-1", "6379/tcp"));
    assert!(!allows(&scene, &after, "green-db-1", "green-cache-1", "6379/tcp"));
    assert!(
        !allows(&scene, &after, "green-web-1", "green-db-1", "5432/tcp"),
        "not related to the seed"
    );
}

#[test]
fn relations_are_followed_from_workload_to_workload() {
    let mut scene = scene(&shop("shop"));
    scene.saw("shop-web-1", "shop-api-1", "3000/tcp", 5);
    scene.saw("shop-api-1", "shop-db-1", "5432/tcp", 5);
    scene.saw("shop-db-1", "shop-cache-1", "6379/tcp", 5);
    let proposal = scene.learn(&["shop-web-1"]);
    assert_eq!(proposal.related, ["shop/api", "shop/cache", "shop/db"].map(Text::new));
    assert_eq!(proposal.allow.len(), 1);
}

#[test]
fn addresses_are_named_one_by_one_until_they_are_many() {
    let mut scene = scene(&shop("shop"));
    for last in 1..=3 {
        scene.saw("shop-db-1", &format!("10.20.0.{last}"), "873/tcp", 4);
        scene.saw("shop-db-1", &format!("93.184.216.{last}"), "123/udp", 1);
    }
    scene.saw("shop-db-1", "2001:db8::5", "873/tcp", 4);
    for last in 1..=40 {
        scene.saw(&format!("10.30.0.{last}"), "shop-cache-1", "6379/tcp", 4);
    }
    let proposal = scene.learn(&["shop-db-1", "shop-cache-1"]);
    let to: Vec<_> = proposal.allow.iter().map(|allow| allow.to.as_slice()).collect();
    let named = ["cidr:10.20.0.1", "cidr:10.20.0.2", "cidr:10.20.0.3", "cidr:2001:db8::5"];
    assert_eq!(to, [&named.map(str::to_owned)[..], &["internet".to_owned()][..]]);
    assert!(proposal.held.iter().any(|held| held.why == Why::ManyAddresses(40)));
    let after = scene.applied(&proposal);
    assert!(!allows(&scene, &after, "10.30.0.1", "shop-cache-1", "6379/tcp"));
}

#[test]
fn what_is_not_known_any_more_or_has_moved_is_only_told() {
    let mut scene = scene(&shop("shop"));
    let gone = scene_party_gone();
    scene.saw("shop-db-1", "shop-cache-1", "6379/tcp", 9);
    let mut flow = scene.flows[0].clone();
    flow.key.server = gone;
    scene.flows.push(flow);
    let own = scene.inventory.get(&WorkloadId::new("shop-web-1")).unwrap();
    let address = own.addresses().next().unwrap().to_string();
    scene.saw("shop-db-1", &address, "80/tcp", 9);
    scene.add("shop-db-1", "10.0.0.9", "protocol 47", None, 9, 0, 0);
    let proposal = scene.learn(&["shop-db-1"]);
    assert_eq!(proposal.allow.len(), 1, "{:?}", proposal.allow);
    for told in ["is not known any more", "belongs to shop/web now", "no statement can speak of it"]
    {
        assert!(proposal.policy_toml.contains(told), "{told}\n{}", proposal.policy_toml);
    }
}

fn scene_party_gone() -> crate::observe::Party {
    crate::observe::Party::Workload { name: "old".into(), model: None, selector: "name:old".into() }
}

#[test]
fn a_repository_the_catalogue_knows_is_not_taken_from_it() {
    let mut scene =
        scene(&[unknown("shop/web", "registry:5000/nginx", 2), compose("shop/db", "postgres", 3)]);
    let web = WorkloadId::new("shop-web-1");
    assert_eq!(scene.known().model(&web), None);
    scene.saw("shop-web-1", "shop-db-1", "5432/tcp", 9);
    let proposal = scene.learn(&["shop-web-1"]);
    assert!(proposal.models.is_empty());
    assert!(allows(&scene, &scene.applied(&proposal), "shop-web-1", "shop-db-1", "5432/tcp"));
}

#[test]
fn hostile_names_are_harmless_in_every_text() {
    let evil = "a\"\nto = \"world\"\n[[allow]] # \u{1b}[2J\\ b";
    let mut scene = scene(&[
        make(evil, "").id("evil").on("net", 2),
        make("victim", "postgres").on("net", 3),
        make("a b", "").id("blank").on("net", 5),
        make("a-b", "").id("dash").on("net", 6),
        compose("p/q", "", 4).id("service").project("pro ject*", "ser\"vice").on("net", 4),
    ]);
    scene.saw("evil", "victim", "5432/tcp", 9);
    scene.saw("service", "victim", "5432/tcp", 9);
    scene.saw("blank", "victim", "5432/tcp", 9);
    scene.saw("victim", &format!("{}=192.0.2.7", evil.replace('=', "")), "443/tcp", 9);
    let proposal = scene.learn(&["victim"]);
    let text = &proposal.policy_toml;
    assert!(!text.contains('\u{1b}') && !text.contains("\nto = \"world\""), "{text}");
    assert!(text.contains("no selector means"), "{text}");
    let after = scene.applied(&proposal);
    let stated = &after.rules.operator.statements;
    assert_eq!(stated.len(), proposal.allow.len(), "{text}");
    assert!(!allows(&scene, &after, "victim", "203.0.113.1", "80/tcp"));
    assert!(allows(&scene, &after, "evil", "victim", "5432/tcp"));
    assert!(!allows(&scene, &after, "dash", "victim", "5432/tcp"));
}

#[test]
fn the_same_records_in_any_order_give_the_same_bytes() {
    let mut scene = billing();
    let first = shown(&scene.learn(&["shop-app-1"]));
    scene.flows.reverse();
    assert_eq!(first, shown(&scene.learn(&["shop-app-1"])));
}

#[test]
fn only_what_is_new_is_left_between_two_looks() {
    let mut scene = scene(&shop("shop"));
    scene.saw("shop-db-1", "shop-cache-1", "6379/tcp", 5).denied(
        "shop-db-1",
        "9.9.9.9",
        "53/udp",
        4,
    );
    let (flows, denials) = (scene.flows.clone(), scene.denials.clone());
    assert!(since(&flows, &flows).is_empty() && denied_since(&denials, &denials).is_empty());
    let mut later = flows.clone();
    later[0].connections = 9;
    later[0].last_us += 60_000_000;
    let mut other = later[0].clone();
    other.key.carried = carried("6380/tcp");
    later.push(other);
    let fresh = since(&flows, &later);
    let counts: Vec<u64> = fresh.iter().map(|flow| flow.connections).collect();
    assert_eq!(counts, [4, 9]);
    assert_eq!(fresh[0].first_us, MIDNIGHT + 5_000_000);
    // The daemon began anew.
    later[0].connections = 2;
    assert_eq!(since(&flows, &later)[0].connections, 2);
    let mut more = denials.clone();
    more[0].logged = 10;
    assert_eq!(denied_since(&denials, &more)[0].logged, 6);
}

#[test]
fn a_group_is_told_by_what_only_its_members_have() {
    let scene = scene(&[
        compose("shop/a", "redis", 2).label("team", "data"),
        compose("shop/b", "redis", 3).label("team", "data"),
        compose("blog/a", "redis", 4),
        compose("shop/db", "postgres", 5).label("team", "data"),
    ]);
    let known = scene.known();
    let group =
        |ids: &[&str]| suggest_group(&ids.iter().map(|id| WorkloadId::new(id)).collect(), &known);
    assert_eq!(group(&["shop-db-1"]).selectors[..2], ["model:postgres", "image:postgres"]);
    assert_eq!(group(&["shop-a-1", "shop-b-1", "shop-db-1"]).selectors[0], "project:shop");
    let both = group(&["shop-a-1", "shop-b-1"]);
    assert_eq!(both.selectors[0], "model:redis project:shop");
    assert!(both.shared.contains(&"label:team=data".to_owned()), "{both:?}");
    let apart = group(&["shop-a-1", "blog-a-1", "shop-db-1"]);
    assert!(apart.selectors.is_empty());
    assert_eq!(apart.one_by_one.len(), 3);
    for selector in both.selectors {
        let chosen = known.choose(&selector.parse().unwrap());
        assert_eq!(chosen.len(), 2, "{selector}");
    }
}

#[test]
fn a_staged_policy_is_tried_on_what_was_seen() {
    let mut scene = scene(&shop("shop"));
    scene.saw("shop-api-1", "shop-db-1", "5432/tcp", 5);
    scene.saw("shop-db-1", "shop-cache-1", "6379/tcp", 5);
    scene.saw("shop-api-1", "93.184.216.34", "443/tcp", 5);
    let staged = "[[allow]]\nfrom = \"service:db\"\nto = \"service:cache\"\nports = \"redis\"\n\
                  [[allow]]\nfrom = \"service:web\"\nto = \"internet\"\nports = \"80/tcp\"\n\
                  [[deny]]\nfrom = \"service:api\"\nto = \"service:db\"\n";
    let path = std::path::PathBuf::from("staged.toml");
    let files = with_files(&scene.files, &[], &[known::source("staged.toml", staged)]);
    let known = Known::new(&scene.inventory, &files).unwrap();
    let result = against(&scene.flows, &known, &[path].into());
    assert_eq!(result.judged, 3);
    let refused: Vec<_> = result
        .refused
        .iter()
        .map(|one| (one.what.as_str(), one.denied_by.is_some(), one.missing.is_some()))
        .collect();
    assert_eq!(
        refused,
        [
            ("shop/api → shop/db: 5432/tcp", true, false),
            ("shop/api → 93.184.216.34: 443/tcp", false, true)
        ]
    );
    let unused: Vec<_> = result.unused.iter().map(ToString::to_string).collect();
    assert_eq!(unused, ["staged.toml:5:1"]);
}
