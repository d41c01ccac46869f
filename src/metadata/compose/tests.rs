//! Tests of reading compose files: a whole fixture, each form a key can take, and all problems at once.

use super::*;
use crate::metadata::{Inventory, WireVia};

const SHOP: &str = include_str!("../../../tests/fixtures/compose/shop.yaml");

fn read_with(
    text: &str,
    placeholders: Option<&mut Placeholders>,
) -> Result<Vec<Workload>, Diagnostics> {
    let resolvers = BTreeSet::from(["1.1.1.1".parse().unwrap()]);
    let options = ComposeOptions { project: "My Dir!", resolvers: &resolvers, placeholders };
    parse(Path::new("compose.yaml"), text, options)
}

fn read(text: &str) -> Vec<Workload> {
    read_with(text, Some(&mut Placeholders::new())).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(text: &str) -> Vec<String> {
    let problems = read_with(text, Some(&mut Placeholders::new())).unwrap_err().sorted();
    let line = |one: &crate::input::Diagnostic| format!("{} {}", one.place, one.code);
    problems.iter().map(line).collect()
}

fn networks(workload: &Workload) -> Vec<String> {
    let line = |network: &Attachment| {
        format!("{} {:?} via {:?}", network.name, network.addresses, network.gateways)
    };
    workload.networks.values().map(line).collect()
}

#[test]
fn a_whole_shop_is_read() {
    let workloads = read(SHOP);
    assert!(!serde_json::to_string(&workloads).unwrap().contains("hunter2"), "a secret was kept");
    let ids: Vec<_> = workloads.iter().map(|workload| workload.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "file:shop/api",
            "file:shop/cache",
            "file:shop/db",
            "file:shop/monitor",
            "file:shop/sidecar",
            "file:shop/web-1",
            "file:shop/web-2",
        ]
    );
    let [api, cache, db, monitor, sidecar, web, web_2] = workloads.as_slice() else { panic!() };

    assert_eq!(api.image.reference, None);
    assert_eq!(api.image.cmd, ["node", "server.js", "--api-key"].map(Text::new));
    assert_eq!(api.image.exposed.len(), 2);
    assert_eq!(api.display_name(), "shop/api");
    assert_eq!(api.name, "shop-api-1");
    assert_eq!(
        api.env_names,
        ["LOG_LEVEL", "DATABASE_URL", "CACHE_HOST", "UNSET"].map(Text::new).into()
    );
    let wires: Vec<_> = api.wires.iter().map(|wire| (wire.host.as_str(), wire.port)).collect();
    assert_eq!(wires, [("cache", None), ("db", None), ("db", Some(5432))]);
    assert_eq!(networks(api), ["backend {172.28.0.3, fd00:28::2} via {172.28.0.1, fd00:28::1}"]);

    assert_eq!(
        cache.network_mode,
        NetworkMode::Container(WorkloadId::new("shop-sidecar-1")).clone()
    );
    assert!(cache.wires.iter().any(|wire| wire.via == WireVia::Link && wire.host == "db"));
    assert_eq!(networks(db), ["backend {172.28.0.2, fd00:28::3} via {172.28.0.1, fd00:28::1}"]);
    assert!(!db.capabilities.net_raw);
    assert_eq!(db.resolvers, BTreeSet::from(["9.9.9.9".parse().unwrap()]));
    assert_eq!(db.label("seawall.mode").unwrap(), &"enforce");
    assert!(db.image.reference.as_ref().unwrap().digest.is_some());
    assert_eq!(monitor.network_mode, NetworkMode::Host);
    assert!(monitor.networks.is_empty() && monitor.published.is_empty());
    assert_eq!(sidecar.name, "Sidecar");
    assert!(sidecar.capabilities.net_admin);
    assert_eq!(networks(sidecar), ["shop_default {198.18.0.2} via {198.18.0.1}"]);

    assert_eq!(web.image.reference.as_ref().unwrap().to_string(), "nginx:1.27");
    assert_eq!(
        networks(web),
        [
            "backend {172.28.0.4, fd00:28::4} via {172.28.0.1, fd00:28::1}",
            "shop_front {198.18.1.2, 2001:db8::2} via {198.18.1.1, 2001:db8::1}",
        ]
    );
    assert_eq!(
        networks(web_2)[1],
        "shop_front {198.18.1.3, 2001:db8::3} via {198.18.1.1, 2001:db8::1}"
    );
    let front = &web.networks[&NetworkKey("shop_front".into())];
    assert_eq!(front.aliases, ["www", "web", "shop-web-1"].map(Text::new).into());
    let published: Vec<_> = web
        .published
        .iter()
        .map(|port| format!("{:?} {:?} {}", port.host_ip, port.host_port, port.container))
        .collect();
    assert_eq!(
        published,
        ["None Some(80) 80/tcp", "Some(127.0.0.1) Some(8443) 443/tcp", "None Some(5353) 53/udp"]
    );
}

#[test]
fn the_same_file_gives_the_same_facts() {
    assert_eq!(read(SHOP), read(SHOP));
}

#[test]
fn without_placeholders_nothing_runs_and_nothing_has_an_address() {
    let workloads = read_with(SHOP, None).unwrap();
    assert!(workloads.iter().all(|w| w.state == State::Created && w.addresses().count() == 0));
}

#[test]
fn two_files_with_one_allocator_do_not_collide() {
    let mut placeholders = Placeholders::new();
    let a = read_with("name: a\nservices: {x: {image: x, scale: 300}}", Some(&mut placeholders))
        .unwrap();
    let b = read_with("name: b\nservices: {x: {image: x}}", Some(&mut placeholders)).unwrap();
    let addresses: BTreeSet<IpAddr> = a.iter().chain(&b).flat_map(|w| w.addresses()).collect();
    assert_eq!(addresses.len(), 301);
}

#[test]
fn the_directory_names_the_project() {
    let workloads = read("services: {x: {image: x}}");
    assert_eq!(workloads[0].name, "mydir-x-1");
    for (directory, project) in
        [("Shop.v2", "shopv2"), ("_-a_b", "a_b"), ("größe", "gre"), ("…", "")]
    {
        assert_eq!(normalised_project(directory), project, "{directory}");
    }
    let resolvers = BTreeSet::new();
    let options = ComposeOptions { project: "…", resolvers: &resolvers, placeholders: None };
    let problems = parse(Path::new("c.yaml"), "services: {}", options).unwrap_err();
    assert_eq!(problems.sorted()[0].code, "compose/no-project");
}

#[test]
fn networks_that_are_dockers_own_are_recognised() {
    let workloads = read(
        "services:\n  a: {networks: [h]}\n  b: {networks: [n]}\n  c: {networks: [b]}\n  d: {network_mode: bridge}\n  \
         e: {networks: [old]}\nnetworks:\n  h: {external: true, name: host}\n  n: {external: true, name: none}\n  \
         b: {external: true, name: bridge}\n  old: {external: {name: legacy}}\n",
    );
    assert_eq!(workloads[0].network_mode, NetworkMode::Host);
    assert_eq!(workloads[1].network_mode, NetworkMode::None);
    for workload in &workloads[2..4] {
        assert!(workload.networks.values().all(|network| network.is_default_bridge));
    }
    assert_eq!(workloads[4].networks.keys().next().unwrap().0, "legacy");
}

#[test]
fn shared_netns_leads_to_the_other_services_container() {
    let workloads = read(
        "name: p\nservices:\n  a: {network_mode: 'service:b'}\n  b: {scale: 2}\n  c: {network_mode: 'container:p-b-2'}\n",
    );
    let inventory: Inventory = workloads.into_iter().collect();
    let owner = |id: &str| inventory.netns_owner(&WorkloadId::new(id)).to_string();
    assert_eq!(owner("file:p/a"), "file:p/b-1");
    assert_eq!(owner("file:p/c"), "file:p/b-2");
}

#[test]
fn every_problem_is_reported_at_its_place() {
    let text = "\
name: p
include: [other.yaml]
services:
  a:
    image: 'UPPER CASE'
    extends: {file: x, service: y}
    netwroks: [x]
    depends_on: [nobody]
    networks: [nowhere]
    ports:
      - '80:web'
      - '${PORT}:80:'
    expose: [0]
  b:
    network_mode: sideways
    dns: [resolver]
    environment: {A: '${'}
    privileged: maybe
    scale: many
  c: {network_mode: host, networks: [default], links: ['nobody:x']}
  d: 5
  e: {container_name: x, scale: 2}
networks:
  n: {ipam: {config: [{subnet: 10.0.0.1, gateway: x}]}}
wrong: true
";
    assert_eq!(
        problems(text),
        [
            "compose.yaml:2:1 compose/include",
            "compose.yaml:5:12 compose/invalid-image",
            "compose.yaml:6:5 compose/extends",
            "compose.yaml:7:5 compose/unknown-key",
            "compose.yaml:8:18 compose/unknown-service",
            "compose.yaml:9:16 compose/unknown-network",
            "compose.yaml:11:9 compose/invalid-port",
            "compose.yaml:12:9 compose/invalid-port",
            "compose.yaml:13:14 compose/invalid-port",
            "compose.yaml:15:19 compose/network-mode",
            "compose.yaml:16:11 compose/invalid-address",
            "compose.yaml:17:22 compose/interpolation",
            "compose.yaml:18:17 compose/wrong-type",
            "compose.yaml:19:12 compose/invalid-replicas",
            "compose.yaml:20:21 compose/conflict",
            "compose.yaml:20:56 compose/unknown-service",
            "compose.yaml:21:3 compose/wrong-type",
            "compose.yaml:22:3 compose/conflict",
            "compose.yaml:24:32 compose/invalid-address",
            "compose.yaml:24:51 compose/invalid-address",
            "compose.yaml:25:1 compose/unknown-key",
        ]
    );
}

#[test]
fn what_is_no_yaml_is_said_where() {
    let place = |text: &str| problems(text).join(" ");
    assert_eq!(place("services:\n  a: {image: [}\n"), "compose.yaml:2:14 compose/syntax");
    assert_eq!(place("services: {}\nservices: {}\n"), "compose.yaml:2:1 compose/syntax");
    assert!(place("a: *nowhere\n").contains("compose/syntax"));
    assert!(place("").contains("compose/"));
    assert!(place("5").contains("compose/no-services"));
    assert!(place("- a\n").contains("compose/no-services"));
}

#[test]
fn hostile_files_end_in_problems_not_in_harm() {
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x]\n{}services: {{}}\n",
        (b'b'..=b'p')
            .map(|c| {
                let p = (c - 1) as char;
                let c = c as char;
                format!("{c}: &{c} [{}*{p}]\n", format!("*{p},").repeat(8))
            })
            .collect::<String>()
    );
    assert!(problems(&bomb)[0].contains("compose/"));
    let deep = "[".repeat(100_000);
    assert!(problems(&deep)[0].contains("compose/syntax"));
    assert!(problems("services: {x: {image: x, scale: 99999999999}}")[0].contains("replicas"));
    let workloads = read(
        "services: {\"a\\n\\e[31m\": {image: x, labels: {\"l\\n\": \"\\e\"}, environment: {\"E\\n\": \"http://\\e:1\"}}}",
    );
    assert!(!format!("{workloads:?}").contains(['\n', '\u{1b}']));
}

#[test]
fn a_subnet_that_is_too_small_is_a_problem() {
    let text = "name: p\nservices: {x: {image: x, scale: 3}}\nnetworks: {default: {ipam: {config: [{subnet: 10.0.0.0/30}]}}}";
    assert_eq!(problems(text), ["compose.yaml:3:21 compose/subnet-full"; 2]);
}
